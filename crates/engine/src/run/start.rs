//! Startup of a data plane.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{Builder as ThreadBuilder, JoinHandle};
use std::time::{Duration, Instant};

use xdpfwd_packet::Promiscuous;
use xdpfwd_pipeline::PortId;
use xdpfwd_xsk::{AttachMode, BindMode, clock};

use crate::attach::attachment::Attachment;
use crate::error::StartError;
use crate::host::interface::{DeferredInterrupts, Interface};
use crate::host::link::Link;
use crate::host::vlan::VlanTagLoss;
use crate::plan::{Io, Mode, Plan};
use crate::run::carry::CarriedCounters;
use crate::run::control::Control;
use crate::run::data_plane::{DataPlane, RunningWorker};
use crate::run::descriptors::raise_limit;
use crate::run::kernel_ledger::{KernelLedger, find_cores};
use crate::run::outage::{PortOutages, RecoveryState};
use crate::run::report::{Fallback, PortMode};
use crate::run::thread::{self, ReadyWorker, Setup, WorkerStatus, queues_of};
use crate::run::up::unreadable;

/// Time limit for a worker to become ready, including retries to bind a busy queue.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);

/// The modes that a plan would use.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The mode of each port, in order.
    pub modes: Vec<PortMode>,
    /// Why the ports would not use the best mode.
    pub fallback: Option<Fallback>,
}

impl DataPlane {
    /// Starts a data plane. On an error, undoes the steps already done.
    ///
    /// Attaches the XDP programs, which pass all packets to the kernel until they have sockets;
    /// then starts the worker threads, which open their sockets on their cores; then inserts the
    /// sockets into the programs' maps, and runs the workers.
    pub fn start(plan: Plan, control: &Control) -> Result<Self, StartError> {
        let deliver = true;
        Self::start_with(plan, control, deliver)
    }

    /// Determines the mode of each port: attaches XDP programs that pass all packets to the kernel,
    /// binds the sockets, and undoes both. As at every start, some drivers then reconfigure their
    /// queues and lose packets.
    pub fn probe(plan: &Plan, control: &Control) -> Result<Probe, StartError> {
        let mut plan = plan.clone();
        plan.paths.iter_mut().for_each(|path| path.stages.clear());
        plan.busy_poll = false;
        let deliver = false;
        let started = Self::start_with(plan, control, deliver)?;
        Ok(Probe { modes: started.modes.clone(), fallback: started.fallback.clone() })
    }

    /// Like [`start`](Self::start), but if `deliver` is false, no packets reach the sockets.
    fn start_with(plan: Plan, control: &Control, deliver: bool) -> Result<Self, StartError> {
        if plan.workers.is_empty() {
            return Err(StartError::Empty("workers"));
        }
        if plan.ports.is_empty() {
            return Err(StartError::Empty("ports"));
        }
        let interfaces: Vec<Interface> = (plan.ports.iter())
            .map(|port| Interface::find(&port.name, &port.interface))
            .collect::<Result<_, _>>()?;
        check_interfaces(&plan, &interfaces)?;
        check_ethernet(&plan, &interfaces)?;
        raise_limit(&plan)?;
        if deliver {
            check_vlan_tags(&plan, &interfaces)?;
        }
        check_umem_sharing(&plan)?;
        check_kernel_stages(&plan)
            .map_err(|(stage, why)| StartError::NotInKernel { stage, why })?;
        // Acquire external resources before changing the network.
        plan.acquire(None).map_err(|(stage, source)| StartError::Resource { stage, source })?;
        let acquired = plan.clone();
        Self::start_acquired(plan, interfaces, control, deliver)
            // Ignore the returned faults: the stages have logged them.
            .inspect_err(|_| drop(acquired.release(None)))
    }

    fn start_acquired(
        mut plan: Plan,
        interfaces: Vec<Interface>,
        control: &Control,
        deliver: bool,
    ) -> Result<Self, StartError> {
        let mut attachments = Vec::with_capacity(interfaces.len());
        let mut fallback = None;
        for (id, interface) in (0..=u8::MAX).map(PortId).zip(&interfaces) {
            let attach = |plan: &Plan| {
                Attachment::new(
                    &plan.ports[usize::from(id.0)],
                    interface,
                    plan.xdp_image(id),
                    plan.mode,
                    plan.umem.frame_size,
                )
            };
            let attached = match attach(&plan) {
                Err(error @ StartError::Offload(_))
                    if plan.fall_back_to_user_space(id, &error.to_string()) =>
                {
                    attach(&plan)
                }
                other => other,
            };
            let (attachment, error) = attached?;
            let port = &plan.ports[usize::from(id.0)];
            if let Some(error) = error {
                fallback.get_or_insert_with(|| {
                    Fallback::new(&port.name, &port.interface, "native XDP", &error)
                });
            }
            attachments.push(attachment);
        }
        let plan = Arc::new(plan);
        let interrupts =
            if plan.busy_poll { defer_interrupts(&plan, &interfaces) } else { Vec::new() };

        let bind = match plan.mode {
            Mode::Copy | Mode::Skb => BindMode::Copy,
            Mode::ZeroCopy => BindMode::ZeroCopy,
            Mode::Auto
                if attachments
                    .iter()
                    .any(|attachment| attachment.mode() == Some(AttachMode::Skb)) =>
            {
                BindMode::Copy
            }
            Mode::Auto => BindMode::Auto,
        };
        let interface_indexes: Vec<u32> =
            interfaces.iter().map(|interface| interface.index).collect();
        let mut data_plane = Self {
            plan: Arc::clone(&plan),
            started: Instant::now(),
            attachments,
            workers: Vec::new(),
            modes: Vec::new(),
            interfaces,
            address_errors: Vec::new(),
            fallback,
            carried: CarriedCounters::default(),
            kernel_ledger: KernelLedger::off(),
            unreleased: Vec::new(),
            faults_of_released: Vec::new(),
            replaced: mpsc::channel(),
            interrupts,
            promiscuous: Vec::new(),
            outages: plan.ports.iter().map(|_| PortOutages::default()).collect(),
            recovery: RecoveryState::default(),
            stage_ports: thread::ports_for_stages(&plan),
        };
        data_plane.update_host_addresses();
        if deliver {
            data_plane.enable_promiscuous_mode()?;
        }
        data_plane.start_workers(bind, &interface_indexes, control, deliver)?;
        Ok(data_plane)
    }

    fn start_workers(
        &mut self,
        bind: BindMode,
        interface_indexes: &[u32],
        control: &Control,
        deliver: bool,
    ) -> Result<(), StartError> {
        let mut starting_workers = Vec::with_capacity(self.plan.workers.len());
        let mut result = Ok(());
        for worker in 0..self.plan.workers.len() {
            let sockets =
                self.attachments.iter().zip(&self.plan.ports).map(|(attachment, port)| {
                    queues_of(worker, &self.plan, port)
                        .filter_map(|queue| attachment.socket(queue))
                        .collect()
                });
            let sockets = sockets.collect();
            let setup = Setup {
                plan: Arc::clone(&self.plan),
                worker,
                bind,
                interface_indexes: interface_indexes.to_vec(),
                port_infos: self.stage_ports.clone(),
                sockets,
            };
            match StartingWorker::spawn(setup, control) {
                Ok(starting_worker) => starting_workers.push(starting_worker),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut ready_workers = Vec::with_capacity(starting_workers.len());
        for (worker, starting_worker) in starting_workers.iter().enumerate() {
            // After a failure, do not wait for the other workers.
            if result.is_ok() {
                match wait_ready(worker, &starting_worker.ready_receiver) {
                    Ok(ready_worker) => ready_workers.push(ready_worker),
                    Err(error) => result = Err(error),
                }
            }
        }
        if deliver && result.is_ok() {
            self.start_kernel_ledger(&ready_workers);
        }
        // Start delivery only when all workers are ready, so that no packets wait for a worker that
        // is still starting.
        for ready_worker in ready_workers.iter().filter(|_| deliver) {
            result = result.and_then(|()| self.start_delivery(ready_worker));
        }
        if let Err(error) = result {
            for starting_worker in starting_workers {
                starting_worker.abandon();
            }
            return Err(error);
        }
        let zero_copy = ready_workers.iter().all(|worker| worker.zero_copy);
        self.modes = (self.attachments.iter().zip(&self.plan.ports))
            .map(|(attachment, port)| match (port.io, attachment.mode()) {
                (Io::Packet, _) => PortMode::Packet,
                (Io::PacketMmsg, _) => PortMode::PacketMmsg,
                (Io::PacketMmap, _) => PortMode::PacketMmap,
                (Io::AfXdp | Io::XskRs, Some(AttachMode::Native)) if zero_copy => {
                    PortMode::ZeroCopy
                }
                (Io::AfXdp | Io::XskRs, Some(AttachMode::Native)) => PortMode::Copy,
                (Io::AfXdp | Io::XskRs, Some(AttachMode::Skb) | None) => PortMode::Skb,
            })
            .collect();
        for (starting_worker, ready_worker) in starting_workers.into_iter().zip(ready_workers) {
            let ReadyWorker { remote, fallback, .. } = ready_worker;
            if let Some(fallback) = fallback {
                let port = self.plan.ports.iter().find(|port| port.interface == fallback.interface);
                let name = port.map_or("", |port| &port.name);
                let port_fallback =
                    Fallback::new(name, &fallback.interface, "zero-copy", &fallback.error);
                self.fallback.get_or_insert(port_fallback);
            }
            let started_cycles = clock::cycles();
            // Fails if the worker has already ended; `failed_worker` reports this.
            let _ = starting_worker.start_signal.send(());
            let StartingWorker { thread, status, .. } = starting_worker;
            self.workers.push(RunningWorker {
                remote,
                thread,
                status,
                last_reply: None,
                started_cycles,
            });
        }
        Ok(())
    }

    /// Starts the kernel ledger. Logs what is not possible: packets are forwarded all the same.
    fn start_kernel_ledger(&mut self, ready_workers: &[ReadyWorker]) {
        let tids = ready_workers.iter().map(|worker| worker.tid);
        let workers: Vec<_> = tids.zip(self.plan.workers.iter().copied()).collect();
        let cores = || find_cores(&self.plan, &self.interfaces);
        self.kernel_ledger = KernelLedger::start(self.plan.kernel_ledger, cores, &workers);
        for obstacle in self.kernel_ledger.obstacles() {
            tracing::warn!("{obstacle}");
        }
    }

    fn enable_promiscuous_mode(&mut self) -> Result<(), StartError> {
        for ((id, port), interface) in self.plan.numbered_ports().zip(&self.interfaces) {
            if port.promiscuous && self.plan.paths.iter().any(|path| path.from == id) {
                let promiscuous = Promiscuous::enable(interface.index)
                    .map_err(|source| StartError::promiscuous_failed(&interface.name, source))?;
                self.promiscuous.push((id, promiscuous));
            }
        }
        Ok(())
    }

    fn start_delivery(&self, worker: &ReadyWorker) -> Result<(), StartError> {
        for (port, queue, socket) in &worker.sockets {
            let attachment = &self.attachments[usize::from(port.0)];
            attachment.start_delivery(*queue, *socket).map_err(|error| {
                let port = &self.plan.ports[usize::from(port.0)];
                StartError::Bpf(format!(
                    "cannot redirect the packets of {} queue {queue} to its socket: {error}",
                    port.interface
                ))
            })?;
        }
        Ok(())
    }
}

struct StartingWorker {
    thread: JoinHandle<()>,
    ready_receiver: mpsc::Receiver<Result<ReadyWorker, StartError>>,
    /// Sending starts the worker; dropping it ends the thread.
    start_signal: mpsc::SyncSender<()>,
    status: Arc<WorkerStatus>,
}

impl StartingWorker {
    fn spawn(setup: Setup, control: &Control) -> Result<Self, StartError> {
        let (ready_sender, ready_receiver) = mpsc::sync_channel(1);
        let (start_signal, start_receiver) = mpsc::sync_channel(1);
        let status = Arc::new(WorkerStatus::new(control.waker()));
        let worker_status = Arc::clone(&status);
        let thread = ThreadBuilder::new()
            .name(format!("worker-{}", setup.worker))
            .spawn(move || thread::run(setup, &worker_status, ready_sender, &start_receiver));
        let thread = thread
            .map_err(|source| StartError::Io { what: "cannot start a worker's thread", source })?;
        Ok(Self { thread, ready_receiver, start_signal, status })
    }

    /// Ends the thread, which closes its sockets, and waits for its end.
    fn abandon(self) {
        drop((self.start_signal, self.ready_receiver));
        let _ = self.thread.join();
    }
}

/// Rejects two ports on one interface, which can have only one XDP program. Compares indexes,
/// because an interface can have several names.
fn check_interfaces(plan: &Plan, interfaces: &[Interface]) -> Result<(), StartError> {
    for (second, interface) in interfaces.iter().enumerate() {
        if let Some(first) =
            interfaces[..second].iter().position(|other| other.index == interface.index)
        {
            return Err(StartError::SameInterface {
                first: plan.ports[first].name.clone(),
                second: plan.ports[second].name.clone(),
                interface: interface.name.clone(),
            });
        }
    }
    Ok(())
}

/// Rejects a plan whose rules compare VLAN tags that an interface loses. Warns if only the tags of
/// some senders are lost.
fn check_vlan_tags(plan: &Plan, interfaces: &[Interface]) -> Result<(), StartError> {
    let mut ports = plan.numbered_ports().zip(interfaces);
    ports.try_for_each(|((id, _), interface)| check_vlan_tags_of(plan, id, interface))
}

/// The same for one port.
pub(crate) fn check_vlan_tags_of(
    plan: &Plan,
    id: PortId,
    interface: &Interface,
) -> Result<(), StartError> {
    let Some(port) = plan.ports.get(usize::from(id.0)).filter(|_| plan.needs_vlan_tags(id)) else {
        return Ok(());
    };
    let interface_name = interface.name.clone();
    match VlanTagLoss::find(&interface.name, interface.index) {
        Ok(None) => {}
        Ok(Some(loss)) if loss.depends_on_sender => tracing::warn!(
            port = port.name,
            "{interface_name}: rules compare VLAN tags, but {}; {}",
            loss.cause,
            loss.fix
        ),
        Ok(Some(loss)) => return Err(StartError::VlanTags { interface: interface_name, loss }),
        Err(error) => tracing::warn!(
            port = port.name,
            %error,
            "cannot check whether {interface_name} removes VLAN tags, which rules compare; run \
             `ethtool -K {interface_name} rxvlan off rx-vlan-stag-hw-parse off`"
        ),
    }
    Ok(())
}

/// Rejects a plan with an interface that carries other frames than Ethernet. Packet sockets would
/// accept such frames, and xdpfwd would treat their first bytes as MAC addresses.
fn check_ethernet(plan: &Plan, interfaces: &[Interface]) -> Result<(), StartError> {
    for (port, interface) in plan.ports.iter().zip(interfaces) {
        let link = Link::read(interface.index).map_err(unreadable)?;
        link.check_ethernet(&port.interface)
            .map_err(|source| StartError::NotEthernet { port: port.name.clone(), source })?;
    }
    Ok(())
}

/// Rejects a plan with both `af_xdp` and `xsk-rs` ports: an `af_xdp` port cannot transmit from the
/// UMEM that libxdp registers for an `xsk-rs` port.
fn check_umem_sharing(plan: &Plan) -> Result<(), StartError> {
    let port_with = |io| plan.ports.iter().find(|port| port.io == io).map(|port| port.name.clone());
    match (port_with(Io::AfXdp), port_with(Io::XskRs)) {
        (Some(first), Some(second)) => Err(StartError::UnsharedMemory { first, second }),
        _ => Ok(()),
    }
}

/// Rejects `in_kernel` stages that the XDP program cannot run. Only plans created in Rust can have
/// them. The error contains the stage's name and the reason.
pub(crate) fn check_kernel_stages(plan: &Plan) -> Result<(), (String, String)> {
    for path in &plan.paths {
        for (index, stage) in path.stages.iter().enumerate().filter(|(_, stage)| stage.in_kernel) {
            if let Some(why) = plan.kernel_obstacle(path, index) {
                return Err((stage.name.clone(), why));
            }
        }
    }
    Ok(())
}

fn wait_ready(
    worker: usize,
    ready: &mpsc::Receiver<Result<ReadyWorker, StartError>>,
) -> Result<ReadyWorker, StartError> {
    match ready.recv_timeout(STARTUP_TIMEOUT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(StartError::Timeout { worker, waited: STARTUP_TIMEOUT })
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(StartError::Worker { worker, what: "its thread ended during startup".into() })
        }
    }
}

/// Defers the interrupts of ports that use XDP, because busy polling replaces them. Logs failures.
fn defer_interrupts(plan: &Plan, interfaces: &[Interface]) -> Vec<(PortId, DeferredInterrupts)> {
    let defer = |interface: &Interface| match DeferredInterrupts::enable(interface) {
        Ok(deferred) => Some(deferred),
        Err(error) => {
            tracing::warn!(
                interface = interface.name,
                %error,
                "cannot defer interrupts; busy polling is less effective"
            );
            None
        }
    };
    let ports = plan.numbered_ports().zip(interfaces);
    let polled_ports = ports.filter(|((_, port), _)| port.io.uses_xdp());
    polled_ports.filter_map(|((id, _), interface)| Some((id, defer(interface)?))).collect()
}
