//! Batches: frames that pass through the pipeline together.

use std::mem;

use crate::fill::fill;
use crate::frame::Frame;

/// Up to [`Batch::CAPACITY`] frames, in order. A slot is empty after its frame was taken.
#[derive(Debug)]
pub struct Batch {
    frames: [Option<Frame>; Self::CAPACITY],
    len: usize,
}

impl Batch {
    /// Maximum number of slots.
    pub const CAPACITY: usize = 64;

    /// Creates an empty batch.
    pub fn new() -> Self {
        Self { frames: [const { None }; Self::CAPACITY], len: 0 }
    }

    /// Returns the number of used slots, including those whose frame was taken.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no slot is used.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of free slots.
    #[inline]
    pub fn room(&self) -> usize {
        Self::CAPACITY - self.len
    }

    /// Adds a frame at the end; returns it if the batch is full.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        match self.frames.get_mut(self.len) {
            Some(slot) => {
                *slot = Some(frame);
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Adds frames at the end until the batch is full. Returns the number of added frames.
    #[inline]
    pub(crate) fn push_all(&mut self, frames: impl Iterator<Item = Frame>) -> usize {
        let slots = &mut self.frames[self.len..];
        let pushed = fill(slots, frames, |slot, frame| {
            // Unused slots are empty. An assignment would nevertheless check whether the slot
            // contains a frame to drop.
            let old = slot.replace(frame);
            debug_assert!(old.is_none(), "an unused slot contains a frame");
            mem::forget(old);
        });
        self.len += pushed;
        pushed
    }

    /// Returns the used slots.
    #[inline]
    pub fn slots(&self) -> &[Option<Frame>] {
        &self.frames[..self.len]
    }

    /// Returns the used slots, mutable, so that callers can take frames out of them.
    #[inline]
    pub fn slots_mut(&mut self) -> &mut [Option<Frame>] {
        &mut self.frames[..self.len]
    }

    /// Keeps the first `len` slots and removes the others. A frame in a removed slot is lost.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            self.len -= 1;
            self.frames[self.len] = None;
        }
    }

    /// Empties the batch. Callers must have taken all frames: debug builds panic if a frame
    /// remains. In other builds, a remaining frame is lost or counted as held forever.
    #[inline]
    pub fn clear_taken(&mut self) {
        debug_assert!(self.slots().iter().all(Option::is_none), "a frame is still in the batch");
        self.len = 0;
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}
