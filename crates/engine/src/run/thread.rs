//! A worker's thread: it opens its own sockets on its own core, so that its memory is near.

use std::any::Any;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, OnceLock};

use core_affinity::CoreId;
use xdpfwd_packet::{MmsgPort, PacketSocket};
use xdpfwd_pipeline::{BuildCx, Idle, Mailbox, NamedStage, PortId, Ports, Remote, Worker, mailbox};
use xdpfwd_xsk::{BindMode, Builder, Fallback, OpenError, Opened, Pool, Port, Umem};

use crate::error::StartError;
use crate::host::addresses::describe_ports;
use crate::plan::{Io, PathPlan, Plan, PortPlan};

/// The chain of a path that comes from a plan.
pub(crate) type PlannedChain = Vec<NamedStage>;

/// What a worker's thread starts from.
pub(crate) struct Setup {
    pub(crate) plan: Arc<Plan>,
    pub(crate) worker: usize,
    pub(crate) bind: BindMode,
    /// The interface index of each port.
    pub(crate) indexes: Vec<u32>,
    /// What stages may know of the ports.
    pub(crate) described: Ports,
    /// Of each port, the packet sockets of the worker's queues; none if the worker opens AF_XDP
    /// sockets.
    pub(crate) sockets: Vec<Vec<PacketSocket>>,
}

/// Returns what stages may know of the ports now. Empty if the plan has no stage.
pub(crate) fn ports_for_stages(plan: &Plan) -> Ports {
    match plan.stages().next() {
        Some(_) => describe_ports(&plan.ports),
        None => Ports::default(),
    }
}

/// A worker that is ready to run.
pub(crate) struct Ready {
    pub(crate) remote: Remote<PlannedChain>,
    /// The sockets that packets are to be directed to: those of ports that a path starts from. The
    /// worker keeps them open while it waits to be told to run.
    pub(crate) sockets: Vec<(PortId, u16, RawFd)>,
    pub(crate) zero_copy: bool,
    pub(crate) fallback: Option<xdpfwd_xsk::Fallback>,
}

/// Whether a worker still works, for the control thread to see.
pub(crate) struct WorkerStatus {
    failed: AtomicBool,
    panic: OnceLock<String>,
    waker: Arc<mio::Waker>,
}

impl WorkerStatus {
    pub(crate) fn new(waker: Arc<mio::Waker>) -> Self {
        Self { failed: AtomicBool::new(false), panic: OnceLock::new(), waker }
    }

    /// Whether the worker has panicked or its thread has ended.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What its first panic said.
    pub(crate) fn panic(&self) -> Option<&str> {
        self.panic.get().map(String::as_str)
    }

    /// Tells the control thread.
    fn fail(&self) {
        // The flag is there before the wake-up.
        self.failed.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

/// Says that a thread has ended, however it did.
struct ExitNotice<'a>(&'a WorkerStatus);

impl Drop for ExitNotice<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// The whole life of a worker's thread. It reports once that it is ready, or why not; runs when it
/// is told to, which it is not if another worker failed; and ends when its mailbox says so.
pub(crate) fn run(
    setup: Setup,
    status: &WorkerStatus,
    ready: SyncSender<Result<Ready, StartError>>,
    go: &Receiver<()>,
) {
    let _notice = ExitNotice(status);
    // A plan that panicked is not built again.
    let prepared = catch_unwind(AssertUnwindSafe(|| prepare(&setup))).unwrap_or_else(|panic| {
        let what = format!("panicked while it was getting ready: {}", message(&*panic));
        Err(StartError::Worker { worker: setup.worker, what })
    });
    let (mut worker, mailbox) = match prepared {
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
    // The plan goes with the first reload: what it holds (files, keys) is not this thread's to
    // keep.
    let idle = setup.plan.idle;
    drop(setup);
    if go.recv().is_ok() {
        run_worker(&mut worker, &mailbox, idle, status);
    }
}

/// Runs the worker until its mailbox says stop. After a panic it goes on without its stages:
/// control hears of it at once, and has it drain and report as any other.
fn run_worker(
    worker: &mut Worker<PlannedChain>,
    mailbox: &Mailbox<PlannedChain>,
    idle: Idle,
    status: &WorkerStatus,
) {
    for _ in 0..2 {
        // What a panic leaves half done are stages, which are not called again, and the batch,
        // which is given up. Everything else a stage sees through calls that are done or not done.
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.run(mailbox, idle))) else {
            return;
        };
        let _ = status.panic.set(message(&*panic));
        status.fail();
        worker.abandon_stages();
    }
    // Without stages, and yet again: what is wrong is not a stage, and the less is done the better.
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".into())
}

type Prepared = (Worker<PlannedChain>, Mailbox<PlannedChain>, Ready);

fn prepare(setup: &Setup) -> Result<Prepared, StartError> {
    let Setup { plan, worker, .. } = setup;
    let worker = *worker;
    pin(plan, worker)?;
    let Lanes { umem, pool, ports, zero_copy, fallback } = open(setup)?;

    let stride = plan.workers.len();
    let io = |what| move |source| StartError::Io { what, source };
    let mut sockets = Vec::new();
    let mut builder = Worker::builder(umem, pool)
        .number(worker)
        .queues(worker as u16, stride as u16)
        .ledger(plan.ledger);
    for ((id, port), lanes) in plan.numbered_ports().zip(ports) {
        if plan.paths.iter().any(|path| path.from == id) {
            let numbered = queues_of(worker, plan, port).zip(&lanes);
            sockets.extend(numbered.filter_map(|(queue, lane)| Some((id, queue, lane.fd()?))));
        }
        builder = builder.port(lanes);
    }
    for path in &plan.paths {
        builder =
            builder.path(path.from, path.to, build_chain(plan, path, &setup.described, worker));
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

/// A worker's ports and what they share.
struct Lanes {
    umem: Umem,
    pool: Pool,
    /// Of each port of the plan, one for each of the worker's queues.
    ports: Vec<Vec<Box<dyn Port>>>,
    zero_copy: bool,
    fallback: Option<Fallback>,
}

/// The queues of a port that a worker serves.
pub(crate) fn queues_of(
    worker: usize,
    plan: &Plan,
    port: &PortPlan,
) -> impl Iterator<Item = u16> + use<> {
    (0..port.queues).skip(worker).step_by(plan.workers.len())
}

/// Opens what the worker opens itself, and makes ports of all.
fn open(setup: &Setup) -> Result<Lanes, StartError> {
    let Setup { plan, worker, bind, indexes, sockets, .. } = setup;
    let worker = *worker;
    let mut builder = Builder::new(plan.umem.clone()).mode(*bind).busy_poll(plan.busy_poll);
    let mut by_xsk_rs = false;
    let by_xdp = || plan.ports.iter().zip(indexes).filter(|(port, _)| port.io.takes_by_xdp());
    for (port, index) in by_xdp() {
        by_xsk_rs |= port.io == Io::XskRs;
        for queue in queues_of(worker, plan, port) {
            builder = builder.queue(&port.interface, *index, u32::from(queue));
        }
    }
    let failed = |source| StartError::open(worker, source);
    let Opened { umem, pool, ports, zero_copy, fallback } = if by_xdp().next().is_none() {
        // Memory that no socket knows of: packets are copied into it and out of it.
        let (umem, pool) = Umem::new(&plan.umem).map_err(|error| failed(OpenError::Umem(error)))?;
        Opened { umem, pool, ports: Vec::new(), zero_copy: false, fallback: None }
    } else if by_xsk_rs {
        open_by_xsk_rs(&builder).map_err(failed)?
    } else {
        boxed(builder.open().map_err(failed)?)
    };
    let mut opened = ports.into_iter();
    let mut lanes = Vec::with_capacity(plan.ports.len());
    for (port, sockets) in plan.ports.iter().zip(sockets) {
        let own: Vec<Box<dyn Port>> = if port.io.takes_by_xdp() {
            opened.by_ref().take(queues_of(worker, plan, port).count()).collect()
        } else {
            let lane = |socket: &PacketSocket| match MmsgPort::new(socket.clone(), &umem) {
                Ok(port) => Ok(Box::new(port) as Box<dyn Port>),
                Err(error) => Err(StartError::Worker { worker, what: error.to_string() }),
            };
            sockets.iter().map(lane).collect::<Result<_, _>>()?
        };
        lanes.push(own);
    }
    Ok(Lanes { umem, pool, ports: lanes, zero_copy, fallback })
}

fn boxed<P: Port + 'static>(opened: Opened<P>) -> Opened<Box<dyn Port>> {
    let Opened { umem, pool, ports, zero_copy, fallback } = opened;
    let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    Opened { umem, pool, ports, zero_copy, fallback }
}

#[cfg(feature = "xsk-rs")]
fn open_by_xsk_rs(builder: &Builder) -> Result<Opened<Box<dyn Port>>, OpenError> {
    builder.open_by_xsk_rs().map(boxed)
}

#[cfg(not(feature = "xsk-rs"))]
fn open_by_xsk_rs(_: &Builder) -> Result<Opened<Box<dyn Port>>, OpenError> {
    Err(OpenError::NotBuilt)
}

pub(crate) fn build_chain(
    plan: &Plan,
    path: &PathPlan,
    ports: &Ports,
    worker: usize,
) -> PlannedChain {
    let workers = plan.workers.len();
    let stages = path.stages.iter().map(|stage| {
        let in_kernel = stage.in_kernel;
        let cx = BuildCx { worker, workers, in_kernel, from: path.from, to: path.to, ports };
        // A stage that panics is named: whoever catches it does not know which it was.
        let built =
            catch_unwind(AssertUnwindSafe(|| NamedStage::build(&*stage.name, &*stage.plan, &cx)));
        built.unwrap_or_else(|panic| {
            resume_unwind(Box::new(format!("stage {}: {}", stage.name, message(&*panic))))
        })
    });
    stages.collect()
}
