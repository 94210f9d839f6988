//! A worker's thread: it opens its own sockets on its own core, so that its memory is near.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use core_affinity::CoreId;
use pipeline::{BuildCx, Mailbox, NamedStage, PortId, Remote, Worker, mailbox};
use xsk::{BindMode, Builder, Opened, Port};

use crate::error::StartError;
use crate::plan::{PathPlan, Plan};

/// The chain of a path that comes from a plan.
pub(crate) type PlannedChain = Vec<NamedStage>;

/// What a worker's thread starts from.
pub(crate) struct Setup {
    pub(crate) plan: Arc<Plan>,
    pub(crate) worker: usize,
    pub(crate) bind: BindMode,
    /// The interface index of each port.
    pub(crate) indexes: Vec<u32>,
}

/// A worker that is ready to run.
pub(crate) struct Ready {
    pub(crate) remote: Remote<PlannedChain>,
    /// The sockets that packets are to be directed to: those of ports that a path starts from. The worker keeps them open
    /// while it waits to be told to run.
    pub(crate) sockets: Vec<(PortId, u16, RawFd)>,
    pub(crate) zero_copy: bool,
    pub(crate) fallback: Option<xsk::Fallback>,
}

/// The whole life of a worker's thread. It reports once that it is ready, or why not; runs when it is told to, which it is
/// not if another worker failed; and ends when its mailbox says so.
pub(crate) fn run(setup: &Setup, ready: SyncSender<Result<Ready, StartError>>, go: &Receiver<()>) {
    let (mut worker, mailbox) = match prepare(setup) {
        Ok((worker, mailbox, is_ready)) => {
            if ready.send(Ok(is_ready)).is_err() {
                return;
            }
            (worker, mailbox)
        }
        Err(error) => {
            // If nobody listens any more, another worker has failed already.
            let _ = ready.send(Err(error));
            return;
        }
    };
    drop(ready);
    if go.recv().is_ok() {
        worker.run(&mailbox, setup.plan.idle);
    }
}

type Prepared = (Worker<PlannedChain>, Mailbox<PlannedChain>, Ready);

fn prepare(setup: &Setup) -> Result<Prepared, StartError> {
    let Setup { plan, worker, bind, indexes } = setup;
    let worker = *worker;
    pin(plan, worker)?;
    let (opened, queues) = open(plan, worker, *bind, indexes)?;
    let Opened { umem, pool, ports, zero_copy, fallback } = opened;

    let stride = plan.workers.len();
    let io = |what| move |source| StartError::Io { what, source };
    let mut sockets = Vec::new();
    let mut builder = Worker::builder(umem, pool).queues(worker as u16, stride as u16);
    let mut ports = ports.into_iter();
    for (id, numbers) in queues {
        let mut lanes: Vec<Box<dyn Port>> = Vec::with_capacity(numbers.len());
        for (queue, port) in numbers.into_iter().zip(ports.by_ref()) {
            if plan.paths.iter().any(|path| path.from == id) {
                let Some(fd) = port.fd() else { continue };
                sockets.push((id, queue, fd));
            }
            lanes.push(Box::new(port));
        }
        builder = builder.port(lanes);
    }
    for path in &plan.paths {
        builder = builder.path(path.from, path.to, build_chain(path, worker, stride));
    }
    let built = builder.build().map_err(|source| StartError::Build { worker, source })?;
    let (remote, mailbox) = mailbox().map_err(io("eventfd"))?;
    Ok((built, mailbox, Ready { remote, sockets, zero_copy, fallback }))
}

/// Pins the calling thread to the worker's core, if it has one.
fn pin(plan: &Plan, worker: usize) -> Result<(), StartError> {
    let Some(core) = plan.workers.get(worker).copied().flatten() else { return Ok(()) };
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    if allowed.contains(&core) && core_affinity::set_for_current(CoreId { id: core }) {
        Ok(())
    } else {
        Err(StartError::Pin { worker, core, allowed })
    }
}

type QueuesOfPorts = Vec<(PortId, Vec<u16>)>;

fn open(plan: &Plan, worker: usize, bind: BindMode, indexes: &[u32]) -> Result<(Opened, QueuesOfPorts), StartError> {
    let mut builder = Builder::new(plan.umem.clone()).mode(bind).busy_poll(plan.busy_poll);
    let mut queues = Vec::with_capacity(plan.ports.len());
    for ((id, port), index) in (0..=u8::MAX).map(PortId).zip(&plan.ports).zip(indexes) {
        let own: Vec<u16> = (0..port.queues).skip(worker).step_by(plan.workers.len()).collect();
        for &queue in &own {
            builder = builder.queue(&port.interface, *index, u32::from(queue));
        }
        queues.push((id, own));
    }
    let opened = builder.open().map_err(|source| StartError::Open { worker, source })?;
    Ok((opened, queues))
}

pub(crate) fn build_chain(path: &PathPlan, worker: usize, workers: usize) -> PlannedChain {
    let cx = BuildCx { worker, workers };
    let stages = path.stages.iter();
    stages.map(|stage| NamedStage { name: stage.name.clone(), stage: stage.plan.build(&cx) }).collect()
}
