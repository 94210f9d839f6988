//! Enumerates all rules that match a key, in rule order.
//!
//! Each bucket with a matching rule has a head: its next matching entry. Each call of `next`
//! returns the smallest rule of all heads, and the following call moves that head on. So each entry
//! of a bucket is compared at most once per key, however many rules match.

use super::layout::MAX_TUPLES;
use super::space::Space;
use crate::key::{Packed, V4_WORDS, V6_WORDS};

/// The result of [`Classifier::matches`](super::Classifier::matches).
#[derive(Clone, Debug)]
pub struct Matches<'c>(pub(super) Version<'c>);

/// The iterator for the key's IP version.
#[derive(Clone, Debug)]
pub(super) enum Version<'c> {
    V4(SpaceMatches<'c, V4_WORDS>),
    V6(SpaceMatches<'c, V6_WORDS>),
}

impl Iterator for Matches<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            Version::V4(matches) => matches.next(),
            Version::V6(matches) => matches.next(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct SpaceMatches<'c, const N: usize> {
    space: &'c Space<N>,
    key: Packed<N>,
    /// The rule of each head, and the index of its entry. A key matches at most one bucket of each
    /// tuple.
    rules: [u32; MAX_TUPLES],
    entries: [u32; MAX_TUPLES],
    count: usize,
    /// The head whose rule was returned last, and which has not moved on yet.
    returned: Option<usize>,
}

impl<'c, const N: usize> SpaceMatches<'c, N> {
    /// Creates an iterator over the matching rules from the number `from` on.
    #[inline]
    pub(super) fn new(space: &'c Space<N>, key: Packed<N>, from: u32) -> Self {
        let (rules, entries) = ([0; MAX_TUPLES], [0; MAX_TUPLES]);
        let mut matches = Self { space, key, rules, entries, count: 0, returned: None };
        matches.space.for_each_bucket(&key, |first| matches.add_bucket(first, from));
        matches
    }

    /// Adds the head of a bucket, unless the bucket already has a head, or none of its rules
    /// matches. `first` is the index of the bucket's first entry.
    fn add_bucket(&mut self, first: u32, from: u32) {
        let Some(entry) = self.space.next_match(&self.key, first, from) else { return };
        // Buckets are found by 16-bit hash tags. The hashes of several tuples can have equal tags,
        // and so lead to the same bucket.
        if self.count < MAX_TUPLES && !self.entries[..self.count].contains(&entry) {
            self.entries[self.count] = entry;
            self.rules[self.count] = self.space.entries[entry as usize].rule;
            self.count += 1;
        }
    }

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if let Some(head) = self.returned.take() {
            self.advance(head);
        }
        let heads = self.rules[..self.count].iter().enumerate();
        let (head, &rule) = heads.min_by_key(|(_, rule)| **rule)?;
        self.returned = Some(head);
        Some(rule)
    }

    /// Moves a head to the next matching entry of its bucket. Removes the head if there is none.
    #[inline]
    fn advance(&mut self, head: usize) {
        let entry = self.entries[head];
        let following = if self.space.entries[entry as usize].is_last {
            None
        } else {
            self.space.next_match(&self.key, entry + 1, self.rules[head])
        };
        match following {
            Some(following) => {
                self.entries[head] = following;
                self.rules[head] = self.space.entries[following as usize].rule;
            }
            None => {
                self.count -= 1;
                self.entries[head] = self.entries[self.count];
                self.rules[head] = self.rules[self.count];
            }
        }
    }
}
