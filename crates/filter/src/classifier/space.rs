//! The tuples of one IP version, and the table that they share.

use super::layout::{self, Laid};
use super::pattern::{Bits, Pattern};
use super::{Classifier, TupleShape};
use crate::key::{Packed, V4, ports};

const BATCH: usize = Classifier::BATCH;

/// Rules of one IP version, to be looked up.
#[derive(Clone, Debug)]
pub(super) struct Space<const N: usize> {
    /// In the order of the best rule of each. None if there are so few rules that all are compared.
    tuples: Vec<Tuple<N>>,
    /// The hash table of all tuples: a power of two of them, at most half of them in use.
    slots: Vec<Slot>,
    /// Buckets, one behind the other, each in the order of the rules.
    entries: Vec<Entry<N>>,
    shift: u32,
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

/// Where a bucket is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// A part of the hash.
    tag: u32,
    /// The first entry; `EMPTY` if there is no bucket.
    first: u32,
}

const EMPTY: u32 = u32::MAX;

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
            return Self { tuples: Vec::new(), slots: Vec::new(), entries, shift: 0, seed };
        }
        let Laid { tuples: laid, buckets } = layout::lay_out(&patterns);
        let size = (2 * buckets).next_power_of_two().max(16);
        let mut space = Self {
            tuples: Vec::with_capacity(laid.len()),
            slots: vec![Slot { tag: 0, first: EMPTY }; size],
            entries: Vec::with_capacity(patterns.len()),
            shift: 64 - size.trailing_zeros(),
            seed,
        };
        for (number, (bits, members)) in (1_u64..).zip(laid) {
            let tuple_seed = fold(seed ^ number.wrapping_mul(SEEDS[0]), SEEDS[1]);
            space.add_tuple(bits, tuple_seed, &members, |index, last| entry(&patterns[index as usize], last));
        }
        space.tuples.sort_by_key(|tuple| tuple.best);
        space
    }

    /// Members come in buckets, each in the order of the rules.
    fn add_tuple(&mut self, bits: Bits, seed: u64, members: &[Vec<u32>], entry: impl Fn(u32, bool) -> Entry<N>) {
        let mask: Packed<N> = bits.mask();
        let mut best = u32::MAX;
        for bucket in members {
            let first = self.entries.len();
            let last = bucket.len().saturating_sub(1);
            self.entries.extend(bucket.iter().enumerate().map(|(place, &index)| entry(index, place == last)));
            let Some(head) = self.entries.get(first) else { continue };
            best = best.min(head.rule);
            let hash = self.hash(&head.value, &mask, seed);
            let mut at = (hash >> self.shift) as usize;
            while self.slots[at].first != EMPTY {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = Slot { tag: hash as u32, first: first as u32 };
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

    /// Of the bits of a key that a tuple looks at.
    #[inline]
    fn hash(&self, key: &Packed<N>, mask: &Packed<N>, seed: u64) -> u64 {
        let word = |index: usize| key[index] & mask[index];
        if N == V4 {
            fold(word(0) ^ self.seed, word(1) ^ seed)
        } else {
            let (source, destination) =
                (fold(word(0) ^ self.seed, word(1) ^ SEEDS[2]), fold(word(2) ^ SEEDS[3], word(3) ^ seed));
            fold(source ^ destination.rotate_left(32), word(N - 2) ^ SEEDS[4])
        }
    }

    #[inline]
    pub(super) fn first_match(&self, key: &Packed<N>, from: u32) -> Option<u32> {
        if self.tuples.is_empty() {
            return self.entries.iter().find(|entry| entry.rule >= from && entry.matches(key)).map(|entry| entry.rule);
        }
        let mut found = Classifier::NONE;
        for tuple in &self.tuples {
            if tuple.best >= found {
                break;
            }
            let hash = self.hash(key, &tuple.mask, tuple.seed);
            let slot = self.slots[(hash >> self.shift) as usize];
            if slot.first != EMPTY {
                found = self.probe(key, hash, slot, from, found);
            }
        }
        Some(found).filter(|found| *found != Classifier::NONE)
    }

    /// The keys at some places: what was found is lowered to the first rule that matches.
    #[inline]
    pub(super) fn classify(&self, keys: &[Packed<N>; BATCH], places: &[u8], found: &mut [u32; BATCH]) {
        if self.tuples.is_empty() {
            for (key, place) in keys.iter().zip(places) {
                let first = self.entries.iter().find(|entry| entry.matches(key));
                found[usize::from(*place) % BATCH] = first.map_or(Classifier::NONE, |entry| entry.rule);
            }
            return;
        }
        let mut best = [Classifier::NONE; BATCH];
        let (mut hashes, mut slots) = ([0; BATCH], [Slot { tag: 0, first: EMPTY }; BATCH]);
        let mut open = [0_u8; BATCH];
        let mut left = places.len().min(BATCH);
        for (index, place) in (0..).zip(&mut open) {
            *place = index;
        }
        for tuple in &self.tuples {
            // Those that nothing better can be found for are done.
            let mut still = 0;
            for place in 0..left {
                let index = open[place];
                open[still] = index;
                still += usize::from(best[usize::from(index) % BATCH] > tuple.best);
            }
            left = still;
            if left == 0 {
                break;
            }
            // One after the other, so that all loads are on their way before the first is waited for.
            for (place, index) in open[..left].iter().enumerate() {
                let hash = self.hash(&keys[usize::from(*index) % BATCH], &tuple.mask, tuple.seed);
                hashes[place] = hash;
                slots[place] = self.slots[(hash >> self.shift) as usize];
            }
            for (place, index) in open[..left].iter().enumerate() {
                if slots[place].first != EMPTY {
                    let index = usize::from(*index) % BATCH;
                    best[index] = self.probe(&keys[index], hashes[place], slots[place], 0, best[index]);
                }
            }
        }
        for (best, place) in best.iter().zip(places) {
            found[usize::from(*place) % BATCH] = *best;
        }
    }

    /// Looks from a slot on for the bucket of this hash, and in it for a rule that is better than what was found.
    #[inline]
    fn probe(&self, key: &Packed<N>, hash: u64, mut slot: Slot, from: u32, mut found: u32) -> u32 {
        let mut at = (hash >> self.shift) as usize;
        while slot.first != EMPTY {
            if slot.tag == hash as u32 {
                for entry in &self.entries[slot.first as usize..] {
                    if entry.rule >= found {
                        break;
                    }
                    if entry.rule >= from && entry.matches(key) {
                        found = entry.rule;
                        break;
                    }
                    if entry.last {
                        break;
                    }
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
            slot = self.slots[at];
        }
        found
    }

    pub(super) fn shape(&self) -> Vec<TupleShape> {
        self.tuples.iter().map(|tuple| tuple.shape).collect()
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&self.tuples[..]) + size_of_val(&self.slots[..]) + size_of_val(&self.entries[..])
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
