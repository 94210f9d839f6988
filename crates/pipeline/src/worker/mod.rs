//! The worker: the part of the data plane that runs on one thread. `data_path.rs` processes
//! packets.

mod builder;
mod data_path;
mod idle;
mod mailbox;
mod path;
mod report;
mod shutdown;
mod swap;
#[cfg(feature = "testing")]
mod testing;

use std::any::Any;
use std::os::fd::RawFd;

use xdpfwd_xsk::{Batch, Pool, Port, Umem};

pub use self::builder::{BuildError, WorkerBuilder};
pub use self::idle::{Idle, MAX_SPIN, SPIN_PER_PACKET};
pub use self::mailbox::{Mailbox, Remote, Stopped, mailbox};
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

/// A worker with its ports, frames and paths, none of which it shares with other workers.
///
/// [`poll_once`](Self::poll_once) receives from each port, runs each batch through the stages of
/// the port's path, and transmits. [`run`](Self::run) repeats this until stopped.
///
/// `C` is the type of the stage chains, see [`Chain`].
pub struct Worker<C> {
    /// The number of the worker in the process.
    number: usize,
    // The order of the fields drops the ports before the pool and the UMEM. Any order would be
    // sound, because each of them holds a handle of the UMEM.
    /// Every queue of every port.
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
    /// Sum of the accounts of replaced stages that have no successor with the same name.
    former_stages: StageAccount,
    /// Number of further frames that the stages may hold together.
    quota: u32,
    /// Maximum number of frames that the stages may hold together.
    full_quota: u32,
    /// Minimum time between ticks, in cycles.
    tick_cycles: u64,
    /// Time of the last tick, in cycles.
    last_tick: u64,
    /// Number of waits in the kernel.
    waits: u64,
    /// Stages that a reload has built and not yet swapped in, with the ingress port of their path.
    staged: Vec<(PortId, C)>,
}

struct PortQueue {
    socket: Box<dyn Port>,
    /// The number of the port.
    id: PortId,
    /// The number of the queue on its interface.
    queue: u16,
    /// The index of `queue` among the worker's queues.
    queue_index: usize,
    /// The index of the path that starts from this port.
    path: Option<usize>,
}

impl<C: Chain> Worker<C> {
    /// Calls a closure with the name and the value of every stage of type `S`, in the order of the
    /// paths, and returns the results. Skips retired stages.
    ///
    /// The control plane can update tables of stages this way, in a command sent with
    /// [`Remote::send`]. The command runs between two iterations, so the stages need no lock.
    /// Packets wait until the command returns.
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

    fn tick(&mut self, now: u64) {
        for path in 0..self.paths.len() {
            self.visit_stages(path, now, |stage, cx| stage.tick(cx));
        }
    }

    /// Retires the stages of a path: they give up their frames and process no more packets.
    fn retire(&mut self, path: usize) {
        self.visit_stages(path, self.ledger.read_clock(), |stage, cx| stage.retire(cx));
        self.paths[path].retired = true;
    }

    /// Calls `visit` with each stage of a path, unless the path is retired.
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
        let (pool, egress, drops, quota) =
            (&mut self.pool, &mut self.egress, &mut self.drops, &mut self.quota);
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
                    quota,
                },
            );
        }));
    }

    /// Returns whether the worker has work that no packet signals: frames held by stages, frames to
    /// send, an empty pool to refill, or an ingress port without a descriptor to wait on.
    fn has_unannounced_work(&self) -> bool {
        self.quota < self.full_quota
            || self.pool.is_empty()
            || self.has_unsent_frames()
            || self
                .port_queues
                .iter()
                .any(|port_queue| port_queue.path.is_some() && port_queue.socket.fd().is_none())
    }

    /// Returns whether frames still wait for transmission, in egress queues or TX rings.
    fn has_unsent_frames(&self) -> bool {
        self.egress.waiting() > 0
            || self.port_queues.iter().any(|port_queue| port_queue.socket.has_unsent())
    }

    /// Returns the descriptors that become readable when packets arrive.
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let ingress = self.port_queues.iter().filter(|port_queue| port_queue.path.is_some());
        ingress.filter_map(|port_queue| port_queue.socket.fd())
    }

    /// Returns the UMEM of the worker's frames. It records the owner of each frame.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }
}

/// Returns the stage if its type is `S`, after unpacking any nested boxes.
fn downcast<S: Stage>(stage: &mut dyn Stage) -> Option<&mut S> {
    let stage: &mut dyn Any = stage;
    if stage.is::<Box<dyn Stage>>() {
        return downcast(&mut **stage.downcast_mut::<Box<dyn Stage>>()?);
    }
    stage.downcast_mut()
}
