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

    /// Adds frames at the end while there is room. Returns how many.
    #[inline]
    pub(crate) fn push_all(&mut self, frames: impl Iterator<Item = Frame>) -> usize {
        let slots = &mut self.frames[self.len..];
        let pushed = fill(slots, frames, |slot, frame| {
            // Slots beyond the end are empty. An assignment would check the old value in order to
            // drop it.
            let before = slot.replace(frame);
            debug_assert!(before.is_none(), "a slot beyond the end contains a frame");
            mem::forget(before);
        });
        self.len += pushed;
        pushed
    }

    /// Returns the used slots.
    #[inline]
    pub fn slots(&self) -> &[Option<Frame>] {
        &self.frames[..self.len]
    }

    /// Returns the used slots; a frame may be taken out of its slot.
    #[inline]
    pub fn slots_mut(&mut self) -> &mut [Option<Frame>] {
        &mut self.frames[..self.len]
    }

    /// Removes the slots from `len` on. Their frames must have been taken: a remaining frame is
    /// lost.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            self.len -= 1;
            self.frames[self.len] = None;
        }
    }

    /// Empties the batch, whose frames must all have been taken. Checked in debug builds; in others
    /// a remaining frame is lost, and may be counted as held forever.
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
