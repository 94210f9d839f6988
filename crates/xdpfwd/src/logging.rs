//! The log. It goes to stderr, so that stdout contains only reports.

use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Starts the log. The environment variable `RUST_LOG` sets the level; the default is `info`. A
/// separate thread writes the lines. If the reader of stderr is too slow, lines are dropped, so
/// that logging never blocks. Dropping the returned guard flushes the log.
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
