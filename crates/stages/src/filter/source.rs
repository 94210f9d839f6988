//! Sources of rules and signatures: a file, or the configuration itself.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_spanned::Spanned;
use strum::{EnumString, VariantNames};
use xdpfwd_filter::{Problem, Verdict};

use crate::words::deserialize_one_of;
use xdpfwd_pipeline::{Location, PlanCx, PlanDiagnostic, PlanError};

/// `"FILE"` or `["LINE", …]`.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(String),
    Inline(Vec<Spanned<String>>),
}

/// A verdict in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum VerdictWord {
    Accept,
    Drop,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "the name of a file in quotes, or a list of rules in brackets, each in quotes",
                )
            }

            fn visit_str<E>(self, name: &str) -> Result<Source, E> {
                Ok(Source::File(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rules: A) -> Result<Source, A::Error> {
                let mut all = Vec::new();
                while let Some(rule) = rules.next_element()? {
                    all.push(rule);
                }
                Ok(Source::Inline(all))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

deserialize_one_of!(VerdictWord);

impl From<VerdictWord> for Verdict {
    fn from(word: VerdictWord) -> Self {
        match word {
            VerdictWord::Accept => Self::Accept,
            VerdictWord::Drop => Self::Drop,
        }
    }
}

/// Parsed lines, each with its location.
pub(crate) struct Lines<T> {
    pub(crate) lines: Vec<T>,
    pub(crate) locations: Vec<Location>,
}

impl Source {
    /// Reads the lines of the configuration or of the file.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        cx: &PlanCx<'_>,
        line: impl Fn(&str) -> Result<Option<T>, Problem>,
        text: impl FnOnce(&str) -> Result<Vec<(usize, T)>, Vec<Problem>>,
    ) -> Result<Lines<T>, PlanError> {
        match self {
            Self::Inline(texts) => read_inline(texts, line),
            Self::File(name) => {
                let path = cx.directory.join(name);
                let failed = |error| {
                    PlanError::new(format!(
                        "{key} = {name:?}: cannot read {}: {error}",
                        path.display()
                    ))
                };
                let file = path.display().to_string();
                let read = text(&read_file(&path).map_err(failed)?);
                let at = |line, column| Location::File { file: file.clone(), line, column };
                let problem = |Problem { line, column, message }| PlanDiagnostic {
                    location: at(line, column),
                    message,
                };
                let read = read
                    .map_err(|problems| PlanError(problems.into_iter().map(problem).collect()))?;
                let (numbers, lines): (Vec<_>, Vec<_>) = read.into_iter().unzip();
                Ok(Lines {
                    lines,
                    locations: numbers.into_iter().map(|number| at(number, 1)).collect(),
                })
            }
        }
    }
}

/// Maximum file size in bytes; enough for over a million rules.
const MAX_FILE_SIZE: u64 = 64 << 20;

/// Reads a regular file. Other kinds of file may block or never end.
fn read_file(path: &Path) -> io::Result<String> {
    let regular = |file: fs::Metadata| match file.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("not a regular file")),
    };
    // Check before opening, because opening a FIFO can block.
    regular(fs::metadata(path)?)?;
    let file = File::open(path)?;
    regular(file.metadata()?)?;
    let mut text = String::new();
    if file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text)? as u64 > MAX_FILE_SIZE {
        return Err(io::Error::other("larger than 64 MiB"));
    }
    // The configuration file may start with a byte order mark, too.
    if let Some(rest) = text.strip_prefix('\u{feff}') {
        text = rest.to_owned();
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
            Ok(None) => problems
                .push(PlanDiagnostic { location, message: "empty line: remove it".to_owned() }),
            Err(Problem { column, message, .. }) => {
                // After the quote. Not exact if escape sequences precede it.
                let at = text.span().start
                    + text.get_ref().chars().take(column - 1).map(char::len_utf8).sum::<usize>();
                problems.push(PlanDiagnostic {
                    location: Location::Configuration(at + 1..at + 1),
                    message,
                });
            }
        }
    }
    if problems.is_empty() { Ok(Lines { lines, locations }) } else { Err(PlanError(problems)) }
}
