//! Finds all missing keys of a stage's table, of which serde reports only the first.

use std::collections::VecDeque;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// The span of added keys and values. No value of the file has it.
const ADDED: Range<usize> = usize::MAX..usize::MAX;

/// Values to try for a missing key. Most types accept one of them; 256 is the smallest valid SPI.
const CANDIDATES: [&str; 5] = ["\"x\"", "[]", "true", "256", "{}"];

/// Returns the key that serde reports as missing.
pub(super) fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// Returns a copy of the table `keys` to which the missing key `key` is added, in the inner table
/// with the span `at`. The key gets a value that its type accepts, so reading the copy finds the
/// next error. Returns `None` if no value suits. `read` reads a table and returns any error.
pub(super) fn add<'i>(
    keys: &Spanned<DeValue<'i>>,
    at: &Range<usize>,
    key: &str,
    read: impl Fn(Spanned<DeValue<'i>>) -> Option<Error>,
) -> Option<Spanned<DeValue<'i>>> {
    let parsed = CANDIDATES.iter().filter_map(|text| DeValue::parse(text).ok());
    let mut candidates: VecDeque<DeValue<'i>> = parsed.map(Spanned::into_inner).collect();
    let mut has_named_value = false;
    while let Some(value) = candidates.pop_front() {
        let mut filled = keys.clone();
        let table = table_at(filled.get_mut(), &keys.span(), at)?;
        table.insert(Spanned::new(ADDED, key.to_owned().into()), Spanned::new(ADDED, value));
        match read(filled.clone()) {
            Some(error) if error.span() == Some(ADDED) => {
                // The message may list the accepted values, as in: expected "aes-128-gcm" or
                // "aes-256-gcm". Try the first value after the last `expected`: here, "aes-128-gcm".
                let accepted = error.message().rsplit_once("expected \"").map(|(_, word)| word);
                if let Some((word, _)) = accepted.and_then(|words| words.split_once('"'))
                    && !has_named_value
                {
                    has_named_value = true;
                    candidates.push_back(DeValue::String(word.to_owned().into()));
                }
            }
            _ => return Some(filled),
        }
    }
    None
}

/// Returns the table with the span `at` inside of `value`, which has the span `span`.
fn table_at<'v, 'i>(
    value: &'v mut DeValue<'i>,
    span: &Range<usize>,
    at: &Range<usize>,
) -> Option<&'v mut DeTable<'i>> {
    match value {
        DeValue::Table(table) => {
            if span == at {
                return Some(table);
            }
            table.iter_mut().find_map(|(_, inner)| {
                let span = inner.span();
                table_at(inner.get_mut(), &span, at)
            })
        }
        DeValue::Array(elements) => elements.iter_mut().find_map(|inner| {
            let span = inner.span();
            table_at(inner.get_mut(), &span, at)
        }),
        _ => None,
    }
}
