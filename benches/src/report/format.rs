//! Numbers as text, the same on the page, in the charts and in Markdown.

use xdpfwd_bench::results::Size;

use crate::stats::Median;

/// Returns an integer with a comma between thousands.
pub(super) fn integer(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" { format!("−{text}") } else { text }
}

/// Returns an integer with its sign.
pub(super) fn signed(value: f64) -> String {
    if value >= 0.5 { format!("+{}", integer(value)) } else { integer(value) }
}

/// Returns millions of packets per second, without the unit.
pub(super) fn mpps(value: f64) -> String {
    if value >= 100.0 { format!("{value:.1}") } else { format!("{value:.3}") }
}

/// Returns a number of system calls, context switches or cores, with about three digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.1 => format!("{value:.4}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => integer(value),
    }
}

pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value != 0.0 && value.abs() < 10.0 {
        format!("{value:.1} %")
    } else {
        format!("{value:.0} %")
    }
}

/// Returns a time in microseconds, without the unit.
pub(super) fn microseconds(nanoseconds: f64) -> String {
    short(nanoseconds / 1000.0)
}

/// Returns the interval of a median, written by `number`.
pub(super) fn interval(median: &Median, number: fn(f64) -> String) -> String {
    format!("[{}, {}]", number(median.low), number(median.high))
}

/// Returns the name of a size for people.
pub(super) fn size(size: &Size) -> String {
    if size.name.chars().all(|c| c.is_ascii_digit()) {
        format!("{} bytes", size.name)
    } else {
        format!("{} (mean {:.0} bytes)", size.name.to_uppercase(), size.mean_bytes)
    }
}

/// Returns `"1 run"`, `"2 runs"`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", integer(number as f64), if number == 1 { "" } else { "s" })
}

/// Joins words: `"a, b and c"`.
pub(super) fn join(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Returns text for a cell of a Markdown table.
pub(super) fn markdown(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_has_a_comma_between_thousands() {
        let texts = [0.4, 999.0, 1000.0, 1_234_567.0, -1234.0, -0.2].map(integer);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "−1,234", "0"]);
        assert_eq!([1234.0, 0.2, -7.0].map(signed), ["+1,234", "0", "−7"]);
    }

    #[test]
    fn join_of_words_ends_with_and() {
        let words = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([&words[..1], &words[..2], &words].map(join), ["a", "a and b", "a, b and c"]);
    }
}
