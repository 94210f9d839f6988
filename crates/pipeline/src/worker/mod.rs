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
pub use self::swap::Swapped;

use self::path::Path;
use crate::chain::{Chain, EachStage};
use crate::cx::Cx;
use crate::egress::Egress;
use crate::ledger::{StageAccount, TaskLedger};
use crate::meta::Meta;
use crate::reason::Drops;
use crate::stage::Stage;
use crate::verdict::{PortId, Verdict};

/// One worker: its ports, its frames, its paths. It shares nothing with other workers.
///
/// [`poll_once`](Self::poll_once) receives from each port, runs each batch through the stages of
/// the port's path, and transmits. [`run`](Self::run) repeats that until it is told to stop.
///
/// `C` is how stages are put together: see [`Chain`].
pub struct Worker<C> {
    /// Its number among the workers of the process.
    number: usize,
    // The ports go before the pool and the UMEM that they refer to; all hold a handle of it, so any
    // order is sound.
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
    /// Accounts of stages that were replaced and have no successor of their name.
    former_stages: StageAccount,
    /// Frames that stages may still take hold of.
    quota: u32,
    full_quota: u32,
    tick_cycles: u64,
    last_tick: u64,
    waits: u64,
    /// Stages that a reload has built and not yet swapped in.
    staged: Vec<(PortId, C)>,
}

/// One queue of a port.
struct PortQueue {
    socket: Box<dyn Port>,
    id: PortId,
    queue: u16,
    /// Position of `queue` among the queues that the worker serves.
    queue_index: usize,
    /// The path that starts here.
    path: Option<usize>,
}

impl<C: Chain> Worker<C> {
    /// Calls a closure with the name and the value of every stage of type `S`, in the order of the
    /// paths, and returns the results. Stages that are retired are left out.
    ///
    /// The control plane updates tables of stages with it, by a command that a [`Remote`] sends:
    /// the closure runs between two batches, so the stage needs no lock. Packets wait until it
    /// returns.
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

    /// Lets the stages of a path give back what they hold. They are not called again.
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

    /// Returns whether there is work that no packet announces: frames that stages hold, frames to
    /// be sent, frames awaited back because the pool is empty, a port without a descriptor to wait
    /// on.
    fn has_unannounced_work(&self) -> bool {
        self.quota < self.full_quota
            || self.pool.is_empty()
            || self.unsent()
            || self.ports.iter().any(|port| port.path.is_some() && port.socket.fd().is_none())
    }

    /// Returns whether frames wait that only another iteration will send.
    fn unsent(&self) -> bool {
        self.egress.waiting() > 0 || self.ports.iter().any(|port| port.socket.unsent())
    }

    /// Returns the descriptors that become readable when packets arrive.
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.ports.iter().filter(|port| port.path.is_some()).filter_map(|port| port.socket.fd())
    }

    /// Returns the UMEM of its frames, whose record says who owns each.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }
}

/// Returns the stage if it is an `S`, in any number of boxes.
fn downcast<S: Stage>(stage: &mut dyn Stage) -> Option<&mut S> {
    let stage: &mut dyn Any = stage;
    if stage.is::<Box<dyn Stage>>() {
        return downcast(&mut **stage.downcast_mut::<Box<dyn Stage>>()?);
    }
    stage.downcast_mut()
}
