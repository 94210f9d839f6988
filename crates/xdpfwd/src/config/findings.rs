//! What is found while a configuration file is read and resolved.

use std::ops::Range;

use xdpfwd_pipeline::{Location, PlanDiagnostic};

use super::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use super::source::Source;
use super::words::plain;

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

/// Diagnostics that are shown: more would scroll the first, which the others may follow from, off
/// the screen.
const SHOWN: usize = 50;

/// Characters of a message: room for a list of names and more.
const LONGEST: usize = 2000;

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
    pub(super) fn remark(
        &mut self,
        severity: Severity,
        stage: &Range<usize>,
        remark: &PlanDiagnostic,
    ) {
        let (offset, elsewhere) = match &remark.location {
            Location::Stage => (stage.start, None),
            Location::Configuration(at) => (at.start, None),
            Location::File { file, line, column } => {
                (stage.start, Some((file.clone(), Place { line: *line, column: *column })))
            }
        };
        let findings = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        // A diagnostic is one line. A message of several lines becomes several diagnostics, an
        // empty one is one too.
        let mut lines: Vec<&str> =
            remark.message.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            lines.push("the stage cannot be planned, and gives no reason");
        }
        findings.extend(lines.into_iter().map(|line| Finding {
            offset,
            message: line.trim_end().to_owned(),
            elsewhere: elsewhere.clone(),
        }));
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

    /// The warnings, if there is no error; else the errors alone: a warning would only distract
    /// from them.
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

/// A message repeats what is written in the file, and a stage's kind may do so as it likes. A
/// diagnostic is one line all the same, and says nothing to the terminal but what can be read. Of
/// one that is too long, the middle is left out: the end says what would be accepted.
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
