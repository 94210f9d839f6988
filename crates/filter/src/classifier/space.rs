//! The tuples of one IP version and their shared hash table.

use std::hint::select_unpredictable;

use super::layout::{self, Layout, MAX_TUPLES};
use super::pattern::{Bits, Pattern};
use super::prune::Prune;
use super::shape::TupleShape;
use super::table::Table;
use crate::key::{Packed, V4, ports};

/// Maximum number of packets per batch.
pub(super) const BATCH: usize = 64;
/// The result of a lookup that found no rule.
pub(super) const NONE: u32 = u32::MAX;

/// The compiled rules of one IP version.
#[derive(Clone, Debug)]
pub(super) struct Space<const N: usize> {
    /// In the order of their best rule. Empty if there are so few rules that all are compared.
    pub(super) tuples: Vec<Tuple<N>>,
    /// Buckets of all tuples, by hash.
    pub(super) table: Table,
    /// Best rule of each tuple, followed by a number worse than any rule.
    bests: [u32; MAX_TUPLES + 1],
    /// Selects the tuples to search.
    pub(super) prune: Option<Prune>,
    /// Consecutive buckets, each in rule order.
    pub(super) entries: Vec<Entry<N>>,
    pub(super) seed: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Tuple<const N: usize> {
    pub(super) mask: Packed<N>,
    /// Best (smallest) rule number of the tuple.
    pub(super) best: u32,
    /// Makes the hashes of equal bits differ between tuples.
    pub(super) seed: u64,
    pub(super) shape: TupleShape,
}

/// A rule in a bucket. One cache line for IPv4.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Entry<const N: usize> {
    pub(super) value: Packed<N>,
    pub(super) mask: Packed<N>,
    /// First source port and number of further ports.
    pub(super) source: [u16; 2],
    /// First destination port and number of further ports.
    pub(super) destination: [u16; 2],
    pub(super) rule: u32,
    /// Whether this entry ends its bucket.
    pub(super) last: bool,
}

const _: () = assert!(size_of::<Entry<V4>>() == 64);

/// Up to this number of rules, comparing all costs less than a lookup.
pub(super) const MAX_UNHASHED: usize = 8;

impl<const N: usize> Entry<N> {
    #[inline]
    fn matches(&self, key: &Packed<N>) -> bool {
        let mut differing = 0;
        for ((key, mask), value) in key.iter().zip(&self.mask).zip(&self.value) {
            differing |= (key & mask) ^ value;
        }
        let upper = key[N - 2];
        let (source, destination) =
            ((upper >> ports::SOURCE) as u16, (upper >> ports::DESTINATION) as u16);
        // Returns 0 within the range. Avoids a branch per port.
        let beyond = |port: u16, [first, more]: [u16; 2]| {
            u64::from(port.wrapping_sub(first).saturating_sub(more))
        };
        differing | beyond(source, self.source) | beyond(destination, self.destination) == 0
    }
}

impl<const N: usize> Space<N> {
    pub(super) fn new(patterns: Vec<Pattern<N>>, seed: u64) -> Self {
        // Spread the bits of the caller's seed, which may be a small number.
        let seed = fold(seed ^ SEEDS[2], SEEDS[3]);
        let entry = |pattern: &Pattern<N>, last| {
            let Pattern { value, mask, source, destination, rule, .. } = *pattern;
            let [source, destination] =
                [source, destination].map(|[first, last]| [first, last - first]);
            Entry { value, mask, source, destination, rule, last }
        };
        if patterns.len() <= MAX_UNHASHED {
            let entries = patterns.iter().map(|pattern| entry(pattern, false)).collect();
            return Self {
                tuples: Vec::new(),
                table: Table::new(0),
                bests: [u32::MAX; MAX_TUPLES + 1],
                prune: None,
                entries,
                seed,
            };
        }
        let Layout { tuples: laid, buckets } = layout::choose_tuples(&patterns);
        let mut space = Self {
            tuples: Vec::with_capacity(laid.len()),
            table: Table::new(buckets),
            bests: [u32::MAX; MAX_TUPLES + 1],
            prune: None,
            entries: Vec::with_capacity(patterns.len()),
            seed,
        };
        // Search tuples in the order of their best rule.
        let mut laid: Vec<_> = laid
            .into_iter()
            .map(|(bits, members)| (best(&patterns, &members), bits, members))
            .collect();
        laid.sort_by_key(|(best, _, _)| *best);
        let mut patterns_by_tuple = Vec::with_capacity(patterns.len());
        for (position, (best, bits, members)) in laid.iter().enumerate() {
            let tuple_seed = fold(seed ^ (position as u64 + 1).wrapping_mul(SEEDS[0]), SEEDS[1]);
            space.bests[position] = *best;
            space.add_tuple(*bits, *best, tuple_seed, members, |index, last| {
                entry(&patterns[index as usize], last)
            });
            patterns_by_tuple.extend(
                members.iter().flatten().map(|&index| (position, &patterns[index as usize])),
            );
        }
        space.prune = Some(Prune::new(&patterns_by_tuple));
        space
    }

    /// `members` are buckets, each in rule order.
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
            self.entries
                .extend(bucket.iter().enumerate().map(|(at, &index)| entry(index, at == last)));
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
        let Some(prune) = &self.prune else {
            return self
                .entries
                .iter()
                .find(|entry| entry.rule >= from && entry.matches(key))
                .map(|entry| entry.rule);
        };
        let mut found = NONE;
        let mut tuples = prune.tuples(key);
        while tuples != 0 {
            let tuple = &self.tuples[tuples.trailing_zeros() as usize];
            if tuple.best >= found {
                break;
            }
            let hash = hash(key, &tuple.mask, self.seed, tuple.seed);
            found = self.look_up(hash, key, from, found);
            tuples &= tuples - 1;
        }
        Some(found).filter(|found| *found != NONE)
    }

    /// Finds the first match of each key.
    ///
    /// Each round searches one tuple per remaining key. Branches on the tuple, the lookup or the
    /// match would be mispredicted, so the code counts instead: a key stays in a list if the count
    /// advances.
    #[inline]
    pub(super) fn classify(&self, keys: &[Packed<N>], found: &mut [u32; BATCH]) {
        let keys = &keys[..keys.len().min(BATCH)];
        let Some(prune) = &self.prune else {
            for (key, found) in keys.iter().zip(found) {
                let first = self.entries.iter().find(|entry| entry.matches(key));
                *found = first.map_or(NONE, |entry| entry.rule);
            }
            return;
        };
        let (mut tuples, mut open, mut left) = ([0; BATCH], [0_u8; BATCH], 0);
        for (index, (key, tuples)) in (0..).zip(keys.iter().zip(&mut tuples)) {
            *tuples = prune.tuples(key);
            open[left % BATCH] = index;
            left += usize::from(*tuples != 0);
        }
        found[..keys.len()].fill(NONE);
        let (mut maybe, mut hashes) = ([0_u8; BATCH], [0; BATCH]);
        while left > 0 {
            let mut count = 0;
            for &index in &open[..left.min(BATCH)] {
                let at = usize::from(index) % BATCH;
                let tuple = &self.tuples[tuples[at].trailing_zeros() as usize];
                let hash = hash(&keys[at], &tuple.mask, self.seed, tuple.seed);
                maybe[count % BATCH] = index;
                hashes[count % BATCH] = hash;
                count += usize::from(self.table.may_have(hash));
            }
            for (&index, &hash) in maybe.iter().zip(&hashes).take(count) {
                let at = usize::from(index) % BATCH;
                found[at] = self.verify(hash, &keys[at], found[at]);
            }
            let mut still = 0;
            for at in 0..left.min(BATCH) {
                let index = usize::from(open[at]) % BATCH;
                tuples[index] &= tuples[index] - 1;
                // Without a tuple left, the best rule is worse than any.
                let best = self.bests[tuples[index].trailing_zeros() as usize];
                open[still % BATCH] = index as u8;
                still += usize::from(best < found[index]);
            }
            left = still;
        }
    }

    /// Verifies a hash that the table may have. Usually it leads to one bucket with one rule.
    #[inline]
    fn verify(&self, hash: u64, key: &Packed<N>, found: u32) -> u32 {
        let Some(first) = self.table.single_candidate(hash) else {
            return self.look_up(hash, key, 0, found);
        };
        let entry = &self.entries[first as usize];
        if !entry.last {
            return self.look_through(first, key, 0, found);
        }
        found.min(select_unpredictable(entry.matches(key), entry.rule, NONE))
    }

    /// Searches all buckets of a hash for a rule better than `found`.
    fn look_up(&self, hash: u64, key: &Packed<N>, from: u32, found: u32) -> u32 {
        self.table.get(hash).fold(found, |found, first| self.look_through(first, key, from, found))
    }

    /// Searches a bucket for a rule better than `found`.
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

/// Returns the best rule among the members of a tuple.
fn best<const N: usize>(patterns: &[Pattern<N>], members: &[Vec<u32>]) -> u32 {
    members.iter().flatten().map(|&index| patterns[index as usize].rule).min().unwrap_or(u32::MAX)
}

/// Hashes the bits of a key that a tuple compares.
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

/// Digits of pi after the point, an arbitrary constant.
const SEEDS: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// Combines both halves of the 128-bit product, so that each input bit affects higher and lower
/// bits.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
