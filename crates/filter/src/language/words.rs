//! Splits a line of rules or signatures into words.

use super::problem::Problem;

/// A word of a line. The column is counted in characters, from 1.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) column: usize,
}

impl Word<'_> {
    /// Returns an error at the word. Its line number is 1.
    pub(super) fn problem(self, message: impl Into<String>) -> Problem {
        Problem { line: 1, column: self.column, message: message.into() }
    }
}

/// The words of a line, without its comment. A quoted string is one word, with its quotes.
pub(super) struct Words<'a> {
    line: &'a str,
    /// Byte offset in `line` of the next word or the white space before it.
    offset: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        let mut words = Self { line, offset: 0 };
        // A `#` in quotes does not start a comment.
        let mut end = line.len();
        loop {
            let rest = &words.line[words.offset..];
            let Some(start) = rest.find(|character: char| !character.is_whitespace()) else {
                break;
            };
            if rest[start..].starts_with('#') {
                end = words.offset + start;
                break;
            }
            let length = word_length(&rest[start..]);
            words.offset += start + length;
        }
        Self { line: &line[..end], offset: 0 }
    }

    fn column(&self, offset: usize) -> usize {
        self.line[..offset].chars().count() + 1
    }

    /// Returns an empty word at the end of the line.
    pub(super) fn end(&self) -> Word<'a> {
        Word { text: "", column: self.column(self.line.trim_end().len()) }
    }

    /// Returns the value of the keyword `word`. `expected` describes the value, for the error if it
    /// is missing.
    pub(super) fn value_after(
        &mut self,
        word: Word<'_>,
        expected: &str,
    ) -> Result<Word<'a>, Problem> {
        let end = self.end();
        self.next().ok_or_else(|| {
            end.problem(format!("missing value after `{}`: expected {expected}", word.text))
        })
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let rest = &self.line[self.offset..];
        let start = self.offset + rest.find(|character: char| !character.is_whitespace())?;
        let length = word_length(&self.line[start..]);
        self.offset = start + length;
        Some(Word { text: &self.line[start..self.offset], column: self.column(start) })
    }
}

/// Returns the length of the first word in bytes. A quoted word ends with its closing quote or,
/// without one, at the end of the text. Any other word ends before white space or `#`.
fn word_length(text: &str) -> usize {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut escaped = false;
        for (offset, character) in quoted.char_indices() {
            match character {
                '"' if !escaped => return offset + 2,
                _ => escaped = character == '\\' && !escaped,
            }
        }
        return text.len();
    }
    text.find(|character: char| character.is_whitespace() || character == '#').unwrap_or(text.len())
}
