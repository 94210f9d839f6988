//! The worker: the part of the data plane on one thread. `data_path.rs` processes packets.

mod builder;
mod data_path;
mod idle;
mod mailbox;
mod path;
mod port_loss;
mod report;
mod shutdown;
mod swap;
#[cfg(feature = "testing")]
mod testing;

use std::any::Any;
use std::os::fd::RawFd;

use xdpfwd_xsk::{Batch, Counters, KernelCounters, Pool, Port, PreparedPort, Quarantine, Umem};

pub use self::builder::{BuildError, WorkerBuilder};
pub use self::idle::{Idle, MAX_SPIN, SPIN_PER_PACKET};
pub use self::mailbox::{Mailbox, Remote, Stopped, mailbox};
pub use self::port_loss::{OpenPortError, Transmission};
pub use self::swap::SwapResult;

use self::path::Path;
use crate::chain::{Chain, EachStage};
use crate::cx::Cx;
use crate::egress::Egress;
use crate::ledger::{StageAccount, TaskLedger};
use crate::meta::Meta;
use crate::reason::Drops;
use crate::stage::Stage;
use crate::verdict::{PortId, Verdict};

/// A worker with its own ports, frames and paths.
///
/// [`poll_once`](Self::poll_once) runs one iteration: receive, run the stages, transmit.
/// [`run`](Self::run) repeats it.
///
/// `C` is the type of the stage chains, see [`Chain`].
pub struct Worker<C> {
    /// The number of the worker in the process, from 0.
    number: usize,
    // Fields are dropped in this order: the ports before the pool and the UMEM. Another order would
    // be sound too, because each of them holds a handle of the UMEM.
    port_queues: Vec<PortQueue>,
    paths: Vec<Path<C>>,
    egress: Egress,
    pool: Pool,
    umem: Umem,
    batch: Batch,
    metas: Box<[Meta; Batch::CAPACITY]>,
    verdicts: Box<[Verdict; Batch::CAPACITY]>,
    drops: Drops,
    ledger: TaskLedger,
    /// Sum of the accounts of stages that reloads have removed.
    former_stages: StageAccount,
    /// Number of further frames that the stages may hold.
    hold_quota_left: u32,
    /// Number of frames that the stages may hold together.
    hold_quota: u32,
    /// Interval of ticks, in cycles.
    tick_cycles: u64,
    /// Time of the last tick, in cycles.
    last_tick: u64,
    /// Number of waits in the kernel.
    waits: u64,
    /// Stages of a reload, not yet swapped in, with their path's ingress port.
    stored_chains: Vec<(PortId, C)>,
    /// Sockets for closed ports, not yet in use.
    prepared: Vec<(PortId, Vec<PreparedPort>)>,
    /// Frames and sockets of closed ports.
    quarantine: Vec<Quarantine>,
    /// Whether a port was closed or opened since the loop collected the descriptors to wait for.
    ports_changed: bool,
}

/// One queue of one port.
struct PortQueue {
    socket: Box<dyn Port>,
    id: PortId,
    /// Number of the queue on its interface.
    queue: u16,
    /// Index among the port's queues that this worker serves.
    queue_index: usize,
    /// Index of the path from this port. `None` if the port only transmits.
    path: Option<usize>,
    /// Whether the port was closed and not opened again.
    is_down: bool,
    /// The counters of the sockets that were closed.
    earlier: (Counters, KernelCounters),
}

impl PortQueue {
    /// Returns the counters, including those of closed sockets.
    fn counters(&self) -> Counters {
        let mut counters = self.earlier.0;
        counters += self.socket.counters();
        counters
    }

    /// Returns the kernel's counters, including those of closed sockets.
    fn kernel_counters(&self) -> KernelCounters {
        let mut counters = self.earlier.1;
        counters += self.socket.kernel_counters();
        counters
    }
}

impl<C: Chain> Worker<C> {
    /// Calls a closure with each stage of type `S` that is not retired, and its name, in the order
    /// of the paths. Returns the results.
    ///
    /// The control plane can update stages' tables this way, in a command sent with
    /// [`Remote::send`]. Commands run between two iterations, so the stages need no lock. Packets
    /// wait meanwhile.
    pub fn stages_mut<S: Stage, R>(&mut self, mut visit: impl FnMut(&str, &mut S) -> R) -> Vec<R> {
        let mut results = Vec::new();
        for Path { chain, names, .. } in self.paths.iter_mut().filter(|path| !path.retired) {
            chain.walk(&mut EachStage(|index: usize, stage: &mut dyn Stage| {
                if let Some(stage) = downcast(stage) {
                    results.push(visit(&names[index], stage));
                }
            }));
        }
        results
    }

    /// Calls [`Stage::tick`] on all stages but retired ones.
    fn tick(&mut self, now: u64) {
        for path in 0..self.paths.len() {
            self.visit_stages(path, now, |stage, cx| stage.tick(cx));
        }
    }

    /// Makes the stages of a path emit, drop or free their frames, and process no more packets.
    fn retire(&mut self, path: usize) {
        self.visit_stages(path, self.ledger.read_clock(), |stage, cx| stage.retire(cx));
        self.paths[path].retired = true;
    }

    /// Calls the closure with each stage of a path, unless the path is retired.
    fn visit_stages(
        &mut self,
        path: usize,
        now: u64,
        mut visit: impl FnMut(&mut dyn Stage, &mut Cx<'_>),
    ) {
        let (worker, queue) =
            (self.number, self.port_queues.first().map_or(0, |first| first.queue));
        let Path { to, chain, accounts, retired, .. } = &mut self.paths[path];
        if *retired {
            return;
        }
        let to = *to;
        let (pool, egress, drops, hold_quota_left) =
            (&mut self.pool, &mut self.egress, &mut self.drops, &mut self.hold_quota_left);
        chain.walk(&mut EachStage(|index: usize, stage: &mut dyn Stage| {
            let account = &mut accounts[index];
            visit(
                stage,
                &mut Cx {
                    now,
                    worker,
                    queue,
                    queue_index: 0,
                    to,
                    pool,
                    egress,
                    drops,
                    account,
                    hold_quota_left,
                },
            );
        }));
    }

    /// Returns whether there is work that no packet signals: held frames, frames to send, an empty
    /// pool to refill with sent frames, or an ingress port without a descriptor to wait for.
    fn has_unannounced_work(&self) -> bool {
        self.hold_quota_left < self.hold_quota
            || self.pool.is_empty()
            || self.has_unsent_frames()
            || self.port_queues.iter().any(|port_queue| {
                port_queue.path.is_some() && !port_queue.is_down && port_queue.socket.fd().is_none()
            })
    }

    /// Returns whether frames wait in egress queues or TX rings.
    fn has_unsent_frames(&self) -> bool {
        self.egress.waiting() > 0
            || self.port_queues.iter().any(|port_queue| port_queue.socket.has_unsent())
    }

    /// Returns descriptors that are readable when packets arrive.
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let ingress = self.port_queues.iter().filter(|port_queue| port_queue.path.is_some());
        ingress.filter_map(|port_queue| port_queue.socket.fd())
    }

    /// Returns the UMEM, which records the owner of each frame.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }
}

/// Returns the stage as an `S`, if it is one or a box (or nested boxes) with one.
fn downcast<S: Stage>(stage: &mut dyn Stage) -> Option<&mut S> {
    let stage: &mut dyn Any = stage;
    if stage.is::<Box<dyn Stage>>() {
        return downcast(&mut **stage.downcast_mut::<Box<dyn Stage>>()?);
    }
    stage.downcast_mut()
}
