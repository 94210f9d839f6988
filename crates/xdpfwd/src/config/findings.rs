//! Collects errors and warnings while a configuration is read and resolved.

use std::ops::Range;

use xdpfwd_pipeline::{Location, PlanDiagnostic};

use super::diagnostic::{Diagnostic, Diagnostics, Position, Severity};
use super::source::Source;
use super::words::escaped;

#[derive(Debug)]
pub(super) struct Findings<'i> {
    source: &'i Source,
    errors: Vec<RawDiagnostic>,
    warnings: Vec<RawDiagnostic>,
}

#[derive(Debug)]
struct RawDiagnostic {
    offset: usize,
    message: String,
    /// The name of another file, such as a key file, and the position in it, if the message is
    /// about that file.
    other_file: Option<(String, Position)>,
}

/// Maximum number of reported errors or warnings. The first errors often cause later ones; a longer
/// list would scroll the first off the screen.
const MAX_DIAGNOSTICS: usize = 50;

/// Maximum length of a message in characters, before escaping: enough for a list of names.
const MAX_MESSAGE_CHARS: usize = 2000;

impl<'i> Findings<'i> {
    pub(super) fn new(source: &'i Source) -> Self {
        Self { source, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, span: &Range<usize>, message: String) {
        self.errors.push(RawDiagnostic { offset: span.start, message, other_file: None });
    }

    pub(super) fn warning(&mut self, span: &Range<usize>, message: String) {
        self.warnings.push(RawDiagnostic { offset: span.start, message, other_file: None });
    }

    /// Adds a stage's diagnostic. `stage` is the table's span.
    pub(super) fn stage_diagnostic(
        &mut self,
        severity: Severity,
        stage: &Range<usize>,
        diagnostic: &PlanDiagnostic,
    ) {
        let (offset, other_file) = match &diagnostic.location {
            Location::Stage => (stage.start, None),
            Location::Configuration(span) => (span.start, None),
            Location::File { file, line, column } => {
                (stage.start, Some((file.clone(), Position { line: *line, column: *column })))
            }
        };
        let findings = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        // A diagnostic is one line, so each line of a message becomes a diagnostic.
        let mut lines: Vec<&str> =
            diagnostic.message.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            lines.push("the stage is invalid; its kind gives no reason");
        }
        findings.extend(lines.into_iter().map(|line| RawDiagnostic {
            offset,
            message: line.trim_end().to_owned(),
            other_file: other_file.clone(),
        }));
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// See [`Source::excerpt`].
    pub(super) fn excerpt(&self, span: &Range<usize>) -> String {
        self.source.excerpt(span)
    }

    /// Returns the line number, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.source.position(span.start).line
    }

    /// Returns only the errors if there are any, because warnings would distract from them.
    pub(super) fn finish(self) -> Result<Diagnostics, Diagnostics> {
        if self.errors.is_empty() {
            Ok(diagnostics(self.source, Severity::Warning, self.warnings))
        } else {
            Err(self.into_errors())
        }
    }

    pub(super) fn into_errors(self) -> Diagnostics {
        diagnostics(self.source, Severity::Error, self.errors)
    }
}

fn diagnostics(
    source: &Source,
    severity: Severity,
    mut findings: Vec<RawDiagnostic>,
) -> Diagnostics {
    findings.sort_by_key(|finding| finding.offset);
    let hidden = findings.len().saturating_sub(MAX_DIAGNOSTICS);
    findings.truncate(MAX_DIAGNOSTICS);
    let file = source.name();
    let diagnostic = |RawDiagnostic { offset, message, other_file }| {
        let (file, position) =
            other_file.unwrap_or_else(|| (file.to_owned(), source.position(offset)));
        Diagnostic { file, position: Some(position), severity, message: readable(&message) }
    };
    let mut diagnostics: Vec<_> = findings.into_iter().map(diagnostic).collect();
    if hidden > 0 {
        let message = format!("and {hidden} more not shown");
        diagnostics.push(Diagnostic { file: file.to_owned(), position: None, severity, message });
    }
    Diagnostics(diagnostics)
}

/// Escapes unprintable characters, because a message quotes the file or comes from a stage kind.
/// Shortens a long message in the middle, because its end lists the accepted values.
fn readable(message: &str) -> String {
    let length = message.chars().count();
    if length <= MAX_MESSAGE_CHARS {
        return escaped(message);
    }
    let (begin, end) = (MAX_MESSAGE_CHARS / 4, MAX_MESSAGE_CHARS / 2);
    let begin: String = message.chars().take(begin).collect();
    let end: String = message.chars().skip(length - end).collect();
    format!("{}…{}", escaped(&begin), escaped(&end))
}
