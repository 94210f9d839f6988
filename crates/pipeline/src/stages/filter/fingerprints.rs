//! What rules are known by to their successors, so that a rule which is the same as before keeps its counter.

use std::collections::HashMap;

use crate::stage::{Matched, SnapshotError};

/// A fingerprint for each rule, made with the plan.
#[derive(Clone, Debug)]
pub(crate) struct Fingerprints {
    all: Vec<u64>,
    /// Where each of them stands.
    places: HashMap<u64, usize>,
}

/// What a snapshot begins with: the kind that it is of.
pub(crate) type Kind = [u8; 8];

impl Fingerprints {
    /// Of rules as they are written.
    pub(crate) fn new(rules: impl IntoIterator<Item = String>) -> Self {
        let all: Vec<u64> = rules.into_iter().map(|text| fingerprint(&text)).collect();
        let places = all.iter().enumerate().rev().map(|(place, rule)| (*rule, place)).collect();
        Self { all, places }
    }

    /// The kind, some counters, then each rule with what it matched.
    pub(crate) fn save(&self, kind: Kind, counters: &[u64], matched: &[u64]) -> Vec<u8> {
        let rules = self.all.iter().zip(matched).flat_map(|(rule, matched)| [*rule, *matched]);
        let words = counters.iter().copied().chain(rules).flat_map(u64::to_le_bytes);
        kind.into_iter().chain(words).collect()
    }

    /// As many counters, and what the rules had matched that are here still, wherever they stand now.
    pub(crate) fn load<const N: usize>(
        &self,
        kind: Kind,
        snapshot: &[u8],
        matched: &mut [u64],
    ) -> Result<[u64; N], SnapshotError> {
        let wrong = || SnapshotError(format!("{} bytes are not what a stage of this kind has saved", snapshot.len()));
        let (words, rest) = snapshot.strip_prefix(&kind).ok_or_else(wrong)?.as_chunks::<8>();
        let (counters, rules) = words.split_first_chunk::<N>().ok_or_else(wrong)?;
        let (rules, odd) = rules.as_chunks::<2>();
        if !rest.is_empty() || !odd.is_empty() {
            return Err(wrong());
        }
        for (was, [rule, count]) in rules.iter().enumerate() {
            if let Some(matched) = self.place_of(u64::from_le_bytes(*rule), was).and_then(|now| matched.get_mut(now)) {
                *matched += u64::from_le_bytes(*count);
            }
        }
        Ok(counters.map(u64::from_le_bytes))
    }

    /// Where a rule stands that stood at a place before: there, as a rule.
    fn place_of(&self, fingerprint: u64, was: usize) -> Option<usize> {
        if self.all.get(was) == Some(&fingerprint) {
            return Some(was);
        }
        self.places.get(&fingerprint).copied()
    }
}

/// The same for the same text, in this process and in another: FNV-1a.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The counters of rules, in a report.
pub(crate) fn matched(rules: &[u64], default: u64) -> Option<Matched> {
    Some(Matched { rules: rules.to_vec(), default })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_the_same_keeps_its_counter_wherever_it_stands() {
        let of = |rules: &[&str]| Fingerprints::new(rules.iter().map(ToString::to_string));
        let saved = of(&["a", "b", "c"]).save(*b"filter..", &[7, 8], &[1, 2, 3]);
        let mut matched = [0; 4];
        let counters = of(&["b", "new", "c", "a"]).load::<2>(*b"filter..", &saved, &mut matched).unwrap();
        assert_eq!((counters, matched), ([7, 8], [2, 0, 3, 1]));
        // Of another kind, or of another shape.
        let none = of(&[]);
        assert!(none.load::<2>(*b"payload.", &saved, &mut []).is_err());
        assert!(none.load::<3>(*b"filter..", &saved, &mut []).is_err());
        assert!(none.load::<2>(*b"filter..", &saved[..30], &mut []).is_err());
        assert!(none.load::<0>(*b"filter..", b"", &mut []).is_err());
    }
}
