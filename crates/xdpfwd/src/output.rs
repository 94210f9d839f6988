//! Writes the output of commands to stdout.
//!
//! If the reader of stdout closes it early, as `head -1` does, a command ends without a message and
//! with exit status 0. Any other failure, such as a full disk, is an error.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::program;

/// Returns `code` if stdout was written or its reader has closed it. Otherwise prints the error and
/// returns 1.
pub(crate) fn exit_code(result: anyhow::Result<()>, code: ExitCode) -> ExitCode {
    match ignore_closed(result) {
        Ok(()) => code,
        Err(error) => {
            program::print_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// Writes `text` to stdout.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ignore_closed(written.map_err(anyhow::Error::new)).context(CANNOT_WRITE)
}

/// The context that is added to write errors of stdout.
pub(crate) const CANNOT_WRITE: &str = "cannot write to stdout";

/// Converts an error to success if it means that the reader of stdout has closed it.
pub(crate) fn ignore_closed(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.chain().any(is_closed) => Ok(()),
        result => result,
    }
}

fn is_closed(cause: &(dyn Error + 'static)) -> bool {
    let error = cause.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
