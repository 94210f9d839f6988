//! The classifier: which of many rules is the first that matches.
//!
//! A **tuple space** with merging, after Srinivasan et al. (1999) and TupleMerge (Daly et al.,
//! 2019). A tuple says how many bits of each address and port, and whether the protocol, are looked
//! at: all rules of a tuple can be found by one lookup of the key's bits in a hash table, and what
//! else a rule wants is verified in the bucket. A rule may live in any tuple that looks at no more
//! bits than the rule gives, so thousands of rules fit into a few tuples. [`layout`] chooses them.
//!
//! [`prune`] says which tuples can have anything for a key. Those are looked into in the order of
//! the best rule that each holds, and no more once what was found is better. A batch goes in
//! rounds, one tuple of every key in each, so that loads overlap and nothing branches on what
//! cannot be foretold ([`space`], [`table`]).

mod cache;
mod image;
mod layout;
mod pattern;
mod prune;
mod shape;
mod space;
mod table;

use crate::key::{Addresses, Key, Packed, V4, V6, words_v4, words_v6};
use crate::rule::Rule;
pub use cache::FlowCache;
pub use image::{Image, NotForKernel, SpaceImage, Table};
use pattern::{pattern_v4, pattern_v6};
pub use shape::{Shape, TupleShape};
use space::Space;

/// Finds the first of its rules that matches.
#[derive(Clone, Debug)]
pub struct Classifier {
    v4: Space<V4>,
    v6: Space<V6>,
}

impl Classifier {
    /// Packets that are looked up at once.
    pub const BATCH: usize = space::BATCH;

    /// Compiles rules. `seed` is what an outsider must not know, who otherwise could choose packets
    /// that collide.
    pub fn new(rules: &[Rule], seed: u64) -> Self {
        let numbered = || (0..).zip(rules);
        let v4 =
            numbered().filter_map(|(number, rule)| pattern_v4(number, &rule.matches)).collect();
        let v6 =
            numbered().filter_map(|(number, rule)| pattern_v6(number, &rule.matches)).collect();
        Self { v4: Space::new(v4, seed), v6: Space::new(v6, seed) }
    }

    /// The first rule that matches, of those from this one on.
    #[inline]
    pub fn first_match(&self, key: &Key, from: u32) -> Option<u32> {
        let upper = key.upper();
        match key.addresses {
            Addresses::V4 { source, destination } => {
                self.v4.first_match(&words_v4(source, destination, upper), from)
            }
            Addresses::V6 { source, destination } => {
                self.v6.first_match(&words_v6(source, destination, upper), from)
            }
        }
    }

    /// The first rule that matches each of the keys, in their order; [`Self::NONE`] where there is
    /// none. No more than [`Self::BATCH`] keys.
    #[inline]
    pub fn classify(&self, keys: &[Key], found: &mut [u32; Self::BATCH]) {
        let v4 = |keys: &[_], found: &mut _| self.v4.classify(keys, found);
        let v6 = |keys: &[_], found: &mut _| self.v6.classify(keys, found);
        by_version(keys, found, v4, v6);
    }

    /// The same, with what was found before: by this classifier, and no other.
    #[inline]
    pub fn classify_cached(
        &self,
        keys: &[Key],
        found: &mut [u32; Self::BATCH],
        cache: &mut FlowCache,
    ) {
        let FlowCache { v4: slots4, v6: slots6 } = cache;
        // Where rules are compared one by one, that costs no more.
        let v4 = |keys: &[_], found: &mut _| match self.v4.prune {
            Some(_) => slots4.classify(&self.v4, keys, found),
            None => self.v4.classify(keys, found),
        };
        let v6 = |keys: &[_], found: &mut _| match self.v6.prune {
            Some(_) => slots6.classify(&self.v6, keys, found),
            None => self.v6.classify(keys, found),
        };
        by_version(keys, found, v4, v6);
    }

    /// No rule matches.
    pub const NONE: u32 = space::NONE;

    /// Whether it looks rules up. If not, there are so few that they are compared one by one.
    pub fn has_tuples(&self) -> bool {
        self.v4.prune.is_some() || self.v6.prune.is_some()
    }

    /// Its tables for the XDP program, with what becomes of a packet by each of the rules that it
    /// was compiled from. Or why that is not possible.
    pub fn image(&self, rules: &[Rule]) -> Result<Image, NotForKernel> {
        Image::new(&self.v4, &self.v6, rules)
    }

    /// What it has become.
    pub fn shape(&self) -> Shape {
        Shape {
            v4: self.v4.shape(),
            v6: self.v6.shape(),
            memory: self.v4.memory() + self.v6.memory(),
        }
    }
}

/// Packs keys, has those of each version looked up, and puts what was found in the order of the
/// keys.
#[inline]
fn by_version(
    keys: &[Key],
    found: &mut [u32; Classifier::BATCH],
    look_up_v4: impl FnOnce(&[Packed<V4>], &mut [u32; Classifier::BATCH]),
    look_up_v6: impl FnOnce(&[Packed<V6>], &mut [u32; Classifier::BATCH]),
) {
    const BATCH: usize = Classifier::BATCH;
    let keys = &keys[..keys.len().min(BATCH)];
    let (mut v4, mut v6) = ([[0; V4]; BATCH], [[0; V6]; BATCH]);
    // Where each key stands among those of its version.
    let (mut count4, mut count6) = (0, 0);
    for key in keys {
        let upper = key.upper();
        match key.addresses {
            Addresses::V4 { source, destination } => {
                v4[count4 % BATCH] = words_v4(source, destination, upper);
                count4 += 1;
            }
            Addresses::V6 { source, destination } => {
                v6[count6 % BATCH] = words_v6(source, destination, upper);
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
        let of_version =
            if matches!(key.addresses, Addresses::V4 { .. }) { &mut found4 } else { &mut found6 };
        *found = of_version.next().copied().unwrap_or(Classifier::NONE);
    }
}

#[cfg(test)]
mod tests;
