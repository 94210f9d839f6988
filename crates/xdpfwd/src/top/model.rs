//! The figures of the screen, from the reports read so far. Pure: no clock, no terminal.

use std::collections::VecDeque;

use crate::costs::{Costs, KernelLedger, delta};

use super::history::History;
use super::losses::{self, Loss};
use super::snapshot::{Port, Snapshot};

/// Seconds of samples over which the kernel's share is shown: one second of samples is too few.
const KERNEL_SECONDS: f64 = 10.0;

/// The figures of a running xdpfwd.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) snapshot: Snapshot,
    /// Seconds between the last two reports; `None` after the first report of a process.
    pub(super) interval: Option<f64>,
    /// The costs in the interval, or since the start if there is no interval.
    pub(super) costs: Costs,
    /// The kernel's share over the last ten seconds, or since the start after the first report.
    pub(super) kernel: Option<KernelLedger>,
    pub(super) ports: Vec<PortRates>,
    /// Counters above 0: first those that grow, the fastest first.
    pub(super) losses: Vec<Loss>,
    recent: VecDeque<Costs>,
}

/// The rates of a port, in the order of the report.
#[derive(Clone, Debug, Default)]
pub(super) struct PortRates {
    /// `None` without an interval.
    pub(super) now: Option<Rates>,
    pub(super) rx_history: History,
    pub(super) tx_history: History,
}

/// Rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) rx_packets: f64,
    pub(super) rx_bits: f64,
    pub(super) tx_packets: f64,
    pub(super) tx_bits: f64,
    /// Packets that the XDP program passed to the kernel.
    pub(super) to_kernel: f64,
}

impl Model {
    /// Returns the figures of the first report.
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let costs = snapshot.costs.clone();
        Self {
            interval: None,
            kernel: costs.kernel_ledger.clone(),
            ports: vec![PortRates::default(); snapshot.ports.len()],
            losses: sorted(losses::counters(&snapshot)),
            recent: VecDeque::from([costs.clone()]),
            costs,
            snapshot,
        }
    }

    /// Adds a report. `is_same_connection` is false if reports were missing before it: then the
    /// process may be another one, and the report starts anew.
    pub(super) fn add(&mut self, snapshot: Snapshot, is_same_connection: bool) {
        if !is_same_connection || !snapshot.continues(&self.snapshot) {
            *self = Self::new(snapshot);
            return;
        }
        let now = snapshot.elapsed_seconds();
        let seconds = now - self.snapshot.elapsed_seconds();
        self.interval = Some(seconds);
        self.costs = snapshot.costs.since(&self.snapshot.costs);
        for ((port, before), rates) in
            snapshot.ports.iter().zip(&self.snapshot.ports).zip(&mut self.ports)
        {
            rates.add(port, before, now, seconds);
        }
        self.losses = self.losses_of(&snapshot, seconds);
        self.kernel = self.kernel_of(&snapshot.costs);
        self.snapshot = snapshot;
    }

    fn losses_of(&self, snapshot: &Snapshot, seconds: f64) -> Vec<Loss> {
        let with_rate = |loss: Loss| {
            let before = self.losses.iter().find(|before| {
                (&before.reason, &before.location) == (&loss.reason, &loss.location)
            });
            let grown = delta(loss.total, before.map_or(0, |before| before.total));
            let last_growth = match grown {
                0 => before.and_then(|before| before.last_growth),
                _ => Some(snapshot.elapsed_seconds()),
            };
            Loss { rate: Some(grown as f64 / seconds), last_growth, ..loss }
        };
        sorted(losses::counters(snapshot).into_iter().map(with_rate).collect())
    }

    fn kernel_of(&mut self, now: &Costs) -> Option<KernelLedger> {
        let oldest = now.elapsed_seconds - KERNEL_SECONDS - 0.5;
        while self.recent.len() > 1
            && self.recent.front().is_some_and(|costs| costs.elapsed_seconds < oldest)
        {
            self.recent.pop_front();
        }
        let costs = self.recent.front().map_or_else(|| now.clone(), |before| now.since(before));
        self.recent.push_back(now.clone());
        costs.kernel_ledger
    }

    /// Returns the share of the workers' time with work, in percent; `None` if it is not measured.
    pub(super) fn busy_percent(&self) -> Option<f64> {
        let ledger = &self.costs.ledger;
        let total = ledger.busy_cycles.saturating_add(ledger.idle_cycles);
        (total > 0).then(|| 100.0 * ledger.busy_cycles as f64 / total as f64)
    }

    /// Returns the period of the rates and costs.
    pub(super) fn period(&self) -> String {
        self.interval.map_or("since the start".to_owned(), |seconds| format!("last {seconds:.1} s"))
    }
}

impl PortRates {
    fn add(&mut self, now: &Port, before: &Port, end: f64, seconds: f64) {
        let per_second = |now: u64, before: u64| delta(now, before) as f64 / seconds;
        let rates = Rates {
            rx_packets: per_second(now.rx_packets, before.rx_packets),
            rx_bits: 8.0 * per_second(now.rx_bytes, before.rx_bytes),
            tx_packets: per_second(now.tx_packets, before.tx_packets),
            tx_bits: 8.0 * per_second(now.tx_bytes, before.tx_bytes),
            to_kernel: per_second(
                now.xdp_kept.saturating_add(now.xdp_passed),
                before.xdp_kept.saturating_add(before.xdp_passed),
            ),
        };
        self.rx_history.push(end, seconds, rates.rx_packets);
        self.tx_history.push(end, seconds, rates.tx_packets);
        self.now = Some(rates);
    }
}

fn sorted(mut losses: Vec<Loss>) -> Vec<Loss> {
    let rate = |loss: &Loss| loss.rate.unwrap_or(0.0);
    // Among counters that do not grow, the one that grew last comes first, then the largest.
    losses.sort_by(|a, b| {
        rate(b)
            .total_cmp(&rate(a))
            .then_with(|| b.last_growth.unwrap_or(-1.0).total_cmp(&a.last_growth.unwrap_or(-1.0)))
            .then_with(|| b.total.cmp(&a.total))
    });
    losses
}
