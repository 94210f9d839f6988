//! Signatures: rules with a byte pattern.

use std::fmt::{self, Display};

use crate::rule::Rule;

/// A rule with a byte pattern that the payload must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Conditions besides the pattern, and the action on a match.
    pub rule: Rule,
    /// The pattern.
    pub bytes: Vec<u8>,
    /// Whether ASCII letters match in upper and lower case.
    pub no_case: bool,
    /// Bytes at the start of the payload that are not searched.
    pub offset: u16,
    /// Bytes from `offset` on within which the whole pattern must lie; `None` for the rest of the
    /// payload.
    pub depth: Option<u16>,
}

/// Writes the signature in the syntax of [`parse_signature`](crate::parse_signature). Parsing the
/// text returns an equal signature.
impl Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rule, pattern_text(&self.bytes, self.no_case))?;
        if self.offset > 0 {
            write!(f, " offset {}", self.offset)?;
        }
        self.depth.map_or(Ok(()), |depth| write!(f, " depth {depth}"))
    }
}

/// Returns a pattern and its `nocase` keyword in the signature language.
pub(crate) fn pattern_text(bytes: &[u8], no_case: bool) -> String {
    let printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let mut text = String::from(if printable { "text \"" } else { "hex \"" });
    for (index, &byte) in bytes.iter().enumerate() {
        if printable {
            text.extend(matches!(byte, b'"' | b'\\').then_some('\\'));
            text.push(byte.into());
        } else {
            text.push_str(if index > 0 { " " } else { "" });
            text.push_str(&format!("{byte:02x}"));
        }
    }
    text.push_str(if no_case { "\" nocase" } else { "\"" });
    text
}
