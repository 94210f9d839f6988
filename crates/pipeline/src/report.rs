//! What a worker has counted, at one moment between two batches.

use serde::Serialize;
use xdpfwd_xsk::{Census, Counters, KernelCounters};

use crate::ledger::{LedgerReport, StageAccount};
use crate::reason::Drops;
use crate::verdict::PortId;

/// Everything that a worker has counted.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// Each queue of each port.
    pub queues: Vec<QueueReport>,
    /// Each path.
    pub paths: Vec<PathReport>,
    /// Packets dropped, by reason.
    pub drops: Drops,
    /// Where the frames are.
    pub frames: FrameCensus,
    /// System calls made to wait for packets.
    pub waits: u64,
    /// Where the worker's time went.
    pub ledger: LedgerReport,
}

/// One queue of one port.
#[derive(Clone, Debug)]
pub struct QueueReport {
    /// The port.
    pub port: PortId,
    /// The queue.
    pub queue: u16,
    /// What passed.
    pub counters: Counters,
    /// What the kernel says it lost.
    pub kernel: KernelCounters,
    /// Where its frames are.
    pub census: Census,
}

/// One path.
#[derive(Clone, Debug)]
pub struct PathReport {
    /// Where its packets come in.
    pub from: PortId,
    /// Where they go out.
    pub to: PortId,
    /// Its stages, in order.
    pub stages: Vec<StageReport>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// What it did and what that cost.
    pub account: StageAccount,
    /// Counters of its own.
    pub counters: Vec<(&'static str, u64)>,
}

/// Where every frame of a UMEM is, or of several added up. All but `leaked` add up to `total`, if
/// `leaked` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FrameCensus {
    /// Frames of the UMEM.
    pub total: u64,
    /// Free, in the pool.
    pub pool: u64,
    /// Posted for reception and not received, the driver's included.
    pub fill: u64,
    /// Received by the kernel, waiting in an RX ring.
    pub rx: u64,
    /// In egress queues, or held by stages: by the owner record, so that a frame which a stage
    /// dropped is not among them.
    pub in_flight: u64,
    /// Posted for transmission and not completed.
    pub tx: u64,
    /// Completed, waiting in a completion ring.
    pub completion: u64,
    /// What is missing: 0, or there is a bug. Negative: a frame is in two places.
    pub leaked: i64,
}

impl FrameCensus {
    pub(crate) fn new(total: u64, pool: u64, in_flight: u64, at_ports: Census) -> Self {
        let Census { fill, rx, tx, completion } = at_ports;
        let leaked = total as i64 - (pool + in_flight + at_ports.total()) as i64;
        Self { total, pool, fill, rx, in_flight, tx, completion, leaked }
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.pool += other.pool;
        self.fill += other.fill;
        self.rx += other.rx;
        self.in_flight += other.in_flight;
        self.tx += other.tx;
        self.completion += other.completion;
        self.leaked += other.leaked;
    }
}
