//! What needs the operator's attention.

use crate::costs::sum;

use super::format::si;
use super::losses::Loss;
use super::model::Model;
use super::remedies::Concern;
use super::snapshot::Fallback;

/// Share of a worker's core, in percent, from which other programs slow the worker down noticeably.
const MAX_OTHER_PERCENT: f64 = 10.0;

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Packets are lost, or something is broken.
    Bad,
    /// It may be intended, or costs only speed.
    Warning,
    /// Nothing is wrong now.
    Good,
}

/// A line at the top of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) severity: Severity,
    pub(super) text: String,
}

/// Returns the alerts, the most urgent first. If no packet is lost, the last one says so.
pub(super) fn alerts(model: &Model) -> Vec<Alert> {
    let mut alerts = Vec::new();
    let mut add = |severity, text: String| alerts.push(Alert { severity, text });
    let snapshot = &model.snapshot;
    if let Some(failure) = &snapshot.failure {
        add(Severity::Bad, failure.clone());
    }
    for port in &snapshot.ports {
        if let Some(reason) = &port.down_reason {
            add(Severity::Bad, format!("port {} is down: {reason}", port.name));
        } else if let Some(state) = port.link.as_deref().filter(|state| is_down(state)) {
            let (name, interface) = (&port.name, &port.interface);
            let check = format!("check the cable and `ip link show {interface}`");
            add(Severity::Bad, format!("link of {name} ({interface}) is {state}: {check}"));
        }
    }
    for loss in model.losses.iter() {
        let severity = match loss.concern() {
            Concern::Bug => Severity::Bad,
            Concern::Loss if loss.is_growing() => Severity::Bad,
            Concern::Content if loss.is_growing() => Severity::Warning,
            _ => continue,
        };
        let Loss { reason, rate, total, .. } = loss;
        let location = loss.location.describe();
        let growth = match rate {
            Some(rate) if *rate > 0.0 => format!("{}/s", si(*rate)),
            _ => format!("{total} packets"),
        };
        add(severity, format!("{reason} {growth} ({location}): {}", loss.remedy()));
    }
    let leaked = snapshot.frames.leaked;
    if leaked != 0 {
        let bug = "a bug: report it with the final report";
        add(Severity::Bad, format!("{leaked} frames leaked: {bug}"));
    }
    for fault in &snapshot.faults {
        add(Severity::Bad, fault.clone());
    }
    for core in model.kernel.iter().flat_map(|kernel| &kernel.cores) {
        let other = core.accounts.iter().find(|account| account.name == "other");
        let share = other.map_or(0.0, |other| other.share_percent);
        // Workers without a fixed core are listed at each core that they may use.
        let runs_worker = core
            .accounts
            .iter()
            .any(|account| matches!(&*account.name, "user" | "system_call") && account.cycles > 0);
        if !core.workers.is_empty() && runs_worker && share >= MAX_OTHER_PERCENT {
            let core = core.core;
            add(
                Severity::Warning,
                format!("other programs take {share:.0} % of core {core}, on which a worker runs"),
            );
        }
    }
    if let Some(Fallback { lacks, port, interface, reason }) = &snapshot.fallback {
        add(Severity::Warning, format!("no {lacks} on {port} ({interface}): {reason}"));
    }
    if !model.losses.iter().any(|loss| loss.concern() >= Concern::Loss && loss.is_growing()) {
        add(Severity::Good, no_loss(model));
    }
    // Stable: within a severity, the order above remains.
    alerts.sort_by_key(|alert| alert.severity);
    alerts
}

fn is_down(state: &str) -> bool {
    // Drivers that do not report their state, such as tun, are `unknown`.
    !matches!(state, "up" | "unknown" | "dormant" | "testing")
}

/// Describes losses of the past.
fn no_loss(model: &Model) -> String {
    let lost: Vec<&Loss> =
        model.losses.iter().filter(|loss| loss.concern() == Concern::Loss).collect();
    let Some(last) = lost.first() else { return "no packet lost since the start".to_owned() };
    let total = sum(lost.iter().map(|loss| loss.total));
    let name = &last.reason;
    let when = last.last_growth.map_or(String::new(), |time| {
        let ago = model.snapshot.elapsed_seconds() - time;
        format!(", last {} ago", super::format::duration(ago))
    });
    format!("no packet lost now; {} since the start ({name}{when})", si(total as f64))
}
