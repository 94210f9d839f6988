//! The thread of a worker. It opens the sockets after it is pinned, so that their memory is
//! NUMA-local.

use std::any::Any;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, OnceLock};

use core_affinity::CoreId;
use xdpfwd_packet::{MmapPort, MmsgPort, PacketSocket, PortError, SinglePort};
use xdpfwd_pipeline::{BuildCx, Idle, Mailbox, NamedStage, PortId, Ports, Remote, Worker, mailbox};
use xdpfwd_xsk::{BindMode, Builder, Fallback, OpenError, OpenPorts, Pool, Port, Umem};

use crate::error::StartError;
use crate::host::addresses::describe_ports;
use crate::plan::{Io, PathPlan, Plan, PortPlan};

/// The built stages of one path.
pub(crate) type PlannedChain = Vec<NamedStage>;

pub(crate) struct Setup {
    pub(crate) plan: Arc<Plan>,
    pub(crate) worker: usize,
    pub(crate) bind: BindMode,
    pub(crate) interface_indexes: Vec<u32>,
    pub(crate) port_infos: Ports,
    /// Per port, the packet sockets of the worker's queues; empty for AF_XDP.
    pub(crate) sockets: Vec<Vec<PacketSocket>>,
}

/// Returns the ports as stages see them; none if the plan has no stages.
pub(crate) fn ports_for_stages(plan: &Plan) -> Ports {
    match plan.stages().next() {
        Some(_) => describe_ports(&plan.ports),
        None => Ports::default(),
    }
}

pub(crate) struct ReadyWorker {
    pub(crate) remote: Remote<PlannedChain>,
    /// The kernel's number of the thread.
    pub(crate) tid: u32,
    /// The sockets, AF_XDP or packet, of ingress ports: port, queue, file descriptor. The worker
    /// keeps them open.
    pub(crate) sockets: Vec<(PortId, u16, RawFd)>,
    pub(crate) zero_copy: bool,
    pub(crate) fallback: Option<Fallback>,
}

pub(crate) struct WorkerStatus {
    failed: AtomicBool,
    panic: OnceLock<String>,
    waker: Arc<mio::Waker>,
}

impl WorkerStatus {
    pub(crate) fn new(waker: Arc<mio::Waker>) -> Self {
        Self { failed: AtomicBool::new(false), panic: OnceLock::new(), waker }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn panic(&self) -> Option<&str> {
        self.panic.get().map(String::as_str)
    }

    fn fail(&self) {
        // Set the flag before the wake-up. Otherwise the control thread can wake up, find the flag
        // clear, and wait again.
        self.failed.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

/// When dropped, at the end or panic of the thread, marks the worker as failed.
struct ExitNotice<'a>(&'a WorkerStatus);

impl Drop for ExitNotice<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// Prepares the worker and sends the result to `ready_sender`. After `start_signal`, runs the
/// worker until its mailbox requests the end. If another worker fails to start, `start_signal`
/// fails, and this worker does not run.
pub(crate) fn run(
    setup: Setup,
    status: &WorkerStatus,
    ready_sender: SyncSender<Result<ReadyWorker, StartError>>,
    start_signal: &Receiver<()>,
) {
    let _notice = ExitNotice(status);
    // Stages can panic while they are built.
    let prepared = catch_unwind(AssertUnwindSafe(|| prepare(&setup))).unwrap_or_else(|panic| {
        let what = format!("panicked during startup: {}", panic_message(&*panic));
        Err(StartError::Worker { worker: setup.worker, what })
    });
    let (mut worker, mailbox) = match prepared {
        Ok((worker, mailbox, ready_worker)) => {
            if ready_sender.send(Ok(ready_worker)).is_err() {
                return;
            }
            (worker, mailbox)
        }
        Err(error) => {
            // Fails only if another worker has already failed.
            let _ = ready_sender.send(Err(error));
            return;
        }
    };
    drop(ready_sender);
    // Drop this reference to the plan: after a reload, the plan's files and keys must not stay in
    // use.
    let idle = setup.plan.idle;
    drop(setup);
    if start_signal.recv().is_ok() {
        run_worker(&mut worker, &mailbox, idle, status);
    }
}

/// Runs the worker. After a panic, wakes the control thread and continues without stages, so that
/// the worker can still be drained and report.
fn run_worker(
    worker: &mut Worker<PlannedChain>,
    mailbox: &Mailbox<PlannedChain>,
    idle: Idle,
    status: &WorkerStatus,
) {
    const MAX_PANICS: usize = 2;
    for _ in 0..MAX_PANICS {
        // Unwind safety: a panic can leave inconsistent state only in the stages, which process no
        // more packets, and in the current batch, whose frames leak. Each call that a stage
        // makes into the worker completes or does nothing.
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.run(mailbox, idle))) else {
            return;
        };
        let _ = status.panic.set(panic_message(&*panic));
        status.fail();
        worker.disable_stages();
    }
    // End the thread: the second panic does not come from a stage that processes packets, because
    // the stages are disabled.
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".into())
}

type Prepared = (Worker<PlannedChain>, Mailbox<PlannedChain>, ReadyWorker);

fn prepare(setup: &Setup) -> Result<Prepared, StartError> {
    let Setup { plan, worker, .. } = setup;
    let worker = *worker;
    pin(plan, worker)?;
    let WorkerPorts { umem, pool, ports, zero_copy, fallback } = open_ports(setup)?;

    let worker_count = plan.workers.len();
    let io_error = |what| move |source| StartError::Io { what, source };
    let mut sockets = Vec::new();
    // The worker serves the queues `worker`, `worker + worker_count`, …
    let mut builder = Worker::builder(umem, pool)
        .number(worker)
        .queues(worker as u16, worker_count as u16)
        .ledger(plan.ledger);
    for ((id, port), queues) in plan.numbered_ports().zip(ports) {
        if plan.paths.iter().any(|path| path.from == id) {
            let numbered = queues_of(worker, plan, port).zip(&queues);
            sockets.extend(numbered.filter_map(|(number, queue)| Some((id, number, queue.fd()?))));
        }
        builder = builder.port(queues);
    }
    for path in &plan.paths {
        builder =
            builder.path(path.from, path.to, build_chain(plan, path, &setup.port_infos, worker));
    }
    let built = builder.build().map_err(|source| StartError::Build { worker, source })?;
    let (remote, mailbox) = mailbox().map_err(io_error("cannot create an eventfd"))?;
    let tid = nix::unistd::gettid().as_raw().unsigned_abs();
    Ok((built, mailbox, ReadyWorker { remote, tid, sockets, zero_copy, fallback }))
}

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

struct WorkerPorts {
    umem: Umem,
    pool: Pool,
    /// Per port of the plan, one `Port` per queue that the worker serves.
    ports: Vec<Vec<Box<dyn Port>>>,
    zero_copy: bool,
    fallback: Option<Fallback>,
}

/// Returns the queues of a port that the worker serves.
pub(crate) fn queues_of(
    worker: usize,
    plan: &Plan,
    port: &PortPlan,
) -> impl Iterator<Item = u16> + use<> {
    (0..port.queues).skip(worker).step_by(plan.workers.len())
}

fn open_ports(setup: &Setup) -> Result<WorkerPorts, StartError> {
    let Setup { plan, worker, bind, interface_indexes, sockets, .. } = setup;
    let worker = *worker;
    let mut builder = Builder::new(plan.umem.clone()).mode(*bind).busy_poll(plan.busy_poll);
    let mut uses_xsk_rs = false;
    let xdp_ports =
        || plan.ports.iter().zip(interface_indexes).filter(|(port, _)| port.io.uses_xdp());
    for (port, index) in xdp_ports() {
        uses_xsk_rs |= port.io == Io::XskRs;
        for queue in queues_of(worker, plan, port) {
            builder = builder.queue(&port.interface, *index, u32::from(queue));
        }
    }
    let open_error = |source| StartError::open_failed(worker, plan.workers.len(), source);
    let OpenPorts { umem, pool, ports, zero_copy, fallback } = if xdp_ports().next().is_none() {
        // Packet sockets do not share the UMEM with the kernel.
        let (umem, pool) =
            Umem::new(&plan.umem).map_err(|error| open_error(OpenError::Umem(error)))?;
        OpenPorts { umem, pool, ports: Vec::new(), zero_copy: false, fallback: None }
    } else if uses_xsk_rs {
        open_by_xsk_rs(&builder).map_err(open_error)?
    } else {
        boxed(builder.open().map_err(open_error)?)
    };
    let mut opened = ports.into_iter();
    let mut ports = Vec::with_capacity(plan.ports.len());
    for (port, sockets) in plan.ports.iter().zip(sockets) {
        let queues = match port.io {
            Io::AfXdp | Io::XskRs => {
                Ok(opened.by_ref().take(queues_of(worker, plan, port).count()).collect())
            }
            Io::Packet | Io::PacketMmsg | Io::PacketMmap => {
                open_packet_ports(port.io, sockets, &umem)
            }
        };
        let queues = queues.map_err(|error| {
            let what = format!("{}: {error}", port.interface);
            StartError::Worker { worker, what }
        })?;
        ports.push(queues);
    }
    Ok(WorkerPorts { umem, pool, ports, zero_copy, fallback })
}

/// Creates a port of this kind for each packet socket; none for AF_XDP.
pub(crate) fn open_packet_ports(
    io: Io,
    sockets: &[PacketSocket],
    umem: &Umem,
) -> Result<Vec<Box<dyn Port>>, PortError> {
    match io {
        Io::AfXdp | Io::XskRs => Ok(Vec::new()),
        Io::Packet => packet_ports(sockets, umem, SinglePort::new),
        Io::PacketMmsg => packet_ports(sockets, umem, MmsgPort::new),
        Io::PacketMmap => packet_ports(sockets, umem, MmapPort::new),
    }
}

/// Creates a port for each socket.
fn packet_ports<P: Port + 'static>(
    sockets: &[PacketSocket],
    umem: &Umem,
    new: impl Fn(PacketSocket, &Umem) -> Result<P, PortError>,
) -> Result<Vec<Box<dyn Port>>, PortError> {
    let open = |socket: &PacketSocket| Ok(Box::new(new(socket.clone(), umem)?) as Box<dyn Port>);
    sockets.iter().map(open).collect()
}

fn boxed<P: Port + 'static>(opened: OpenPorts<P>) -> OpenPorts<Box<dyn Port>> {
    let OpenPorts { umem, pool, ports, zero_copy, fallback } = opened;
    let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    OpenPorts { umem, pool, ports, zero_copy, fallback }
}

#[cfg(feature = "xsk-rs")]
fn open_by_xsk_rs(builder: &Builder) -> Result<OpenPorts<Box<dyn Port>>, OpenError> {
    builder.open_by_xsk_rs().map(boxed)
}

#[cfg(not(feature = "xsk-rs"))]
fn open_by_xsk_rs(_: &Builder) -> Result<OpenPorts<Box<dyn Port>>, OpenError> {
    Err(OpenError::NotBuilt)
}

/// Builds the stages of a path for one worker. Panics if a stage panics.
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
        // Add the stage name to the panic message.
        let built =
            catch_unwind(AssertUnwindSafe(|| NamedStage::build(&*stage.name, &*stage.plan, &cx)));
        built.unwrap_or_else(|panic| {
            resume_unwind(Box::new(format!("stage {}: {}", stage.name, panic_message(&*panic))))
        })
    });
    stages.collect()
}
