//! A batch: the frames that go through the pipeline together.

use std::mem;

use crate::fill::fill;
use crate::frame::Frame;

/// Up to [`Batch::CAPACITY`] frames, in order. A place may be empty after its frame was taken.
#[derive(Debug)]
pub struct Batch {
    frames: [Option<Frame>; Self::CAPACITY],
    len: usize,
}

impl Batch {
    /// Places in a batch.
    pub const CAPACITY: usize = 64;

    /// An empty batch.
    pub fn new() -> Self {
        Self { frames: [const { None }; Self::CAPACITY], len: 0 }
    }

    /// Places used, those whose frame was taken included.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no place is used.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places left.
    #[inline]
    pub fn room(&self) -> usize {
        Self::CAPACITY - self.len
    }

    /// Adds a frame at the end; hands it back if the batch is full.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        match self.frames.get_mut(self.len) {
            Some(place) => {
                *place = Some(frame);
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Adds frames at the end, as many as there is room for. Returns how many.
    #[inline]
    pub(crate) fn push_all(&mut self, frames: impl Iterator<Item = Frame>) -> usize {
        let places = &mut self.frames[self.len..];
        let came = fill(places, frames, |place, frame| {
            // A place behind the end is empty. Assigned to, it would be looked at, to drop what is
            // there.
            let before = place.replace(frame);
            debug_assert!(before.is_none(), "a place behind the end has a frame");
            mem::forget(before);
        });
        self.len += came;
        came
    }

    /// The used places.
    #[inline]
    pub fn places(&self) -> &[Option<Frame>] {
        &self.frames[..self.len]
    }

    /// The used places; a frame may be taken out of its place.
    #[inline]
    pub fn places_mut(&mut self) -> &mut [Option<Frame>] {
        &mut self.frames[..self.len]
    }

    /// Gives up the places from `len` on. Their frames must have been taken: one that is still
    /// there is lost.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            self.len -= 1;
            self.frames[self.len] = None;
        }
    }

    /// Says that every frame was taken: the batch is empty again. In a debug build this is checked;
    /// in others a frame that is still there is lost, and may count as held for ever.
    #[inline]
    pub fn clear_taken(&mut self) {
        debug_assert!(self.places().iter().all(Option::is_none), "a frame is still in the batch");
        self.len = 0;
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}
