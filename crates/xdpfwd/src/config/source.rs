//! A configuration file's text, and where in it something stands.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::path::Path;

use super::diagnostic::{Diagnostic, Place};

/// The text of a configuration file.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
}

/// Nobody writes a configuration this long; somebody does name a device file by mistake.
const MOST_BYTES: u64 = 1 << 20;

/// Characters of a value that a message repeats.
const EXCERPT: usize = 40;

impl Source {
    /// Reads a file. What cannot be read is the whole file's fault, and has no place in it.
    pub(crate) fn read(path: &Path) -> Result<Self, Diagnostic> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            let message = match error.kind() {
                ErrorKind::NotFound => "there is no such file; expected the path of a TOML file".to_owned(),
                ErrorKind::IsADirectory => "is a directory; expected the path of a TOML file".to_owned(),
                _ => format!("cannot be read: {error}; expected the path of a TOML file that may be read"),
            };
            return Err(Diagnostic::error(&name, None, message));
        }
        if bytes.len() as u64 > MOST_BYTES {
            let message = format!("is longer than {MOST_BYTES} bytes, the most that a configuration may have");
            return Err(Diagnostic::error(&name, None, message));
        }
        Self::from_bytes(name, bytes)
    }

    fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Self, Diagnostic> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let byte = error.as_bytes().get(valid).copied().unwrap_or_default();
                let before = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default()).into_owned();
                let before = Self::new(name, before);
                let place = before.place(before.text.len());
                let message = format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8");
                Err(Diagnostic::error(&before.name, Some(place), message))
            }
        }
    }

    /// A text under a name. A byte order mark is taken off, so that it does not count as a column.
    pub(crate) fn new(name: String, text: String) -> Self {
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        Self { name, text }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The line and column of a byte; of the end, if it is beyond.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let boundary = (0..=offset.min(self.text.len())).rev().find(|&offset| self.text.is_char_boundary(offset));
        let before = &self.text[..boundary.unwrap_or_default()];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// What stands there, as it is written; of what is long or has several lines, the beginning.
    pub(crate) fn excerpt(&self, span: &Range<usize>) -> String {
        let Some(text) = self.text.get(span.clone()) else { return String::new() };
        let line = text.lines().next().unwrap_or_default();
        let mut excerpt: String = line.chars().take(EXCERPT).collect();
        if excerpt.len() < text.len() {
            excerpt.push('…');
        }
        excerpt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("f.toml".into(), text.into())
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = source("a = 1\r\n# größer\nb");
        let place = |needle: &str| source.place(source.text.find(needle).unwrap()).to_string();
        assert_eq!(place("a"), "1:1");
        assert_eq!(place("1"), "1:5");
        assert_eq!(place("r\n"), "2:8", "ö and ß are one column each");
        assert_eq!(place("b"), "3:1");
        assert_eq!(source.place(usize::MAX).to_string(), "3:2");
    }

    #[test]
    fn a_byte_order_mark_takes_no_column() {
        let source = source("\u{feff}a = 1");
        assert_eq!(source.place(0).to_string(), "1:1");
        assert_eq!(source.excerpt(&(0..1)), "a");
    }

    #[test]
    fn excerpts_are_short() {
        let source = source("\"\"\"one\ntwo\"\"\"");
        assert_eq!(source.excerpt(&(0..13)), "\"\"\"one…");
        assert_eq!(source.excerpt(&(0..6)), "\"\"\"one");
        assert_eq!(source.excerpt(&(5..99)), "");
    }

    #[test]
    fn what_is_not_utf8_has_a_place() {
        let error = Source::from_bytes("f.toml".into(), b"ok\n\xc3\xa9 \xff".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "f.toml:2:3: byte 0xff is not UTF-8; save the file as UTF-8");
    }
}
