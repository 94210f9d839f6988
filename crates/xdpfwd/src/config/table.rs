//! A table of the file, taken apart key by key: each value is either what is accepted or an error
//! that says what is.

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::findings::Findings;
use super::words::{any_of, any_quoted, did_you_mean};

/// A table whose keys are still to be taken.
pub(super) struct Table<'i> {
    heading: String,
    span: Range<usize>,
    entries: DeTable<'i>,
    /// The keys that were asked for: those that are accepted, since every table asks for all of its
    /// own.
    accepted: Vec<&'static str>,
}

/// The value of a key, as written.
#[derive(Clone, Debug)]
pub(super) enum Written<T> {
    /// The key is not there.
    Absent,
    /// It is no good, and an error says so. Whatever depends on it cannot be judged.
    Refused,
    /// It is of the right kind and size.
    Is(Spanned<T>),
}

/// What a text has to look like.
pub(super) struct Rule {
    pub(super) accepts: fn(&str) -> bool,
    /// In words, after "must be".
    pub(super) what: &'static str,
}

impl<T: Clone> Written<T> {
    /// The value, or this one if the key is not there; `None` if it was refused.
    pub(super) fn or(&self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Refused => None,
            Self::Is(value) => Some(value.get_ref().clone()),
        }
    }
}

impl<T> Written<T> {
    /// The value with its place, if there is a good one.
    pub(super) fn is(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Absent | Self::Refused => None,
            Self::Is(value) => Some(value),
        }
    }

    /// Where it stands; elsewhere if it does not.
    pub(super) fn span_or(&self, elsewhere: &Range<usize>) -> Range<usize> {
        self.is().map_or_else(|| elsewhere.clone(), Spanned::span)
    }
}

impl<'i> Table<'i> {
    /// The table that a value should be.
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
                let written = findings.excerpt(&span);
                findings.error(
                    &span,
                    format!("`{written}` stands where a table must be: write {heading}"),
                );
                None
            }
        }
    }

    /// The table that the file as a whole is.
    pub(super) fn root(root: Spanned<DeTable<'i>>) -> Self {
        let span = root.span();
        Self {
            heading: "the file".to_owned(),
            span,
            entries: root.into_inner(),
            accepted: Vec::new(),
        }
    }

    /// Where it begins: its header, if it has one.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A value of any kind.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.accepted.push(key);
        self.entries.remove(key)
    }

    /// `true` or `false`.
    pub(super) fn boolean(
        &mut self,
        key: &'static str,
        findings: &mut Findings<'_>,
    ) -> Written<bool> {
        let Some(value) = self.take(key) else { return Written::Absent };
        let span = value.span();
        match value.get_ref().as_bool() {
            Some(boolean) => Written::Is(Spanned::new(span, boolean)),
            None => refuse(key, &value, "true or false", findings),
        }
    }

    /// An integer of a range.
    pub(super) fn integer<T>(
        &mut self,
        key: &'static str,
        accepted: RangeInclusive<T>,
        findings: &mut Findings<'_>,
    ) -> Written<T>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.take(key) else { return Written::Absent };
        let span = value.span();
        match integer(value.get_ref()).filter(|integer| accepted.contains(integer)) {
            Some(integer) => Written::Is(Spanned::new(span, integer)),
            None => {
                let what = format!("an integer from {} to {}", accepted.start(), accepted.end());
                refuse(key, &value, &what, findings)
            }
        }
    }

    /// One of some integers.
    pub(super) fn one_of<T>(
        &mut self,
        key: &'static str,
        accepted: &[T],
        findings: &mut Findings<'_>,
    ) -> Written<T>
    where
        T: TryFrom<i128> + PartialEq + std::fmt::Display,
    {
        let Some(value) = self.take(key) else { return Written::Absent };
        let span = value.span();
        match integer(value.get_ref()).filter(|integer| accepted.contains(integer)) {
            Some(integer) => Written::Is(Spanned::new(span, integer)),
            None => refuse(key, &value, &any_of(accepted), findings),
        }
    }

    /// A list of integers of a range. Each that is no good has its own error.
    pub(super) fn integers<T>(
        &mut self,
        key: &'static str,
        accepted: RangeInclusive<T>,
        what: &str,
        findings: &mut Findings<'_>,
    ) -> Written<Vec<Spanned<T>>>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let what_each =
            format!("{what}, an integer from {} to {}", accepted.start(), accepted.end());
        let parse =
            |value: &DeValue<'_>| integer(value).filter(|integer| accepted.contains(integer));
        self.list(
            key,
            &format!("a list in brackets, each element {what}"),
            &what_each,
            parse,
            findings,
        )
    }

    /// A list of texts.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        what: &str,
        findings: &mut Findings<'_>,
    ) -> Written<Vec<Spanned<String>>> {
        let parse = |value: &DeValue<'_>| value.as_str().map(ToOwned::to_owned);
        let what_each = format!("{what} in quotes");
        self.list(
            key,
            &format!("a list in brackets, each element {what_each}"),
            &what_each,
            parse,
            findings,
        )
    }

    /// A list of words, each of which means something.
    pub(super) fn words<T: FromStr>(
        &mut self,
        key: &'static str,
        what: &str,
        findings: &mut Findings<'_>,
    ) -> Written<Vec<Spanned<T>>> {
        let parse = |value: &DeValue<'_>| value.as_str().and_then(|word| word.parse().ok());
        self.list(key, &format!("a list in brackets, each element {what}"), what, parse, findings)
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        what: &str,
        what_each: &str,
        parse: impl Fn(&DeValue<'_>) -> Option<T>,
        findings: &mut Findings<'_>,
    ) -> Written<Vec<Spanned<T>>> {
        let Some(value) = self.take(key) else { return Written::Absent };
        let span = value.span();
        if !value.get_ref().is_array() {
            return refuse(key, &value, what, findings);
        }
        let DeValue::Array(elements) = value.into_inner() else { return Written::Refused };
        let mut good = Vec::new();
        let all = elements.len();
        for element in elements {
            let span = element.span();
            match parse(element.get_ref()) {
                Some(element) => good.push(Spanned::new(span, element)),
                None => {
                    let written = shown(&element, findings);
                    findings.error(&span, format!("{key}: {written} must be {what_each}"));
                }
            }
        }
        if good.len() == all { Written::Is(Spanned::new(span, good)) } else { Written::Refused }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        findings: &mut Findings<'_>,
    ) -> Written<T> {
        let Some(value) = self.take(key) else { return Written::Absent };
        let span = value.span();
        let words = || choices.iter().map(|&(word, _)| word);
        let written = value.get_ref().as_str().unwrap_or_default();
        match choices.iter().find(|(word, _)| *word == written) {
            Some(&(_, choice)) => Written::Is(Spanned::new(span, choice)),
            None => {
                let what = any_quoted(words()) + &did_you_mean(written, words());
                refuse(key, &value, &what, findings)
            }
        }
    }

    /// A text that follows a rule, if there is one.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        rule: &Rule,
        findings: &mut Findings<'_>,
    ) -> Written<String> {
        match self.take(key) {
            Some(value) => following(key, &value, rule, findings),
            None => Written::Absent,
        }
    }

    /// A text that has to be there.
    pub(super) fn required_text(
        &mut self,
        key: &'static str,
        rule: &Rule,
        findings: &mut Findings<'_>,
    ) -> Written<String> {
        let Some(value) = self.take(key) else {
            findings.error(
                &self.span,
                format!("missing key `{key}` in {}: must be {}", self.heading, rule.what),
            );
            return Written::Refused;
        };
        following(key, &value, rule, findings)
    }

    /// What is left when all known keys are taken.
    pub(super) fn into_rest(self) -> Spanned<DeValue<'i>> {
        Spanned::new(self.span, DeValue::Table(self.entries))
    }

    /// The tables in this one, each under a name that the user chose.
    pub(super) fn into_entries(
        self,
    ) -> impl Iterator<Item = (Spanned<DeString<'i>>, Spanned<DeValue<'i>>)> {
        self.entries.into_iter()
    }

    /// Refuses the keys that nobody asked for. Whether there were none.
    pub(super) fn finish(self, findings: &mut Findings<'_>) -> bool {
        for key in self.entries.keys() {
            let accepted = any_of(self.accepted.iter().map(|key| format!("`{key}`")));
            let nearest = did_you_mean(key.get_ref(), self.accepted.iter().copied());
            let written = findings.excerpt(&key.span());
            findings.error(
                &key.span(),
                format!(
                    "unknown key `{written}` in {}, expected {accepted}{nearest}",
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

/// A value as it is written. Of a table under a header of its own, that would be the header.
pub(super) fn shown(value: &Spanned<DeValue<'_>>, findings: &Findings<'_>) -> String {
    let written = findings.excerpt(&value.span());
    if value.get_ref().is_table() && !written.starts_with('{') {
        "a table".to_owned()
    } else {
        written
    }
}

/// A text that follows a rule.
fn following(
    key: &'static str,
    value: &Spanned<DeValue<'_>>,
    rule: &Rule,
    findings: &mut Findings<'_>,
) -> Written<String> {
    match value.get_ref().as_str().filter(|text| (rule.accepts)(text)) {
        Some(text) => Written::Is(Spanned::new(value.span(), text.to_owned())),
        None => refuse(key, value, rule.what, findings),
    }
}

fn refuse<T>(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    what: &str,
    findings: &mut Findings<'_>,
) -> Written<T> {
    let written = shown(value, findings);
    findings.error(&value.span(), format!("{key} = {written}: must be {what}"));
    Written::Refused
}
