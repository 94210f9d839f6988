//! The plan: a resolved and validated configuration.

use std::any::{Any, TypeId};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use xdpfwd_packet::Qdisc;
use xdpfwd_pipeline::{Idle, PortId, ResourceError, StagePlan, XdpImage};
use xdpfwd_xsk::UmemConfig;

use crate::keep::Keep;
use crate::kernel_ledger_mode::KernelLedgerMode;

/// The identity of a stage across reloads: path number, stage name, number of earlier stages with
/// that name on the path, and type of its plan.
pub(crate) type StageId = (usize, String, usize, TypeId);

/// A validated configuration, from a file or created in Rust.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How packets get from the driver into the UMEM and back (AF_XDP ports).
    pub mode: Mode,
    /// The core of each worker, or `None` for no fixed core. At least one worker.
    pub workers: Vec<Option<usize>>,
    /// Whether to use preferred busy polling: workers poll the device from their own system calls.
    pub busy_poll: bool,
    /// What a worker does while no packets arrive.
    pub idle: Idle,
    /// Whether the ledger (CPU cycles by task) is on at the start. It takes a few time stamps per
    /// batch.
    pub ledger: bool,
    /// How the kernel ledger is measured.
    pub kernel_ledger: KernelLedgerMode,
    /// What happens when a port loses its interface.
    pub on_port_loss: PortLoss,
    /// Size and kind of each worker's packet memory.
    pub umem: UmemConfig,
    /// The ports; a [`PortId`] is an index into this list.
    pub ports: Vec<PortPlan>,
    /// The paths: at most one from each port.
    pub paths: Vec<PathPlan>,
    /// Path of the control socket.
    pub control: Option<PathBuf>,
}

/// A port: an interface, and how xdpfwd uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The name in the configuration and in reports.
    pub name: String,
    /// The network interface.
    pub interface: String,
    /// The kind of I/O.
    pub io: Io,
    /// The number of queues in use, from queue 0. Of *n* workers, worker *w* serves each queue *q*
    /// with *q* mod *n* = *w*.
    pub queues: u16,
    /// Rules for frames that pass to the kernel, even on the queues in use.
    pub keep: Keep,
    /// Whether to enable promiscuous mode if a path starts here. Otherwise the NIC drops frames for
    /// other MAC addresses.
    pub promiscuous: bool,
    /// How the port's packet sockets send. Has no effect on AF_XDP, which always bypasses the
    /// queueing disciplines.
    pub qdisc: Qdisc,
}

/// What happens when a port loses its interface: the interface is removed, or moved to another
/// network namespace. In both cases, a port is opened again if another program detaches its XDP
/// program, or its device stops sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortLoss {
    /// The port is down until the interface is back; the other ports go on. Except ports with
    /// [`Io::XskRs`], which end forwarding.
    #[default]
    Wait,
    /// Forwarding ends with an error.
    Exit,
}

impl PortLoss {
    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Exit => "exit",
        }
    }
}

/// How a port exchanges packets with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Io {
    /// AF_XDP sockets with xdpfwd's own rings.
    #[default]
    AfXdp,
    /// Packet sockets with `recvmsg` and `send` for each packet. As all packet sockets, they receive
    /// copies: the kernel's network stack handles the packets too.
    Packet,
    /// Packet sockets with `recvmmsg` and `sendmmsg`.
    PacketMmsg,
    /// Packet sockets with a receive ring and a transmit ring. The port copies each received packet
    /// once more, from the ring into a frame.
    PacketMmap,
    /// AF_XDP sockets of `xsk-rs` and libxdp, for comparisons. Requires the feature `xsk-rs`.
    XskRs,
}

impl Io {
    /// Returns whether this build includes this kind of I/O.
    pub fn is_built(self) -> bool {
        self != Self::XskRs || cfg!(feature = "xsk-rs")
    }

    /// Returns whether packets are redirected to AF_XDP sockets, so that the kernel's network stack
    /// does not see them.
    pub fn uses_xdp(self) -> bool {
        matches!(self, Self::AfXdp | Self::XskRs)
    }

    /// Returns whether packets are exchanged through packet sockets, which receive copies.
    pub fn uses_packet_sockets(self) -> bool {
        !self.uses_xdp()
    }

    /// Returns what `--check` and reports add to the name: copies that other methods do not make.
    pub fn remark(self) -> Option<&'static str> {
        (self == Self::PacketMmap).then_some("+1 copy")
    }

    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::AfXdp => "af_xdp",
            Self::Packet => "packet",
            Self::PacketMmsg => "packet-mmsg",
            Self::PacketMmap => "packet-mmap",
            Self::XskRs => "xsk-rs",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A path: packets received on `from` pass through the stages and leave on `to`, which may be the
/// same port.
#[derive(Clone, Debug)]
pub struct PathPlan {
    /// The ingress port.
    pub from: PortId,
    /// The egress port.
    pub to: PortId,
    /// The stages, in order.
    pub stages: Vec<StageOnPath>,
}

/// A stage of a path.
#[derive(Clone, Debug)]
pub struct StageOnPath {
    /// The name in the configuration.
    pub name: String,
    /// Its plan.
    pub plan: Arc<dyn StagePlan>,
    /// Whether the XDP program of the ingress port runs it. Must be false if
    /// [`Plan::kernel_obstacle`] returns a reason.
    pub in_kernel: bool,
}

impl StageOnPath {
    fn as_any(&self) -> &dyn Any {
        &*self.plan
    }

    /// Returns `"user"` or `"kernel"`, for reports.
    pub fn place(&self) -> &'static str {
        if self.in_kernel { "kernel" } else { "user" }
    }
}

impl Plan {
    /// Returns the image (map contents) of the stage that a port's XDP program runs.
    pub(crate) fn xdp_image(&self, port: PortId) -> Option<&Arc<XdpImage>> {
        let path = self.paths.iter().find(|path| path.from == port)?;
        let first = path.stages.first().filter(|stage| stage.in_kernel)?;
        Some(first.plan.as_xdp_offload()?.image())
    }

    pub(crate) fn stages(&self) -> impl Iterator<Item = &StageOnPath> {
        self.paths.iter().flat_map(|path| &path.stages)
    }

    pub(crate) fn stages_with_ids(&self) -> impl Iterator<Item = (StageId, &StageOnPath)> {
        let stages = |(path, path_plan): (usize, &'_ PathPlan)| {
            (0..path_plan.stages.len()).map(move |position| (path, position))
        };
        self.paths.iter().enumerate().flat_map(stages).map(|(path, position)| {
            let stages = &self.paths[path].stages;
            let stage = &stages[position];
            let earlier = stages[..position].iter().filter(|other| other.name == stage.name);
            ((path, stage.name.clone(), earlier.count(), (*stage.plan).type_id()), stage)
        })
    }

    /// Returns a path's name in reports: `"lan->wan"`.
    pub(crate) fn path_name(&self, path: usize) -> String {
        let port = |id: PortId| self.ports.get(usize::from(id.0)).map_or("?", |port| &*port.name);
        self.paths
            .get(path)
            .map_or(String::new(), |path| format!("{}->{}", port(path.from), port(path.to)))
    }

    /// Returns the stages; of those that share a plan, only the first.
    pub(crate) fn distinct_stages(&self) -> impl Iterator<Item = &StageOnPath> {
        let mut seen: Vec<&Arc<dyn StagePlan>> = Vec::new();
        self.stages().filter(move |stage| {
            let is_new = !seen.iter().any(|other| Arc::ptr_eq(other, &stage.plan));
            seen.push(&stage.plan);
            is_new
        })
    }

    /// Acquires the resources of every stage plan that is not also in the plan `running`. If a
    /// stage fails, releases what this call acquired, and returns the stage's name and error.
    pub(crate) fn acquire(&self, running: Option<&Self>) -> Result<(), (String, ResourceError)> {
        let mut holders: Vec<&dyn Any> =
            running.into_iter().flat_map(Self::stages).map(StageOnPath::as_any).collect();
        let mut acquired: Vec<&Arc<dyn StagePlan>> = Vec::new();
        let is_running = |stage: &StageOnPath| {
            running.is_some_and(|running| {
                running.stages().any(|other| Arc::ptr_eq(&other.plan, &stage.plan))
            })
        };
        for stage in self.distinct_stages().filter(|stage| !is_running(stage)) {
            if let Some(owner) = stage.plan.as_resource_owner()
                && let Err(error) = owner.acquire(&holders)
            {
                release(acquired.into_iter().rev());
                return Err((stage.name.clone(), error));
            }
            holders.push(stage.as_any());
            acquired.push(&stage.plan);
        }
        Ok(())
    }

    /// Releases the resources of every stage plan that is not also in `kept`. Returns the faults of
    /// the release, such as a last write that failed: [`faults`](Self::faults) of `kept` does not
    /// have them.
    pub(crate) fn release(&self, kept: Option<&Self>) -> Vec<String> {
        let is_kept = |stage: &&StageOnPath| {
            kept.is_some_and(|kept| {
                kept.stages().any(|other| Arc::ptr_eq(&other.plan, &stage.plan))
            })
        };
        let released = || self.distinct_stages().filter(|stage| !is_kept(stage));
        release(released().map(|stage| &stage.plan));
        let mut faults = Vec::new();
        add_new(&mut faults, released().filter_map(fault_of));
        faults
    }

    /// Returns the faults of the stages' resources, each once.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        add_new(&mut faults, self.distinct_stages().filter_map(fault_of));
        faults
    }

    pub(crate) fn numbered_ports(&self) -> impl Iterator<Item = (PortId, &PortPlan)> {
        (0..=u8::MAX).map(PortId).zip(&self.ports)
    }

    /// Returns whether rules compare the VLAN tags of frames that the port receives through an XDP
    /// program, which sees only tags inside of frames. Packet sockets receive removed tags, too.
    pub fn needs_vlan_tags(&self, port: PortId) -> bool {
        let is_compared_by_keep = |plan: &PortPlan| {
            plan.keep.iter().any(|rule| matches!(rule, crate::keep::KeepRule::Vlan(_)))
        };
        let paths = || self.paths.iter().filter(|path| path.from == port);
        let is_compared_by_stage =
            || paths().flat_map(|path| &path.stages).any(|stage| stage.plan.needs_vlan_tags());
        let plan = self.ports.get(usize::from(port.0)).filter(|plan| plan.io.uses_xdp());
        plan.is_some_and(|plan| {
            paths().next().is_some() && is_compared_by_keep(plan) || is_compared_by_stage()
        })
    }

    /// Returns why an XDP program cannot run the stage at `index` of a path; `None` if it can, or
    /// if the port or the stage does not exist.
    pub fn kernel_obstacle(&self, path: &PathPlan, index: usize) -> Option<String> {
        let port = self.ports.get(usize::from(path.from.0))?;
        let stage = path.stages.get(index)?;
        if !port.io.uses_xdp() {
            return Some(format!(
                "port {} has io = \"{}\", which uses no XDP program",
                port.name, port.io
            ));
        }
        if let Some(first) = path.stages.first().filter(|_| index > 0) {
            return Some(format!(
                "stage {} comes before it, \
                 and only the first stage of a path can run in the kernel",
                first.name
            ));
        }
        stage
            .plan
            .as_xdp_offload()
            .is_none()
            .then(|| "its kind or its rules are supported only in user space".to_owned())
    }
}

/// How packets get from the driver into the UMEM and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// The best mode: zero-copy if all ports support it, otherwise copy; skb for a port whose
    /// driver refuses native XDP.
    #[default]
    Auto,
    /// The device reads and writes the frames; needs support by the driver.
    ZeroCopy,
    /// The driver runs the XDP program; the kernel copies each packet.
    Copy,
    /// Generic XDP: works with every driver, but allocates a socket buffer per packet.
    Skb,
}

impl Mode {
    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::Skb => "skb",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn release<'a>(plans: impl Iterator<Item = &'a Arc<dyn StagePlan>>) {
    plans.filter_map(|plan| plan.as_resource_owner()).for_each(|owner| owner.release());
}

fn fault_of(stage: &StageOnPath) -> Option<String> {
    stage.plan.as_resource_owner()?.fault()
}

/// Adds the faults that the list lacks: stages that share a resource have the same faults.
pub(crate) fn add_new(faults: &mut Vec<String>, others: impl IntoIterator<Item = String>) {
    for fault in others {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use xdpfwd_pipeline::{BuildCx, ResourceOwner, Stage};
    use xdpfwd_xsk::UmemConfig;

    use super::*;

    #[derive(Debug)]
    struct LoggingOwner {
        name: &'static str,
        fails: bool,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl StagePlan for LoggingOwner {
        fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
            unreachable!("the tests build no stage")
        }

        fn summary(&self) -> String {
            self.name.to_owned()
        }

        fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
            Some(self)
        }
    }

    impl ResourceOwner for LoggingOwner {
        fn acquire(&self, others: &[&dyn Any]) -> Result<(), ResourceError> {
            let others = others
                .iter()
                .filter_map(|plan| plan.downcast_ref::<Self>())
                .map(|other| other.name);
            let others = others.collect::<Vec<_>>().join(" ");
            self.log.lock().unwrap().push(format!("acquire {} with [{others}]", self.name));
            if self.fails { Err(ResourceError("busy".to_owned())) } else { Ok(()) }
        }

        fn release(&self) {
            self.log.lock().unwrap().push(format!("release {}", self.name));
        }

        fn fault(&self) -> Option<String> {
            self.fails.then(|| format!("{} is broken", self.name))
        }
    }

    fn plan(stages: &[&Arc<LoggingOwner>]) -> Plan {
        let stages = stages.iter().map(|&plan| StageOnPath {
            name: plan.name.to_owned(),
            plan: Arc::clone(plan) as Arc<dyn StagePlan>,
            in_kernel: false,
        });
        Plan {
            mode: Mode::Auto,
            workers: vec![None],
            busy_poll: false,
            idle: Idle::Poll,
            ledger: true,
            kernel_ledger: KernelLedgerMode::Off,
            on_port_loss: PortLoss::Wait,
            umem: UmemConfig::default(),
            ports: vec![],
            paths: vec![PathPlan { from: PortId(0), to: PortId(0), stages: stages.collect() }],
            control: None,
        }
    }

    #[test]
    fn acquire_releases_in_reverse_order_when_a_later_stage_fails() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let owner = |name, fails| Arc::new(LoggingOwner { name, fails, log: Arc::clone(&log) });
        let (ok, fails) = (false, true);
        // The running stage, in both plans, keeps its resources.
        let (running, a, b, c) =
            (owner("running", ok), owner("a", ok), owner("b", ok), owner("c", fails));
        let (stage, error) =
            plan(&[&a, &running, &b, &a, &c]).acquire(Some(&plan(&[&running]))).unwrap_err();
        assert_eq!((&*stage, &*error.to_string()), ("c", "busy"));
        let expected = [
            "acquire a with [running]",
            "acquire b with [running a]",
            "acquire c with [running a b]",
            "release b",
            "release a",
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn release_skips_stages_that_are_also_in_kept_plan() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let owner = |name| Arc::new(LoggingOwner { name, fails: false, log: Arc::clone(&log) });
        let (kept, removed) = (owner("kept"), owner("removed"));
        plan(&[&kept, &removed]).release(Some(&plan(&[&kept])));
        assert_eq!(*log.lock().unwrap(), ["release removed"]);
    }

    #[test]
    fn release_returns_faults_of_released_stages_only() {
        let owner = |name, fails| Arc::new(LoggingOwner { name, fails, log: Arc::default() });
        let (kept, removed, healthy) =
            (owner("kept", true), owner("removed", true), owner("healthy", false));
        let (old, new) = (plan(&[&kept, &removed, &removed, &healthy]), plan(&[&kept]));
        assert_eq!(old.release(Some(&new)), ["removed is broken"]);
        assert_eq!(old.release(None), ["kept is broken", "removed is broken"]);
        assert_eq!(new.faults(), ["kept is broken"]);
    }
}
