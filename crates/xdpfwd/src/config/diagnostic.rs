//! What there is to say about a configuration file, each with its line and column.

use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;

use pipeline::{Remark, Whereabouts};

use super::source::Source;
use super::words::plain;
use crate::cli::LogFormat;

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    file: String,
    place: Option<Place>,
    severity: Severity,
    message: String,
}

/// A place in a file, counted from 1; the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// Errors, or warnings, in the order of the file. One a line when shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diagnostics(Vec<Diagnostic>);

/// Collects what is found while a file is read and resolved.
#[derive(Debug)]
pub(super) struct Findings<'i> {
    source: &'i Source,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// A message, and the byte that it is about.
#[derive(Debug)]
struct Finding {
    offset: usize,
    message: String,
    /// If it is about another file, which is named there: its name, and the place in it.
    elsewhere: Option<(String, Place)>,
}

/// Diagnostics that are shown: more would scroll the first, which the others may follow from, off the screen.
const SHOWN: usize = 50;

/// Characters of a message: room for a list of names and more.
const LONGEST: usize = 2000;

impl Diagnostic {
    pub(super) fn error(file: &str, place: Option<Place>, message: String) -> Self {
        Self { file: file.to_owned(), place, severity: Severity::Error, message }
    }

    /// Where in the file; `None` if it is about the file as a whole.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Writes it to the log.
    fn log(&self) {
        let Self { file, place, severity, message } = self;
        let (line, column) = place.map(|place| (place.line, place.column)).unzip();
        match severity {
            Severity::Error => tracing::error!(file, line, column, "{message}"),
            Severity::Warning => tracing::warn!(file, line, column, "{message}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", plain(&self.file))?;
        if let Some(place) = self.place {
            write!(f, "{place}:")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl Diagnostics {
    /// Says them where the log is: as text, as always, or each as an event of a log that machines read.
    pub(crate) fn say(&self, format: LogFormat) {
        match format {
            LogFormat::Text => self.print(),
            LogFormat::Json => self.iter().for_each(Diagnostic::log),
        }
    }

    /// Writes them to the log, which nobody waits for: while packets are forwarded.
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

    /// Prints them on stderr. If that cannot be written to, the exit code has to say it all: `eprint!` would panic.
    fn print(&self) {
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

impl<'i> Findings<'i> {
    pub(super) fn new(source: &'i Source) -> Self {
        Self { source, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, at: &Range<usize>, message: String) {
        self.errors.push(Finding { offset: at.start, message, elsewhere: None });
    }

    pub(super) fn warning(&mut self, at: &Range<usize>, message: String) {
        self.warnings.push(Finding { offset: at.start, message, elsewhere: None });
    }

    /// What a stage has to say about what it is configured by; its table is at `stage`.
    pub(super) fn remark(&mut self, severity: Severity, stage: &Range<usize>, remark: &Remark) {
        let message = remark.message.clone();
        let (offset, elsewhere) = match &remark.place {
            Whereabouts::Stage => (stage.start, None),
            Whereabouts::Configuration(at) => (at.start, None),
            Whereabouts::File { file, line, column } => {
                (stage.start, Some((file.clone(), Place { line: *line, column: *column })))
            }
        };
        let finding = Finding { offset, message, elsewhere };
        match severity {
            Severity::Error => self.errors.push(finding),
            Severity::Warning => self.warnings.push(finding),
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// What stands there, as it is written.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> String {
        self.source.excerpt(span)
    }

    /// The line on which something stands.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.source.place(span.start).line
    }

    /// The warnings, if there is no error; else the errors alone: a warning would only distract from them.
    pub(super) fn finish(self) -> Result<Diagnostics, Diagnostics> {
        if self.errors.is_empty() {
            Ok(diagnostics(self.source, Severity::Warning, self.warnings))
        } else {
            Err(self.into_errors())
        }
    }

    /// The errors.
    pub(super) fn into_errors(self) -> Diagnostics {
        diagnostics(self.source, Severity::Error, self.errors)
    }
}

fn diagnostics(source: &Source, severity: Severity, mut findings: Vec<Finding>) -> Diagnostics {
    findings.sort_by_key(|finding| finding.offset);
    let more = findings.len().saturating_sub(SHOWN);
    findings.truncate(SHOWN);
    let file = source.name();
    let diagnostic = |Finding { offset, message, elsewhere }| {
        let (file, place) = elsewhere.unwrap_or_else(|| (file.to_owned(), source.place(offset)));
        Diagnostic { file, place: Some(place), severity, message: readable(&message) }
    };
    let mut diagnostics: Vec<_> = findings.into_iter().map(diagnostic).collect();
    if more > 0 {
        let message = format!("and {more} more like these");
        diagnostics.push(Diagnostic { file: file.to_owned(), place: None, severity, message });
    }
    Diagnostics(diagnostics)
}

/// A message repeats what is written in the file, and a stage's kind may do so as it likes. A diagnostic is one line all the
/// same, and says nothing to the terminal but what can be read. Of one that is too long, the middle is left out: the end
/// says what would be accepted.
fn readable(message: &str) -> String {
    let length = message.chars().count();
    if length <= LONGEST {
        return plain(message);
    }
    let (begin, end) = (LONGEST / 4, LONGEST / 2);
    let begin: String = message.chars().take(begin).collect();
    let end: String = message.chars().skip(length - end).collect();
    format!("{}…{}", plain(&begin), plain(&end))
}
