//! Reading of rules and signatures, from a file or from the configuration.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_spanned::Spanned;
use strum::{EnumString, VariantNames};
use xdpfwd_filter::{Problem, Verdict};

use crate::enum_names::deserialize_one_of;
use xdpfwd_pipeline::{Location, PlanCx, PlanDiagnostic, PlanError};

/// `"FILE"` or `["LINE", …]`. A line is a rule or signature.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(String),
    Inline(Vec<Spanned<String>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum ConfiguredVerdict {
    Accept,
    Drop,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourceVisitor;

        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "the name of a file in quotes, or a list in brackets of lines in quotes",
                )
            }

            fn visit_str<E>(self, name: &str) -> Result<Source, E> {
                Ok(Source::File(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Source, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = sequence.next_element()? {
                    lines.push(line);
                }
                Ok(Source::Inline(lines))
            }
        }

        deserializer.deserialize_any(SourceVisitor)
    }
}

deserialize_one_of!(ConfiguredVerdict);

impl From<ConfiguredVerdict> for Verdict {
    fn from(verdict: ConfiguredVerdict) -> Self {
        match verdict {
            ConfiguredVerdict::Accept => Self::Accept,
            ConfiguredVerdict::Drop => Self::Drop,
        }
    }
}

/// Parsed lines, with locations.
pub(crate) struct Lines<T> {
    /// `None` if the lines are in the configuration.
    pub(crate) file: Option<PathBuf>,
    pub(crate) lines: Vec<T>,
    pub(crate) locations: Vec<Location>,
}

impl Source {
    /// Reads and parses the lines. `key` is the configuration key: `rules` or `signatures`.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        cx: &PlanCx<'_>,
        parse_line: impl Fn(&str) -> Result<Option<T>, Problem>,
        parse_file: impl FnOnce(&str) -> Result<Vec<(usize, T)>, Vec<Problem>>,
    ) -> Result<Lines<T>, PlanError> {
        match self {
            Self::Inline(texts) => read_inline(texts, parse_line),
            Self::File(name) => {
                let path = cx.directory.join(name);
                let read_error = |error| {
                    PlanError::new(format!(
                        "{key} = {name:?}: cannot read {}: {error}",
                        path.display()
                    ))
                };
                let file = path.display().to_string();
                let parsed = parse_file(&read_file(&path).map_err(read_error)?);
                let location = |line, column| Location::File { file: file.clone(), line, column };
                let diagnostic = |Problem { line, column, message }| PlanDiagnostic {
                    location: location(line, column),
                    message,
                };
                let parsed = parsed.map_err(|problems| {
                    PlanError(problems.into_iter().map(diagnostic).collect())
                })?;
                let first_column = 1;
                let (line_numbers, lines): (Vec<_>, Vec<_>) = parsed.into_iter().unzip();
                Ok(Lines {
                    file: Some(path),
                    lines,
                    locations: line_numbers
                        .into_iter()
                        .map(|line| location(line, first_column))
                        .collect(),
                })
            }
        }
    }
}

/// Maximum size of a file in bytes; enough for over a million rules.
const MAX_FILE_SIZE: u64 = 64 << 20;

/// Reads a regular file. Rejects all others: reading them can block or never end.
fn read_file(path: &Path) -> io::Result<String> {
    let check_regular = |file: fs::Metadata| match file.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("not a regular file")),
    };
    // Also check before opening, because opening a FIFO can block.
    check_regular(fs::metadata(path)?)?;
    let file = File::open(path)?;
    check_regular(file.metadata()?)?;
    let mut text = String::new();
    if file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text)? as u64 > MAX_FILE_SIZE {
        return Err(io::Error::other("larger than 64 MiB"));
    }
    // Skip a byte-order mark, as in the configuration file.
    if let Some(without_mark) = text.strip_prefix('\u{feff}') {
        text = without_mark.to_owned();
    }
    Ok(text)
}

fn read_inline<T>(
    texts: &[Spanned<String>],
    parse: impl Fn(&str) -> Result<Option<T>, Problem>,
) -> Result<Lines<T>, PlanError> {
    let (mut lines, mut locations, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        let location = Location::Configuration(text.span());
        match parse(text.get_ref()) {
            Ok(Some(line)) => {
                lines.push(line);
                locations.push(location);
            }
            Ok(None) => problems.push(PlanDiagnostic {
                location,
                message: "empty line or comment: remove it".to_owned(),
            }),
            Err(Problem { column, message, .. }) => {
                // Escape sequences make `before_column` too small: they are longer in the
                // configuration than in `text`.
                let before_column = text.span().start
                    + text.get_ref().chars().take(column - 1).map(char::len_utf8).sum::<usize>();
                // The span begins with the opening quote.
                let offset = before_column + 1;
                problems.push(PlanDiagnostic {
                    location: Location::Configuration(offset..offset),
                    message,
                });
            }
        }
    }
    if problems.is_empty() {
        Ok(Lines { file: None, lines, locations })
    } else {
        Err(PlanError(problems))
    }
}
