//! Writes the output of commands to stdout.
//!
//! If the reader of stdout closes it early, as `head -1` does, a command ends without a message and
//! with exit status 0. Any other failure, such as a full disk, is an error.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::program;

/// Returns `code` on success or if the reader of stdout has closed it. Otherwise prints the error
/// and returns 1.
pub(crate) fn exit_code(result: anyhow::Result<()>, code: ExitCode) -> ExitCode {
    match ignore_closed(result) {
        Ok(()) => code,
        Err(error) => {
            program::print_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ignore_closed(written.map_err(write_failed))
}

/// A failed write to stdout. A closed control socket gives the same `io::Error`, but must not end a
/// command quietly.
#[derive(Debug)]
struct WriteFailed(io::Error);

impl fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write to stdout")
    }
}

impl Error for WriteFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Returns the error of a write to stdout that failed with `error`.
pub(crate) fn write_failed(error: io::Error) -> anyhow::Error {
    WriteFailed(error).into()
}

/// Turns the error of a write to stdout into success if its reader has closed stdout.
pub(crate) fn ignore_closed(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.chain().any(is_closed) => Ok(()),
        result => result,
    }
}

fn is_closed(cause: &(dyn Error + 'static)) -> bool {
    let failed = cause.downcast_ref::<WriteFailed>();
    failed.is_some_and(|WriteFailed(error)| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn ignore_closed_ignores_only_stdout_without_reader() {
        let error = |kind: io::ErrorKind| io::Error::from(kind);
        let closed = write_failed(error(io::ErrorKind::BrokenPipe));
        assert!(ignore_closed(Err(closed).context("outer")).is_ok());
        assert!(ignore_closed(Err(write_failed(error(io::ErrorKind::StorageFull)))).is_err());
        let socket = Err(error(io::ErrorKind::BrokenPipe)).context("cannot send the request");
        assert!(ignore_closed(socket).is_err());
    }
}
