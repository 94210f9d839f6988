//! A worker's flow cache: results of the classifier for earlier keys.
//!
//! Each hash has one slot, and a new flow replaces the previous one. The whole key is compared, so
//! results never change. With more flows than slots, the cache costs one read and one write per
//! packet.

use super::space::{BATCH, NONE, Space, fold};
use crate::key::{Packed, V4, V6};

/// Words of a slot: a key and its result.
const SLOT_V4: usize = 4;
const SLOT_V6: usize = 8;

/// Cached classifier results.
#[derive(Debug)]
pub struct FlowCache {
    pub(super) v4: Slots<V4, SLOT_V4>,
    pub(super) v6: Slots<V6, SLOT_V6>,
}

impl FlowCache {
    /// Maximum number of slots per IP version.
    pub const MAX_SLOTS: usize = 1 << 20;

    /// Creates a cache with `slots` slots per IP version, rounded up to a power of two. Keep `seed`
    /// secret: with it, an attacker can choose flows that replace each other. Memory is allocated
    /// as flows arrive.
    pub fn new(slots: usize, seed: u64) -> Self {
        let slots = slots.clamp(BATCH, Self::MAX_SLOTS).next_power_of_two();
        Self { v4: Slots::new(slots, seed), v6: Slots::new(slots, seed) }
    }

    /// Returns the numbers of cache hits and misses.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.v4.hits + self.v6.hits, self.v4.misses + self.v6.misses)
    }
}

/// The slots of one IP version.
#[derive(Debug)]
pub(super) struct Slots<const N: usize, const W: usize> {
    words: Vec<u64>,
    /// Index of the first slot, aligned so that no slot spans two cache lines.
    start: usize,
    seed: u64,
    shift: u32,
    hits: u64,
    misses: u64,
}

/// Length of a cache line in bytes.
const LINE: usize = 64;

/// Set in every result: unused slots are zero.
const USED: u64 = 1 << 32;

impl<const N: usize, const W: usize> Slots<N, W> {
    fn new(slots: usize, seed: u64) -> Self {
        // Zeros are mapped lazily by the kernel: a worker builds the cache between two batches.
        let words = vec![0_u64; slots * W + LINE / size_of::<u64>()];
        let start = words.as_ptr().align_offset(LINE).min(LINE / size_of::<u64>());
        Self { words, start, seed, shift: 64 - slots.trailing_zeros(), hits: 0, misses: 0 }
    }

    /// Returns the index of the first word of the slot of a key.
    #[inline]
    fn slot_index(&self, key: &Packed<N>) -> usize {
        let hash = key.iter().fold(self.seed, |hash, word| fold(hash ^ word, SPREAD));
        self.start + (hash >> self.shift) as usize * W
    }

    /// Returns the first match of each key. Looks up keys that are not cached in `space`.
    #[inline]
    pub(super) fn classify(
        &mut self,
        space: &Space<N>,
        keys: &[Packed<N>],
        found: &mut [u32; BATCH],
    ) {
        let keys = &keys[..keys.len().min(BATCH)];
        let mut slots = [0; BATCH];
        for (slot, key) in slots.iter_mut().zip(keys) {
            *slot = self.slot_index(key);
        }
        let (mut missing, mut missed, mut count) = ([[0; N]; BATCH], [0_u8; BATCH], 0);
        for (index, (key, &start)) in keys.iter().zip(&slots).enumerate() {
            let slot = &self.words[start..start + W];
            let differing =
                key.iter().zip(slot).fold(0, |differing, (key, slot)| differing | (key ^ slot));
            let stored = slot[N];
            found[index] = stored as u32;
            missing[count % BATCH] = *key;
            missed[count % BATCH] = index as u8;
            count += usize::from(differing != 0 || stored == 0);
        }
        self.misses += count as u64;
        self.hits += (keys.len() - count) as u64;
        if count == 0 {
            return;
        }
        let mut looked_up = [NONE; BATCH];
        space.classify(&missing[..count], &mut looked_up);
        for ((key, &index), &rule) in missing.iter().zip(&missed).zip(&looked_up).take(count) {
            let index = usize::from(index) % BATCH;
            found[index] = rule;
            let slot = &mut self.words[slots[index]..slots[index] + W];
            slot[..N].copy_from_slice(key);
            slot[N] = USED | u64::from(rule);
        }
    }
}

/// An odd constant with well-distributed bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
