//! The log: on stderr, so that stdout holds reports only.

use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Starts logging; the log is flushed when the guard goes. `RUST_LOG` says how much; `info` if it
/// does not.
///
/// Lines are written by a thread of their own, and left out if nobody takes them: whoever logs
/// never waits for a terminal or a pipe.
pub(crate) fn start(format: LogFormat) -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    guard
}
