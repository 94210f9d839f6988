//! Sent frames of ports that have no completion ring.

use std::fmt;

use crate::lease::SlotLease;
use crate::owner::Owner;
use crate::pool::Pool;
use crate::queue::EgressQueue;
use crate::umem::Umem;

/// The sent frames of a port without a completion ring. [`Port::transmit`](crate::Port::transmit)
/// has no access to the pool, so it puts them into this list, and
/// [`Port::reclaim`](crate::Port::reclaim) moves them to the pool.
///
/// The UMEM records their owner as `tx`, like that of frames in transmission. But the port counts
/// them in [`PortFrameCounts::completion`](crate::PortFrameCounts::completion), not in `tx`. The
/// port must not send more frames than [`room`](Self::room) returns.
pub struct Completions {
    chunks: Vec<u32>,
    capacity: usize,
    /// Dropping it takes the frames that are still in the list out of use.
    lease: SlotLease,
}

impl Completions {
    /// Creates a list for `capacity` frames; `None` if the UMEM already has the maximum of 126
    /// ports.
    pub fn new(umem: &Umem, capacity: usize) -> Option<Self> {
        let lease = SlotLease::claim_any(umem)?;
        Some(Self { chunks: Vec::with_capacity(capacity), capacity, lease })
    }

    /// Moves the first `n` frames of a queue to the list. The port must have sent them.
    ///
    /// # Panics
    /// If the list has no room for `n` frames, or the queue belongs to another UMEM.
    #[inline]
    pub fn take_sent(&mut self, n: usize, queue: &mut EgressQueue) {
        assert!(n <= self.room(), "the port sent more frames than the list has room for");
        assert!(
            self.umem().is_same(queue.umem()),
            "the queue and the port belong to different UMEMs"
        );
        let owner = Owner::tx(self.lease.slot());
        self.chunks.extend(queue.drain(n).map(|frame| frame.give_up(owner)));
    }

    /// Moves all frames to the pool and returns their number.
    ///
    /// # Panics
    /// If the pool belongs to another UMEM.
    #[inline]
    pub fn return_to_pool(&mut self, pool: &mut Pool) -> usize {
        assert!(
            self.umem().is_same(pool.umem()),
            "the pool and the port belong to different UMEMs"
        );
        let returned = self.chunks.len();
        let owners = &self.lease.umem().region().owners;
        for chunk in self.chunks.drain(..) {
            owners.set(chunk, Owner::POOL);
            pool.push(chunk);
        }
        returned
    }

    /// Returns the number of frames for which the list has room.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity - self.chunks.len()
    }

    /// Returns the number of frames in the list.
    #[inline]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Returns whether the list is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Returns the UMEM of the frames.
    pub fn umem(&self) -> &Umem {
        self.lease.umem()
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::PortSlot;
    use crate::{HugePages, UmemConfig};

    fn umem() -> (Umem, Pool) {
        Umem::new(&UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() })
            .unwrap()
    }

    fn queue_of(umem: &Umem, pool: &mut Pool, frames: usize) -> EgressQueue {
        let mut queue = EgressQueue::new(umem, frames);
        for _ in 0..frames {
            let mut frame = pool.alloc().unwrap();
            frame.append(60).unwrap().fill(0);
            queue.push(frame).unwrap();
        }
        queue
    }

    #[test]
    fn owner_of_sent_frames_is_tx_until_they_return_to_pool() {
        let (umem, mut pool) = umem();
        let mut queue = queue_of(&umem, &mut pool, 10);
        let mut completions = Completions::new(&umem, 8).unwrap();
        completions.take_sent(6, &mut queue);
        assert_eq!(
            (completions.len(), completions.room(), queue.len(), pool.len()),
            (6, 2, 4, 246)
        );
        let ownership = umem.ownership();
        assert_eq!((ownership.pool, ownership.held, ownership.tx), (246, 4, 6));
        assert_eq!(completions.return_to_pool(&mut pool), 6);
        assert_eq!((pool.len(), umem.ownership().tx), (252, 0));
        while let Some(frame) = queue.pop() {
            pool.free(frame).unwrap();
        }
    }

    #[test]
    fn dropped_completions_record_frames_as_closed() {
        let (umem, mut pool) = umem();
        let mut queue = queue_of(&umem, &mut pool, 3);
        let mut completions = Completions::new(&umem, 8).unwrap();
        completions.take_sent(3, &mut queue);
        drop(completions);
        assert_eq!((umem.ownership().closed, umem.ownership().tx), (3, 0));
    }

    #[test]
    fn new_returns_none_if_umem_has_maximum_number_of_ports() {
        let (umem, _pool) = umem();
        let mut all: Vec<_> =
            (0..PortSlot::MAX).map(|_| Completions::new(&umem, 1).unwrap()).collect();
        assert!(Completions::new(&umem, 1).is_none());
        all.pop();
        assert!(Completions::new(&umem, 1).is_some());
    }

    #[test]
    #[should_panic(expected = "the port sent more frames than the list has room for")]
    fn take_sent_beyond_room_panics() {
        let (umem, mut pool) = umem();
        let mut queue = queue_of(&umem, &mut pool, 3);
        Completions::new(&umem, 2).unwrap().take_sent(3, &mut queue);
    }
}
