//! Parses a configuration as TOML.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::findings::Findings;
use super::source::Source;

/// Maximum number of reported errors. One mistake can cause many.
const MAX_ERRORS: usize = 10;

/// Reports errors and returns `None` if the text is not valid TOML.
pub(super) fn parse<'i>(
    source: &'i Source,
    findings: &mut Findings<'_>,
) -> Option<Spanned<DeTable<'i>>> {
    let (root, mut errors) = DeTable::parse_recoverable(source.text());
    if errors.is_empty() {
        return Some(root);
    }
    errors.sort_by_key(start_offset);
    let unclosed = unclosed(source.text());
    if let Some(unclosed) = &unclosed {
        // The parser reads everything after the opening delimiter as part of the unclosed value, so
        // later errors are consequences.
        errors.retain(|error| start_offset(error) < unclosed.start);
    }
    let lines = Lines::new(source.text());
    let mut errors = without_consequences(&lines, errors);
    // After an error, the parser usually fails again on the same line.
    errors.dedup_by_key(|error| lines.index(start_offset(error)));
    errors.truncate(MAX_ERRORS);
    for error in &errors {
        let span = error.span().unwrap_or_default();
        findings.error(&span, message(error, &findings.excerpt(&span)));
    }
    if let Some(Unclosed { start, opening, closing }) = unclosed
        && errors.len() < MAX_ERRORS
    {
        findings.error(&(start..start), format!("`{opening}` is not closed: expected `{closing}`"));
    }
    None
}

fn start_offset(error: &Error) -> usize {
    error.span().unwrap_or_default().start
}

/// A fast lookup of lines, because a file may have as many errors as bytes.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            text,
            starts: std::iter::once(0).chain(newlines.map(|(newline, _)| newline + 1)).collect(),
        }
    }

    /// Returns the index of the line that contains the byte at `offset`.
    fn index(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }

    fn is_header(&self, index: usize) -> bool {
        let line = self.starts.get(index).and_then(|&start| self.text.get(start..));
        line.is_some_and(|line| line.trim_start_matches([' ', '\t']).starts_with('['))
    }
}

/// Removes errors that other errors may have caused. If there are errors other than duplicate keys,
/// removes all errors about duplicate keys. Otherwise, keeps one error per duplicate table and
/// removes those about its keys.
fn without_consequences(lines: &Lines<'_>, mut errors: Vec<Error>) -> Vec<Error> {
    const DUPLICATE_KEY: &str = "duplicate key";
    if errors.iter().any(|error| error.message() != DUPLICATE_KEY) {
        errors.retain(|error| error.message() != DUPLICATE_KEY);
        return errors;
    }
    let mut reported_headers = BTreeSet::new();
    let mut next_header = 0;
    errors.retain(|error| {
        let span = error.span().unwrap_or_default();
        let line = lines.index(span.start);
        if line < next_header {
            return false;
        }
        if !lines.is_header(line) {
            return true;
        }
        next_header = (line + 1..lines.starts.len())
            .find(|&line| lines.is_header(line))
            .unwrap_or(usize::MAX);
        reported_headers.insert(lines.text.get(span).unwrap_or_default())
    });
    errors
}

/// An unclosed list, table or string: its byte offset and its delimiters.
#[derive(Debug, PartialEq)]
struct Unclosed {
    start: usize,
    opening: &'static str,
    closing: &'static str,
}

/// Reads up to the first text that the innermost open list, table or string cannot contain, or to
/// the end of the file, and returns this list, table or string. For valid TOML, the result may be
/// wrong.
fn unclosed(text: &str) -> Option<Unclosed> {
    let list = |start| Unclosed { start, opening: "[", closing: "]" };
    let table = |start| Unclosed { start, opening: "{", closing: "}" };
    // Lists and tables, the innermost last.
    let mut open: Vec<Unclosed> = Vec::new();
    // After an equals sign, a bracket starts a list, not a table header.
    let mut expects_value = false;
    let mut offset = 0;
    while let Some(remaining) = text.get(offset..).filter(|remaining| !remaining.is_empty()) {
        let in_list = open.last().is_some_and(|last| last.opening == "[");
        let length = match remaining.as_bytes()[0] {
            b'#' => remaining.find('\n').unwrap_or(remaining.len()),
            b'"' | b'\'' => match string_length(remaining) {
                Ok(length) => length,
                Err(quotes) if quotes.len() == 3 || !open.is_empty() => {
                    return Some(Unclosed { start: offset, opening: quotes, closing: quotes });
                }
                // A one-line string outside of lists and tables: the parser itself reports it and
                // continues on the next line.
                Err(_) => remaining.find('\n').unwrap_or(remaining.len()),
            },
            b'=' => {
                // No valid list contains an equals sign. If the list began on an earlier line, its
                // closing bracket is missing. Otherwise, the equals sign is the mistake.
                if in_list
                    && let Some(last) = open.last()
                    && text.get(last.start..offset)?.contains('\n')
                {
                    return open.pop();
                }
                expects_value = true;
                offset += 1;
                continue;
            }
            b'[' if expects_value || in_list => {
                open.push(list(offset));
                1
            }
            b'{' if expects_value || in_list => {
                open.push(table(offset));
                1
            }
            // A table header, which no value contains.
            b'[' if !open.is_empty() => return open.pop(),
            closing @ (b']' | b'}') => {
                match open.pop() {
                    Some(last) if last.closing.as_bytes() != [closing] => return Some(last),
                    _ => {}
                }
                1
            }
            b' ' | b'\t' => {
                offset += 1;
                continue;
            }
            _ => remaining.chars().next().map_or(1, char::len_utf8),
        };
        expects_value = false;
        offset += length;
    }
    open.pop()
}

/// Returns the length in bytes of the string at the start of `text`, with quotes, or the opening
/// quotes as the error if it is unclosed.
fn string_length(text: &str) -> Result<usize, &'static str> {
    let (quotes, has_escapes) = match text {
        _ if text.starts_with("\"\"\"") => ("\"\"\"", true),
        _ if text.starts_with("'''") => ("'''", false),
        _ if text.starts_with('"') => ("\"", true),
        _ => ("'", false),
    };
    let mut offset = quotes.len();
    while let Some(remaining) = text.get(offset..).filter(|remaining| !remaining.is_empty()) {
        if remaining.starts_with(quotes) {
            // A multi-line string may end with up to two quotes before the closing quotes.
            let max_quotes = if quotes.len() == 3 { 5 } else { 1 };
            return Ok(offset
                + remaining
                    .bytes()
                    .take(max_quotes)
                    .take_while(|&byte| quotes.as_bytes()[0] == byte)
                    .count());
        }
        if remaining.starts_with('\n') && quotes.len() == 1 {
            break;
        }
        let escaped = if has_escapes && remaining.starts_with('\\') {
            remaining.chars().nth(1)
        } else {
            None
        };
        offset += remaining.chars().next().map_or(1, char::len_utf8)
            + escaped.filter(|&next| next != '\n').map_or(0, char::len_utf8);
    }
    Err(quotes)
}

/// Returns a message for readers who do not know TOML, or the parser's own.
fn message(error: &Error, excerpt: &str) -> String {
    let error = error.message();
    match error.strip_suffix(", expected nothing").unwrap_or(error) {
        "string values must be quoted, expected literal string" if excerpt.is_empty() => {
            "a value is missing: expected a string in quotes, a number, true, false or a list in \
             brackets"
                .to_owned()
        }
        "string values must be quoted, expected literal string"
        | "invalid float, expected `nan`"
        | "invalid float, expected `inf`" => unquoted_value_message(excerpt),
        "duplicate key" if matches!(excerpt, "port" | "path") => {
            format!(
                "duplicate key `{excerpt}`: write [[{excerpt}]], with two brackets, for each \
                 {excerpt}"
            )
        }
        "duplicate key" => format!("duplicate key `{excerpt}`: keep one"),
        message if message.starts_with("cannot extend value of type") => {
            format!("`{excerpt}` already has a value: write all of its keys in one place")
        }
        "recursion limit" | "cannot recurse further; max recursion depth met" => {
            "keys or values nested too deeply; a configuration has at most three levels".to_owned()
        }
        "unexpected leading zero" => {
            format!("`{excerpt}`: expected a number without leading zeros")
        }
        "invalid float" => {
            format!("`{excerpt}`: not part of a number, expected only digits, like 16384")
        }
        "invalid hexadecimal number" => {
            "expected a hexadecimal number: digits 0-9 and a-f after 0x".to_owned()
        }
        "invalid octal number" => "expected an octal number: digits 0-7 after 0o".to_owned(),
        "invalid binary number" => "expected a binary number: digits 0 and 1 after 0b".to_owned(),
        "extra `=`" => "duplicate `=`: keep one".to_owned(),
        "invalid basic string, expected `\"`" => {
            "the string is not closed: expected `\"` at its end".to_owned()
        }
        "invalid literal string, expected `'`" => {
            "the string is not closed: expected `'` at its end".to_owned()
        }
        message if message.contains("visible characters") => {
            format!(
                "`{excerpt}` is not allowed in a string: expected visible characters, or an escape \
                 like \\u001b"
            )
        }
        message => {
            let message = message.replace(
                "expected newline, `#`",
                "expected the end of the line or a comment after `#`",
            );
            let message = if message.contains("expected") || message.contains("may only") {
                message
            } else {
                message + ", expected TOML as https://toml.io describes it"
            };
            // Keep other white space, such as U+00A0: the message shows it escaped.
            match excerpt.trim_matches([' ', '\t', '\r', '\n']) {
                "" => message,
                _ => format!("`{excerpt}`: {message}"),
            }
        }
    }
}

fn unquoted_value_message(excerpt: &str) -> String {
    let without_quotes = excerpt.trim_matches(['“', '”', '„', '‟', '‘', '’', '«', '»', '`', '´']);
    match excerpt.to_lowercase().as_str() {
        "yes" | "no" | "on" | "off" => {
            format!(
                "`{excerpt}` is not a value: expected true or false, or a string in quotes, like \
                 \"{excerpt}\""
            )
        }
        number
            if number
                .starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) =>
        {
            format!(
                "`{excerpt}` is not a value: a number has only digits, like 16384, and a string \
                 must be in quotes"
            )
        }
        _ => format!(
            "`{excerpt}` is not a value: a string must be in quotes, like \"{without_quotes}\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unclosed_returns_innermost_open_value() {
        // Expected: the offset between the delimiters, or nothing.
        for (text, expected) in [
            ("a = [1, 2", "[4]"),
            ("a = [1,\n2\n[[b]]\nc = 1", "[4]"),
            ("a = [1,\n2\nb = 'x'\n", "[4]"),
            ("a = [[1], [2\nb = 1", "[10]"),
            ("a = { b = 1,\n[c]\nd = 2", "{4}"),
            ("a = { b = [1 }", "[10]"),
            ("a = [{ b = 1 ]", "{5}"),
            ("a = \"\"\"x\n\"\"\nb = 1", "\"\"\"4\"\"\""),
            ("a = '''x\n[b]", "'''4'''"),
            ("a = [\"x, 1]\nb = 1", "\"5\""),
            ("a = \"x\nb = 'y\nc = [1]", ""),
            (
                "a = [1, # ] [\n'[', \"\\\"[\", \"\"\"[\"\"\"\"\", '''\\''']\n[b]\nc = { d = [], \
                 e = {} }",
                "",
            ),
            ("a = [1 = 2]", ""),
            ("[[a]\n[b\nc = 1", ""),
            ("a =\n[b]", ""),
            ("a = don't\nb = [1]", ""),
            ("]}=]", ""),
            ("ü = \"ü\\ü\" ü", ""),
            ("\"\\", ""),
        ] {
            let found = unclosed(text);
            let found = found
                .map(|Unclosed { start, opening, closing }| format!("{opening}{start}{closing}"));
            assert_eq!(found.unwrap_or_default(), expected, "{text}");
        }
    }
}
