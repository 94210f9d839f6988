//! Checks of the resolved plan against the host.

use std::ops::Range;

use xdpfwd_engine::Plan;
use xdpfwd_pipeline::PortId;

use super::ports;
use crate::config::findings::Findings;
use crate::config::machine::{Interface, Machine};
use crate::config::parsed::{PathTable, PortTable, Tables};
use crate::host_checks::{competing_users, path_mtu};

/// Warns of problems that a plan has on this host. The plan must have no errors: then each of its
/// ports and paths has the same index as its table.
pub(super) fn check(
    plan: &Plan,
    ports: &Tables<PortTable>,
    paths: &Tables<PathTable>,
    interfaces: &[Option<Interface>],
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) {
    for ((port, table), interface) in (0..=u8::MAX).map(PortId).zip(&ports.tables).zip(interfaces) {
        let Some(interface) = interface else { continue };
        for problem in competing_users(plan, port, &interface.users) {
            findings.warning(&interface_span(table), problem.into_message());
        }
    }
    let mtu = |port: PortId| interfaces.get(usize::from(port.0))?.as_ref()?.mtu;
    for (path, table) in plan.paths.iter().zip(&paths.tables) {
        if let Some(problem) = path_mtu(plan, path, mtu) {
            findings.warning(&table.span, problem.into_message());
        }
    }
    match machine.check_descriptors(plan) {
        Ok(Ok(())) => {}
        Ok(Err(too_few)) => findings.warning(&(0..0), too_few.to_string()),
        Err(error) => findings.warning(
            &(0..0),
            format!("cannot check the limit on open files (`ulimit -n`): {error}"),
        ),
    }
    warn_of_lockouts(plan, ports, machine, findings);
}

fn warn_of_lockouts(
    plan: &Plan,
    ports: &Tables<PortTable>,
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) {
    match machine.lockouts(plan) {
        Ok(lockouts) => {
            ports::warn_of_lockouts(ports, &lockouts.found, findings);
            if let Some(error) = lockouts.sessions_error {
                let message = format!(
                    "cannot check whether a port cuts off an SSH session of this host: {error}"
                );
                findings.warning(&(0..0), message);
            }
        }
        Err(error) => {
            let message = format!(
                "cannot determine whether this host needs one of the interfaces itself: {error}"
            );
            findings.warning(&(0..0), message);
        }
    }
}

fn interface_span(port: &PortTable) -> Range<usize> {
    port.interface.span_or(&port.span)
}
