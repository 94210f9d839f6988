//! A table of the file, read key by key.

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::findings::Findings;
use super::words::{did_you_mean, or_list, quoted_or_list};

/// A table. Reading a key removes it.
pub(super) struct Table<'i> {
    heading: String,
    span: Range<usize>,
    /// The keys that have not been read yet.
    entries: DeTable<'i>,
    /// The keys that have been read, even if the file lacks them. Readers read every key that they
    /// accept, so in the end this is the list of accepted keys.
    accepted: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) enum ParsedKey<T> {
    Absent,
    /// The value is invalid, or a required key is missing. An error has been reported, so checks
    /// that need the value are skipped.
    Invalid,
    /// Type and range are valid.
    Valid(Spanned<T>),
}

/// Which strings a key accepts.
pub(super) struct Rule {
    pub(super) accepts: fn(&str) -> bool,
    /// A description of the accepted values, which follows "must be" in messages.
    pub(super) expected: &'static str,
}

impl<T: Clone> ParsedKey<T> {
    /// Returns the value, or the default for a missing key, or `None` for an invalid value.
    pub(super) fn or(&self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Invalid => None,
            Self::Valid(value) => Some(value.get_ref().clone()),
        }
    }
}

impl<T> ParsedKey<T> {
    pub(super) fn value(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Absent | Self::Invalid => None,
            Self::Valid(value) => Some(value),
        }
    }

    pub(super) fn span_or(&self, fallback: &Range<usize>) -> Range<usize> {
        self.value().map_or_else(|| fallback.clone(), Spanned::span)
    }
}

impl<'i> Table<'i> {
    /// Reports an error and returns `None` if the value is not a table.
    pub(super) fn new(
        heading: &str,
        value: Spanned<DeValue<'i>>,
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(entries) => {
                Some(Self { heading: heading.to_owned(), span, entries, accepted: Vec::new() })
            }
            _ => {
                let excerpt = findings.excerpt(&span);
                findings.error(&span, format!("`{excerpt}` is not a table: write {heading}"));
                None
            }
        }
    }

    pub(super) fn root(root: Spanned<DeTable<'i>>) -> Self {
        let span = root.span();
        Self {
            heading: "the file".to_owned(),
            span,
            entries: root.into_inner(),
            accepted: Vec::new(),
        }
    }

    /// Returns the span for errors about the whole table: its header, if it has one.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.accepted.push(key);
        self.entries.remove(key)
    }

    pub(super) fn boolean(
        &mut self,
        key: &'static str,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<bool> {
        let Some(value) = self.take(key) else { return ParsedKey::Absent };
        let span = value.span();
        match value.get_ref().as_bool() {
            Some(boolean) => ParsedKey::Valid(Spanned::new(span, boolean)),
            None => reject(key, &value, "true or false", findings),
        }
    }

    pub(super) fn integer<T>(
        &mut self,
        key: &'static str,
        accepted: RangeInclusive<T>,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<T>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.take(key) else { return ParsedKey::Absent };
        let span = value.span();
        match integer(value.get_ref()).filter(|integer| accepted.contains(integer)) {
            Some(integer) => ParsedKey::Valid(Spanned::new(span, integer)),
            None => {
                let expected =
                    format!("an integer from {} to {}", accepted.start(), accepted.end());
                reject(key, &value, &expected, findings)
            }
        }
    }

    pub(super) fn one_of<T>(
        &mut self,
        key: &'static str,
        accepted: &[T],
        findings: &mut Findings<'_>,
    ) -> ParsedKey<T>
    where
        T: TryFrom<i128> + PartialEq + std::fmt::Display,
    {
        let Some(value) = self.take(key) else { return ParsedKey::Absent };
        let span = value.span();
        match integer(value.get_ref()).filter(|integer| accepted.contains(integer)) {
            Some(integer) => ParsedKey::Valid(Spanned::new(span, integer)),
            None => reject(key, &value, &or_list(accepted), findings),
        }
    }

    /// Reads a list of integers within a range; reports each invalid element. `expected` describes
    /// an element.
    pub(super) fn integers<T>(
        &mut self,
        key: &'static str,
        accepted: RangeInclusive<T>,
        expected: &str,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<Vec<Spanned<T>>>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let expected_each =
            format!("{expected}, an integer from {} to {}", accepted.start(), accepted.end());
        let parse =
            |value: &DeValue<'_>| integer(value).filter(|integer| accepted.contains(integer));
        self.list(
            key,
            &format!("a list in brackets, each element {expected}"),
            &expected_each,
            parse,
            findings,
        )
    }

    pub(super) fn texts(
        &mut self,
        key: &'static str,
        expected: &str,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<Vec<Spanned<String>>> {
        let parse = |value: &DeValue<'_>| value.as_str().map(ToOwned::to_owned);
        let expected_each = format!("{expected} in quotes");
        self.list(
            key,
            &format!("a list in brackets, each element {expected_each}"),
            &expected_each,
            parse,
            findings,
        )
    }

    /// Reads a list of strings that parse as `T`.
    pub(super) fn words<T: FromStr>(
        &mut self,
        key: &'static str,
        expected: &str,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<Vec<Spanned<T>>> {
        let parse = |value: &DeValue<'_>| value.as_str().and_then(|word| word.parse().ok());
        self.list(
            key,
            &format!("a list in brackets, each element {expected}"),
            expected,
            parse,
            findings,
        )
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        expected_each: &str,
        parse: impl Fn(&DeValue<'_>) -> Option<T>,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<Vec<Spanned<T>>> {
        let Some(value) = self.take(key) else { return ParsedKey::Absent };
        let span = value.span();
        if !value.get_ref().is_array() {
            return reject(key, &value, expected, findings);
        }
        let DeValue::Array(elements) = value.into_inner() else { return ParsedKey::Invalid };
        let mut valid = Vec::new();
        let element_count = elements.len();
        for element in elements {
            let span = element.span();
            match parse(element.get_ref()) {
                Some(element) => valid.push(Spanned::new(span, element)),
                None => {
                    let value_text = display_value(&element, findings);
                    findings.error(&span, format!("{key}: {value_text} must be {expected_each}"));
                }
            }
        }
        if valid.len() == element_count {
            ParsedKey::Valid(Spanned::new(span, valid))
        } else {
            ParsedKey::Invalid
        }
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        findings: &mut Findings<'_>,
    ) -> ParsedKey<T> {
        let Some(value) = self.take(key) else { return ParsedKey::Absent };
        let span = value.span();
        let words = || choices.iter().map(|&(word, _)| word);
        let word = value.get_ref().as_str().unwrap_or_default();
        match choices.iter().find(|(choice, _)| *choice == word) {
            Some(&(_, choice)) => ParsedKey::Valid(Spanned::new(span, choice)),
            None => {
                let expected = quoted_or_list(words()) + &did_you_mean(word, words());
                reject(key, &value, &expected, findings)
            }
        }
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        rule: &Rule,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<String> {
        match self.take(key) {
            Some(value) => check_rule(key, &value, rule, findings),
            None => ParsedKey::Absent,
        }
    }

    pub(super) fn required_text(
        &mut self,
        key: &'static str,
        rule: &Rule,
        findings: &mut Findings<'_>,
    ) -> ParsedKey<String> {
        let Some(value) = self.take(key) else {
            findings.error(
                &self.span,
                format!("missing key `{key}` in {}: must be {}", self.heading, rule.expected),
            );
            return ParsedKey::Invalid;
        };
        check_rule(key, &value, rule, findings)
    }

    pub(super) fn into_unread(self) -> Spanned<DeValue<'i>> {
        Spanned::new(self.span, DeValue::Table(self.entries))
    }

    /// Returns the entries of a table whose keys are user-defined names.
    pub(super) fn into_entries(
        self,
    ) -> impl Iterator<Item = (Spanned<DeString<'i>>, Spanned<DeValue<'i>>)> {
        self.entries.into_iter()
    }

    /// Reports each key that was not read as unknown. Returns whether there was none.
    pub(super) fn finish(self, findings: &mut Findings<'_>) -> bool {
        for key in self.entries.keys() {
            let accepted = or_list(self.accepted.iter().map(|key| format!("`{key}`")));
            let nearest = did_you_mean(key.get_ref(), self.accepted.iter().copied());
            let excerpt = findings.excerpt(&key.span());
            findings.error(
                &key.span(),
                format!(
                    "unknown key `{excerpt}` in {}, expected {accepted}{nearest}",
                    self.heading
                ),
            );
        }
        self.entries.is_empty()
    }
}

fn integer<T: TryFrom<i128>>(value: &DeValue<'_>) -> Option<T> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()?.try_into().ok()
}

/// Returns the beginning of a value's source text, or `a table` for a table with a header.
pub(super) fn display_value(value: &Spanned<DeValue<'_>>, findings: &Findings<'_>) -> String {
    let excerpt = findings.excerpt(&value.span());
    if value.get_ref().is_table() && !excerpt.starts_with('{') {
        "a table".to_owned()
    } else {
        excerpt
    }
}

fn check_rule(
    key: &'static str,
    value: &Spanned<DeValue<'_>>,
    rule: &Rule,
    findings: &mut Findings<'_>,
) -> ParsedKey<String> {
    match value.get_ref().as_str().filter(|text| (rule.accepts)(text)) {
        Some(text) => ParsedKey::Valid(Spanned::new(value.span(), text.to_owned())),
        None => reject(key, value, rule.expected, findings),
    }
}

fn reject<T>(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    expected: &str,
    findings: &mut Findings<'_>,
) -> ParsedKey<T> {
    let value_text = display_value(value, findings);
    findings.error(&value.span(), format!("{key} = {value_text}: must be {expected}"));
    ParsedKey::Invalid
}
