//! What xdpfwd prints with `--json`, read leniently: what is missing is zero or absent, what is
//! unknown is ignored.
//!
//! The contract is xdpfwd's; the lab knows it only from here, and uses none of xdpfwd's code, so
//! that it can be a judge.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One line: `"type": "interval"`, or the last one, `"type": "final"`. Counters are cumulative.
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
    /// Where the UMEM's frames are.
    pub frames: FramesReport,
    /// What the kernel counted of xdpfwd's sockets, summed over them.
    pub kernel: KernelReport,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PortReport {
    /// Name in the configuration.
    pub name: String,
    /// Network interface.
    pub interface: String,
    /// `zero-copy`, `copy` or `skb`: the mode got.
    pub mode: String,
    /// Received by xdpfwd.
    pub rx_packets: u64,
    /// Handed to the kernel by xdpfwd.
    pub tx_packets: u64,
    /// Frames that the XDP program handed to an AF_XDP socket, whether it had room or not.
    pub xdp_redirected: Option<u64>,
    /// Frames that the XDP program left to the kernel.
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
    /// Stage.
    pub name: String,
    /// Calls, one a batch.
    pub calls: u64,
    /// Packets it has seen.
    pub packets: u64,
    /// Packets it dropped.
    pub drops: u64,
    /// TSC cycles per packet, if it has seen any.
    pub cycles_per_packet: Option<f64>,
}

/// Where the frames are: `total` = the six in the middle + `leaked`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FramesReport {
    /// All.
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
    /// Transmitted, not yet taken back.
    pub completion: u64,
    /// Unaccounted for: none, or it is a fault of xdpfwd.
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
    /// Times the kernel wanted a frame from an empty fill ring.
    pub fill_ring_empty: u64,
    /// Frames lost between the XDP program and the receive ring for another reason than a full
    /// ring: for want of a frame in the fill ring, or too long for a frame.
    pub rx_dropped: Option<u64>,
    /// Descriptors on the transmit ring that the kernel refused.
    pub tx_invalid: u64,
}

impl Report {
    /// Reads a line; `None` if it is not a report.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().filter(|report: &Self| !report.kind.is_empty())
    }

    /// The port on `interface`.
    #[must_use]
    pub fn port(&self, interface: &str) -> Option<&PortReport> {
        self.ports.iter().find(|port| port.interface == interface)
    }

    /// Received on all ports.
    #[must_use]
    pub fn received(&self) -> u64 {
        total(self.ports.iter().map(|port| port.rx_packets))
    }

    /// Transmitted on all ports.
    #[must_use]
    pub fn transmitted(&self) -> u64 {
        total(self.ports.iter().map(|port| port.tx_packets))
    }
}

impl FramesReport {
    /// The sum of the places a frame can be in.
    #[must_use]
    pub fn found(&self) -> u64 {
        total([self.pool, self.fill, self.rx, self.in_flight, self.tx, self.completion])
    }
}

/// The sum; a nonsensical report must show as one, not end in a panic.
pub(crate) fn total(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}
