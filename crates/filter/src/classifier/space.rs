//! The rules of one IP version: their tuples, and the hash table that all tuples share.

use std::hint::select_unpredictable;

use super::layout::{self, Layout, MAX_TUPLES};
use super::pattern::{Bits, Pattern};
use super::prune::Prune;
use super::shape::TupleShape;
use super::table::HashTable;
use crate::key::{Packed, V4_WORDS, l4_word};

pub(super) const BATCH: usize = 64;
pub(super) const NONE: u32 = u32::MAX;

#[cfg(test)]
thread_local! {
    /// Number of entries that this thread has compared.
    pub(super) static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[derive(Clone, Debug)]
pub(super) struct Space<const N: usize> {
    /// The tuples in search order: by smallest rule number. Empty if the rules are compared one by
    /// one.
    pub(super) tuples: Vec<Tuple<N>>,
    /// Maps the hash of each bucket to the index in `entries` of its first entry.
    pub(super) table: HashTable,
    /// Smallest rule number of each tuple, then `u32::MAX`.
    best_rules: [u32; MAX_TUPLES + 1],
    /// Selects the tuples to search; `None` if the rules are compared one by one.
    pub(super) prune: Option<Prune>,
    /// The entries of all buckets, bucket by bucket, each in rule order.
    pub(super) entries: Vec<Entry<N>>,
    pub(super) seed: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Tuple<const N: usize> {
    pub(super) mask: Packed<N>,
    /// The smallest rule number.
    pub(super) best_rule: u32,
    /// Differs for each tuple, so equal key bits have another hash in each.
    pub(super) seed: u64,
    pub(super) shape: TupleShape,
}

/// A rule in a bucket. An IPv4 entry fills one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Entry<const N: usize> {
    pub(super) value: Packed<N>,
    pub(super) mask: Packed<N>,
    /// First source port, and the number of ports after it.
    pub(super) source_ports: [u16; 2],
    pub(super) destination_ports: [u16; 2],
    pub(super) rule: u32,
    /// Whether the entry is the last of its bucket.
    pub(super) is_last: bool,
}

const _: () = assert!(size_of::<Entry<V4_WORDS>>() == 64);

/// Up to this number of rules, comparing one by one is faster than tuples.
pub(super) const MAX_LINEAR_RULES: usize = 8;

impl<const N: usize> Entry<N> {
    #[inline]
    fn matches(&self, key: &Packed<N>) -> bool {
        #[cfg(test)]
        COMPARISONS.with(|count| count.set(count.get() + 1));
        let mut differing = 0;
        for ((key, mask), value) in key.iter().zip(&self.mask).zip(&self.value) {
            differing |= (key & mask) ^ value;
        }
        let l4 = key[N - 2];
        let (source, destination) =
            ((l4 >> l4_word::SOURCE_PORT) as u16, (l4 >> l4_word::DESTINATION_PORT) as u16);
        // Without a branch, returns 0 if the port is within the range.
        let outside = |port: u16, [first, more]: [u16; 2]| {
            u64::from(port.wrapping_sub(first).saturating_sub(more))
        };
        differing
            | outside(source, self.source_ports)
            | outside(destination, self.destination_ports)
            == 0
    }
}

impl<const N: usize> Space<N> {
    pub(super) fn new(patterns: Vec<Pattern<N>>, seed: u64) -> Self {
        // The caller's seed may be a small number, so spread its bits over the word.
        let seed = fold(seed ^ SEEDS[2], SEEDS[3]);
        let entry = |pattern: &Pattern<N>, is_last| {
            let Pattern { value, mask, source_ports, destination_ports, rule, .. } = *pattern;
            let [source_ports, destination_ports] =
                [source_ports, destination_ports].map(|[first, last]| [first, last - first]);
            Entry { value, mask, source_ports, destination_ports, rule, is_last }
        };
        if patterns.len() <= MAX_LINEAR_RULES {
            let is_last = false; // not used without buckets
            let entries = patterns.iter().map(|pattern| entry(pattern, is_last)).collect();
            return Self {
                tuples: Vec::new(),
                table: HashTable::new(0),
                best_rules: [u32::MAX; MAX_TUPLES + 1],
                prune: None,
                entries,
                seed,
            };
        }
        let Layout { tuples, bucket_count } = layout::choose_tuples(&patterns);
        let mut space = Self {
            tuples: Vec::with_capacity(tuples.len()),
            table: HashTable::new(bucket_count),
            best_rules: [u32::MAX; MAX_TUPLES + 1],
            prune: None,
            entries: Vec::with_capacity(patterns.len()),
            seed,
        };
        let mut tuples: Vec<_> = tuples
            .into_iter()
            .map(|(bits, buckets)| (best_rule(&patterns, &buckets), bits, buckets))
            .collect();
        tuples.sort_by_key(|(best, _, _)| *best);
        let mut patterns_by_tuple = Vec::with_capacity(patterns.len());
        for (position, (best_rule, bits, buckets)) in tuples.iter().enumerate() {
            let tuple_seed = fold(seed ^ (position as u64 + 1).wrapping_mul(SEEDS[0]), SEEDS[1]);
            space.best_rules[position] = *best_rule;
            space.add_tuple(*bits, *best_rule, tuple_seed, buckets, |index, is_last| {
                entry(&patterns[index as usize], is_last)
            });
            patterns_by_tuple.extend(
                buckets.iter().flatten().map(|&index| (position, &patterns[index as usize])),
            );
        }
        space.prune = Some(Prune::new(&patterns_by_tuple));
        space
    }

    /// Adds a tuple with its buckets, each a list of pattern indexes in rule order. `entry` creates
    /// an entry from a pattern index and the value of `is_last`.
    fn add_tuple(
        &mut self,
        bits: Bits,
        best_rule: u32,
        seed: u64,
        buckets: &[Vec<u32>],
        entry: impl Fn(u32, bool) -> Entry<N>,
    ) {
        let mask: Packed<N> = bits.mask();
        for bucket in buckets {
            let first = self.entries.len();
            let last_index = bucket.len().saturating_sub(1);
            self.entries.extend(
                bucket.iter().enumerate().map(|(at, &index)| entry(index, at == last_index)),
            );
            let Some(first_entry) = self.entries.get(first) else { continue };
            let hash = hash(&first_entry.value, &mask, self.seed, seed);
            self.table.insert(hash, first as u32);
        }
        let shape = TupleShape {
            source: bits.source,
            destination: bits.destination,
            source_port: bits.source_port,
            destination_port: bits.destination_port,
            protocol: bits.protocol > 0,
            rules: buckets.iter().map(Vec::len).sum(),
            longest_bucket: buckets.iter().map(Vec::len).max().unwrap_or(0),
        };
        self.tuples.push(Tuple { mask, best_rule, seed, shape });
    }

    /// Returns the number of tuples that can contain a matching rule.
    pub(super) fn candidate_tuples(&self, key: &Packed<N>) -> u32 {
        self.prune.as_ref().map_or(1, |prune| prune.tuples(key).count_ones())
    }

    /// Returns the first matching rule whose number is at least `from`.
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
            if tuple.best_rule >= found {
                break;
            }
            let hash = hash(key, &tuple.mask, self.seed, tuple.seed);
            found = self.search_buckets(hash, key, from, found);
            tuples &= tuples - 1;
        }
        Some(found).filter(|found| *found != NONE)
    }

    /// Writes the number of the first matching rule for each key to `found`, or [`NONE`]. Ignores
    /// keys after the first [`BATCH`].
    ///
    /// Each round searches one tuple for each active key. A branch on the result of a lookup or a
    /// comparison would often be mispredicted. Instead, every key is written to the end of a list,
    /// and the list grows only if the key belongs to it.
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
        // `active`: indexes of the keys that still have a tuple to search.
        let (mut tuples, mut active, mut active_count) = ([0; BATCH], [0_u8; BATCH], 0);
        for (index, (key, tuples)) in (0..).zip(keys.iter().zip(&mut tuples)) {
            *tuples = prune.tuples(key);
            active[active_count % BATCH] = index;
            active_count += usize::from(*tuples != 0);
        }
        found[..keys.len()].fill(NONE);
        let (mut candidates, mut hashes) = ([0_u8; BATCH], [0; BATCH]);
        while active_count > 0 {
            let mut candidate_count = 0;
            for &key in &active[..active_count.min(BATCH)] {
                let index = usize::from(key) % BATCH;
                let tuple = &self.tuples[tuples[index].trailing_zeros() as usize];
                let hash = hash(&keys[index], &tuple.mask, self.seed, tuple.seed);
                candidates[candidate_count % BATCH] = key;
                hashes[candidate_count % BATCH] = hash;
                candidate_count += usize::from(self.table.may_contain(hash));
            }
            for (&key, &hash) in candidates.iter().zip(&hashes).take(candidate_count) {
                let index = usize::from(key) % BATCH;
                found[index] = self.verify(hash, &keys[index], found[index]);
            }
            let mut kept_count = 0;
            for at in 0..active_count.min(BATCH) {
                let index = usize::from(active[at]) % BATCH;
                tuples[index] &= tuples[index] - 1;
                // If no tuple is left, the index is `MAX_TUPLES`, and `best` is `u32::MAX`, so the
                // key is not kept.
                let best = self.best_rules[tuples[index].trailing_zeros() as usize];
                active[kept_count % BATCH] = index as u8;
                kept_count += usize::from(best < found[index]);
            }
            active_count = kept_count;
        }
    }

    /// Like [`Self::search_buckets`] with `from` 0, but faster in the usual case of one bucket with
    /// one rule.
    #[inline]
    fn verify(&self, hash: u64, key: &Packed<N>, found: u32) -> u32 {
        let Some(first) = self.table.single_candidate(hash) else {
            return self.search_buckets(hash, key, 0, found);
        };
        let entry = &self.entries[first as usize];
        if !entry.is_last {
            return self.search_bucket(first, key, 0, found);
        }
        found.min(select_unpredictable(entry.matches(key), entry.rule, NONE))
    }

    /// Searches all buckets of a hash for the smallest matching rule that is at least `from` and
    /// below `found`. Without one, returns `found`.
    fn search_buckets(&self, hash: u64, key: &Packed<N>, from: u32, found: u32) -> u32 {
        self.table.get(hash).fold(found, |found, first| self.search_bucket(first, key, from, found))
    }

    /// `first` is the index of the bucket's first entry.
    #[inline]
    fn search_bucket(&self, first: u32, key: &Packed<N>, from: u32, found: u32) -> u32 {
        for entry in &self.entries[first as usize..] {
            if entry.rule >= found {
                break;
            }
            if entry.rule >= from && entry.matches(key) {
                return entry.rule;
            }
            if entry.is_last {
                break;
            }
        }
        found
    }

    /// Calls `f` with the index of the first entry of each bucket that can contain a matching rule.
    /// Without tuples, all entries are one bucket.
    #[inline]
    pub(super) fn for_each_bucket(&self, key: &Packed<N>, mut f: impl FnMut(u32)) {
        let Some(prune) = &self.prune else { return f(0) };
        let mut tuples = prune.tuples(key);
        while tuples != 0 {
            let tuple = &self.tuples[tuples.trailing_zeros() as usize];
            self.table.get(hash(key, &tuple.mask, self.seed, tuple.seed)).for_each(&mut f);
            tuples &= tuples - 1;
        }
    }

    /// Returns the index of the first matching entry from the index `first` to the end of its
    /// bucket, among those whose rule is at least `from`.
    #[inline]
    pub(super) fn next_match(&self, key: &Packed<N>, first: u32, from: u32) -> Option<u32> {
        for (index, entry) in (first..).zip(&self.entries[first as usize..]) {
            if entry.rule >= from && entry.matches(key) {
                return Some(index);
            }
            if entry.is_last {
                break;
            }
        }
        None
    }

    pub(super) fn shape(&self) -> Vec<TupleShape> {
        self.tuples.iter().map(|tuple| tuple.shape).collect()
    }

    /// Returns an upper bound of how many entries one key is compared with: one longest bucket per
    /// tuple.
    pub(super) fn max_compared(&self) -> usize {
        match self.prune {
            None => self.entries.len(),
            Some(_) => self.tuples.iter().map(|tuple| tuple.shape.longest_bucket).sum(),
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&self.tuples[..])
            + self.table.memory()
            + self.prune.as_ref().map_or(0, Prune::memory)
            + size_of_val(&self.entries[..])
    }
}

fn best_rule<const N: usize>(patterns: &[Pattern<N>], buckets: &[Vec<u32>]) -> u32 {
    buckets.iter().flatten().map(|&index| patterns[index as usize].rule).min().unwrap_or(u32::MAX)
}

/// Hashes the bits of the key that `mask` selects, without the last word.
#[inline]
fn hash<const N: usize>(key: &Packed<N>, mask: &Packed<N>, seed: u64, tuple_seed: u64) -> u64 {
    let word = |index: usize| key[index] & mask[index];
    if N == V4_WORDS {
        fold(word(0) ^ seed, word(1) ^ tuple_seed)
    } else {
        let source = fold(word(0) ^ seed, word(1) ^ SEEDS[2]);
        let destination = fold(word(2) ^ SEEDS[3], word(3) ^ tuple_seed);
        fold(source ^ destination.rotate_left(32), word(N - 2) ^ SEEDS[4])
    }
}

/// Constants without structure, from the fractional part of pi.
const SEEDS: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// Returns the exclusive or of both halves of the 128-bit product, in which each input bit affects
/// higher and lower bits.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
