//! The results of `xdpfwd-bench matrix`, as stored in `matrix.json`: written by the matrix, read by
//! the report.
//!
//! Schema 1: later versions only add fields.
#![allow(missing_docs, reason = "many fields are fully described by their names")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The version of this format.
pub const SCHEMA: u32 = 1;

/// All results of a matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `"matrix"`, `"matrix-quick"` or `"nic"`.
    pub kind: String,
    pub machine: Machine,
    /// Rate of the time-stamp counter; all cycles in these results are its ticks.
    pub tsc_hz: f64,
    /// Start of the matrix, UTC, RFC 3339.
    pub started: String,
    /// End of the last run, UTC, RFC 3339; `None` while the matrix is incomplete.
    pub finished: Option<String>,
    /// The command that produced these results.
    pub command: String,
    /// Duration of each measured window in seconds.
    pub seconds: f64,
    /// Duration of the traffic before each window in seconds.
    pub warmup: f64,
    pub rounds: u32,
    /// Versions of the compared programs: name to version.
    pub versions: BTreeMap<String, String>,
    pub sizes: Vec<Size>,
    pub rows: Vec<Row>,
    pub columns: Vec<Column>,
    pub unavailable: Vec<Unavailable>,
    pub runs: Vec<Run>,
    pub failed: Vec<Failure>,
    /// Cells whose rates could not be measured.
    #[serde(default)]
    pub failed_rates: Vec<FailedRates>,
    /// Rows and cells that were not tried again, because their first runs failed.
    #[serde(default)]
    pub given_up: Vec<GivenUp>,
    pub rates: Vec<Rate>,
    pub latencies: Vec<Latency>,
    pub published: Vec<Published>,
    /// What sent the packets: `"live"` or `"pktgen"`. With `"pktgen"`, there are no latencies.
    #[serde(default)]
    pub generator: Option<String>,
    /// Only in results of `xdpfwd-bench nic` (kind `"nic"`).
    #[serde(default)]
    pub nic: Option<NicSetup>,
}

/// The setup of a measurement on network interfaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NicSetup {
    /// `"xdpfwd"`, or `"none"` if something else forwarded.
    pub forwarder: String,
    /// Cores of the generator and of the forwarder.
    pub generator_cores: Vec<usize>,
    pub forwarder_cores: Vec<usize>,
    pub flows: u32,
    pub ports: Vec<NicPort>,
    /// Speed of the slowest link, by which rates are limited, in 10⁶ bits per second.
    pub link_mbps: Option<u64>,
    /// Preparations that were missing during the measurement (`--force`).
    pub missing_preparations: Vec<Preparation>,
    /// Remarks about single measurements.
    pub notes: Vec<String>,
    /// The allowed loss of the rates of which the loads of latencies are shares; `None` without
    /// rates. In a matrix, it is 0.
    #[serde(default)]
    pub latency_allowed_loss: Option<f64>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NicPort {
    /// `"tx"` (generator), `"rx"` (sink), `"fwd-in"` or `"fwd-out"` (forwarder).
    pub role: String,
    pub interface: String,
    pub driver: Option<String>,
    pub firmware: Option<String>,
    /// Address on its bus, such as `"0000:3b:00.0"`.
    pub bus: Option<String>,
    /// Speed per lane and number of lanes, such as `"8.0 GT/s PCIe x8"`.
    pub pcie: Option<String>,
    pub speed_mbps: Option<u64>,
    pub mtu: u32,
    pub numa_node: Option<u32>,
}

/// A preparation of the machine that a check asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// An interface or `"host"`.
    pub subject: String,
    pub check: String,
    /// `"warning"` or `"error"`.
    pub level: String,
    pub finding: String,
    /// Commands, or lines of the configuration.
    pub fix: Option<String>,
}

/// Frame lengths of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// `"60"`, `"508"`, `"1514"` or `"imix"`.
    pub name: String,
    /// Mean frame length in memory, in bytes without FCS.
    pub mean_bytes: f64,
}

/// A packet path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Identifier, such as `"af_xdp-copy"`.
    pub name: String,
    /// Name for people, such as `"AF_XDP, copy mode"`.
    pub title: String,
    /// Where packets are forwarded: `"user"` or `"kernel"`.
    pub place: String,
    /// How this row differs from the others, in a sentence; empty if it does not.
    pub remark: String,
    /// Functions that copy all bytes of a packet with a CPU, between the driver that receives and
    /// the driver that transmits.
    pub copies: Vec<String>,
}

/// A kind of security processing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Identifier, such as `"filter-1k-user"`.
    pub name: String,
    /// Name for people, such as `"filter, 1,000 rules, user space"`.
    pub title: String,
    /// Group of columns in charts: `"none"`, `"filter"`, `"signatures"`, `"aead"`, `"both"` or
    /// `"control"`.
    pub group: String,
    /// Number of filter rules, for columns with a filter.
    pub rules: Option<u32>,
}

/// A cell that cannot exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unavailable {
    pub row: String,
    /// `None`: every column of the row.
    pub column: Option<String>,
    /// Without the prefix `"n/a: "`.
    pub reason: String,
}

/// One run of one cell.
///
/// A run has two windows. In the first, the generator sends as fast as it can: the rates. In the
/// second, it sends about 5 % more than the path forwards: cycles, system calls and context
/// switches. There, the forwarding core is not idle, and few packets are received only to be
/// dropped.
///
/// All rates include the work of the sink, which runs on the forwarding core
/// ([`Cycles::far_end`]); [`Run::path_pps`] does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub row: String,
    pub column: String,
    pub size: String,
    /// From 0.
    pub round: u32,
    /// Packets per second that the generator sent in the first window.
    pub offered_pps: f64,
    /// Packets per second that arrived at the sink in the first window.
    pub forwarded_pps: f64,
    /// 10⁹ bits per second that arrived at the sink in the first window: frames without FCS, as
    /// long as the generator sent them (without the overhead of ESP).
    pub forwarded_gbps: f64,
    /// Packets per second sent and forwarded in the second window.
    pub paced_offered_pps: f64,
    pub paced_forwarded_pps: f64,
    /// The rate that the generator was asked for in the second window, divided by `forwarded_pps`.
    #[serde(default)]
    pub paced_factor: Option<f64>,
    /// Packets per second of the forwarding core without the sink's work: `tsc_hz` divided by the
    /// cycles of user, system call and softirq on this core, per forwarded packet. A rate that was
    /// calculated, not measured; `None` if sampling is unavailable.
    #[serde(default)]
    pub path_pps: Option<f64>,
    /// Cycles per forwarded packet of the generator's core and the forwarder's core, without the
    /// generator's own; `None` if sampling is unavailable.
    pub cycles: Option<Cycles>,
    /// Cycles per packet of the security stages, from xdpfwd's ledger (`row` must be a path of
    /// xdpfwd).
    pub stage_cycles: Option<f64>,
    /// System calls of the forwarding process per forwarded packet.
    pub syscalls: Option<f64>,
    /// Context switches of the forwarding process per forwarded packet.
    pub voluntary_switches: Option<f64>,
    pub involuntary_switches: Option<f64>,
    /// Frames that the forwarder itself reports as transmitted during the whole run, and that
    /// arrived at the sink: must agree.
    pub tool_transmitted: Option<u64>,
    pub sink_received: u64,
    /// Why frames are missing, if any are; only for paths that account for every frame.
    pub unexplained: Option<String>,
    /// The commands of this run, one per line.
    pub command: String,
}

/// Cycles per packet by account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cycles {
    /// In user space.
    pub user: f64,
    /// In system calls, without the softirqs that ran inside.
    pub system_call: f64,
    /// In softirqs of the receiving and the transmitting interface.
    pub softirq: f64,
    /// In the other end of the transmitting veth, the sink: not part of forwarding. It runs on the
    /// forwarding core, so it lowers the rates.
    pub far_end: f64,
    /// Number of samples of these accounts.
    pub samples: u64,
}

impl Cycles {
    /// Returns the cycles of forwarding: all accounts except the far end.
    pub fn total(&self) -> f64 {
        self.user + self.system_call + self.softirq
    }
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub row: String,
    pub column: String,
    pub size: String,
    pub round: u32,
    pub error: String,
}

/// A search for rates, or a measurement of latencies, that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedRates {
    pub row: String,
    pub column: String,
    pub size: String,
    pub error: String,
}

/// A row or a cell that was not tried again at a size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    pub row: String,
    /// `None`: every column of the row.
    pub column: Option<String>,
    pub size: String,
}

/// The highest rate at which a cell loses at most a share of the packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub row: String,
    pub column: String,
    pub size: String,
    /// Share of lost packets that is allowed, such as 0 or 0.005.
    pub allowed_loss: f64,
    /// The highest offered rate of a trial that kept within the allowed loss, in packets per
    /// second; 0 if none did.
    pub pps: f64,
    /// The lowest offered rate of a trial that did not; `None` if all did: `pps` is then the
    /// generator's maximum.
    pub upper_pps: Option<f64>,
    pub trials: u32,
    /// Whether the search reached its precision. If not, it ran out of trials: the rate is between
    /// `pps` and `upper_pps`, which may be far apart.
    #[serde(default = "yes")]
    pub is_complete: bool,
}

/// The value of [`Rate::is_complete`] in results of versions without the field.
fn yes() -> bool {
    true
}

/// Latency at a share of a cell's no-drop rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub row: String,
    pub column: String,
    pub size: String,
    /// Share of the no-drop rate: 0.1, 0.5 or 0.9.
    pub load: f64,
    pub offered_pps: f64,
    /// Share of the packets that were lost meanwhile: they have no latency.
    #[serde(default)]
    pub loss: Option<f64>,
    /// From the generator to the sink, in nanoseconds.
    pub p50_ns: f64,
    pub p99_ns: f64,
    pub p999_ns: f64,
    pub max_ns: f64,
}

/// A figure that others published: not measured here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Such as `"PF_RING ZC"`.
    pub row: String,
    /// Name of a column of the matrix.
    pub column: String,
    pub size: String,
    pub mpps: Option<f64>,
    pub gbps: Option<f64>,
    /// Processor and NIC.
    pub machine: String,
    pub cores: Option<u32>,
    /// Address and date of the source.
    pub source: String,
}
