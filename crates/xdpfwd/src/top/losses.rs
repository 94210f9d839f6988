//! Lost and dropped packets by reason.

use super::remedies::{Concern, remedy};
use super::snapshot::Snapshot;

/// Packets dropped or lost under one reason at one location.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loss {
    /// The name of the counter in the report.
    pub(super) reason: String,
    pub(super) location: Location,
    /// Packets since the start.
    pub(super) total: u64,
    /// Packets per second in the last interval; `None` without an interval.
    pub(super) rate: Option<f64>,
    /// The report's time when the counter was last seen growing.
    pub(super) last_growth: Option<f64>,
}

/// Where packets are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In user space.
    Worker,
    /// In the XDP program of a port.
    Xdp(String),
    /// In the kernel, at a port, before user space.
    Port(String),
    /// In the kernel, at any port.
    Kernel,
}

impl Location {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Worker => "worker".to_owned(),
            Self::Xdp(port) => format!("XDP {port}"),
            Self::Port(port) => format!("kernel {port}"),
            Self::Kernel => "kernel".to_owned(),
        }
    }
}

impl Loss {
    fn new(reason: &str, location: Location, total: u64) -> Self {
        Self { reason: reason.to_owned(), location, total, rate: None, last_growth: None }
    }

    pub(super) fn is_growing(&self) -> bool {
        self.rate.is_some_and(|rate| rate > 0.0)
    }

    pub(super) fn concern(&self) -> Concern {
        remedy(&self.reason).0
    }

    pub(super) fn remedy(&self) -> &'static str {
        remedy(&self.reason).1
    }
}

/// Returns all counters of losses that are above 0, without rates.
pub(super) fn counters(snapshot: &Snapshot) -> Vec<Loss> {
    let mut losses: Vec<Loss> = Vec::new();
    for port in &snapshot.ports {
        let kernel = port.kernel;
        for (reason, count) in [
            ("rx_ring_full", kernel.rx_ring_full),
            ("fill_ring_empty", kernel.fill_ring_empty),
            ("rx_dropped", kernel.rx_dropped),
            ("rx_invalid", kernel.rx_invalid),
            ("tx_invalid", kernel.tx_invalid),
        ] {
            losses.push(Loss::new(reason, Location::Port(port.name.clone()), count));
        }
    }
    losses.push(Loss::new("tx_dropped", Location::Kernel, snapshot.kernel.tx_dropped));
    losses.push(Loss::new("tx_lost", Location::Kernel, snapshot.kernel.tx_lost));
    losses.push(Loss::new(
        "invalid_descriptors",
        Location::Kernel,
        snapshot.kernel.invalid_descriptors,
    ));
    let drops = snapshot.drops.iter();
    losses.extend(drops.map(|(reason, &count)| Loss::new(reason, Location::Worker, count)));
    for port in &snapshot.ports {
        let drops = port.xdp_drops.iter();
        let location = || Location::Xdp(port.name.clone());
        losses.extend(drops.map(|(reason, &count)| Loss::new(reason, location(), count)));
    }
    losses.retain(|loss| loss.total > 0);
    losses
}
