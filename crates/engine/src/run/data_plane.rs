//! The running data plane.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{Builder as ThreadBuilder, JoinHandle};
use std::time::{Duration, Instant};

use xdpfwd_packet::Promiscuous;
use xdpfwd_pipeline::{PortId, Remote, WorkerReport};
use xdpfwd_xsk::{AttachMode, BindMode, clock};

use crate::attach::attachment::Attachment;
use crate::error::{StartError, WorkerFailure};
use crate::host::addresses::Host;
use crate::host::interface::{DeferredInterrupts, Interface};
use crate::plan::{Io, Mode, PathPlan, Plan, PortPlan};
use crate::run::carry::{CarriedCounters, Retired};
use crate::run::control::Control;
use crate::run::inspect::{self, Inspection, RowCounters};
use crate::run::report::{Fallback, PortMode, Report, WorkerReply};
use crate::run::thread::{self, PlannedChain, Ready, Setup, WorkerStatus, queues_of};

/// How long a worker may take to open its sockets: a busy queue is waited for.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a worker may take to answer a question: it answers between two batches.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long what is on its way may take to get there when the data plane stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// A data plane at work. [`stop`](Self::stop) ends it with a report; dropping it ends it without.
pub struct DataPlane {
    plan: Arc<Plan>,
    started: Instant,
    // In the order in which they go: the program is taken off before the sockets are closed.
    attachments: Vec<Attachment>,
    workers: Vec<RunningWorker>,
    modes: Vec<PortMode>,
    interfaces: Vec<Interface>,
    /// Of the last [`follow_host`](Self::follow_host).
    complaints: Vec<String>,
    fallback: Option<Fallback>,
    /// Row counters of stages that reloads have replaced.
    carried: CarriedCounters,
    /// Plans whose resources a worker may still use, because it did not reply to a reload.
    unreleased: Vec<Arc<Plan>>,
    /// What workers have counted in stages that they have replaced: sent by each when it does so.
    retired: (mpsc::Sender<Retired>, mpsc::Receiver<Retired>),
    _interrupts: Vec<DeferredInterrupts>,
    /// Kept for as long as packets are to come.
    promiscuous: Vec<Promiscuous>,
}

/// What a plan would get.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The mode of each port, in the order of the plan.
    pub modes: Vec<PortMode>,
    /// What keeps the ports from a better one, if something does.
    pub fallback: Option<Fallback>,
}

struct RunningWorker {
    remote: Remote<PlannedChain>,
    thread: JoinHandle<()>,
    health: Arc<WorkerStatus>,
    /// What it reported last, for when it cannot any more.
    last: Option<WorkerReply>,
    /// When it was told to run, in cycles.
    told: u64,
}

impl DataPlane {
    /// Starts everything that the plan says, or nothing: on an error whatever was started is gone again.
    ///
    /// First the XDP programs, which leave all packets to the kernel as long as no socket is there; then the workers, each of
    /// which opens its sockets on its own core; then the sockets are entered into the programs' maps, and the workers run.
    pub fn start(plan: Plan, control: &Control) -> Result<Self, StartError> {
        Self::start_directing(plan, control, true)
    }

    /// Starts what the plan says as far as the mode of each port shows, and ends it: attaches, binds, and leaves all packets to
    /// the kernel. Drivers that set their queues up anew for that lose what arrives in the meantime, as at every start. The
    /// plan's stages are left out.
    pub fn probe(plan: &Plan, control: &Control) -> Result<Probe, StartError> {
        let mut plan = plan.clone();
        plan.paths.iter_mut().for_each(|path| path.stages.clear());
        plan.busy_poll = false;
        let started = Self::start_directing(plan, control, false)?;
        Ok(Probe { modes: started.modes.clone(), fallback: started.fallback.clone() })
    }

    fn start_directing(plan: Plan, control: &Control, direct: bool) -> Result<Self, StartError> {
        if plan.workers.is_empty() {
            return Err(StartError::Empty("workers"));
        }
        if plan.ports.is_empty() {
            return Err(StartError::Empty("ports"));
        }
        let interfaces: Vec<Interface> =
            (plan.ports.iter()).map(|port| Interface::find(&port.name, &port.interface)).collect::<Result<_, _>>()?;
        check_interfaces(&plan, &interfaces)?;
        check_memory(&plan)?;
        check_places(&plan).map_err(|(stage, why)| StartError::Placed { stage, why })?;
        // Before anything of the network is touched.
        plan.acquire(None).map_err(|(stage, source)| StartError::Resource { stage, source })?;
        let acquired = plan.clone();
        Self::start_acquired(plan, interfaces, control, direct).inspect_err(|_| acquired.release(None))
    }

    /// The part of a start for which the stages have their resources.
    fn start_acquired(
        mut plan: Plan,
        interfaces: Vec<Interface>,
        control: &Control,
        direct: bool,
    ) -> Result<Self, StartError> {
        let mut attachments = Vec::with_capacity(interfaces.len());
        let mut fallback = None;
        for (id, interface) in (0..=u8::MAX).map(PortId).zip(&interfaces) {
            let attach =
                |plan: &Plan| Attachment::new(&plan.ports[usize::from(id.0)], interface, plan.xdp_image(id), plan.mode);
            let attached = match attach(&plan) {
                Err(error @ StartError::Offload(_)) if plan.falls_back(id, &error.to_string()) => attach(&plan),
                other => other,
            };
            let (attachment, error) = attached?;
            let port = &plan.ports[usize::from(id.0)];
            if let Some(error) = error {
                fallback.get_or_insert_with(|| Fallback::new(&port.name, &port.interface, "native XDP", &error));
            }
            attachments.push(attachment);
        }
        let plan = Arc::new(plan);
        let interrupts = if plan.busy_poll { defer_interrupts(&plan, &interfaces) } else { Vec::new() };

        let bind = match plan.mode {
            Mode::Copy | Mode::Skb => BindMode::Copy,
            Mode::ZeroCopy => BindMode::ZeroCopy,
            Mode::Auto if attachments.iter().any(|attachment| attachment.mode() == Some(AttachMode::Skb)) => {
                BindMode::Copy
            }
            Mode::Auto => BindMode::Auto,
        };
        let indexes: Vec<u32> = interfaces.iter().map(|interface| interface.index).collect();
        let mut data_plane = Self {
            plan: Arc::clone(&plan),
            started: Instant::now(),
            attachments,
            workers: Vec::new(),
            modes: Vec::new(),
            interfaces,
            complaints: Vec::new(),
            fallback,
            carried: CarriedCounters::default(),
            unreleased: Vec::new(),
            retired: mpsc::channel(),
            _interrupts: interrupts,
            promiscuous: Vec::new(),
        };
        data_plane.follow_host();
        if direct {
            data_plane.take_in_all()?;
        }
        data_plane.start_workers(bind, &indexes, control, direct)?;
        Ok(data_plane)
    }

    fn start_workers(
        &mut self,
        bind: BindMode,
        indexes: &[u32],
        control: &Control,
        direct: bool,
    ) -> Result<(), StartError> {
        let mut starting = Vec::with_capacity(self.plan.workers.len());
        let addresses = thread::own_addresses(&self.plan, &self.interfaces);
        let mut result = Ok(());
        for worker in 0..self.plan.workers.len() {
            let sockets = self.attachments.iter().zip(&self.plan.ports).map(|(attachment, port)| {
                queues_of(worker, &self.plan, port).filter_map(|queue| attachment.socket(queue)).collect()
            });
            let sockets = sockets.collect();
            let setup = Setup {
                plan: Arc::clone(&self.plan),
                worker,
                bind,
                indexes: indexes.to_vec(),
                addresses: addresses.clone(),
                sockets,
            };
            match Starting::spawn(setup, control) {
                Ok(started) => starting.push(started),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut ready = Vec::with_capacity(starting.len());
        for (worker, started) in starting.iter().enumerate() {
            // After a failure the others are not waited for, only ended.
            if result.is_ok() {
                match wait_ready(worker, &started.ready) {
                    Ok(is_ready) => ready.push(is_ready),
                    Err(error) => result = Err(error),
                }
            }
        }
        // Only now that all are ready: what is redirected before would wait in the rings of a worker that does not run.
        for is_ready in ready.iter().filter(|_| direct) {
            result = result.and_then(|()| self.direct(is_ready));
        }
        if let Err(error) = result {
            for started in starting {
                started.abandon();
            }
            return Err(error);
        }
        let zero_copy = ready.iter().all(|is_ready| is_ready.zero_copy);
        self.modes = (self.attachments.iter())
            .map(|attachment| match (attachment.mode(), zero_copy) {
                (None, _) => PortMode::PacketMmsg,
                (Some(AttachMode::Skb), _) => PortMode::Skb,
                (Some(AttachMode::Native), true) => PortMode::ZeroCopy,
                (Some(AttachMode::Native), false) => PortMode::Copy,
            })
            .collect();
        for (started, is_ready) in starting.into_iter().zip(ready) {
            let Ready { remote, fallback, .. } = is_ready;
            if let Some(fallback) = fallback {
                let port = self.plan.ports.iter().find(|port| port.interface == fallback.interface);
                let name = port.map_or("", |port| &port.name);
                let own = Fallback::new(name, &fallback.interface, "zero-copy", &fallback.error);
                self.fallback.get_or_insert(own);
            }
            // A worker that is gone already is noticed by who asks for `failed_worker`.
            let told = clock::cycles();
            let _ = started.go.send(());
            let Starting { thread, health, .. } = started;
            self.workers.push(RunningWorker { remote, thread, health, last: None, told });
        }
        Ok(())
    }

    /// Has interfaces from which paths begin take in frames for any MAC address.
    fn take_in_all(&mut self) -> Result<(), StartError> {
        for ((id, port), interface) in self.plan.numbered_ports().zip(&self.interfaces) {
            if port.promiscuous && self.plan.paths.iter().any(|path| path.from == id) {
                let promiscuous = Promiscuous::on(interface.index)
                    .map_err(|source| StartError::promiscuous(&interface.name, source))?;
                self.promiscuous.push(promiscuous);
            }
        }
        Ok(())
    }

    fn direct(&self, ready: &Ready) -> Result<(), StartError> {
        for (port, queue, socket) in &ready.sockets {
            let attachment = &self.attachments[usize::from(port.0)];
            attachment.direct(*queue, *socket).map_err(|error| {
                let port = &self.plan.ports[usize::from(port.0)];
                StartError::Bpf(format!(
                    "directing the packets of {} queue {queue} to its socket: {error}",
                    port.interface
                ))
            })?;
        }
        Ok(())
    }

    /// The ports, in the order of the plan.
    pub fn ports(&self) -> &[PortPlan] {
        &self.plan.ports
    }

    /// What each port's mode is, in the order of the plan: what was got, not what was asked for.
    pub fn modes(&self) -> &[PortMode] {
        &self.modes
    }

    /// What kept the ports from a better mode, if something did.
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// The worker that has panicked or ended on its own, if one has. What it counted is in the report all the same; nothing
    /// goes through its stages any more, so [`stop`](Self::stop) is what is left to do.
    pub fn failed_worker(&self) -> Option<WorkerFailure> {
        let worker = self.workers.iter().position(|worker| worker.health.has_failed())?;
        Some(WorkerFailure { worker, panic: self.workers[worker].health.panic().map(str::to_owned) })
    }

    /// The port whose interface has disappeared, if one has: its sockets are bound to nothing any more.
    pub fn lost_port(&self) -> Option<&PortPlan> {
        let gone = self.interfaces.iter().position(|interface| !interface.exists())?;
        self.plan.ports.get(gone)
    }

    /// Tells the XDP programs by which addresses frames are for this host: to be called when [`Event::HostChanged`] says
    /// that they may be others.
    ///
    /// [`Event::HostChanged`]: crate::Event::HostChanged
    pub fn follow_host(&mut self) {
        if !self.attachments.iter().any(|attachment| attachment.follows()) {
            return;
        }
        let mut complaints = Vec::new();
        match Host::read() {
            Ok(host) => {
                for (attachment, interface) in self.attachments.iter_mut().zip(&self.interfaces) {
                    if let Err(error) = attachment.follow(&host.own(interface.index)) {
                        complaints.push(format!("{}: {error}", interface.name));
                    }
                }
            }
            Err(error) => complaints.push(format!("cannot ask for links and addresses: {error}")),
        }
        // Somebody out there may make addresses change, with router advertisements: what is the matter is said once.
        if complaints != self.complaints {
            for complaint in &complaints {
                tracing::warn!("what is kept for this host may not be up to date: {complaint}");
            }
            self.complaints = complaints;
        }
    }

    /// What runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The paths and their stages, as they are now.
    pub fn paths(&self) -> &[PathPlan] {
        &self.plan.paths
    }

    /// Returns the inspection tables of all stages, with counters added up over workers, reloads and XDP programs.
    pub fn inspect(&mut self) -> Inspection {
        let mut counted: RowCounters = vec![Vec::new(); self.plan.paths.len()];
        let mut answered = 0;
        for worker in &self.workers {
            let Ok(rows) = worker.remote.ask(|worker| worker.row_counters(), ANSWER_WITHIN) else { continue };
            answered += 1;
            inspect::add_rows(&mut counted, &rows);
        }
        // After the workers have replied: one that replaced its stages late has sent their counters before.
        self.absorb_retired();
        let tables = self.tables(counted);
        Inspection { workers: self.workers.len(), answered, tables }
    }

    /// Returns the inspection tables that need no counters of workers, without asking them.
    pub fn inspect_plans(&self) -> Vec<inspect::TableReport> {
        inspect::tables_of_plans(&self.plan)
    }

    fn tables(&self, mut counted: RowCounters) -> Vec<inspect::TableReport> {
        for (path, counted) in self.plan.paths.iter().zip(&mut counted) {
            let attachment = self.attachments.get(usize::from(path.from.0));
            let in_kernel = path.stages.first().filter(|stage| stage.in_kernel).and(attachment);
            if let Some(rows) = in_kernel.and_then(Attachment::row_counters) {
                inspect::add_rows(std::slice::from_mut(counted), &[vec![rows]]);
            }
        }
        inspect::tables(&self.plan, &counted, &self.carried)
    }

    /// Adds what replaced stages had counted to the counters that are carried on.
    pub(crate) fn absorb_retired(&mut self) {
        let mut any = false;
        while let Ok(Retired { plan, swapped }) = self.retired.1.try_recv() {
            any = true;
            let mut stages = plan.stages_with_ids();
            // Every worker has the paths and stages of the plan, in its order.
            for counters in swapped.iter().flat_map(|path| &path.row_counters) {
                let Some((id, stage)) = stages.next() else { break };
                if let Some(inspectable) = stage.plan.as_inspectable() {
                    self.carried.carry(id, inspectable.counter_keys(), counters);
                }
            }
        }
        if any {
            self.carried.retain(&self.plan);
        }
    }

    /// Runs the stages' periodic work off the data path: to be called about once a second.
    pub fn maintain(&self) {
        self.plan.each_stage().filter_map(|stage| stage.plan.as_maintained()).for_each(|stage| stage.maintain());
    }

    /// The interfaces, in the order of the ports.
    pub(crate) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The attachments, in the order of the ports.
    pub(crate) fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The same, to be changed.
    pub(crate) fn attachments_mut(&mut self) -> &mut [Attachment] {
        &mut self.attachments
    }

    /// Row counters of stages that were replaced.
    pub(crate) fn carried_mut(&mut self) -> &mut CarriedCounters {
        &mut self.carried
    }

    /// Forgets carried counters of rows that the plan no longer has.
    pub(crate) fn forget_absent_rows(&mut self) {
        self.carried.retain(&self.plan);
    }

    /// Releases the resources of a plan only at the end, because a worker may still use them.
    pub(crate) fn release_at_the_end(&mut self, plan: Arc<Plan>) {
        self.unreleased.push(plan);
    }

    /// Where workers send what they have counted in stages that they replace.
    pub(crate) fn retired(&self) -> mpsc::Sender<Retired> {
        self.retired.0.clone()
    }

    /// What runs, to be kept.
    pub(crate) fn plan_shared(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// From now on this one does.
    pub(crate) fn take_plan(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
    }

    /// The workers, in order.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = &Remote<PlannedChain>> {
        self.workers.iter().map(|worker| &worker.remote)
    }

    /// Switches the ledger of all workers on or off, while they run.
    pub fn switch_ledger(&self, on: bool) {
        for worker in &self.workers {
            // One that has ended is noticed by who asks for `failed_worker`.
            let _ = worker.remote.send(move |worker| worker.switch_ledger(on));
        }
    }

    /// Everything counted so far. A worker that does not answer is reported as it was last.
    pub fn report(&mut self) -> Report {
        for worker in &mut self.workers {
            if let Ok(report) = worker.remote.ask(|worker| worker.report(), ANSWER_WITHIN) {
                worker.reported(report);
            }
        }
        self.collect()
    }

    fn collect(&self) -> Report {
        let reports = self.workers.iter().map(|worker| worker.last.as_ref());
        let xdp = self.attachments.iter().map(|attachment| attachment.counters()).collect::<Vec<_>>();
        let failure = self.failed_worker().map(|failure| failure.to_string());
        Report::new(&self.plan, self.started.elapsed(), reports, &xdp, &self.modes, self.fallback.clone(), failure)
    }

    /// Stops receiving, lets what is on its way get there, takes the programs off, closes the sockets, and reports.
    pub fn stop(mut self) -> Report {
        for (attachment, port) in self.attachments.iter().zip(&self.plan.ports) {
            attachment.release(port.queues);
        }
        // All at once: a port that does not send takes its worker the whole time.
        let answers: Vec<_> = self.workers.iter().map(RunningWorker::drain).collect();
        let deadline = Instant::now() + DRAIN_WITHIN + ANSWER_WITHIN;
        let mut counted: RowCounters = vec![Vec::new(); self.plan.paths.len()];
        for (index, (worker, mut answered)) in self.workers.iter_mut().zip(answers).enumerate() {
            let left = || deadline.saturating_duration_since(Instant::now());
            let mut answer = answered.recv_timeout(left());
            if matches!(answer, Err(mpsc::RecvTimeoutError::Disconnected)) {
                // A stage panicked when it was to give back what it holds: once more, now that it is not called. (Or the
                // thread is gone; then this is disconnected at once.)
                answered = worker.drain();
                answer = answered.recv_timeout(left());
            }
            match answer {
                Ok((report, rows)) => {
                    worker.reported(report);
                    inspect::add_rows(&mut counted, &rows);
                }
                Err(_) if worker.last.is_some() => {
                    tracing::warn!(worker = index, "the worker does not answer: its last report stands");
                }
                Err(_) => {
                    tracing::warn!(worker = index, "the worker does not answer and never has: it is not in the report");
                }
            }
        }
        self.absorb_retired();
        // The maps of the programs can still be read; packets no longer wait for that.
        self.attachments.iter_mut().for_each(Attachment::detach);
        let tables = self.tables(counted);
        self.collect().with_tables(tables)
        // Dropping does the rest, in order.
    }
}

impl RunningWorker {
    fn reported(&mut self, report: WorkerReport) {
        self.last = Some(WorkerReply { report, wall_cycles: clock::cycles().wrapping_sub(self.told) });
    }

    /// Has the worker bring everything to its end and report.
    fn drain(&self) -> mpsc::Receiver<(WorkerReport, RowCounters)> {
        let (answer, answered) = mpsc::sync_channel(1);
        let drain = move |worker: &mut xdpfwd_pipeline::Worker<PlannedChain>| {
            worker.drain(DRAIN_WITHIN);
            drop(answer.send((worker.report(), worker.row_counters())));
        };
        // To a worker that is gone nothing is sent, and `answered` is disconnected.
        let _ = self.remote.send(drain);
        answered
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        for attachment in &mut self.attachments {
            attachment.detach();
        }
        for worker in self.workers.drain(..) {
            worker.remote.stop();
            if worker.thread.join().is_err() {
                tracing::error!("a worker's thread panicked while it ended");
            }
        }
        self.plan.release(None);
        self.unreleased.iter().for_each(|plan| plan.release(None));
    }
}

/// A worker's thread that is getting ready.
struct Starting {
    thread: JoinHandle<()>,
    ready: mpsc::Receiver<Result<Ready, StartError>>,
    /// Tells it to run; dropped, it ends.
    go: mpsc::SyncSender<()>,
    health: Arc<WorkerStatus>,
}

impl Starting {
    fn spawn(setup: Setup, control: &Control) -> Result<Self, StartError> {
        let (ready_sender, ready) = mpsc::sync_channel(1);
        let (go, go_receiver) = mpsc::sync_channel(1);
        let health = Arc::new(WorkerStatus::new(control.waker()));
        let own = Arc::clone(&health);
        let thread = ThreadBuilder::new()
            .name(format!("worker-{}", setup.worker))
            .spawn(move || thread::run(setup, &own, ready_sender, &go_receiver));
        let thread = thread.map_err(|source| StartError::Io { what: "starting a worker's thread", source })?;
        Ok(Self { thread, ready, go, health })
    }

    /// Ends it, sockets and all.
    fn abandon(self) {
        drop((self.go, self.ready));
        let _ = self.thread.join();
    }
}

/// Two ports on one interface would each find the other's program in the way. One interface can have several names.
fn check_interfaces(plan: &Plan, interfaces: &[Interface]) -> Result<(), StartError> {
    for (second, interface) in interfaces.iter().enumerate() {
        if let Some(first) = interfaces[..second].iter().position(|other| other.index == interface.index) {
            return Err(StartError::SameInterface {
                first: plan.ports[first].name.clone(),
                second: plan.ports[second].name.clone(),
                interface: interface.name.clone(),
            });
        }
    }
    Ok(())
}

/// What libxdp receives into, our own sockets cannot send from.
fn check_memory(plan: &Plan) -> Result<(), StartError> {
    let by = |io| plan.ports.iter().find(|port| port.io == io).map(|port| port.name.clone());
    match (by(Io::AfXdp), by(Io::XskRs)) {
        (Some(first), Some(second)) => Err(StartError::UnsharedMemory { first, second }),
        _ => Ok(()),
    }
}

/// A stage that a library's user wants in the kernel may not be possible there.
pub(crate) fn check_places(plan: &Plan) -> Result<(), (String, String)> {
    for path in &plan.paths {
        for (place, stage) in path.stages.iter().enumerate().filter(|(_, stage)| stage.in_kernel) {
            if let Some(why) = plan.in_the_way_of_kernel(path, place) {
                return Err((stage.name.clone(), why));
            }
        }
    }
    Ok(())
}

fn wait_ready(worker: usize, ready: &mpsc::Receiver<Result<Ready, StartError>>) -> Result<Ready, StartError> {
    match ready.recv_timeout(READY_WITHIN) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(StartError::Timeout { worker, waited: READY_WITHIN }),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(StartError::Worker { worker, what: "its thread ended while it was getting ready".into() })
        }
    }
}

fn defer_interrupts(plan: &Plan, interfaces: &[Interface]) -> Vec<DeferredInterrupts> {
    let set = |interface: &Interface| match DeferredInterrupts::set(interface) {
        Ok(settings) => Some(settings),
        Err(error) => {
            tracing::warn!(interface = interface.name, %error, "interrupts are not deferred: busy polling will help less");
            None
        }
    };
    let polled = plan.ports.iter().zip(interfaces).filter(|(port, _)| port.io.takes_by_xdp());
    polled.filter_map(|(_, interface)| set(interface)).collect()
}
