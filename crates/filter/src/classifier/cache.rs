//! A flow cache: what the classifier found for keys that came before. One worker's.
//!
//! A slot for each hash: a flow takes the place of the one that was there. A key is compared whole,
//! so nothing but a lookup is saved, and nothing but time is lost: to traffic of more flows than
//! slots, a look and a write for each packet.

use super::space::{BATCH, NONE, Space, fold};
use crate::key::{Packed, V4, V6};

/// Words of a slot: a key, and what was found.
const SLOT_V4: usize = 4;
const SLOT_V6: usize = 8;

/// What was found for keys that came before.
#[derive(Debug)]
pub struct FlowCache {
    pub(super) v4: Slots<V4, SLOT_V4>,
    pub(super) v6: Slots<V6, SLOT_V6>,
}

impl FlowCache {
    /// Slots of each IP version that it has at most.
    pub const MOST: usize = 1 << 20;

    /// With so many slots for each IP version, or some more: a power of two. `seed` is what an
    /// outsider must not know, who otherwise could choose flows that take each other's place.
    /// Memory is used as flows come.
    pub fn new(slots: usize, seed: u64) -> Self {
        let slots = slots.clamp(BATCH, Self::MOST).next_power_of_two();
        Self { v4: Slots::new(slots, seed), v6: Slots::new(slots, seed) }
    }

    /// Keys that were there, and keys that had to be looked up.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.v4.hits + self.v6.hits, self.v4.misses + self.v6.misses)
    }
}

/// The slots of one IP version.
#[derive(Debug)]
pub(super) struct Slots<const N: usize, const W: usize> {
    words: Vec<u64>,
    /// Where the first slot begins: none lies across two cache lines.
    start: usize,
    seed: u64,
    shift: u32,
    hits: u64,
    misses: u64,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Set in what was found, so that it is never zero: memory that nobody wrote to is zero.
const USED: u64 = 1 << 32;

impl<const N: usize, const W: usize> Slots<N, W> {
    fn new(slots: usize, seed: u64) -> Self {
        // Zeros, for the kernel to make pages of when they are touched: a worker builds this
        // between two batches.
        let words = vec![0_u64; slots * W + LINE / size_of::<u64>()];
        let start = words.as_ptr().align_offset(LINE).min(LINE / size_of::<u64>());
        Self { words, start, seed, shift: 64 - slots.trailing_zeros(), hits: 0, misses: 0 }
    }

    #[inline]
    fn place(&self, key: &Packed<N>) -> usize {
        let hash = key.iter().fold(self.seed, |hash, word| fold(hash ^ word, SPREAD));
        self.start + (hash >> self.shift) as usize * W
    }

    /// The first rule that matches each of some keys, asking the space for those that are not
    /// there.
    #[inline]
    pub(super) fn classify(
        &mut self,
        space: &Space<N>,
        keys: &[Packed<N>],
        found: &mut [u32; BATCH],
    ) {
        let keys = &keys[..keys.len().min(BATCH)];
        let mut places = [0; BATCH];
        for (place, key) in places.iter_mut().zip(keys) {
            *place = self.place(key);
        }
        let (mut missing, mut missed, mut count) = ([[0; N]; BATCH], [0_u8; BATCH], 0);
        for (index, (key, &place)) in keys.iter().zip(&places).enumerate() {
            let slot = &self.words[place..place + W];
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
            let slot = &mut self.words[places[index]..places[index] + W];
            slot[..N].copy_from_slice(key);
            slot[N] = USED | u64::from(rule);
        }
    }
}

/// An odd number whose bits are all over the place.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
