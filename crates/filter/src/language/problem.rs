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

/// Returns the start of a word, for an error message. The word may come from a file without rules
/// and be secret, so the message must not quote all of it. A short word of letters, such as
/// `permit`, is returned as a whole.
pub(crate) fn start_of(word: &str) -> String {
    const MAX_WORD: usize = 6;
    const SHOWN: usize = 3;
    if word.len() <= MAX_WORD && word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return word.to_owned();
    }
    let start: String = word.chars().take(SHOWN).collect();
    format!("{}…", start.escape_debug())
}

/// Removes all problems except the first if no line of the text begins like a rule (`has_rules` is
/// false): the text was probably not meant to be rules.
pub(crate) fn only_first_if_no_rules(mut problems: Vec<Problem>, has_rules: bool) -> Vec<Problem> {
    if !has_rules && problems.len() > 1 {
        problems.truncate(1);
        for problem in &mut problems {
            problem.message.push_str("; no line of this file is a rule");
        }
    }
    problems
}
