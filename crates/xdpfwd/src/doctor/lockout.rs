//! Checks whether a start would cut off connections to this host.

use std::collections::BTreeMap;

use xdpfwd_engine::{Keep, Lockout, PathPlan, lockouts};
use xdpfwd_pipeline::PortId;

use super::{Finding, Subject};

const CHECK: &str = "lockout";

/// Adds a warning for each port that would take traffic on which this host may depend. Returns a
/// reason not to probe modes, if any: a bind may reset the interface, which interrupts even traffic
/// that stays with the kernel.
pub(crate) fn examine(subject: &Subject, findings: &mut Vec<Finding>) -> Option<String> {
    let lockouts = match lockouts(&subject.plan) {
        Ok(lockouts) => lockouts,
        Err(error) => {
            findings.push(Finding::unknown(
                CHECK,
                "host",
                format!("cannot read addresses and routes: {error}"),
            ));
            return Some(
                "cannot determine whether this host is reached through an interface".into(),
            );
        }
    };
    if let Some(error) = &lockouts.sessions_error {
        let why = format!("cannot find SSH sessions of this host: {error}");
        findings.push(Finding::unknown(CHECK, "host", why));
    } else if lockouts.found.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            "host",
            "a start cuts off neither the default route nor an SSH session",
        ));
    }
    // For each port: its traffic, and the `keep` rules that this traffic needs.
    let mut by_port: BTreeMap<usize, (Vec<String>, Keep)> = BTreeMap::new();
    for lockout in &lockouts.found {
        let (traffic, keep) = by_port.entry(lockout.port).or_default();
        traffic.push(lockout.carries());
        keep.extend(lockout.needed());
    }
    for (port, (traffic, mut keep)) in by_port {
        let Some(port) = subject.plan.ports.get(port) else { continue };
        keep.extend(port.keep.iter().copied()); // rules that the port already has
        let rules = keep.iter().map(|rule| format!("\"{rule}\"")).collect::<Vec<_>>().join(", ");
        let found =
            format!("{}; a start takes this traffic from the kernel", traffic.join(" and "));
        findings.push(Finding::warning(
            CHECK,
            &port.interface,
            found,
            format!("keep = [{rules}] for its port"),
        ));
    }
    let Some(carried) = carried_traffic(subject) else {
        return lockouts.sessions_error.map(|error| {
            format!("cannot determine whether an SSH session uses an interface: {error}")
        });
    };
    Some(format!("{} {}, and a bind may reset the interface", carried.interface, carried.carries()))
}

/// Returns a default route or SSH session that uses a port's interface, even if `keep` rules leave
/// its packets to the kernel.
fn carried_traffic(subject: &Subject) -> Option<Lockout> {
    let mut plan = subject.plan.clone();
    plan.ports.iter_mut().for_each(|port| port.keep = Keep::new());
    // Only ports at which a path starts cause lockouts, so add a path from each.
    let ports = (0..=u8::MAX).map(PortId).take(plan.ports.len());
    plan.paths = ports.map(|port| PathPlan { from: port, to: port, stages: Vec::new() }).collect();
    lockouts(&plan).ok()?.found.into_iter().next()
}
