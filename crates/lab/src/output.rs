//! Output of `xdpfwd-lab`.

use std::io::{self, Write};
use std::process::ExitCode;

/// Writes to stdout. Also succeeds if the reader has closed its end (`| head`).
pub fn print(text: &str) -> io::Result<()> {
    let printed = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    ignore_closed(printed)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write to stdout: {error}")))
}

/// Writes a line to stderr. Unlike `eprintln!`, does not panic if that fails.
pub fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a help text or a usage error of clap. Returns exit code 0 for help, 2 for an error, and 1
/// if the help cannot be written.
pub fn print_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    match ignore_closed(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn ignore_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
