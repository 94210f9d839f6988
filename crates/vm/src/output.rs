//! Output of `xdpfwd-vm` itself, and its exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// Exit status if xdpfwd-vm itself fails.
pub(crate) const INTERNAL_ERROR: u8 = 125;

/// Writes a line to stdout. Also succeeds if the reader has closed its end (`| head`).
pub(crate) fn print_line(line: &str) -> Result<()> {
    ignore_closed(writeln!(io::stdout(), "{line}")).context("cannot write to stdout")
}

/// Writes a line to stderr. Unlike `eprintln!`, does not panic if that fails.
pub(crate) fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a help text or a usage error of clap. Returns exit code 0 for help, 2 for an error, and
/// 125 if the help cannot be written.
pub(crate) fn print_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    match ignore_closed(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("cannot write to stdout: {error}"));
            ExitCode::from(INTERNAL_ERROR)
        }
    }
}

fn ignore_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
