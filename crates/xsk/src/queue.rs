//! Egress queues.

use std::fmt;
use std::mem;
use std::ptr::NonNull;

use crate::abi::ETH_HLEN;
use crate::batch::Batch;
use crate::frame::Frame;
use crate::umem::Umem;

/// A bounded queue of frames to be transmitted by a port. It returns a frame that does not fit, so
/// that the caller can drop and count it. Waiting for room would delay all other packets.
///
/// Accessing a frame after pushing it does not compile:
///
/// ```compile_fail,E0382
/// use xdpfwd_xsk::{EgressQueue, Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let mut queue = EgressQueue::new(&umem, 64);
/// let mut frame = pool.alloc().unwrap();
/// frame.append(60).unwrap().fill(0);
/// queue.push(frame).unwrap();
/// frame[0] = 1; // borrow of moved value
/// # Ok::<(), xdpfwd_xsk::UmemError>(())
/// ```
///
/// Without this use, the example compiles:
///
/// ```
/// use xdpfwd_xsk::{EgressQueue, Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let mut queue = EgressQueue::new(&umem, 64);
/// let mut frame = pool.alloc().unwrap();
/// frame.append(60).unwrap().fill(0);
/// queue.push(frame).unwrap();
/// # Ok::<(), xdpfwd_xsk::UmemError>(())
/// ```
pub struct EgressQueue {
    // Declared before `umem`, so dropped earlier: otherwise the frames would keep the UMEM mapped.
    /// A ring of power-of-two size. The slots from `head` (included) to `tail` (excluded) are used;
    /// both counters wrap.
    slots: Box<[Option<Frame>]>,
    head: usize,
    tail: usize,
    capacity: usize,
    umem: Umem,
}

/// The reason why a queue rejected a frame; contains the frame.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The queue is full.
    #[error("the egress queue is full")]
    Full(Frame),
    /// The packet is shorter than an Ethernet header: the kernel would never complete it.
    #[error("{0:?} is shorter than an Ethernet header")]
    Runt(Frame),
    /// The frame belongs to another UMEM.
    #[error("{0:?} belongs to another UMEM")]
    Foreign(Frame),
}

impl EgressQueue {
    /// Creates a queue for at most `capacity` frames of this UMEM.
    ///
    /// # Panics
    /// If the capacity exceeds 2³¹.
    pub fn new(umem: &Umem, capacity: usize) -> Self {
        assert!(
            capacity <= 1 << 31,
            "capacity {capacity} of an egress queue is above the limit of 2^31"
        );
        let slots = (0..capacity.next_power_of_two()).map(|_| None).collect();
        Self { slots, head: 0, tail: 0, capacity, umem: umem.clone() }
    }

    /// Adds a frame; the error contains a rejected frame.
    ///
    /// ```
    /// # use xdpfwd_xsk::{EgressQueue, PushError, Umem, UmemConfig};
    /// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
    /// let (_other_umem, mut other_pool) = Umem::new(&UmemConfig::default())?;
    /// let mut queue = EgressQueue::new(&umem, 64);
    /// let mut frame = other_pool.alloc().unwrap();
    /// frame.append(60).unwrap().fill(0);
    /// let Err(PushError::Foreign(frame)) = queue.push(frame) else { panic!() };
    /// other_pool.free(frame).unwrap();
    /// let Err(PushError::Runt(frame)) = queue.push(pool.alloc().unwrap()) else { panic!() };
    /// pool.free(frame).unwrap();
    /// # Ok::<(), xdpfwd_xsk::UmemError>(())
    /// ```
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), PushError> {
        let mut result = Ok(());
        self.extend([frame], |error| result = Err(error));
        result
    }

    /// Moves all frames of a batch to the queue and empties the batch. Calls `on_reject` for each
    /// rejected frame.
    #[inline]
    pub fn push_batch(&mut self, batch: &mut Batch, on_reject: impl FnMut(PushError)) {
        self.extend(batch.slots_mut().iter_mut().filter_map(Option::take), on_reject);
        batch.clear_taken();
    }

    #[inline]
    fn extend(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
        mut on_reject: impl FnMut(PushError),
    ) {
        // Use local copies: otherwise, the compiler must assume that each written frame changes the
        // fields, and reload them.
        let (mask, end) = (self.slots.len() - 1, self.head.wrapping_add(self.capacity));
        let (slots, region, mut tail) =
            (&mut *self.slots, NonNull::from(self.umem.region()), self.tail);
        for frame in frames {
            let error = if tail == end {
                PushError::Full(frame)
            } else if frame.len() < ETH_HLEN {
                PushError::Runt(frame)
            } else if frame.region() != region {
                PushError::Foreign(frame)
            } else {
                // Unused slots are `None`. An assignment would nevertheless check for a frame to
                // drop; `replace` and `forget` do not.
                let old = slots[tail & mask].replace(frame);
                debug_assert!(old.is_none(), "an unused slot contains a frame");
                mem::forget(old);
                tail = tail.wrapping_add(1);
                continue;
            };
            // The closure can panic: keep the frames pushed so far in the queue.
            self.tail = tail;
            on_reject(error);
        }
        self.tail = tail;
    }

    /// Removes the frame at the front.
    #[inline]
    pub fn pop(&mut self) -> Option<Frame> {
        self.drain(1).next()
    }

    /// Iterates over the waiting frames, from the front, without removing them.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        let mask = self.slots.len() - 1;
        (0..self.len()).filter_map(move |n| self.slots[self.head.wrapping_add(n) & mask].as_ref())
    }

    /// Removes the first `n` frames (all, if there are fewer) immediately. Frames not taken from
    /// the returned iterator are lost when it is dropped, and counted as held forever if it is
    /// forgotten (`mem::forget`).
    #[inline]
    pub fn drain(&mut self, n: usize) -> impl ExactSizeIterator<Item = Frame> {
        let start = self.head;
        self.head = start.wrapping_add(n.min(self.len()));
        Drain { slots: &mut self.slots, position: start, end: self.head }
    }

    /// Returns the UMEM whose frames the queue accepts.
    #[inline]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Returns the number of frames for which the queue has room.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity - self.len()
    }

    /// Returns the number of waiting frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    /// Returns whether the queue is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tail == self.head
    }
}

struct Drain<'a> {
    slots: &'a mut [Option<Frame>],
    position: usize,
    end: usize,
}

impl Iterator for Drain<'_> {
    type Item = Frame;

    #[inline]
    fn next(&mut self) -> Option<Frame> {
        if self.position == self.end {
            return None;
        }
        let mask = self.slots.len() - 1;
        let frame = self.slots[self.position & mask].take();
        self.position = self.position.wrapping_add(1);
        debug_assert!(frame.is_some(), "a used slot is empty");
        frame
    }

    /// `Reservation::extend` in `ring.rs` relies on this length.
    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = self.end.wrapping_sub(self.position);
        (remaining, Some(remaining))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl fmt::Debug for EgressQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressQueue")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;
    use crate::{HugePages, Pool, UmemConfig};

    fn umem() -> (Umem, Pool) {
        Umem::new(&UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() })
            .unwrap()
    }

    fn frame(pool: &mut Pool, len: usize) -> Frame {
        let mut frame = pool.alloc().unwrap();
        frame.append(len).unwrap();
        frame
    }

    proptest! {
        /// Compares the queue with a `VecDeque`, for any capacity and with counters that wrap.
        #[test]
        fn egress_queue_matches_a_bounded_queue(
            capacity in 0..70usize,
            before_wrap in 0..100usize,
            steps in prop::collection::vec((0..4u8, 0..70usize), 1..60),
        ) {
            let (umem, mut pool) = umem();
            let mut queue = EgressQueue::new(&umem, capacity);
            (queue.head, queue.tail) = (usize::MAX - before_wrap, usize::MAX - before_wrap);
            let mut expected = VecDeque::new();
            for (kind, n) in steps {
                match kind {
                    0 => {
                        let frame = frame(&mut pool, 60);
                        let chunk = frame.chunk();
                        match queue.push(frame) {
                            Ok(()) => expected.push_back(chunk),
                            Err(PushError::Full(frame)) => {
                                prop_assert_eq!(expected.len(), capacity);
                                pool.free(frame).unwrap();
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                    1 => {
                        let mut batch = Batch::new();
                        let mut rejected = Vec::new();
                        // Every seventh frame is a runt.
                        for index in 0..n.min(Batch::CAPACITY) {
                            let len = if index % 7 == 6 { 13 } else { 60 };
                            let frame = frame(&mut pool, len);
                            if len == 60 && expected.len() < capacity {
                                expected.push_back(frame.chunk());
                            } else {
                                rejected.push(frame.chunk());
                            }
                            batch.push(frame).unwrap();
                        }
                        queue.push_batch(&mut batch, |error| match error {
                            PushError::Full(frame) | PushError::Runt(frame) => {
                                assert_eq!(frame.chunk(), rejected.remove(0));
                                pool.free(frame).unwrap();
                            }
                            PushError::Foreign(_) => panic!("{error}"),
                        });
                        prop_assert!(rejected.is_empty() && batch.is_empty());
                    }
                    2 => {
                        for frame in queue.drain(n) {
                            prop_assert_eq!(Some(frame.chunk()), expected.pop_front());
                            pool.free(frame).unwrap();
                        }
                    }
                    _ => {
                        let popped = queue.pop();
                        prop_assert_eq!(popped.as_ref().map(Frame::chunk), expected.pop_front());
                        popped.into_iter().for_each(|frame| pool.free(frame).unwrap());
                    }
                }
                let expected_room = capacity - expected.len();
                prop_assert_eq!((queue.len(), queue.room()), (expected.len(), expected_room));
                prop_assert!(queue.iter().map(Frame::chunk).eq(expected.iter().copied()));
                prop_assert_eq!(pool.len() + queue.len(), 256);
            }
        }
    }

    #[test]
    fn dropped_drain_removes_and_loses_remaining_frames() {
        let (umem, mut pool) = umem();
        let mut queue = EgressQueue::new(&umem, 8);
        (0..5).for_each(|_| queue.push(frame(&mut pool, 60)).unwrap());
        let first = queue.drain(3).next().unwrap();
        assert_eq!((queue.len(), umem.lost(), umem.held()), (2, 2, 3));
        pool.free(first).unwrap();
    }

    #[test]
    fn push_batch_keeps_pushed_frames_when_closure_panics() {
        let (umem, mut pool) = umem();
        let mut queue = EgressQueue::new(&umem, 8);
        let mut batch = Batch::new();
        for len in [60, 60, 5, 60] {
            batch.push(frame(&mut pool, len)).unwrap();
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            queue.push_batch(&mut batch, |error| panic!("{error}"))
        }));
        assert!(result.is_err());
        // The panic dropped the runt; the next frame is still in the batch.
        assert_eq!((queue.len(), umem.lost(), umem.held()), (2, 1, 3));
        assert!(batch.slots()[3].is_some());
    }
}
