//! Errors in the text of rules and signatures.

/// An error in a line of rules or signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct Problem {
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The cause, and what to write instead.
    pub message: String,
}
