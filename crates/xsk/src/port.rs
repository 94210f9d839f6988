//! Ports: the interface between a worker and a packet I/O path.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use crate::batch::Batch;
use crate::counters::{Counters, KernelCounters, PortFrameCounts};
use crate::pool::Pool;
use crate::quarantine::Quarantine;
use crate::queue::EgressQueue;
use crate::umem::Umem;

/// One queue of one interface, as workers use it. No method blocks.
///
/// The pool and the egress queue must belong to the port's UMEM. Implementations that hand frames
/// to the kernel check this, and panic if the UMEMs differ.
pub trait Port {
    /// Returns the UMEM of the accepted frames; `None` if the port copies packets and accepts any
    /// frame.
    fn umem(&self) -> Option<&Umem>;

    /// Moves received frames into the batch until it is full, and refills the port from the pool.
    /// Returns the number of received frames.
    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool) -> usize;

    /// Hands frames from the queue to the interface, and wakes the kernel if necessary. Frames that
    /// do not fit stay in the queue. Returns the number handed over.
    ///
    /// Call this in every iteration of the worker loop while [`has_unsent`](Self::has_unsent)
    /// returns true, even with an empty queue: the kernel may have deferred frames. The port wakes
    /// the kernel again only after new frames, a completion or a pause.
    fn transmit(&mut self, queue: &mut EgressQueue) -> usize;

    /// Moves completely transmitted frames to the pool, and returns their number.
    fn reclaim(&mut self, pool: &mut Pool) -> usize;

    /// Returns whether the interface has not yet taken all frames that were handed over.
    fn has_unsent(&self) -> bool;

    /// Returns the maximum time for which the kernel keeps a packet before
    /// [`receive`](Self::receive) can return it: by default, none.
    fn receive_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns a file descriptor that becomes readable when frames arrive; `None` if the port must
    /// be polled. It stays open as long as the port.
    fn fd(&self) -> Option<RawFd>;

    /// Returns the AF_XDP socket with which further sockets can share the UMEM; by default, none.
    fn umem_socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns the port's frames, by location.
    fn frame_counts(&self) -> PortFrameCounts;

    /// Returns the traffic counters.
    fn counters(&self) -> Counters;

    /// Returns the kernel's counters. Makes a system call: not for the data path.
    fn kernel_counters(&self) -> KernelCounters;

    /// Posts no more frames for reception. Packets received before can still be taken.
    fn stop_posting(&mut self) {}

    /// Returns whether the socket is bound to its interface. It is not, once the interface was
    /// removed or moved to another network namespace; the port then neither receives nor sends any
    /// more, even if the interface comes back. Makes a system call: not for the data path.
    fn is_bound(&self) -> bool {
        true
    }

    /// Ends the port and moves completed frames to the pool. Returns the port's other frames, which
    /// cannot be used again yet because a device or the kernel may still access them, with the
    /// socket, which [`Quarantine::close_socket`] closes.
    fn close(self: Box<Self>, pool: &mut Pool) -> Quarantine;
}
