//! From text to TOML.

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::diagnostic::Findings;
use super::source::Source;

/// One mistake can make the parser stumble over the rest of the file; further errors than these help nobody.
const MOST_ERRORS: usize = 10;

/// Parses the text; `None` if it is not TOML.
pub(super) fn parse<'i>(source: &'i Source, findings: &mut Findings<'_>) -> Option<Spanned<DeTable<'i>>> {
    let (root, mut errors) = DeTable::parse_recoverable(source.text());
    if errors.is_empty() {
        return Some(root);
    }
    errors.sort_by_key(start);
    for error in errors.iter().take(MOST_ERRORS) {
        let span = error.span().unwrap_or_default();
        findings.error(&span, message(error, &findings.excerpt(&span)));
    }
    None
}

fn start(error: &Error) -> usize {
    error.span().unwrap_or_default().start
}

/// The parser's words, except where a person who does not know TOML would need others.
fn message(error: &Error, written: &str) -> String {
    match error.message() {
        "string values must be quoted, expected literal string" if written.is_empty() => {
            "a value is missing: expected a string in quotes, a number, true, false or a list in brackets".to_owned()
        }
        "string values must be quoted, expected literal string" => {
            format!("`{written}` is no value: a string must be in quotes, like \"{written}\"")
        }
        "duplicate key" if matches!(written, "port" | "path") => {
            format!("`{written}` is there twice: write [[{written}]], with two brackets, once for each")
        }
        "duplicate key" => format!("`{written}` is there twice: keep one"),
        "recursion limit" => "keys or values nested too deeply; nothing here takes more than three levels".to_owned(),
        message => {
            let message = message.strip_suffix(", expected nothing").unwrap_or(message);
            if written.trim().is_empty() { message.to_owned() } else { format!("`{written}`: {message}") }
        }
    }
}
