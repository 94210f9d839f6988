//! The fields of a report that `top` shows.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::costs::{Costs, sum};

/// A report at one moment. Counters are cumulative.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Snapshot {
    pub(super) program: String,
    pub(super) version: String,
    pub(super) workers: usize,
    pub(super) ports: Vec<Port>,
    pub(super) drops: BTreeMap<String, u64>,
    pub(super) frames: Frames,
    pub(super) kernel: Kernel,
    pub(super) fallback: Option<Fallback>,
    pub(super) failure: Option<String>,
    pub(super) faults: Vec<String>,
    #[serde(flatten)]
    pub(super) costs: Costs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) mode: String,
    pub(super) link: Option<String>,
    /// `None` while the port forwards.
    pub(super) down_reason: Option<String>,
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    pub(super) xdp_passed: u64,
    pub(super) xdp_kept: u64,
    pub(super) xdp_drops: BTreeMap<String, u64>,
    pub(super) kernel: PortKernel,
}

/// The kernel's counters of a port. `tx_ring_empty` is no loss.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PortKernel {
    pub(super) rx_ring_full: u64,
    pub(super) fill_ring_empty: u64,
    pub(super) rx_dropped: u64,
    pub(super) rx_invalid: u64,
    pub(super) tx_invalid: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kernel {
    pub(super) syscalls: u64,
    pub(super) tx_dropped: u64,
    pub(super) tx_lost: u64,
    pub(super) invalid_descriptors: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Frames {
    pub(super) total: u64,
    pub(super) pool: u64,
    pub(super) fill: u64,
    pub(super) rx: u64,
    pub(super) in_flight: u64,
    pub(super) tx: u64,
    pub(super) completion: u64,
    pub(super) quarantined: u64,
    /// Can be negative: frames that have two owners.
    pub(super) leaked: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fallback {
    pub(super) port: String,
    pub(super) interface: String,
    pub(super) lacks: String,
    pub(super) reason: String,
}

impl Snapshot {
    /// Parses the answer to `stats`, whose texts are escaped.
    pub(super) fn parse(answer: Value) -> anyhow::Result<Self> {
        let mut snapshot: Self =
            serde_json::from_value(answer).context("the response is not a report")?;
        snapshot.costs.rx_packets = sum(snapshot.ports.iter().map(|port| port.rx_packets));
        snapshot.costs.syscalls = snapshot.kernel.syscalls;
        Ok(snapshot)
    }

    pub(super) fn elapsed_seconds(&self) -> f64 {
        self.costs.elapsed_seconds
    }

    /// Returns whether `before` is an earlier report of the same process: time went on, and no
    /// counter that a reload keeps went back.
    pub(super) fn continues(&self, before: &Self) -> bool {
        let counters = |port: &Port| [port.rx_packets, port.tx_packets];
        self.elapsed_seconds() > before.elapsed_seconds()
            && self.ports.len() == before.ports.len()
            && self.ports.iter().zip(&before.ports).all(|(now, before)| {
                now.name == before.name
                    && counters(now)
                        .iter()
                        .zip(counters(before))
                        .all(|(now, before)| *now >= before)
            })
    }
}
