//! The worker: one thread's share of the data plane. The data path itself is in `data_path.rs`.

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
pub use self::idle::{Idle, LONGEST_SPIN, SPIN};
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

/// A worker: its ports, frames and paths. It shares none of them with other workers.
///
/// [`poll_once`](Self::poll_once) receives from each port, runs each batch through the stages of
/// the port's path, and transmits. [`run`](Self::run) repeats that until stopped.
///
/// `C` is the type of its stage chains: see [`Chain`].
pub struct Worker<C> {
    /// The number of the worker in the process.
    number: usize,
    // Drop the ports before the pool and the UMEM. Any order is sound, because each holds a handle
    // of the UMEM.
    /// Every queue of every port.
    ports: Vec<PortQueue>,
    paths: Vec<Path<C>>,
    egress: Egress,
    pool: Pool,
    umem: Umem,
    batch: Batch,
    metas: Box<[Meta; Batch::CAPACITY]>,
    verdicts: Box<[Verdict; Batch::CAPACITY]>,
    drops: Drops,
    ledger: TaskLedger,
    /// Accounts of replaced stages without a successor of the same name.
    former_stages: StageAccount,
    /// Number of frames that stages may still hold.
    quota: u32,
    full_quota: u32,
    tick_cycles: u64,
    last_tick: u64,
    waits: u64,
    /// Stages built by a reload and not yet swapped in.
    staged: Vec<(PortId, C)>,
}

/// One queue of a port.
struct PortQueue {
    socket: Box<dyn Port>,
    id: PortId,
    queue: u16,
    /// Index of `queue` among the worker's queues.
    queue_index: usize,
    /// The path that starts from this port.
    path: Option<usize>,
}

impl<C: Chain> Worker<C> {
    /// Calls a closure with the name and the value of every stage of type `S`, in the order of the
    /// paths, and returns the results. Skips retired stages.
    ///
    /// With it the control plane updates stages' tables, in a command that a [`Remote`] sends. The
    /// closure runs between two batches, so the stage needs no lock. Packets wait until it returns.
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

    /// Runs the stages' periodic work.
    fn tick(&mut self, now: u64) {
        for path in 0..self.paths.len() {
            self.visit_stages(path, now, |stage, cx| stage.tick(cx));
        }
    }

    /// Retires the stages of a path: they emit or free their frames and are not called again.
    fn retire(&mut self, path: usize) {
        self.visit_stages(path, self.ledger.read_clock(), |stage, cx| stage.retire(cx));
        self.paths[path].retired = true;
    }

    /// Calls `visit` with each stage of a path, unless it is retired.
    fn visit_stages(
        &mut self,
        path: usize,
        now: u64,
        mut visit: impl FnMut(&mut dyn Stage, &mut Cx<'_>),
    ) {
        let (worker, queue) = (self.number, self.ports.first().map_or(0, |port| port.queue));
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
    /// send, an empty pool that waits for frames, or a port without a descriptor to wait on.
    fn has_unannounced_work(&self) -> bool {
        self.quota < self.full_quota
            || self.pool.is_empty()
            || self.has_unsent_frames()
            || self.ports.iter().any(|port| port.path.is_some() && port.socket.fd().is_none())
    }

    /// Returns whether frames wait for another iteration to send them.
    fn has_unsent_frames(&self) -> bool {
        self.egress.waiting() > 0 || self.ports.iter().any(|port| port.socket.has_unsent())
    }

    /// Returns the descriptors that become readable when packets arrive.
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.ports.iter().filter(|port| port.path.is_some()).filter_map(|port| port.socket.fd())
    }

    /// Returns the UMEM of the worker's frames, which records the owner of each.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }
}

/// Returns the stage if it is an `S`, also inside nested boxes.
fn downcast<S: Stage>(stage: &mut dyn Stage) -> Option<&mut S> {
    let stage: &mut dyn Any = stage;
    if stage.is::<Box<dyn Stage>>() {
        return downcast(&mut **stage.downcast_mut::<Box<dyn Stage>>()?);
    }
    stage.downcast_mut()
}
