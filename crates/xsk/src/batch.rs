//! Batches: frames that pass through the pipeline together.

use std::mem;

use crate::frame::Frame;
use crate::slots::put_into_slots;

/// Up to [`Batch::CAPACITY`] frames, in order. A slot whose frame was taken stays as `None`, and
/// [`len`](Self::len) still counts it.
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

    /// Returns the number of slots, including slots whose frame was taken.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the batch has no slot, not even one whose frame was taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of frames that can still be added.
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

    /// Adds frames until the batch is full. Returns the number of added frames.
    #[inline]
    pub(crate) fn push_all(&mut self, frames: impl Iterator<Item = Frame>) -> usize {
        let slots = &mut self.frames[self.len..];
        let pushed = put_into_slots(slots, frames, |slot, frame| {
            // Slots after `len` are `None`. An assignment would nevertheless check for a frame to
            // drop; `replace` and `forget` do not.
            let old = slot.replace(frame);
            debug_assert!(old.is_none(), "a slot after `len` contains a frame");
            mem::forget(old);
        });
        self.len += pushed;
        pushed
    }

    /// Returns the slots of the batch.
    #[inline]
    pub fn slots(&self) -> &[Option<Frame>] {
        &self.frames[..self.len]
    }

    /// Returns the slots; callers can take frames out of them.
    #[inline]
    pub fn slots_mut(&mut self) -> &mut [Option<Frame>] {
        &mut self.frames[..self.len]
    }

    /// Keeps the first `len` slots. The frames in other slots are dropped, so their chunks are lost
    /// (see [`Frame`]).
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            self.len -= 1;
            self.frames[self.len] = None;
        }
    }

    /// Empties the batch, whose frames must all have been taken. Otherwise, debug builds panic, and
    /// in release builds the remaining frames' chunks never return to the pool.
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
