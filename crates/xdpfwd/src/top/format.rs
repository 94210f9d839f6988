//! Numbers and texts in few columns.

use ratatui::text::Span;

/// Formats a number with three digits and an SI prefix: `15.5M`.
pub(super) fn si(number: f64) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    if !number.is_finite() {
        return "-".to_owned();
    }
    let (mut scaled, mut prefixes) = (number.max(0.0), PREFIXES.iter());
    let mut prefix = prefixes.next().copied().unwrap_or_default();
    while scaled >= 999.5 {
        let Some(next) = prefixes.next() else { break };
        (scaled, prefix) = (scaled / 1000.0, next);
    }
    let decimals = match (prefix, scaled) {
        ("", scaled) if scaled >= 9.95 || scaled.fract() == 0.0 => 0,
        ("", _) => 1,
        (_, scaled) if scaled < 9.995 => 2,
        (_, scaled) if scaled < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{prefix}")
}

/// Formats a count without a prefix up to 9,999,999,999.
pub(super) fn count(number: u64) -> String {
    if number < 10_000_000_000 { crate::text_table::grouped(number) } else { si(number as f64) }
}

pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{share:.1} %") } else { "-".to_owned() }
}

/// Formats a duration: `42 s`, `12:34`, `3:25:45`, `12 d 3:25:45`.
pub(super) fn duration(seconds: f64) -> String {
    // The conversion saturates, and turns NaN into 0.
    let seconds = seconds.max(0.0) as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes}:{rest:02}"),
        (0, ..) => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{days} d {hours}:{minutes:02}:{rest:02}"),
    }
}

/// Returns the columns that a text takes on the screen.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts a text to `columns`. The last character of a text that is cut is `…`.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    for character in text.chars() {
        cut.push(character);
        if width(&cut) + 1 > columns {
            cut.pop();
            break;
        }
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Breaks a text into lines of at most `columns`, between words if possible.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let is_first = line.is_empty();
        if !is_first && width(line) + 1 + width(word) > columns {
            lines.push(word.to_owned());
        } else {
            if !is_first {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| fit(line, columns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn si_has_three_digits_at_most() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (3.0, "3"),
            (9.97, "10"),
            (999.4, "999"),
            (999.5, "1.00k"),
            (1_234.0, "1.23k"),
            (99_960.0, "100k"),
            (999_499.0, "999k"),
            (15_479_064.0, "15.5M"),
            (1e11, "100G"),
            (f64::NAN, "-"),
            (-1.0, "0"),
        ] {
            assert_eq!(si(number), text, "{number}");
        }
        assert!(si(f64::MAX).ends_with('E'));
    }

    #[test]
    fn duration_has_only_necessary_units() {
        for (seconds, text) in [
            (0.9, "0 s"),
            (59.9, "59 s"),
            (60.0, "1:00"),
            (3661.0, "1:01:01"),
            (90_061.0, "1 d 1:01:01"),
            (-1.0, "0 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(f64::NAN), "0 s");
    }

    #[test]
    fn fit_counts_columns_not_characters() {
        for (text, columns, expected) in [
            ("lan", 3, "lan"),
            ("lan->wan", 5, "lan-…"),
            ("漢字漢字", 5, "漢字…"),
            ("漢字漢字", 4, "漢…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(fit(text, columns), expected, "{text} in {columns}");
            assert!(width(&fit(text, columns)) <= columns);
        }
    }

    #[test]
    fn wrap_breaks_between_words_and_cuts_long_words() {
        assert_eq!(wrap("no free frame", 8), ["no free", "frame"]);
        assert_eq!(wrap("interface", 5), ["inte…"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
