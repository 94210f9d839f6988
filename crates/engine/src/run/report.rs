//! The report: the lines of `--json`, and the final table.
//!
//! Counters are cumulative. Within one schema version, fields may be added, but existing fields do
//! not change.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;
use xdpfwd_pipeline::{FrameCounts, Reason, WorkerReport};
use xdpfwd_xsk::{Counters, KernelCounters};

use crate::attach::native::why_not_native;
use crate::attach::program::XdpCounters;
use crate::plan::{Io, Plan};
use crate::run::inspect::{ListedTable, TableReport};
use crate::run::kernel_ledger::KernelLedgerReport;
use crate::run::ledger::Ledger;

/// The report schema's version.
pub const SCHEMA: u32 = 1;

/// All counters since the start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `"interval"` or `"final"`.
    #[serde(rename = "type")]
    pub kind: ReportKind,
    /// Seconds since the start.
    pub elapsed_seconds: f64,
    /// Number of workers.
    pub workers: usize,
    /// The counters of each port, in the order of the configuration.
    pub ports: Vec<PortReport>,
    /// Packets dropped in user space, by [`Reason`]; includes zeros.
    pub drops: BTreeMap<&'static str, u64>,
    /// The counters of each stage of each path.
    pub stages: Vec<StageReport>,
    /// CPU cycles of the workers, by task.
    pub ledger: Ledger,
    /// Where the kernel spends the time of the workers' cores.
    pub kernel_ledger: KernelLedgerReport,
    /// Number of frames at each location.
    pub frames: FrameCounts,
    /// Counters of the kernel.
    pub kernel: KernelReport,
    /// Why the ports do not use a better mode; `null` in the best or the configured mode.
    pub fallback: Option<Fallback>,
    /// A failed worker and its error, if any.
    pub failure: Option<String>,
    /// Stages' resources that do not work as they should, such as a state file that cannot be
    /// written, each with the consequence. A fault stays in this list after a reload has released
    /// its resource. In the final report: the faults that remain after the stop.
    pub faults: Vec<String>,
    /// The inspection tables, in the final report only, each with its first [`REPORTED_ROWS`] rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableReport>,
}

/// Maximum rows of an inspection table in a report.
pub const REPORTED_ROWS: usize = 256;

/// The kind of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// The report of a running data plane.
    Interval,
    /// The report of a data plane that has ended, or was never started.
    Final,
}

/// The counters of one port, summed over its queues.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// Port name.
    pub name: String,
    /// Interface name.
    pub interface: String,
    /// The kind of I/O: [`Io::name`](crate::Io::name).
    pub io: &'static str,
    /// Queues in use.
    pub queues: u16,
    /// The mode in use.
    pub mode: PortMode,
    /// The operational state of the interface (RFC 2863): `up`, `down`, `lowerlayerdown`, …; `None`
    /// if it cannot be read.
    pub link: Option<String>,
    /// Whether the port forwards, or has lost its interface and waits for it.
    pub state: PortState,
    /// Why the port is down; `None` if it is up.
    pub down_reason: Option<String>,
    /// How often the port has lost its interface.
    pub losses: u64,
    /// For how long the port was down, in total.
    pub down_seconds: f64,
    /// Packets received by user space.
    pub rx_packets: u64,
    /// Received bytes, without FCS.
    pub rx_bytes: u64,
    /// Packets handed to the kernel to transmit.
    pub tx_packets: u64,
    /// Transmitted bytes, without FCS.
    pub tx_bytes: u64,
    /// Packets that the XDP program redirected to a socket, including packets lost because the
    /// socket's RX ring was full.
    pub xdp_redirected: u64,
    /// Packets passed to the kernel because no socket serves their queue.
    pub xdp_passed: u64,
    /// Packets passed to the kernel by a `keep` rule.
    pub xdp_kept: u64,
    /// Packets that the filter in the XDP program dropped before user space.
    pub xdp_dropped: u64,
    /// `xdp_dropped` by [`Reason`]; includes zeros.
    pub xdp_drops: BTreeMap<&'static str, u64>,
    /// Packets that the kernel lost before the port's sockets, and descriptors that it refused.
    pub kernel: PortKernelReport,
}

/// The kernel's `XDP_STATISTICS`, summed over sockets. For packet sockets (`AF_PACKET`), only
/// `rx_ring_full` and `rx_dropped` are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortKernelReport {
    /// Packets lost because an RX ring was full: user space did not keep up.
    pub rx_ring_full: u64,
    /// Times that the kernel found a fill ring empty: too few frames, or user space did not keep
    /// up. In copy mode, each time costs a packet, which `rx_dropped` also counts.
    pub fill_ring_empty: u64,
    /// Packets lost because no frame was available, or because the packet was too long.
    pub rx_dropped: u64,
    /// Fill-ring entries that the kernel refused. Nonzero indicates a bug.
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel refused. Nonzero indicates a bug.
    pub tx_invalid: u64,
    /// Times that the kernel found a TX ring empty. Not a loss.
    pub tx_ring_empty: u64,
}

/// Whether a port forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// The port has sockets on its interface, which may have no carrier.
    Up,
    /// The port has lost its interface, and waits for it.
    Down,
}

/// The mode in use on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMode {
    /// The device reads and writes the frames itself.
    ZeroCopy,
    /// The driver runs the XDP program; the kernel copies packets.
    Copy,
    /// Generic XDP; the kernel copies packets.
    Skb,
    /// Packet sockets with a system call for each packet; the kernel copies packets.
    Packet,
    /// Packet sockets with a system call for a batch; the kernel copies packets.
    PacketMmsg,
    /// Packet sockets with rings; the kernel and the port copy packets.
    PacketMmap,
    /// None: the data plane was not started.
    None,
}

impl PortMode {
    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::Skb => "skb",
            Self::Packet => "packet",
            Self::PacketMmsg => "packet-mmsg",
            Self::PacketMmap => "packet-mmap",
            Self::None => "none",
        }
    }

    /// Returns whether the port uses XDP.
    pub fn uses_xdp(self) -> bool {
        matches!(self, Self::ZeroCopy | Self::Copy | Self::Skb)
    }

    /// Returns what texts add to the name: copies that other modes do not make.
    pub fn remark(self) -> Option<&'static str> {
        match self {
            Self::PacketMmap => Io::PacketMmap.remark(),
            _ => None,
        }
    }
}

/// Why the ports do not use a better mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fallback {
    /// The port that caused the fallback.
    pub port: String,
    /// Its interface.
    pub interface: String,
    /// The missing feature: `"zero-copy"` or `"native XDP"`.
    pub lacks: &'static str,
    /// The kernel's error.
    pub reason: String,
}

impl Fallback {
    pub(crate) fn new(port: &str, interface: &str, lacks: &'static str, error: &io::Error) -> Self {
        let reason = match why_not_native(error, interface) {
            Some((why, _)) if lacks == "native XDP" => format!("{error}: {why}"),
            _ => error.to_string(),
        };
        Self { port: port.into(), interface: interface.into(), lacks, reason }
    }
}

/// The counters of one stage, summed over the workers.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// The path: `"lan->wan"`.
    pub path: String,
    /// Stage name.
    pub name: String,
    /// `"user"`, or `"kernel"` for the XDP program of the ingress port. In the kernel, the counters
    /// cover only packets that the stage passed; the port's `xdp_dropped` counts those it dropped.
    pub place: &'static str,
    /// Number of batches.
    pub calls: u64,
    /// Number of packets.
    pub packets: u64,
    /// Packets dropped by the stage.
    pub drops: u64,
    /// TSC cycles.
    pub cycles: u64,
    /// TSC cycles per packet.
    pub cycles_per_packet: f64,
    /// Packets per batch.
    pub packets_per_call: f64,
    /// The counters that the stage defines.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<&'static str, u64>,
}

fn port_name(plan: &Plan, id: xdpfwd_pipeline::PortId) -> &str {
    plan.ports.get(usize::from(id.0)).map_or("?", |port| port.name.as_str())
}

/// System calls of the workers, and losses in the kernel, over all ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelReport {
    /// System calls of the workers: wake-ups and waits.
    pub syscalls: u64,
    /// System calls that waited for packets.
    pub waits: u64,
    /// Transmit calls that the kernel asked to repeat. No packet is lost.
    pub tx_retries: u64,
    /// Packets in `tx_packets` that interfaces then dropped (no carrier or full queue). A lower
    /// bound: known only in copy mode.
    pub tx_dropped: u64,
    /// Packets in `tx_packets` that the kernel had not reported as sent when their port was lost.
    /// Some of them may have been sent.
    pub tx_lost: u64,
    /// Packets copied before transmission, because a stage added or removed bytes at the front
    /// (only with `io = "xsk-rs"`).
    pub tx_copied: u64,
    /// Invalid descriptors from the kernel that xdpfwd refused. Nonzero indicates a bug.
    pub invalid_descriptors: u64,
    /// The counters of the sockets, summed over all ports.
    #[serde(flatten)]
    pub sockets: PortKernelReport,
}

impl Report {
    pub(crate) fn new<'a>(
        plan: &Plan,
        elapsed: Duration,
        workers: impl Iterator<Item = Option<&'a WorkerReply>> + Clone,
        xdp: &[XdpCounters],
        modes: &[PortMode],
        fallback: Option<Fallback>,
        failure: Option<String>,
    ) -> Self {
        let mut sums = Sums::new(plan);
        for reply in workers.clone().flatten() {
            sums.add(&reply.report);
        }
        let ledger = Ledger::new(
            workers.map(|reply| reply.map(|reply| (&reply.report.ledger, reply.wall_cycles))),
        );
        let ports = plan.ports.iter().zip(&sums.ports).zip(modes.iter().zip(xdp));
        let ports = ports.map(|((port, (counters, kernel)), (&mode, xdp))| PortReport {
            name: port.name.clone(),
            interface: port.interface.clone(),
            io: port.io.name(),
            queues: port.queues,
            mode,
            link: None,
            state: PortState::Up,
            down_reason: None,
            losses: 0,
            down_seconds: 0.0,
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            xdp_redirected: xdp.redirected,
            xdp_passed: xdp.passed,
            xdp_kept: xdp.kept,
            xdp_dropped: xdp.dropped(),
            xdp_drops: xdp.drops().map(|(reason, count)| (reason.name(), count)).collect(),
            kernel: (*kernel).into(),
        });
        let ports = ports.collect();
        let mut total = Counters::default();
        let mut kernel = KernelCounters::default();
        for (counters, port_kernel) in &sums.ports {
            total += *counters;
            kernel += *port_kernel;
        }
        Self {
            schema: SCHEMA,
            kind: ReportKind::Interval,
            elapsed_seconds: (elapsed.as_secs_f64() * 1e6).round() / 1e6,
            workers: plan.workers.len(),
            ports,
            drops: sums.drops.iter().map(|(reason, count)| (Reason::name(reason), count)).collect(),
            stages: sums.stages(plan),
            ledger,
            kernel_ledger: KernelLedgerReport::empty(plan.kernel_ledger),
            frames: sums.frames,
            kernel: KernelReport {
                syscalls: total.syscalls + sums.waits,
                waits: sums.waits,
                tx_retries: total.tx_retries,
                tx_dropped: total.tx_dropped,
                tx_lost: total.tx_lost,
                tx_copied: total.tx_copied,
                invalid_descriptors: total.invalid_descriptors,
                sockets: kernel.into(),
            },
            fallback,
            failure,
            faults: plan.faults(),
            tables: Vec::new(),
        }
    }

    /// Returns the report of a plan that was not started: zeros, and no modes. The kind is
    /// `interval` until [`into_final`](Self::into_final) changes it.
    pub fn not_started(plan: &Plan) -> Self {
        let ports = plan.ports.len();
        let (xdp, modes) = (vec![XdpCounters::default(); ports], vec![PortMode::None; ports]);
        let mut report = Self::new(plan, Duration::ZERO, [].into_iter(), &xdp, &modes, None, None);
        for port in &mut report.ports {
            port.state = PortState::Down;
            port.down_reason = Some("xdpfwd was not started".to_owned());
        }
        report
    }

    pub(crate) fn with_tables(mut self, tables: Vec<ListedTable>) -> Self {
        self.tables = tables.into_iter().map(|table| table.into_report(REPORTED_ROWS)).collect();
        self
    }

    /// Sets the kind to `final`; [`DataPlane::stop`](crate::DataPlane::stop) leaves this to its
    /// caller.
    pub fn into_final(self) -> Self {
        Self { kind: ReportKind::Final, ..self }
    }
}

impl From<KernelCounters> for PortKernelReport {
    fn from(counters: KernelCounters) -> Self {
        let KernelCounters {
            rx_dropped,
            rx_invalid,
            tx_invalid,
            rx_ring_full,
            fill_ring_empty,
            tx_ring_empty,
        } = counters;
        Self { rx_ring_full, fill_ring_empty, rx_dropped, rx_invalid, tx_invalid, tx_ring_empty }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct WorkerReply {
    pub(crate) report: WorkerReport,
    /// See [`WorkerLedger::wall_cycles`](crate::WorkerLedger::wall_cycles).
    pub(crate) wall_cycles: u64,
}

struct Sums {
    ports: Vec<(Counters, KernelCounters)>,
    stages: Vec<Vec<(xdpfwd_pipeline::StageAccount, BTreeMap<&'static str, u64>)>>,
    drops: xdpfwd_pipeline::Drops,
    frames: FrameCounts,
    waits: u64,
}

impl Sums {
    fn new(plan: &Plan) -> Self {
        Self {
            ports: vec![Default::default(); plan.ports.len()],
            stages: plan
                .paths
                .iter()
                .map(|path| vec![Default::default(); path.stages.len()])
                .collect(),
            drops: xdpfwd_pipeline::Drops::default(),
            frames: FrameCounts::default(),
            waits: 0,
        }
    }

    fn add(&mut self, worker: &WorkerReport) {
        for queue in &worker.queues {
            if let Some((counters, kernel)) = self.ports.get_mut(usize::from(queue.port.0)) {
                *counters += queue.counters;
                *kernel += queue.kernel;
            }
        }
        // Every worker has the plan's paths and stages, in order.
        for (path, sums) in worker.paths.iter().zip(&mut self.stages) {
            for (stage, (account, counters)) in path.stages.iter().zip(sums) {
                account.add(&stage.account);
                for (name, value) in &stage.counters {
                    *counters.entry(name).or_default() += value;
                }
            }
        }
        self.drops += worker.drops;
        self.frames.add(&worker.frames);
        self.waits += worker.waits;
    }

    fn stages(&self, plan: &Plan) -> Vec<StageReport> {
        let name = |id| port_name(plan, id);
        let paths = plan.paths.iter().zip(&self.stages);
        let stages = paths.flat_map(|(path, sums)| {
            let path_name = format!("{}->{}", name(path.from), name(path.to));
            path.stages.iter().zip(sums).map(move |(stage, (account, counters))| StageReport {
                path: path_name.clone(),
                name: stage.name.clone(),
                place: stage.place(),
                calls: account.calls,
                packets: account.packets,
                drops: account.drops,
                cycles: account.net_cycles(),
                cycles_per_packet: (account.cycles_per_packet() * 10.0).round() / 10.0,
                packets_per_call: (account.packets as f64 / account.calls.max(1) as f64 * 10.0)
                    .round()
                    / 10.0,
                counters: counters.clone(),
            })
        });
        stages.collect()
    }
}
