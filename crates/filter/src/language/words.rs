//! Splits a line into words.

use super::problem::Problem;

/// A word and its column.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) column: usize,
}

impl Word<'_> {
    pub(super) fn problem(self, message: impl Into<String>) -> Problem {
        Problem { line: 1, column: self.column, message: message.into() }
    }
}

/// Iterates over the words of a line, up to a comment. A quoted string is one word, quotes
/// included.
pub(super) struct Words<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        let mut words = Self { line, at: 0 };
        // Find the comment. A `#` in quotes does not start one.
        let mut end = line.len();
        loop {
            let rest = &words.line[words.at..];
            let Some(start) = rest.find(|character: char| !character.is_whitespace()) else {
                break;
            };
            if rest[start..].starts_with('#') {
                end = words.at + start;
                break;
            }
            let length = length_of(&rest[start..]);
            words.at += start + length;
        }
        Self { line: &line[..end], at: 0 }
    }

    fn column(&self, at: usize) -> usize {
        self.line[..at].chars().count() + 1
    }

    /// Returns an empty word at the end of the line.
    pub(super) fn end(&self) -> Word<'a> {
        Word { text: "", column: self.column(self.line.trim_end().len()) }
    }

    /// Returns the value that follows a word.
    pub(super) fn after(&mut self, word: Word<'_>, expected: &str) -> Result<Word<'a>, Problem> {
        let end = self.end();
        self.next().ok_or_else(|| {
            end.problem(format!("missing value after `{}`: expected {expected}", word.text))
        })
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let rest = &self.line[self.at..];
        let start = self.at + rest.find(|character: char| !character.is_whitespace())?;
        let length = length_of(&self.line[start..]);
        self.at = start + length;
        Some(Word { text: &self.line[start..self.at], column: self.column(start) })
    }
}

/// Returns the length of the first word of a text, which ends at a space, a comment or the second
/// quote.
fn length_of(text: &str) -> usize {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut escaped = false;
        for (at, character) in quoted.char_indices() {
            match character {
                '"' if !escaped => return at + 2,
                _ => escaped = character == '\\' && !escaped,
            }
        }
        return text.len();
    }
    text.find(|character: char| character.is_whitespace() || character == '#').unwrap_or(text.len())
}
