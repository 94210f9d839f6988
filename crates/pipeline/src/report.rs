//! A worker's counters at one moment between two iterations.

use serde::Serialize;
use xdpfwd_xsk::{Counters, KernelCounters, PortFrameCounts};

use crate::ledger::{LedgerReport, StageAccount};
use crate::reason::Drops;
use crate::verdict::PortId;

/// All counters of a worker.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// Counters of every queue of every port.
    pub queues: Vec<QueueReport>,
    /// Counters of every path.
    pub paths: Vec<PathReport>,
    /// Packets dropped, by reason.
    pub drops: Drops,
    /// Frame counts by location.
    pub frames: FrameCounts,
    /// Number of system calls that waited for packets.
    pub waits: u64,
    /// Cycles by task.
    pub ledger: LedgerReport,
}

/// The counters of one queue of one port.
#[derive(Clone, Debug)]
pub struct QueueReport {
    /// The number of the port.
    pub port: PortId,
    /// The number of the queue.
    pub queue: u16,
    /// Packets and bytes.
    pub counters: Counters,
    /// Losses that the kernel reports.
    pub kernel: KernelCounters,
    /// Frames at this queue, by location.
    pub frame_counts: PortFrameCounts,
}

/// The counters of one path.
#[derive(Clone, Debug)]
pub struct PathReport {
    /// Ingress port.
    pub from: PortId,
    /// Egress port.
    pub to: PortId,
    /// Stages, in order.
    pub stages: Vec<StageReport>,
}

/// The counters of one stage.
#[derive(Clone, Debug)]
pub struct StageReport {
    /// The name of the stage.
    pub name: String,
    /// Packets and cycles.
    pub account: StageAccount,
    /// The stage's own counters.
    pub counters: Vec<(&'static str, u64)>,
}

/// Frame counts by location, of one or several UMEMs. `total` is the sum of the other fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrameCounts {
    /// All frames of the UMEM.
    pub total: u64,
    /// Free, in the pool.
    pub pool: u64,
    /// Posted for reception and not yet received, including frames in the driver.
    pub fill: u64,
    /// Received by the kernel, waiting in an RX ring.
    pub rx: u64,
    /// In egress queues or held by stages, according to the UMEM's record of frame owners. Does not
    /// include frames whose `Frame` value was dropped; those count as `leaked`.
    pub in_flight: u64,
    /// Posted for transmission and not completed.
    pub tx: u64,
    /// Completed, waiting in a completion ring.
    pub completion: u64,
    /// Of ports that were closed because their interface was lost: out of use until it is certain
    /// that the kernel does not access them.
    pub quarantined: u64,
    /// Frames missing from every location. If not 0, there is a bug; if negative, a frame is in two
    /// locations.
    pub leaked: i64,
}

impl FrameCounts {
    pub(crate) fn new(
        total: u64,
        pool: u64,
        in_flight: u64,
        at_ports: PortFrameCounts,
        quarantined: u64,
    ) -> Self {
        let PortFrameCounts { fill, rx, tx, completion } = at_ports;
        let leaked = total as i64 - (pool + in_flight + at_ports.total() + quarantined) as i64;
        Self { total, pool, fill, rx, in_flight, tx, completion, quarantined, leaked }
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.pool += other.pool;
        self.fill += other.fill;
        self.rx += other.rx;
        self.in_flight += other.in_flight;
        self.tx += other.tx;
        self.completion += other.completion;
        self.quarantined += other.quarantined;
        self.leaked += other.leaked;
    }
}
