//! Ports that lose their interface and get it back, while the other ports go on.
//!
//! An interface is lost when it is removed or moved to another network namespace: the kernel then
//! unbinds its sockets for ever, even if the interface comes back. So the port is closed, and
//! opened again on the interface that has the configured name. The same is done if another program
//! detaches the XDP program, or a device stops sending. Decision 0040 explains why frames of the
//! closed sockets can be used again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use xdpfwd_packet::{PacketSocket, Promiscuous};
use xdpfwd_pipeline::{PortId, Transmission, Worker};
use xdpfwd_xsk::{BindMode, Bound, Builder, Released};

use crate::host::driver::Ethtool;
use crate::host::interface::{DeferredInterrupts, Interface};
use crate::host::link::Link;
use crate::plan::{Io, PortLoss};
use crate::run::data_plane::{DataPlane, REPLY_TIMEOUT};
use crate::run::outage::{InterfaceState, Outage, SendProgress};
use crate::run::report::PortMode;
use crate::run::start::check_vlan_tags_of;
use crate::run::thread::{PlannedChain, open_packet_ports, ports_for_stages, queues_of};

/// Time until the second attempt to open a port on an interface that is up. It doubles with each
/// attempt, up to [`MAX_RETRY_DELAY`], because an attempt can reset a NIC.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(8);

/// Interval of looking for devices that do not send, and for frames that can be taken back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait for a queue that another socket uses. Events of the control thread wait
/// meanwhile.
const BIND_TIMEOUT: Duration = Duration::from_millis(200);

/// The error for a port whose interface is lost, if the plan's [`PortLoss`] is to exit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port}: {reason}")]
pub struct PortLost {
    /// Port name.
    pub port: String,
    /// What happened to the interface.
    pub reason: String,
}

/// Why a port is closed.
struct Loss {
    reason: String,
    /// Whether the interface is gone.
    is_gone: bool,
}

impl DataPlane {
    /// Closes ports whose interface is lost, and tries to open ports again that are down. Call this
    /// on [`Event::HostChanged`] with `links_changed`, at the time of
    /// [`next_attempt`](Self::next_attempt), and about once per second.
    ///
    /// Fails if a port is lost and the plan is not to wait for its interface.
    ///
    /// [`Event::HostChanged`]: crate::Event::HostChanged
    pub fn check_ports(&mut self, links_changed: bool) -> Result<(), PortLost> {
        let now = Instant::now();
        self.recovery.links_changed |= links_changed;
        let is_probe_due =
            self.recovery.last_probe.is_none_or(|last| now.duration_since(last) >= PROBE_INTERVAL);
        if is_probe_due {
            self.recovery.last_probe = Some(now);
        }
        let unbound = self.find_unbound_ports();
        for index in 0..self.plan.ports.len() {
            if self.outages[index].current.is_none()
                && let Some(loss) = self.find_loss(index, unbound.contains(&index))
            {
                let port = &self.plan.ports[index];
                let must_exit = self.plan.on_port_loss == PortLoss::Exit && loss.is_gone;
                if must_exit || port.io == Io::XskRs {
                    return Err(PortLost { port: port.name.clone(), reason: loss.reason });
                }
                self.close_port(index, loss);
            }
        }
        if is_probe_due {
            for (index, reason) in self.find_stuck_ports(now) {
                self.close_port(index, Loss { reason, is_gone: false });
            }
        }
        if is_probe_due || links_changed {
            self.take_back_frames();
        }
        for index in 0..self.plan.ports.len() {
            self.try_to_open_port(index);
        }
        Ok(())
    }

    /// Returns the time of the next attempt to open a port that is down.
    pub fn next_attempt(&self) -> Option<Instant> {
        let current = self.outages.iter().filter_map(|outages| outages.current.as_ref());
        // While the interface is missing or down, only a change of it causes an attempt.
        let waiting = current.filter(|outage| outage.seen.is_some_and(InterfaceState::is_usable));
        waiting.map(|outage| outage.next_attempt).min()
    }

    /// Returns the ports with a socket that the kernel has unbound. Asks the workers only if links
    /// have changed.
    fn find_unbound_ports(&mut self) -> BTreeSet<usize> {
        if !self.recovery.links_changed {
            return BTreeSet::new();
        }
        let ports = self.plan.ports.len();
        let replies = self.ask_workers(move |worker| {
            (0..ports).filter(|port| !worker.is_port_bound(port_id(*port))).collect::<Vec<_>>()
        });
        self.recovery.links_changed = replies.iter().any(Option::is_none);
        replies.into_iter().flatten().flatten().collect()
    }

    /// Returns why a port has lost its interface; `None` if it has not, or if that cannot be
    /// determined.
    fn find_loss(&mut self, index: usize, is_unbound: bool) -> Option<Loss> {
        let name = &self.plan.ports[index].interface;
        let gone = |reason| Some(Loss { reason, is_gone: true });
        let link = match Link::read(self.interfaces[index].index) {
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {
                return gone(format!("interface {name} has disappeared"));
            }
            Err(_) => return None,
            // An interface that was removed or moved, and came back, can have the same index.
            Ok(_) if is_unbound => {
                return gone(format!("interface {name} was removed or moved meanwhile"));
            }
            Ok(link) => link,
        };
        if let Some(interference) = self.attachments[index].interference() {
            return Some(Loss {
                reason: format!("{interference} of interface {name}"),
                is_gone: false,
            });
        }
        let interface = &mut self.interfaces[index];
        if link.name != interface.link_name {
            tracing::warn!(
                port = self.plan.ports[index].name,
                "interface {} was renamed to {}; the port goes on, but after a loss it waits for \
                 an interface {name}",
                interface.link_name,
                link.name
            );
            interface.link_name = link.name;
        }
        None
    }

    /// Returns the ports in zero-copy mode whose device is taken to be stuck, each with the reason.
    fn find_stuck_ports(&mut self, now: Instant) -> Vec<(usize, String)> {
        let is_examined = |index: &usize| {
            self.modes[*index] == PortMode::ZeroCopy && self.outages[*index].current.is_none()
        };
        let ports: Vec<usize> = (0..self.plan.ports.len()).filter(is_examined).collect();
        if ports.is_empty() {
            return Vec::new();
        }
        let asked = ports.clone();
        let replies = self.ask_workers(move |worker| {
            asked.iter().map(|port| worker.transmission(port_id(*port))).collect::<Vec<_>>()
        });
        // Without all replies, the progress of the queues is unknown.
        let Some(replies) = replies.into_iter().collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        let mut stuck = Vec::new();
        for (position, index) in ports.into_iter().enumerate() {
            let has_carrier = Link::read(self.interfaces[index].index)
                .is_ok_and(|link| link.is_up && matches!(&*link.state, "up" | "unknown"));
            let queues: Vec<_> = replies.iter().flat_map(|reply| &reply[position]).collect();
            let progress = &mut self.outages[index].send_progress;
            progress.resize(queues.len(), SendProgress::default());
            let mut is_stuck = false;
            for (progress, &&queue) in progress.iter_mut().zip(&queues) {
                let waits = queue.waits && has_carrier;
                is_stuck |= progress.is_stuck(now, Transmission { waits, ..queue });
            }
            if is_stuck {
                let name = &self.plan.ports[index].interface;
                stuck.push((
                    index,
                    format!(
                        "interface {name} has a carrier, but a queue does not send its packets"
                    ),
                ));
            }
        }
        stuck
    }

    fn close_port(&mut self, index: usize, Loss { reason, is_gone }: Loss) {
        let port = &self.plan.ports[index];
        if is_gone {
            tracing::warn!(
                port = port.name,
                "{reason}; the port is down until an interface {} is up",
                port.interface
            );
        } else {
            tracing::warn!(port = port.name, "{reason}; opening the port again");
        }
        let id = port_id(index);
        // No packets may reach the sockets any more when the program is attached again.
        self.attachments[index].stop_delivery(port.queues);
        self.attachments[index].detach();
        self.stop_using(id);
        let lost_index = self.interfaces[index].index;
        let position = self.interrupts.iter().position(|(port, _)| *port == id);
        let interrupts = position.map(|position| self.interrupts.swap_remove(position).1);
        let now = Instant::now();
        let outages = &mut self.outages[index];
        outages.losses += 1;
        outages.send_progress.iter_mut().for_each(SendProgress::restart);
        outages.current = Some(Outage {
            reason,
            since: now,
            seen: None,
            next_attempt: now,
            delay: FIRST_RETRY_DELAY,
            interrupts: interrupts.map(|settings| (lost_index, settings)),
        });
    }

    /// Makes all workers stop using a port's sockets. A worker that does not reply does so later.
    fn stop_using(&mut self, id: PortId) {
        self.promiscuous.retain(|(port, _)| *port != id);
        self.recovery.has_quarantine = true;
        self.ask_workers(move |worker| {
            worker.cancel_prepared_port(id);
            worker.close_port(id);
        });
    }

    /// Closes the sockets of closed ports whose interface is gone, and returns their frames to the
    /// pools. Frames of other sockets return with the next bind to the same queue.
    fn take_back_frames(&mut self) {
        if !self.recovery.has_quarantine {
            return;
        }
        let replies = self.ask_workers(|worker| worker.quarantined_interfaces());
        let interfaces: BTreeSet<u32> = replies.iter().flatten().flatten().copied().collect();
        self.recovery.has_quarantine =
            !interfaces.is_empty() || replies.iter().any(Option::is_none);
        let proof = |interface: &u32| {
            let proof = Released::by_missing_interface(*interface).inspect_err(|error| {
                tracing::debug!(%error, "cannot determine whether an interface is gone");
            });
            proof.ok().flatten()
        };
        // rtnetlink can report that an interface is gone before the kernel has unbound its sockets.
        // This proof waits for the end; the second one is about the sockets closed after that.
        let gone: Vec<u32> =
            interfaces.into_iter().filter(|index| proof(index).is_some()).collect();
        if gone.is_empty() {
            return;
        }
        drop(self.ask_workers(|worker| worker.close_sockets(None)));
        for released in gone.iter().filter_map(proof) {
            self.ask_workers(move |worker| worker.take_back(&released));
        }
    }

    /// Tries to open a port that is down, if its interface has changed or an attempt is due.
    fn try_to_open_port(&mut self, index: usize) {
        let Some(outage) = &self.outages[index].current else { return };
        let port = &self.plan.ports[index];
        let found = Interface::find(&port.name, &port.interface).ok();
        let state = found.as_ref().and_then(|interface| InterfaceState::of(interface.index));
        let has_changed = state != outage.seen;
        let is_usable = state.is_some_and(InterfaceState::is_usable);
        let is_due = has_changed || is_usable && outage.next_attempt <= Instant::now();
        if !is_due {
            return;
        }
        let name = &port.interface;
        let result = match found.zip(state) {
            None => Err(format!("interface {name} does not exist")),
            Some((_, state)) if !state.is_up => {
                Err(format!("interface {name} is down: `ip link set dev {name} up`"))
            }
            Some((interface, _)) => self.open_port(index, &interface),
        };
        let port = &self.plan.ports[index].name;
        let outages = &mut self.outages[index];
        let Some(outage) = &mut outages.current else { return };
        match result {
            Ok(()) => {
                let seconds = outage.since.elapsed().as_secs_f64();
                tracing::info!(port, "the port forwards again, after {seconds:.3} s");
                outages.earlier += outage.since.elapsed();
                outages.current = None;
            }
            Err(reason) => {
                if reason != outage.reason {
                    tracing::warn!(port, "the port stays down: {reason}");
                }
                if has_changed {
                    outage.delay = FIRST_RETRY_DELAY;
                }
                outage.seen = state;
                outage.reason = reason;
                outage.next_attempt = Instant::now() + outage.delay;
                outage.delay = (2 * outage.delay).min(MAX_RETRY_DELAY);
            }
        }
    }

    /// Opens a port that is down. The error is the reason why it stays down.
    fn open_port(&mut self, index: usize, interface: &Interface) -> Result<(), String> {
        let (plan, id) = (self.plan.clone(), port_id(index));
        let port = &plan.ports[index];
        let name = &port.interface;
        let mut others = self.interfaces.iter().zip(&self.outages).enumerate();
        if let Some((other, _)) = others.find(|(other, (used, outages))| {
            *other != index && outages.current.is_none() && used.index == interface.index
        }) {
            return Err(format!("port {} uses interface {name}", plan.ports[other].name));
        }
        Link::read(interface.index)
            .map_err(|error| format!("cannot read the type of interface {name}: {error}"))?
            .check_ethernet(name)
            .map_err(|error| error.to_string())?;
        check_vlan_tags_of(&plan, id, interface).map_err(|error| error.to_string())?;
        self.attachments[index]
            .attach_again(port, interface, plan.mode, plan.umem.frame_size)
            .map_err(|error| error.to_string())?;
        // Sockets that were bound to these queues must be closed before others can be bound: not
        // earlier, because only a bind proves that the kernel has released a socket that was closed
        // while it was bound. The last descriptors are dropped here, which can take long.
        let needed = Some(interface.index);
        drop(self.ask_workers(move |worker| worker.close_sockets(needed)));
        let opened = self.open_attached_port(index, interface);
        if opened.is_err() {
            self.attachments[index].detach();
            self.stop_using(id);
            let interrupts = self.interrupts.extract_if(.., |(port, _)| *port == id);
            drop(interrupts.collect::<Vec<_>>());
        }
        opened
    }

    fn open_attached_port(&mut self, index: usize, interface: &Interface) -> Result<(), String> {
        let (plan, id) = (self.plan.clone(), port_id(index));
        let port = &plan.ports[index];
        let mut sockets = Vec::new();
        for worker in 0..self.workers.len() {
            sockets.extend(match port.io.uses_xdp() {
                true => self.open_xdp_sockets(index, worker, interface)?,
                false => self.open_packet_sockets(index, worker)?,
            });
        }
        self.interfaces[index] = interface.clone();
        self.update_host_addresses();
        let receives = plan.paths.iter().any(|path| path.from == id);
        if receives && port.promiscuous {
            let promiscuous = Promiscuous::enable(interface.index)
                .map_err(|error| format!("cannot enable promiscuous mode: {error}"))?;
            self.promiscuous.push((id, promiscuous));
        }
        if plan.busy_poll && port.io.uses_xdp() {
            let outage = self.outages[index].current.as_mut();
            if let Some((lost, settings)) = outage.and_then(|outage| outage.interrupts.take()) {
                // Restores the settings if it is the same interface.
                settings.end(lost == interface.index);
            }
            match DeferredInterrupts::enable(interface) {
                Ok(deferred) => self.interrupts.push((id, deferred)),
                Err(error) => tracing::warn!(
                    interface = interface.name,
                    %error,
                    "cannot defer interrupts; busy polling is less effective"
                ),
            }
        }
        for (queue, socket) in sockets.into_iter().filter(|_| receives) {
            self.attachments[index].start_delivery(queue, socket).map_err(|error| {
                format!("cannot redirect the packets of queue {queue} to its socket: {error}")
            })?;
        }
        self.warn_of_changes(index, interface);
        Ok(())
    }

    /// Warns if the interface of a port that was opened again needs attention.
    fn warn_of_changes(&self, index: usize, interface: &Interface) {
        let port = &self.plan.ports[index];
        let name = &port.interface;
        let queues = Ethtool::open(interface.index).and_then(|ethtool| ethtool.channels());
        if let Ok(channels) = queues
            && port.io.uses_xdp()
            && channels.receive > u32::from(port.queues)
        {
            tracing::warn!(
                port = port.name,
                "interface {name} receives on {} queues, and the port has {}: packets of the \
                 others stay with the kernel; run `xdpfwd doctor`",
                channels.receive,
                port.queues
            );
        }
        if ports_for_stages(&self.plan) != self.stage_ports {
            tracing::warn!(
                port = port.name,
                "interface {name} has another MAC address, MTU or IP address than the stages know; \
                 reload to make them use it"
            );
        }
    }

    /// Opens the AF_XDP sockets of a worker. Returns their queues and descriptors.
    fn open_xdp_sockets(
        &self,
        index: usize,
        worker: usize,
        interface: &Interface,
    ) -> Result<Vec<(u16, i32)>, String> {
        let (plan, id) = (&self.plan, port_id(index));
        let port = &plan.ports[index];
        let mode = match self.modes[index] {
            PortMode::ZeroCopy => BindMode::ZeroCopy,
            _ => BindMode::Copy,
        };
        let mut builder = Builder::new(plan.umem.clone()).mode(mode).busy_poll(plan.busy_poll);
        for queue in queues_of(worker, plan, port) {
            builder = builder.queue(&port.interface, interface.index, u32::from(queue));
        }
        let remote = &self.workers[worker].remote;
        let no_reply = |_| format!("worker {worker} does not reply");
        let prepare = move |worker: &mut Worker<PlannedChain>| worker.prepare_port(id, &builder);
        let bindings = remote
            .ask(prepare, REPLY_TIMEOUT)
            .map_err(no_reply)?
            .map_err(|error| error.to_string())?;
        let mut bound: Vec<Bound> = Vec::with_capacity(bindings.len());
        // After a failure, the remaining bindings are dropped.
        let failure = bindings.into_iter().find_map(|binding| match binding.bind(BIND_TIMEOUT) {
            Ok(result) => {
                bound.push(result);
                None
            }
            Err(error) => Some(error.to_string()),
        });
        let has_failed = failure.is_some();
        let open = move |worker: &mut Worker<PlannedChain>| {
            // Also after a failure, or each attempt would leave frames behind.
            for queue in &bound {
                worker.take_back(&queue.released);
            }
            if has_failed {
                worker.cancel_prepared_port(id);
                return Ok(Vec::new());
            }
            worker.open_prepared_port(id, &bound).map_err(|error| error.to_string())
        };
        let opened = remote.ask(open, REPLY_TIMEOUT).map_err(no_reply)?;
        failure.map_or(opened, Err)
    }

    /// Opens the packet ports of a worker. Returns their queues and descriptors.
    fn open_packet_sockets(&self, index: usize, worker: usize) -> Result<Vec<(u16, i32)>, String> {
        let (plan, id) = (&self.plan, port_id(index));
        let port = &plan.ports[index];
        let (io, attachment) = (port.io, &self.attachments[index]);
        let sockets: Vec<PacketSocket> =
            queues_of(worker, plan, port).filter_map(|queue| attachment.socket(queue)).collect();
        let open = move |worker: &mut Worker<PlannedChain>| {
            let ports = open_packet_ports(io, &sockets, worker.umem());
            let ports = ports.map_err(|error| error.to_string())?;
            worker.open_port(id, ports).map_err(|error| error.to_string())
        };
        let remote = &self.workers[worker].remote;
        remote.ask(open, REPLY_TIMEOUT).map_err(|_| format!("worker {worker} does not reply"))?
    }
}

fn port_id(index: usize) -> PortId {
    // A plan has at most 255 ports.
    PortId(index as u8)
}
