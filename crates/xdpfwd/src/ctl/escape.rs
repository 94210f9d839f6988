//! Escapes characters that could control the terminal, in text from a server that may be malicious.

use serde_json::Value;

/// Returns whether a character can control the terminal, or can change how the text around it is
/// displayed, such as its direction.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) && !is_kept(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Escapes text that is printed as a part of a line, so it also escapes line ends.
pub(crate) fn line(text: &str) -> String {
    escape(text, |_| false)
}

/// Escapes all strings and keys of a value. Each of them is printed as a part of a line.
pub(crate) fn value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(line(&text)),
        Value::Array(items) => items.into_iter().map(self::value).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(key, item)| (line(&key), self::value(item))).collect()
        }
        other => other,
    }
}

/// Escapes text that can have several lines; keeps line ends and tabs.
pub(super) fn text(text: &str) -> String {
    escape(text, |character| matches!(character, '\n' | '\t'))
}

/// Escapes JSON without changing its meaning. In valid JSON, line ends and tabs occur only between
/// values, where a space can replace them. Other unsafe characters occur only in strings.
pub(super) fn json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\t' | '\n' | '\r' => escaped.push(' '),
            character if is_unsafe(character) => {
                // Unsafe characters are in the Basic Multilingual Plane.
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(line("a\x1b[31m\n\u{9b}\u{202e}é"), "a\\u{1b}[31m\\n\\u{9b}\\u{202e}é");
        assert_eq!(text("a\r\n\tb"), "a\\r\n\tb");
        let escaped = json("{\"a\":\"\u{7f}\u{9b}é\"}\r\n");
        assert_eq!(escaped, "{\"a\":\"\\u007f\\u009bé\"}  ");
        let value: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(value["a"], "\u{7f}\u{9b}é");
    }
}
