//! A port: where frames come in and go out.

use std::ops::AddAssign;
use std::os::fd::RawFd;

use crate::{Batch, EgressQueue, Pool, Umem};

/// One queue of one interface, seen by a worker. Nothing here blocks.
///
/// [`XskPort`](crate::XskPort) is the AF_XDP one. An I/O path with memory of its own copies into
/// and out of frames; the worker does not see the difference.
///
/// Pool and queue are those of the UMEM that the port is on. Others are a bug of the caller's,
/// which an implementation that hands frames to the kernel answers with a panic.
pub trait Port {
    /// The UMEM whose frames it takes; `None` if it copies, and takes any.
    fn umem(&self) -> Option<&Umem>;

    /// Moves frames that have arrived into the batch, as far as it has room, and keeps the port
    /// supplied from the pool. Returns how many came.
    fn receive(&mut self, into: &mut Batch, pool: &mut Pool) -> usize;

    /// Hands frames from the front of the queue to the interface, and sees to it that it sends
    /// them. What does not fit stays in the queue. Call it every turn while
    /// [`unsent`](Self::unsent) says so, even with an empty queue: the kernel may have put off what
    /// it was given. It is woken again when there is something new to send, when something has come
    /// back, or after a pause; not every time.
    fn transmit(&mut self, queue: &mut EgressQueue) -> usize;

    /// Takes frames back whose transmission is complete.
    fn reclaim(&mut self, pool: &mut Pool) -> usize;

    /// Whether frames were handed over that the interface has not taken yet.
    fn unsent(&self) -> bool;

    /// A descriptor that becomes readable when frames arrive, by number; `None` if there is none,
    /// and the port must be looked at. It is open as long as the port is.
    fn fd(&self) -> Option<RawFd>;

    /// Where the frames that this port was given are at this moment.
    fn census(&self) -> Census;

    /// What has passed so far.
    fn counters(&self) -> Counters;

    /// What the kernel says that it lost. A system call: not for the data path.
    fn kernel_counters(&self) -> KernelCounters;

    /// Closes the port and takes back what was completed. Returns how many frames it had to leave
    /// out of use: what was posted, as a device may still be sending it, or the kernel still write
    /// to it. That it does not, nobody can tell from here: whoever waits on the socket meanwhile
    /// keeps it bound.
    fn close(self: Box<Self>, pool: &mut Pool) -> usize;
}

/// Where the frames are that a port was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Posted for reception and not received, the driver's included.
    pub fill: u64,
    /// Received by the kernel, waiting in the RX ring.
    pub rx: u64,
    /// Posted for transmission and not completed.
    pub tx: u64,
    /// Completed, waiting in the completion ring.
    pub completion: u64,
}

impl Census {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.fill + self.rx + self.tx + self.completion
    }
}

impl AddAssign for Census {
    fn add_assign(&mut self, other: Self) {
        self.fill += other.fill;
        self.rx += other.rx;
        self.tx += other.tx;
        self.completion += other.completion;
    }
}

/// What a port has moved, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received into batches.
    pub rx_packets: u64,
    /// Their bytes, without FCS.
    pub rx_bytes: u64,
    /// Packets handed to the interface.
    pub tx_packets: u64,
    /// Their bytes, without FCS.
    pub tx_bytes: u64,
    /// System calls made to wake the kernel up, for transmission or reception.
    pub syscalls: u64,
    /// Transmit wake-ups that the kernel answered with "later" (EAGAIN without progress, ENOBUFS,
    /// ENETDOWN, ENXIO): repeated, when there is something new or after a pause, and nothing is
    /// lost.
    pub tx_retries: u64,
    /// Of the system calls, those that made the kernel transmit.
    pub tx_wakes: u64,
    /// Cycles of [`clock`](crate::clock) that these took.
    pub tx_wake_cycles: u64,
    /// Packets that the interface threw away after the kernel had taken them: no carrier, or its
    /// queue was full. They are among `tx_packets`. At least so many: known in copy mode only, and
    /// not of what a wait for packets sent on the way.
    pub tx_dropped: u64,
    /// Packets that user space had to move in memory before they could be sent: the I/O path sends
    /// from one place in a frame only, and a stage has put bytes on or taken some off at the front.
    pub tx_copied: u64,
    /// Descriptors from the kernel that named no chunk of this port's: refused. Anything but 0 is a
    /// bug, ours or the kernel's.
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

/// What the kernel counts for a port: `XDP_STATISTICS`,
/// <https://docs.kernel.org/networking/af_xdp.html>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Packets dropped for want of a frame, or because they were longer than a frame has room for.
    /// In copy mode this includes what [`fill_ring_empty`](Self::fill_ring_empty) counts.
    pub rx_dropped: u64,
    /// Fill-ring entries that the kernel refused.
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel refused.
    pub tx_invalid: u64,
    /// Packets dropped because the RX ring was full: user space did not keep up.
    pub rx_ring_full: u64,
    /// Times that no frame was in the fill ring when one was wanted: in copy mode once per packet
    /// lost for it, in zero-copy whenever the driver looked.
    pub fill_ring_empty: u64,
    /// Times that the TX ring was empty when the kernel looked for work.
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
