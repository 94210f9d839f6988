//! Ports: the interface between a worker and a packet I/O path.

use std::ops::AddAssign;
use std::os::fd::RawFd;

use crate::{Batch, EgressQueue, Pool, Umem};

/// One queue of one interface, as a worker uses it. No method blocks.
///
/// [`XskPort`](crate::XskPort) is the AF_XDP implementation. An I/O path with its own memory copies
/// packets into and out of frames.
///
/// Pool and queue must belong to the UMEM of the port. An implementation that hands frames to the
/// kernel panics if they do not.
pub trait Port {
    /// Returns the UMEM whose frames the port accepts; `None` if it copies and accepts any frame.
    fn umem(&self) -> Option<&Umem>;

    /// Moves received frames into the batch, up to its capacity, and refills the port from the
    /// pool. Returns the number of received frames.
    fn receive(&mut self, into: &mut Batch, pool: &mut Pool) -> usize;

    /// Hands frames from the front of the queue to the interface and wakes the kernel if necessary.
    /// Frames that do not fit stay in the queue. Call it in every iteration while
    /// [`has_unsent`](Self::has_unsent) returns true, even with an empty queue: the kernel may have
    /// deferred frames. The kernel is woken again only after new frames, after a completion, or
    /// after a pause.
    fn transmit(&mut self, queue: &mut EgressQueue) -> usize;

    /// Takes back frames whose transmission is complete.
    fn reclaim(&mut self, pool: &mut Pool) -> usize;

    /// Returns whether the interface has not yet taken all frames handed over.
    fn has_unsent(&self) -> bool;

    /// Returns a file descriptor that becomes readable when frames arrive; `None` if the port must
    /// be polled. It stays open as long as the port.
    fn fd(&self) -> Option<RawFd>;

    /// Counts the frames given to this port by where they are now.
    fn frame_counts(&self) -> PortFrameCounts;

    /// Returns the traffic counters.
    fn counters(&self) -> Counters;

    /// Returns the kernel's loss counters. Makes a system call: not for the data path.
    fn kernel_counters(&self) -> KernelCounters;

    /// Closes the port and takes back completed frames. Returns how many frames had to be retired:
    /// the posted ones, because a device may still send from them or the kernel write to them. User
    /// space cannot rule this out: a process that waits on the socket keeps it bound.
    fn close(self: Box<Self>, pool: &mut Pool) -> usize;
}

/// Frame counts of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFrameCounts {
    /// Frames posted for reception and not received, including those held by the driver.
    pub fill: u64,
    /// Frames received by the kernel and waiting in the RX ring.
    pub rx: u64,
    /// Frames posted for transmission and not completed.
    pub tx: u64,
    /// Completed frames waiting in the completion ring.
    pub completion: u64,
}

impl PortFrameCounts {
    /// Returns the sum of all counts.
    pub fn total(&self) -> u64 {
        self.fill + self.rx + self.tx + self.completion
    }
}

impl AddAssign for PortFrameCounts {
    fn add_assign(&mut self, other: Self) {
        self.fill += other.fill;
        self.rx += other.rx;
        self.tx += other.tx;
        self.completion += other.completion;
    }
}

/// Traffic counters of a port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received into batches.
    pub rx_packets: u64,
    /// Received bytes, without FCS.
    pub rx_bytes: u64,
    /// Packets handed to the interface.
    pub tx_packets: u64,
    /// Transmitted bytes, without FCS.
    pub tx_bytes: u64,
    /// System calls that wake the kernel for transmission or reception.
    pub syscalls: u64,
    /// Transmit wake-ups that the kernel deferred (EAGAIN without progress, ENOBUFS, ENETDOWN,
    /// ENXIO). They are repeated after new frames or a pause; no frame is lost.
    pub tx_retries: u64,
    /// System calls that made the kernel transmit, included in `syscalls`.
    pub tx_wakes: u64,
    /// Cycles of [`clock`](crate::clock) spent in these calls.
    pub tx_wake_cycles: u64,
    /// Packets that the interface dropped after the kernel had accepted them: no carrier, or its
    /// queue was full. Included in `tx_packets`. A lower bound: known in copy mode only, and not
    /// for packets that a wait for packets sent along the way.
    pub tx_dropped: u64,
    /// Packets that user space had to move in memory before transmission: the I/O path sends from a
    /// fixed offset in the frame, and a stage has added or removed bytes at the front.
    pub tx_copied: u64,
    /// Descriptors from the kernel that named no chunk of this port and were rejected. A value
    /// other than 0 indicates a bug in xdpfwd or in the kernel.
    pub invalid_descriptors: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.syscalls += other.syscalls;
        self.tx_retries += other.tx_retries;
        self.tx_wakes += other.tx_wakes;
        self.tx_wake_cycles += other.tx_wake_cycles;
        self.tx_dropped += other.tx_dropped;
        self.tx_copied += other.tx_copied;
        self.invalid_descriptors += other.invalid_descriptors;
    }
}

/// Kernel counters of a port: `XDP_STATISTICS`, <https://docs.kernel.org/networking/af_xdp.html>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Packets dropped because no frame was available or the packet was longer than a frame has
    /// room for. In copy mode this includes [`fill_ring_empty`](Self::fill_ring_empty).
    pub rx_dropped: u64,
    /// Fill-ring entries that the kernel rejected.
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel rejected.
    pub tx_invalid: u64,
    /// Packets dropped because the RX ring was full: user space was too slow.
    pub rx_ring_full: u64,
    /// Number of times that the kernel found the fill ring empty: in copy mode once per packet
    /// lost, in zero-copy mode once per check by the driver.
    pub fill_ring_empty: u64,
    /// Number of times that the kernel found the TX ring empty.
    pub tx_ring_empty: u64,
}

impl AddAssign for KernelCounters {
    fn add_assign(&mut self, other: Self) {
        self.rx_dropped += other.rx_dropped;
        self.rx_invalid += other.rx_invalid;
        self.tx_invalid += other.tx_invalid;
        self.rx_ring_full += other.rx_ring_full;
        self.fill_ring_empty += other.fill_ring_empty;
        self.tx_ring_empty += other.tx_ring_empty;
    }
}
