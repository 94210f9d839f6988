//! The tuples of one IP version, and the table that they share.

use super::layout::{self, Laid};
use super::pattern::{Bits, Pattern};
use super::prune::{Prune, Tuples};
use super::table::Table;
use super::{Classifier, TupleShape};
use crate::key::{Packed, V4, ports};

const BATCH: usize = Classifier::BATCH;

/// Rules of one IP version, to be looked up.
#[derive(Clone, Debug)]
pub(super) struct Space<const N: usize> {
    /// In the order of the best rule of each. None if there are so few rules that all are compared.
    tuples: Vec<Tuple<N>>,
    /// Where buckets are, of all tuples.
    table: Table,
    /// Which of the tuples are worth a look.
    prune: Option<Prune>,
    /// Buckets, one behind the other, each in the order of the rules.
    entries: Vec<Entry<N>>,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Tuple<const N: usize> {
    mask: Packed<N>,
    /// The best rule in it.
    best: u32,
    /// What makes equal bits of different tuples different.
    seed: u64,
    shape: TupleShape,
}

/// A rule in its bucket. A cache line, for IPv4.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry<const N: usize> {
    value: Packed<N>,
    mask: Packed<N>,
    source: [u16; 2],
    destination: [u16; 2],
    rule: u32,
    /// Whether the bucket ends here.
    last: bool,
}

const _: () = assert!(size_of::<Entry<V4>>() == 64);

/// Up to so many rules are compared one by one, which costs less than a lookup.
const FEW: usize = 8;

impl<const N: usize> Entry<N> {
    #[inline]
    fn matches(&self, key: &Packed<N>) -> bool {
        let mut differing = 0;
        for ((key, mask), value) in key.iter().zip(&self.mask).zip(&self.value) {
            differing |= (key & mask) ^ value;
        }
        let upper = key[N - 2];
        let (source, destination) = ((upper >> ports::SOURCE) as u16, (upper >> ports::DESTINATION) as u16);
        // Without branches, but for the one that the caller takes.
        (differing == 0)
            & (source >= self.source[0])
            & (source <= self.source[1])
            & (destination >= self.destination[0])
            & (destination <= self.destination[1])
    }
}

impl<const N: usize> Space<N> {
    pub(super) fn new(patterns: Vec<Pattern<N>>, seed: u64) -> Self {
        let entry = |pattern: &Pattern<N>, last| {
            let Pattern { value, mask, source, destination, rule, .. } = *pattern;
            Entry { value, mask, source, destination, rule, last }
        };
        if patterns.len() <= FEW {
            let entries = patterns.iter().map(|pattern| entry(pattern, false)).collect();
            return Self { tuples: Vec::new(), table: Table::new(0), prune: None, entries, seed };
        }
        let Laid { tuples: laid, buckets } = layout::lay_out(&patterns);
        let mut space = Self {
            tuples: Vec::with_capacity(laid.len()),
            table: Table::new(buckets),
            prune: None,
            entries: Vec::with_capacity(patterns.len()),
            seed,
        };
        // In the order of their best rule.
        let mut laid: Vec<_> =
            laid.into_iter().map(|(bits, members)| (best(&patterns, &members), bits, members)).collect();
        laid.sort_by_key(|(best, _, _)| *best);
        let mut placed = Vec::with_capacity(patterns.len());
        for (place, (best, bits, members)) in laid.iter().enumerate() {
            let tuple_seed = fold(seed ^ (place as u64 + 1).wrapping_mul(SEEDS[0]), SEEDS[1]);
            space.add_tuple(*bits, *best, tuple_seed, members, |index, last| entry(&patterns[index as usize], last));
            placed.extend(members.iter().flatten().map(|&index| (place, &patterns[index as usize])));
        }
        space.prune = Some(Prune::new(&placed));
        space
    }

    /// Members come in buckets, each in the order of the rules.
    fn add_tuple(
        &mut self,
        bits: Bits,
        best: u32,
        seed: u64,
        members: &[Vec<u32>],
        entry: impl Fn(u32, bool) -> Entry<N>,
    ) {
        let mask: Packed<N> = bits.mask();
        for bucket in members {
            let first = self.entries.len();
            let last = bucket.len().saturating_sub(1);
            self.entries.extend(bucket.iter().enumerate().map(|(place, &index)| entry(index, place == last)));
            let Some(head) = self.entries.get(first) else { continue };
            let hash = hash(&head.value, &mask, self.seed, seed);
            self.table.insert(hash, first as u32);
        }
        let shape = TupleShape {
            source: bits.source,
            destination: bits.destination,
            source_port: bits.source_port,
            destination_port: bits.destination_port,
            protocol: bits.protocol > 0,
            rules: members.iter().map(Vec::len).sum(),
            longest: members.iter().map(Vec::len).max().unwrap_or(0),
        };
        self.tuples.push(Tuple { mask, best, seed, shape });
    }

    #[inline]
    pub(super) fn first_match(&self, key: &Packed<N>, from: u32) -> Option<u32> {
        if self.tuples.is_empty() {
            return self.entries.iter().find(|entry| entry.rule >= from && entry.matches(key)).map(|entry| entry.rule);
        }
        let mut found = Classifier::NONE;
        let tuples = self.prune.as_ref().map_or(Tuples::MAX, |prune| prune.tuples(key));
        self.look_into(tuples, key, from, &mut found);
        Some(found).filter(|found| *found != Classifier::NONE)
    }

    /// The first rule that matches each of some keys.
    #[inline]
    pub(super) fn classify(&self, keys: &[Packed<N>], found: &mut [u32; BATCH]) {
        let keys = &keys[..keys.len().min(BATCH)];
        let found = &mut found[..keys.len()];
        found.fill(Classifier::NONE);
        let Some(prune) = &self.prune else {
            for (key, found) in keys.iter().zip(found) {
                let first = self.entries.iter().find(|entry| entry.matches(key));
                *found = first.map_or(Classifier::NONE, |entry| entry.rule);
            }
            return;
        };
        // All of a batch first: these loads do not wait for each other.
        let mut tuples = [0; BATCH];
        for (key, tuples) in keys.iter().zip(&mut tuples) {
            *tuples = prune.tuples(key);
        }
        for ((key, tuples), found) in keys.iter().zip(tuples).zip(found) {
            self.look_into(tuples, key, 0, found);
        }
    }

    /// Looks into tuples, in their order, for a rule that is better than what was found.
    #[inline]
    fn look_into(&self, mut tuples: Tuples, key: &Packed<N>, from: u32, found: &mut u32) {
        while tuples != 0 {
            let place = tuples.trailing_zeros() as usize;
            tuples &= tuples - 1;
            // The last bit stands for all that are behind it, too.
            let all = if place == 63 {
                &self.tuples[63.min(self.tuples.len())..]
            } else {
                self.tuples.get(place..=place).unwrap_or_default()
            };
            for tuple in all {
                if tuple.best >= *found {
                    return;
                }
                let hash = hash(key, &tuple.mask, self.seed, tuple.seed);
                for first in self.table.get(hash) {
                    *found = self.look_through(first, key, from, *found);
                }
            }
        }
    }

    /// Looks through a bucket for a rule that is better than what was found.
    #[inline]
    fn look_through(&self, first: u32, key: &Packed<N>, from: u32, found: u32) -> u32 {
        for entry in &self.entries[first as usize..] {
            if entry.rule >= found {
                break;
            }
            if entry.rule >= from && entry.matches(key) {
                return entry.rule;
            }
            if entry.last {
                break;
            }
        }
        found
    }

    pub(super) fn shape(&self) -> Vec<TupleShape> {
        self.tuples.iter().map(|tuple| tuple.shape).collect()
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&self.tuples[..])
            + self.table.memory()
            + self.prune.as_ref().map_or(0, Prune::memory)
            + size_of_val(&self.entries[..])
    }
}

/// The best rule of a tuple's members.
fn best<const N: usize>(patterns: &[Pattern<N>], members: &[Vec<u32>]) -> u32 {
    members.iter().flatten().map(|&index| patterns[index as usize].rule).min().unwrap_or(u32::MAX)
}

/// Of the bits of a key that a tuple looks at.
#[inline]
fn hash<const N: usize>(key: &Packed<N>, mask: &Packed<N>, seed: u64, of_tuple: u64) -> u64 {
    let word = |index: usize| key[index] & mask[index];
    if N == V4 {
        fold(word(0) ^ seed, word(1) ^ of_tuple)
    } else {
        let source = fold(word(0) ^ seed, word(1) ^ SEEDS[2]);
        let destination = fold(word(2) ^ SEEDS[3], word(3) ^ of_tuple);
        fold(source ^ destination.rotate_left(32), word(N - 2) ^ SEEDS[4])
    }
}

/// The digits of pi behind the point: nobody's choice.
const SEEDS: [u64; 5] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];

/// Both halves of the 128-bit product: each bit of either factor reaches bits above and below it.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
