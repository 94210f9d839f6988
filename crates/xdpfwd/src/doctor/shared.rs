//! Checks that `doctor` shares with `--check` and with the start of xdpfwd.

use std::io;

use nix::net::if_::if_nametoindex;
use xdpfwd_engine::{
    KernelLedgerMode, Links, PortPlan, TooFewDescriptors, kernel_ledger_obstacles,
};
use xdpfwd_pipeline::PortId;

use super::{Finding, Subject};
use crate::host_checks;

/// Warns of a bridge, bond, VLAN interface, … that uses the interface and would lose packets to
/// xdpfwd.
pub(crate) fn competing_users(
    subject: &Subject,
    id: PortId,
    port: &PortPlan,
    links: &io::Result<Links>,
    index: u32,
) -> Vec<Finding> {
    const CHECK: &str = "shared";
    let name = &*port.interface;
    let links = match links {
        Ok(links) => links,
        Err(error) => {
            let why = format!("cannot read which interfaces are above it: {error}");
            return vec![Finding::unknown(CHECK, name, why)];
        }
    };
    let problems = host_checks::competing_users(&subject.plan, id, &links.users(index));
    if problems.is_empty() {
        return vec![Finding::ok(
            CHECK,
            name,
            "no bridge, bond or the like loses packets to xdpfwd",
        )];
    }
    let (found, fixes): (Vec<_>, Vec<_>) =
        problems.into_iter().map(|problem| (problem.found, problem.fix)).unzip();
    vec![Finding::warning(CHECK, name, found.join("; "), fixes.join("\n"))]
}

/// Warns if the configured kernel ledger, or a part of it, is not possible.
pub(crate) fn kernel_ledger(subject: &Subject) -> Option<Finding> {
    const CHECK: &str = "kernel-ledger";
    let mode = subject.plan.kernel_ledger;
    if mode == KernelLedgerMode::Off {
        return None;
    }
    let obstacles = kernel_ledger_obstacles(mode);
    if obstacles.is_empty() {
        return Some(Finding::ok(CHECK, "", format!("kernel_ledger = \"{mode}\" is possible")));
    }
    let fix = "start xdpfwd as root, or grant the capabilities (docs/operations.md)";
    Some(Finding::warning(CHECK, "", obstacles.join("; "), fix))
}

/// Warns of paths to an interface with a smaller MTU, if any.
pub(crate) fn path_mtus(subject: &Subject, links: &io::Result<Links>) -> Vec<Finding> {
    const CHECK: &str = "path-mtu";
    let plan = &subject.plan;
    let port = |id: PortId| plan.ports.get(usize::from(id.0));
    let mtu = |id: PortId| {
        let index = if_nametoindex(&*port(id)?.interface).ok()?;
        links.as_ref().ok()?.get(index)?.mtu
    };
    let finding = |path| {
        let problem = host_checks::path_mtu(plan, path, mtu)?;
        Some(Finding::warning(CHECK, &*port(path.from)?.interface, problem.found, problem.fix))
    };
    plan.paths.iter().filter_map(finding).collect()
}

pub(crate) fn descriptors(checked: io::Result<Result<(), TooFewDescriptors>>) -> Finding {
    const CHECK: &str = "descriptors";
    match checked {
        Ok(Ok(())) => Finding::ok(CHECK, "host", "this process may open enough files"),
        Ok(Err(too_few @ TooFewDescriptors { needed, .. })) => Finding::error(
            CHECK,
            "host",
            too_few.to_string(),
            format!("ulimit -Hn {needed}\nor, in the systemd unit: LimitNOFILE={needed}"),
        ),
        Err(error) => {
            let why = format!("cannot read the limit on open files: {error}");
            Finding::unknown(CHECK, "host", why)
        }
    }
}
