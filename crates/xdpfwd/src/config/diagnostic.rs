//! Errors and warnings about a configuration file, with line and column.

use std::fmt;
use std::io::{self, Write as _};

use super::words::escaped;
use crate::cli::LogFormat;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    pub(super) file: String,
    pub(super) position: Option<Position>,
    pub(super) severity: Severity,
    pub(super) message: String,
}

/// A position in a file. Line and column start at 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// Either errors or warnings, in file order. `Display` prints one per line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diagnostics(pub(super) Vec<Diagnostic>);

impl Diagnostic {
    pub(super) fn error(file: &str, position: Option<Position>, message: String) -> Self {
        Self { file: file.to_owned(), position, severity: Severity::Error, message }
    }

    /// `None` if the diagnostic is about the whole file.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Logs file, line and column as fields.
    fn log(&self) {
        let Self { file, position, severity, message } = self;
        let (line, column) = position.map(|position| (position.line, position.column)).unzip();
        match severity {
            Severity::Error => tracing::error!(file, line, column, "{message}"),
            Severity::Warning => tracing::warn!(file, line, column, "{message}"),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", escaped(&self.file))?;
        if let Some(position) = self.position {
            write!(f, "{position}:")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl Diagnostics {
    /// Prints to stderr, or logs each diagnostic if the log format is JSON.
    pub(crate) fn emit(&self, format: LogFormat) {
        match format {
            LogFormat::Text => self.print(),
            LogFormat::Json => self.iter().for_each(Diagnostic::log),
        }
    }

    /// Logs all diagnostics without blocking, for use while packets are forwarded.
    pub(crate) fn log(&self, format: LogFormat) {
        for diagnostic in &self.0 {
            match (format, diagnostic.severity) {
                (LogFormat::Json, _) => diagnostic.log(),
                (LogFormat::Text, Severity::Error) => tracing::error!("{diagnostic}"),
                (LogFormat::Text, Severity::Warning) => tracing::warn!("{diagnostic}"),
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    fn print(&self) {
        // Ignore write errors, for which `eprint!` would panic.
        let _ = write!(io::stderr().lock(), "{self}");
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|diagnostic| writeln!(f, "{diagnostic}"))
    }
}

impl std::error::Error for Diagnostics {}
