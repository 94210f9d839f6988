//! Counters of ports.

use std::ops::AddAssign;

/// Frame counts of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFrameCounts {
    /// Posted for reception and not yet in the RX ring, including those held by the driver.
    pub fill: u64,
    /// Waiting in the RX ring.
    pub rx: u64,
    /// Posted for transmission and not completed.
    pub tx: u64,
    /// Waiting in the completion ring.
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
    /// Transmit wake-ups after which the kernel deferred packets (EAGAIN without progress, ENOBUFS,
    /// ENETDOWN, ENXIO). The port repeats them after new frames, a completion or a pause; no frame
    /// is lost.
    pub tx_retries: u64,
    /// The transmit wake-ups among `syscalls`.
    pub tx_wakes: u64,
    /// Cycles of [`clock`](crate::clock) spent in the calls counted in `tx_wakes`.
    pub tx_wake_cycles: u64,
    /// Packets that the interface dropped after the kernel had accepted them: the interface had no
    /// carrier, or its queue was full. Included in `tx_packets`. A lower bound: the port does not
    /// see drops in zero-copy mode, or of packets that the kernel sends while a worker waits in
    /// `poll`.
    pub tx_dropped: u64,
    /// Packets in `tx_packets` that the kernel had not reported as sent when their port was closed
    /// (AF_XDP only). Some of them may have been sent.
    pub tx_lost: u64,
    /// Packets moved in memory before transmission: the I/O path sends from a fixed offset in the
    /// frame, and a stage has added or removed bytes at the front.
    pub tx_copied: u64,
    /// Rejected descriptors and completions: this port did not post the chunk, or the range
    /// exceeded the chunk. A value above 0 indicates a bug in xdpfwd or the kernel.
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
        self.tx_lost += other.tx_lost;
        self.tx_copied += other.tx_copied;
        self.invalid_descriptors += other.invalid_descriptors;
    }
}

/// The kernel's counters of a port: `XDP_STATISTICS`,
/// <https://docs.kernel.org/networking/af_xdp.html>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Packets dropped because no frame was available or the packet did not fit into a frame. In
    /// copy mode, this includes [`fill_ring_empty`](Self::fill_ring_empty).
    pub rx_dropped: u64,
    /// Fill-ring entries that the kernel rejected.
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel rejected.
    pub tx_invalid: u64,
    /// Packets dropped because the RX ring was full: user space was too slow.
    pub rx_ring_full: u64,
    /// Number of times that the kernel found the fill ring empty: per lost packet in copy mode, per
    /// check by the driver in zero-copy mode.
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
