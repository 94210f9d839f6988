//! The output of `xdpfwd --json`. Missing fields are zero or `None`; unknown fields are ignored.
//!
//! Does not use xdpfwd's code, so that the lab's check is independent.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One line of output; the last is `"type": "final"`. Counters are cumulative.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `interval` or `final`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ports.
    pub ports: Vec<PortReport>,
    /// Frames dropped by xdpfwd, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Stages of all paths.
    pub stages: Vec<StageReport>,
    /// Numbers of the UMEM's frames, by location.
    pub frames: FramesReport,
    /// The kernel's counters, summed over xdpfwd's sockets.
    pub kernel: KernelReport,
    /// Where the time of the cores went.
    pub kernel_ledger: KernelLedgerReport,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PortReport {
    /// Name in the configuration.
    pub name: String,
    /// Network interface.
    pub interface: String,
    /// Such as `zero-copy` or `copy`.
    pub mode: String,
    /// Packets received by xdpfwd.
    pub rx_packets: u64,
    /// Packets passed to the kernel for transmission.
    pub tx_packets: u64,
    /// Frames that the XDP program redirected to an AF_XDP socket, including those lost at a full
    /// socket.
    pub xdp_redirected: Option<u64>,
    /// Frames that the XDP program passed to the kernel.
    pub xdp_passed: u64,
    /// Frames that the XDP program dropped, by reason.
    pub xdp_drops: BTreeMap<String, u64>,
}

/// One stage of one path.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StageReport {
    /// Path, such as `lan>wan`.
    pub path: String,
    /// Name of the stage.
    pub name: String,
    /// Calls, one per batch.
    pub calls: u64,
    /// Packets processed.
    pub packets: u64,
    /// Packets dropped.
    pub drops: u64,
    /// TSC cycles per packet, if any packet was processed.
    pub cycles_per_packet: Option<f64>,
}

/// Numbers of frames: `total` is the sum of the other fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FramesReport {
    /// All frames.
    pub total: u64,
    /// Free.
    pub pool: u64,
    /// Posted for reception.
    pub fill: u64,
    /// Received, not yet read.
    pub rx: u64,
    /// Held by xdpfwd.
    pub in_flight: u64,
    /// Posted for transmission.
    pub tx: u64,
    /// Transmitted, not yet reclaimed.
    pub completion: u64,
    /// Of closed ports, and perhaps still used by the kernel.
    pub quarantined: u64,
    /// Missing from the other counts: a bug in xdpfwd.
    pub leaked: i64,
}

/// The kernel's counters (`XDP_STATISTICS`), and system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KernelReport {
    /// System calls of the data path.
    pub syscalls: u64,
    /// Frames lost because the receive ring was full.
    pub rx_ring_full: u64,
    /// Number of times that the kernel found the fill ring empty.
    pub fill_ring_empty: u64,
    /// Packets lost after the XDP program although the receive ring had room: the fill ring was
    /// empty, or the packet was too long for a frame.
    pub rx_dropped: Option<u64>,
    /// Descriptors that the kernel rejected as invalid.
    pub tx_invalid: u64,
}

/// Where the time of the cores went; empty unless `kernel_ledger` is on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KernelLedgerReport {
    /// Why it could not be measured.
    pub unavailable: Option<String>,
    /// The accounts: user space, system calls, ….
    pub accounts: Vec<AccountReport>,
    /// The groups of kernel functions within the accounts.
    pub groups: Vec<GroupReport>,
    /// The accounts of each core.
    pub cores: Vec<CoreReport>,
}

/// The time of an account or group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccountReport {
    /// The name.
    pub name: String,
    /// TSC cycles per packet received.
    pub cycles_per_packet: f64,
}

/// A group of kernel functions within an account.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GroupReport {
    /// The account.
    pub account: String,
    /// The name.
    pub name: String,
    /// TSC cycles per packet received.
    pub cycles_per_packet: f64,
}

/// The accounts of a core.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CoreReport {
    /// The core.
    pub core: usize,
    /// The workers on it.
    pub workers: Vec<usize>,
    /// The accounts.
    pub accounts: Vec<AccountReport>,
}

impl Report {
    /// Parses a line; `None` if it is not a report.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().filter(|report: &Self| !report.kind.is_empty())
    }

    /// Returns the port on `interface`.
    #[must_use]
    pub fn port(&self, interface: &str) -> Option<&PortReport> {
        self.ports.iter().find(|port| port.interface == interface)
    }

    /// Returns the packets received on all ports.
    #[must_use]
    pub fn received(&self) -> u64 {
        total(self.ports.iter().map(|port| port.rx_packets))
    }

    /// Returns the packets transmitted on all ports.
    #[must_use]
    pub fn transmitted(&self) -> u64 {
        total(self.ports.iter().map(|port| port.tx_packets))
    }
}

impl PortReport {
    /// Returns whether the port uses packet sockets, which no XDP program feeds.
    #[must_use]
    pub fn is_packet_socket(&self) -> bool {
        self.mode == "packet" || self.mode.starts_with("packet-")
    }
}

impl FramesReport {
    /// Returns the sum of the frame counts without `leaked`.
    #[must_use]
    pub fn found(&self) -> u64 {
        total([
            self.pool,
            self.fill,
            self.rx,
            self.in_flight,
            self.tx,
            self.completion,
            self.quarantined,
        ])
    }
}

/// Returns the sum, or `u64::MAX` on overflow: an invalid report must not cause a panic.
pub(crate) fn total(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}
