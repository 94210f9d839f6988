//! The classifier, which finds the first matching rule among many rules.
//!
//! The classifier searches a **tuple space** (Srinivasan et al., 1999) with merged tuples
//! (TupleMerge, Daly et al., 2019). A tuple is a group of rules. It states how many leading bits of
//! each address and port are compared, and whether the protocol is compared. One hash table lookup
//! with these bits of the key finds the bucket of all rules of the tuple that can match. Their
//! other conditions are verified rule after rule. A rule may be in any tuple that compares only
//! bits that the rule has conditions on, so a few tuples can hold thousands of rules. [`layout`]
//! chooses the tuples.
//!
//! [`prune`] selects the tuples that can contain a matching rule for a key. They are searched in
//! the order of their smallest rule number, until no further tuple can contain an earlier match. A
//! batch of keys is searched in rounds, with one tuple per key in each round, so that the loads of
//! different keys overlap and no branch depends on unpredictable data ([`space`], [`table`]).

mod cache;
mod image;
mod layout;
mod matches;
mod pattern;
mod prune;
mod shape;
mod space;
mod table;

use crate::key::{Addresses, Key, Packed, V4_WORDS, V6_WORDS, pack_v4, pack_v6};
use crate::rule::Rule;
pub use cache::FlowCache;
pub use image::{Image, KernelLimitError, SpaceImage, Table};
pub use matches::Matches;
use matches::{SpaceMatches, Version};
use pattern::{pattern_v4, pattern_v6};
pub use shape::{Shape, TupleShape};
use space::Space;

/// Finds the first matching rule of a list.
#[derive(Clone, Debug)]
pub struct Classifier {
    v4: Space<V4_WORDS>,
    v6: Space<V6_WORDS>,
}

impl Classifier {
    /// Maximum number of keys per batch.
    pub const BATCH: usize = space::BATCH;

    /// Compiles rules. Keep `seed` secret: whoever knows it can choose packets whose hashes
    /// collide.
    pub fn new(rules: &[Rule], seed: u64) -> Self {
        let numbered = || (0..).zip(rules);
        let v4 =
            numbered().filter_map(|(number, rule)| pattern_v4(number, &rule.matches)).collect();
        let v6 =
            numbered().filter_map(|(number, rule)| pattern_v6(number, &rule.matches)).collect();
        Self { v4: Space::new(v4, seed), v6: Space::new(v6, seed) }
    }

    /// Returns the number of the first matching rule that is at least `from`. Numbers are indexes
    /// into the list of rules.
    #[inline]
    pub fn first_match(&self, key: &Key, from: u32) -> Option<u32> {
        let last_words = key.last_words();
        match key.addresses {
            Addresses::V4 { source, destination } => {
                self.v4.first_match(&pack_v4(source, destination, last_words), from)
            }
            Addresses::V6 { source, destination } => {
                self.v6.first_match(&pack_v6(source, destination, last_words), from)
            }
        }
    }

    /// Returns the numbers of all matching rules that are at least `from`, ascending.
    ///
    /// The whole iteration compares each rule of the key's buckets at most once. Repeated calls of
    /// [`Self::first_match`] would compare the rules at the beginning of a bucket each time.
    #[inline]
    pub fn matches(&self, key: &Key, from: u32) -> Matches<'_> {
        let last_words = key.last_words();
        Matches(match key.addresses {
            Addresses::V4 { source, destination } => {
                let key = pack_v4(source, destination, last_words);
                Version::V4(SpaceMatches::new(&self.v4, key, from))
            }
            Addresses::V6 { source, destination } => {
                let key = pack_v6(source, destination, last_words);
                Version::V6(SpaceMatches::new(&self.v6, key, from))
            }
        })
    }

    /// Writes the number of the first matching rule for each key to `found`, or [`Self::NONE`].
    /// Ignores keys after the first [`Self::BATCH`].
    #[inline]
    pub fn classify(&self, keys: &[Key], found: &mut [u32; Self::BATCH]) {
        let v4 = |keys: &[_], found: &mut _| self.v4.classify(keys, found);
        let v6 = |keys: &[_], found: &mut _| self.v6.classify(keys, found);
        classify_by_version(keys, found, v4, v6);
    }

    /// Like [`Self::classify`], with a cache. Never use a cache with two classifiers, because it
    /// would return results of the other classifier.
    #[inline]
    pub fn classify_cached(
        &self,
        keys: &[Key],
        found: &mut [u32; Self::BATCH],
        cache: &mut FlowCache,
    ) {
        let FlowCache { v4: slots_v4, v6: slots_v6 } = cache;
        // Without tuples there are few rules, and comparing all is as fast as a cache.
        let v4 = |keys: &[_], found: &mut _| match self.v4.prune {
            Some(_) => slots_v4.classify(&self.v4, keys, found),
            None => self.v4.classify(keys, found),
        };
        let v6 = |keys: &[_], found: &mut _| match self.v6.prune {
            Some(_) => slots_v6.classify(&self.v6, keys, found),
            None => self.v6.classify(keys, found),
        };
        classify_by_version(keys, found, v4, v6);
    }

    /// The result of [`Self::classify`] if no rule matches.
    pub const NONE: u32 = space::NONE;

    /// Returns whether the rules of at least one IP version are in tuples. Up to eight rules are
    /// compared one by one instead.
    pub fn has_tuples(&self) -> bool {
        self.v4.prune.is_some() || self.v6.prune.is_some()
    }

    /// Returns the number of tuples that a lookup of the key searches if no rule matches; 1 if the
    /// rules are compared one by one.
    pub fn candidate_tuples(&self, key: &Key) -> u32 {
        let last_words = key.last_words();
        match key.addresses {
            Addresses::V4 { source, destination } => {
                self.v4.candidate_tuples(&pack_v4(source, destination, last_words))
            }
            Addresses::V6 { source, destination } => {
                self.v6.candidate_tuples(&pack_v6(source, destination, last_words))
            }
        }
    }

    /// Returns an upper bound of how many rules one packet is compared with, apart from hash
    /// collisions.
    pub(crate) fn max_compared(&self) -> usize {
        self.v4.max_compared().max(self.v6.max_compared())
    }

    /// Returns the tables for the XDP program, or an error if they exceed its limits. `rules` must
    /// be those of the classifier.
    pub fn image(&self, rules: &[Rule]) -> Result<Image, KernelLimitError> {
        Image::new(&self.v4, &self.v6, rules)
    }

    /// Returns the tuples of each IP version, and the memory used.
    pub fn shape(&self) -> Shape {
        Shape {
            v4: self.v4.shape(),
            v6: self.v6.shape(),
            memory: self.v4.memory() + self.v6.memory(),
        }
    }
}

/// Looks up the keys of each IP version separately, and writes the results in the order of `keys`.
#[inline]
fn classify_by_version(
    keys: &[Key],
    found: &mut [u32; Classifier::BATCH],
    look_up_v4: impl FnOnce(&[Packed<V4_WORDS>], &mut [u32; Classifier::BATCH]),
    look_up_v6: impl FnOnce(&[Packed<V6_WORDS>], &mut [u32; Classifier::BATCH]),
) {
    const BATCH: usize = Classifier::BATCH;
    let keys = &keys[..keys.len().min(BATCH)];
    let (mut v4, mut v6) = ([[0; V4_WORDS]; BATCH], [[0; V6_WORDS]; BATCH]);
    let (mut count4, mut count6) = (0, 0);
    for key in keys {
        let last_words = key.last_words();
        match key.addresses {
            Addresses::V4 { source, destination } => {
                v4[count4 % BATCH] = pack_v4(source, destination, last_words);
                count4 += 1;
            }
            Addresses::V6 { source, destination } => {
                v6[count6 % BATCH] = pack_v6(source, destination, last_words);
                count6 += 1;
            }
        }
    }
    if count6 == 0 {
        return look_up_v4(&v4[..count4], found);
    }
    if count4 == 0 {
        return look_up_v6(&v6[..count6], found);
    }
    let (mut found4, mut found6) = ([Classifier::NONE; BATCH], [Classifier::NONE; BATCH]);
    look_up_v4(&v4[..count4], &mut found4);
    look_up_v6(&v6[..count6], &mut found6);
    let (mut found4, mut found6) = (found4.iter(), found6.iter());
    for (key, found) in keys.iter().zip(found) {
        let found_of_version =
            if matches!(key.addresses, Addresses::V4 { .. }) { &mut found4 } else { &mut found6 };
        *found = found_of_version.next().copied().unwrap_or(Classifier::NONE);
    }
}

#[cfg(test)]
mod tests;
