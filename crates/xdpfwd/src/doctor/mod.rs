//! `xdpfwd doctor`: finds problems that prevent running or reduce speed, with their fixes:
//! commands, or lines of the configuration. [`host`] and [`nic`] read system files through a
//! [`Tree`], for which tests use a folder with a fake machine's files; [`offload`] queries the
//! kernel over netlink; [`probe`] binds a socket. Tests create each problem and apply its fix.

mod finding;
mod host;
mod lockout;
mod nic;
mod offload;
mod probe;
mod shared;
mod steering;
mod subject;
#[cfg(test)]
mod tests;
mod tree;
mod vlan;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use nix::net::if_::if_nametoindex;
use xdpfwd_engine::{Fallback, Link, Links, Mode, Plan, PortMode, PortPlan, check_descriptors};
use xdpfwd_pipeline::PortId;

use crate::registry::Registry;

pub(crate) use finding::{Examination, Finding, Level};
pub(crate) use subject::Subject;
pub(crate) use tree::Tree;

use crate::cli::{Doctor, LogFormat};
use crate::config::{self, FilePolicy, Machine as _, NoMachine, ThisMachine};
use crate::output;

/// Runs all checks and prints the findings. Returns the exit status of the worst.
pub(crate) fn run(arguments: &Doctor, registry: &Registry) -> ExitCode {
    let subject = match &arguments.config {
        // Check only the file itself; `examine` checks this machine.
        Some(path) => match config::load(
            path,
            registry,
            &NoMachine,
            FilePolicy::of_start(arguments.allow_writable_files),
        ) {
            Ok((plan, _)) => Subject::of_plan(&plan),
            Err(errors) => {
                errors.emit(LogFormat::Text);
                return ExitCode::from(crate::cli::USAGE);
            }
        },
        None => {
            let mut unique_names = Vec::new();
            for name in &arguments.interfaces {
                if !unique_names.contains(name) {
                    unique_names.push(name.clone());
                }
            }
            Subject::of_interfaces(&unique_names)
        }
    };
    let examination =
        Examination::new(examine(&subject, &Tree::this_machine(), !arguments.no_probe));
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if arguments.json {
        // The conversion cannot fail, because the examination contains only texts.
        serde_json::to_string(&examination).unwrap_or_default() + "\n"
    } else {
        examination.text(colour)
    };
    output::exit_code(output::print(&text), examination.exit_code())
}

/// Returns the finding about a port with `mode = "auto"` that fell back to a slower mode at the
/// start.
pub(crate) fn mode_finding(
    interface: &str,
    actual: PortMode,
    fallback: Option<&Fallback>,
) -> Finding {
    probe::mode_finding(interface, Mode::Auto, actual, fallback)
}

/// Returns the problems that prevented a start of this plan.
pub(crate) fn start_problems(plan: &Plan) -> Vec<Finding> {
    let probe = false;
    let findings = examine(&Subject::of_plan(plan), &Tree::this_machine(), probe);
    findings.into_iter().filter(|finding| finding.level == Level::Error).collect()
}

/// Returns the findings about the host, then those about each interface. With `probe`, binds
/// a socket to each queue to determine the mode of each interface.
fn examine(subject: &Subject, tree: &Tree, probe: bool) -> Vec<Finding> {
    let mut findings = host::examine(subject, tree);
    findings.push(shared::descriptors(check_descriptors(&subject.plan)));
    findings.extend(shared::kernel_ledger(subject));
    let mut interface_findings = Vec::new();
    let mut all_present = true;
    let links = Links::read();
    interface_findings.extend(shared::path_mtus(subject, &links));
    for (id, port) in (0..=u8::MAX).map(PortId).zip(&subject.plan.ports) {
        interface_findings.extend(steering::examine(subject, id, port));
        let Ok(index) = if_nametoindex(&*port.interface) else {
            all_present = false;
            interface_findings.push(missing_interface(&port.interface));
            continue;
        };
        let link = match Link::read(index) {
            Ok(link) => link,
            Err(error) => {
                let why = format!("cannot read its type, state and MTU: {error}");
                interface_findings.push(Finding::unknown("interface", &port.interface, why));
                continue;
            }
        };
        if let Err(error) = link.check_ethernet(&port.interface) {
            let fix = "`ip link` lists suitable interfaces as link/ether";
            interface_findings.push(Finding::error(
                "interface",
                &port.interface,
                error.to_string(),
                fix,
            ));
            continue;
        }
        interface_findings.extend(shared::competing_users(subject, id, port, &links, index));
        // Commands work with alternative names, but /sys has no folders of these names.
        let port = PortPlan { interface: link.name.clone(), ..port.clone() };
        let sysfs = link.sysfs_folder();
        if sysfs.is_none() {
            let why = "/sys is missing or shows another network namespace: driver, speed, NUMA \
                       node and interrupts are unknown; start doctor with `ip netns exec`, which \
                       mounts /sys again";
            interface_findings.push(Finding::unknown("interface", &port.interface, why));
        }
        let is_in_sysfs = sysfs.is_some();
        interface_findings.extend(nic::examine(subject, &port, tree, &link, is_in_sysfs));
        let veth_peer = offload::VethPeer::find(&link, &links);
        interface_findings.extend(offload::examine(subject, &port, tree, &link, veth_peer));
        interface_findings.extend(vlan::examine(subject, id, &port.interface, index));
    }
    let lockout_reason = lockout::examine(subject, &mut interface_findings);
    let first_at_level = |level| {
        interface_findings.iter().chain(&findings).find(|finding: &&Finding| finding.level == level)
    };
    let skip_reason = if !probe {
        Some("--no-probe".to_owned())
    } else if let Some(error) = first_at_level(Level::Error).filter(|_| all_present) {
        Some(format!("fix {} of {} first", error.check, error.subject))
    } else if !all_present {
        Some("an interface is missing".to_owned())
    } else if let Some(down) = interface_findings
        .iter()
        .find(|finding| finding.check == "link" && finding.level > Level::Ok)
    {
        Some(format!("{} {}", down.subject, down.finding))
    } else {
        lockout_reason
    };
    interface_findings.extend(match skip_reason {
        Some(why) => {
            let names = subject.plan.ports.iter().map(|port| &port.interface);
            names
                .map(|name| Finding::unknown(probe::CHECK, name, format!("not probed: {why}")))
                .collect()
        }
        None => probe::examine(subject),
    });
    // Sort the findings about interfaces by port.
    let port_index = |finding: &Finding| {
        let index = if_nametoindex(&*finding.subject).ok();
        subject.plan.ports.iter().position(|port| {
            port.interface == finding.subject
                || index.is_some() && if_nametoindex(&*port.interface).ok() == index
        })
    };
    let (host_findings, mut port_findings): (Vec<_>, Vec<_>) =
        interface_findings.into_iter().partition(|finding| port_index(finding).is_none());
    port_findings.sort_by_key(|finding| port_index(finding));
    for finding in &mut port_findings {
        if let Some(port) = port_index(finding) {
            finding.subject.clone_from(&subject.plan.ports[port].interface);
        }
    }
    findings.extend(host_findings);
    findings.extend(port_findings);
    findings
}

fn missing_interface(interface: &str) -> Finding {
    let available = ThisMachine::default().interfaces().join(", ");
    Finding::error(
        "interface",
        interface,
        format!("no interface {interface} in this network namespace; available: {available}"),
        format!(
            "`ip link` lists the interfaces; to check those of another namespace: \
             `ip netns exec NAME {} doctor …`",
            crate::program::name()
        ),
    )
}
