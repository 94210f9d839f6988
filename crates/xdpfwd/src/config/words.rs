//! Formats names and lists for messages, and suggests similar names.

use std::fmt::Display;

/// Formats a list: `a`, `a or b`, `a, b or c`.
pub(super) fn or_list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    join(items, "or")
}

/// Formats a list: `a`, `a and b`, `a, b and c`.
pub(super) fn and_list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    join(items, "and")
}

pub(super) fn quoted_or_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    or_list(names.into_iter().map(quoted))
}

/// Escapes a name, cut to [`MAX_EXCERPT`] characters, and puts it in double quotes.
pub(super) fn quoted(name: &str) -> String {
    match name.char_indices().nth(MAX_EXCERPT) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// Returns whether the character is visible or a space.
pub(super) fn is_printable(character: char) -> bool {
    // The standard library offers its table of printable characters only through `escape_debug`.
    let mut escape = character.escape_debug();
    escape.next() != Some('\\') || matches!(escape.next(), Some('\\' | '"' | '\''))
}

/// Escapes unprintable characters.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_default());
        }
    }
    escaped
}

/// Returns `; did you mean "x"?`, or an empty string if no name is similar.
pub(super) fn did_you_mean<'a>(
    unknown_name: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest(unknown_name, names).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// Formats ascending numbers: `0-3, 8`.
pub(super) fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run =
        |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.into_iter().map(run).collect::<Vec<_>>().join(", ")
}

/// Formats a number with a noun: `1 queue`, `2 queues`.
pub(super) fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

fn join<T: Display>(items: impl IntoIterator<Item = T>, conjunction: &str) -> String {
    let mut items = items.into_iter();
    let mut listed: Vec<String> =
        items.by_ref().take(MAX_LISTED).map(|item| item.to_string()).collect();
    match items.count() {
        0 => {}
        more => listed.push(format!("{more} more")),
    }
    match listed.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

/// Maximum length of a quoted value or name in characters.
pub(super) const MAX_EXCERPT: usize = 40;

/// A longer list ends with the number of omitted items, such as `or 5 more`.
const MAX_LISTED: usize = 32;

/// Limits the time of [`nearest`]: maximum number of names compared, and of bytes of each.
const MAX_COMPARED: usize = 64;

/// Returns the name with the smallest edit distance to `unknown_name`, ignoring case. The distance
/// must be less than `length` and at most `max(1, length / 3)`, where `length` is the number of
/// characters in `unknown_name`.
fn nearest<'a>(unknown_name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if unknown_name.len() > MAX_COMPARED {
        return None;
    }
    let length = unknown_name.chars().count();
    let lowercase = unknown_name.to_lowercase();
    let distance_to = |name: &'a str| {
        if name.len() > MAX_COMPARED {
            return None;
        }
        let distance = strsim::osa_distance(&lowercase, &name.to_lowercase());
        (distance <= (length / 3).max(1) && distance < length).then_some((distance, name))
    };
    names
        .into_iter()
        .take(MAX_COMPARED)
        .filter_map(distance_to)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_lists_ranges_and_counts() {
        assert_eq!(or_list([1, 2, 3]), "1, 2 or 3");
        assert_eq!(and_list(["a", "b"]), "a and b");
        assert_eq!(quoted_or_list(["a"]), "\"a\"");
        assert_eq!(or_list::<u8>([]), "none");
        assert_eq!(ranges(&[0, 1, 2, 3, 8, 10, 11]), "0-3, 8, 10-11");
        assert_eq!(
            (count(1u8, "queue"), count(0u8, "queue")),
            ("1 queue".into(), "0 queues".into())
        );
    }

    #[test]
    fn unprintable_characters_are_escaped() {
        assert_eq!(escaped("größe \"x\" \\ 日本 😀"), "größe \"x\" \\ 日本 😀");
        assert_eq!(
            escaped("a\n\t\u{1b}[31m\u{202e}\u{2028}\u{a0}\u{feff}"),
            r"a\n\t\u{1b}[31m\u{202e}\u{2028}\u{a0}\u{feff}"
        );
        assert_eq!(quoted(&"ü".repeat(41)), format!("\"{}\"…", "ü".repeat(40)));
        assert_eq!(quoted("a\u{202e}"), r#""a\u{202e}""#);
    }

    #[test]
    fn did_you_mean_suggests_only_similar_names() {
        let known = ["auto", "zero-copy", "copy", "skb"];
        assert_eq!(did_you_mean("zerocopy", known), "; did you mean \"zero-copy\"?");
        assert_eq!(did_you_mean("ksb", known), "; did you mean \"skb\"?");
        assert_eq!(did_you_mean("native", known), "");
        assert_eq!(did_you_mean("AUTO", known), "; did you mean \"auto\"?");
        assert_eq!(did_you_mean("Wan", ["lan", "wan"]), "; did you mean \"wan\"?");
        assert_eq!(did_you_mean("x", ["b", "edge"]), "");
        assert_eq!(did_you_mean(&"copy".repeat(1000), known), "");
    }
}
