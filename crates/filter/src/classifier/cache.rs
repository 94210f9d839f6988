//! A worker's flow cache, which stores the classifier's results for earlier keys.
//!
//! The hash of a key determines its slot; a new key replaces the key in its slot. A lookup compares
//! the whole key, so the cache never changes a result. With many more flows than slots, most
//! lookups miss; a miss costs the classifier's lookup, a read and a write of the slot.

use super::space::{BATCH, NONE, Space, fold};
use crate::key::{Packed, V4_WORDS, V6_WORDS};

/// 64-bit words per slot: a key, its result, and padding that keeps each slot within one cache
/// line.
const V4_SLOT_WORDS: usize = 4;
const V6_SLOT_WORDS: usize = 8;

/// A worker's cache of classifier results.
#[derive(Debug)]
pub struct FlowCache {
    pub(super) v4: Slots<V4_WORDS, V4_SLOT_WORDS>,
    pub(super) v6: Slots<V6_WORDS, V6_SLOT_WORDS>,
}

impl FlowCache {
    /// Maximum number of slots per IP version.
    pub const MAX_SLOTS: usize = 1 << 20;

    /// Creates a cache with `slots` slots per IP version, at least 64 and at most
    /// [`Self::MAX_SLOTS`], rounded up to a power of two. Keep `seed` secret: who knows it can
    /// choose flows that replace each other. The kernel allocates each page when a flow first uses
    /// it.
    pub fn new(slots: usize, seed: u64) -> Self {
        let slots = slots.clamp(BATCH, Self::MAX_SLOTS).next_power_of_two();
        Self { v4: Slots::new(slots, seed), v6: Slots::new(slots, seed) }
    }

    /// Returns hits and misses of both IP versions.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.v4.hits + self.v6.hits, self.v4.misses + self.v6.misses)
    }
}

#[derive(Debug)]
pub(super) struct Slots<const N: usize, const W: usize> {
    words: Vec<u64>,
    /// Index in `words` of the first slot, at the start of a cache line.
    start: usize,
    seed: u64,
    /// Right shift that turns a hash into a slot number.
    shift: u32,
    hits: u64,
    misses: u64,
}

const CACHE_LINE: usize = 64;

/// A bit in every stored result, so that an unused slot (all zeros) differs from every used slot.
const USED: u64 = 1 << 32;

impl<const N: usize, const W: usize> Slots<N, W> {
    fn new(slots: usize, seed: u64) -> Self {
        // Allocating zeros is fast, because the kernel maps the pages lazily. A worker creates the
        // cache between two batches.
        let words = vec![0_u64; slots * W + CACHE_LINE / size_of::<u64>()];
        let start = words.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE / size_of::<u64>());
        Self { words, start, seed, shift: 64 - slots.trailing_zeros(), hits: 0, misses: 0 }
    }

    #[inline]
    fn slot_index(&self, key: &Packed<N>) -> usize {
        let hash = key.iter().fold(self.seed, |hash, word| fold(hash ^ word, MULTIPLIER));
        self.start + (hash >> self.shift) as usize * W
    }

    /// Like [`Space::classify`], with a cache in front of `space`.
    #[inline]
    pub(super) fn classify(
        &mut self,
        space: &Space<N>,
        keys: &[Packed<N>],
        found: &mut [u32; BATCH],
    ) {
        let keys = &keys[..keys.len().min(BATCH)];
        let mut starts = [0; BATCH];
        for (start, key) in starts.iter_mut().zip(keys) {
            *start = self.slot_index(key);
        }
        let (mut missed_keys, mut missed_indexes, mut miss_count) =
            ([[0; N]; BATCH], [0_u8; BATCH], 0);
        for (index, (key, &start)) in keys.iter().zip(&starts).enumerate() {
            let slot = &self.words[start..start + W];
            let differing =
                key.iter().zip(slot).fold(0, |differing, (key, slot)| differing | (key ^ slot));
            let stored = slot[N]; // the result, after the `N` words of the key
            found[index] = stored as u32;
            // Store every key, to avoid a branch: after a hit, the next key replaces this one.
            missed_keys[miss_count % BATCH] = *key;
            missed_indexes[miss_count % BATCH] = index as u8;
            miss_count += usize::from(differing != 0 || stored == 0);
        }
        self.misses += miss_count as u64;
        self.hits += (keys.len() - miss_count) as u64;
        if miss_count == 0 {
            return;
        }
        let mut looked_up = [NONE; BATCH];
        space.classify(&missed_keys[..miss_count], &mut looked_up);
        for ((key, &index), &rule) in
            missed_keys.iter().zip(&missed_indexes).zip(&looked_up).take(miss_count)
        {
            let index = usize::from(index) % BATCH;
            found[index] = rule;
            let slot = &mut self.words[starts[index]..starts[index] + W];
            slot[..N].copy_from_slice(key);
            slot[N] = USED | u64::from(rule);
        }
    }
}

/// Odd, with well-distributed bits.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
