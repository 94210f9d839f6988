//! `xdpfwd doctor`: finds problems that prevent running or reduce speed, with their fixes.
//!
//! Each check examines one aspect of a [`Subject`] and returns [`Finding`]s. [`host`] and [`nic`]
//! read files from a [`Tree`], which tests replace by that of another machine; [`offload`] queries
//! the kernel over netlink; [`probe`] binds a socket. A fix is a command, or a line of the
//! configuration, that resolves its finding: tests create each condition and apply the fix.

mod finding;
mod host;
mod lockout;
mod nic;
mod offload;
mod probe;
mod steering;
mod subject;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use nix::net::if_::{if_indextoname, if_nametoindex};
use xdpfwd_engine::{Fallback, Mode, Plan, PortMode, PortPlan};
use xdpfwd_pipeline::PortId;

use crate::registry::Registry;

pub(crate) use finding::{Examination, Finding, Level};
pub(crate) use subject::Subject;
pub(crate) use tree::Tree;

use crate::cli::{Doctor, LogFormat};
use crate::config::{self, Machine as _, NoMachine, ThisMachine};

/// Runs the checks, prints the findings, and returns the exit status of the worst one.
pub(crate) fn run(arguments: &Doctor, registry: &Registry) -> ExitCode {
    let subject = match &arguments.config {
        // Check only the file itself: problems of this machine become findings.
        Some(path) => match config::load(path, registry, &NoMachine) {
            Ok((plan, _)) => Subject::of_plan(&plan),
            Err(errors) => {
                errors.emit(LogFormat::Text);
                return ExitCode::from(crate::cli::USAGE);
            }
        },
        None => {
            let mut once = Vec::new();
            for name in &arguments.interfaces {
                if !once.contains(name) {
                    once.push(name.clone());
                }
            }
            Subject::of_interfaces(&once)
        }
    };
    let examination = Examination::new(examine(&subject, &Tree::real(), !arguments.no_probe));
    let mut stdout = io::stdout().lock();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if arguments.json {
        serde_json::to_string(&examination)
            .map_or_else(|error| error.to_string(), |json| json + "\n")
    } else {
        examination.text(colour)
    };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "xdpfwd: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ => examination.exit_code(),
    }
}

/// Returns the finding for a port whose mode is slower than the requested one.
pub(crate) fn mode(interface: &str, got: PortMode, fallback: Option<&Fallback>) -> Finding {
    probe::mode_finding(interface, Mode::Auto, got, fallback)
}

/// Returns problems that prevent starting this plan, without probing: used after a failed start.
pub(crate) fn start_problems(plan: &Plan) -> Vec<Finding> {
    let findings = examine(&Subject::of_plan(plan), &Tree::real(), false);
    findings.into_iter().filter(|finding| finding.level == Level::Error).collect()
}

/// Returns all findings, the host's first, then each interface's. `probe` binds a socket to each
/// queue to determine its mode.
fn examine(subject: &Subject, tree: &Tree, probe: bool) -> Vec<Finding> {
    let mut findings = host::examine(subject, tree);
    let mut interface_findings = Vec::new();
    let mut all_present = true;
    for (id, port) in (0..=u8::MAX).map(PortId).zip(&subject.plan.ports) {
        interface_findings.extend(steering::examine(subject, id, port));
        let Ok(index) = if_nametoindex(&*port.interface) else {
            all_present = false;
            interface_findings.push(missing(&port.interface));
            continue;
        };
        // Alternative names of an interface have no folder in /sys.
        let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        let port =
            PortPlan { interface: name.unwrap_or_else(|| port.interface.clone()), ..port.clone() };
        interface_findings.extend(nic::examine(subject, &port, tree, Some(index)));
        interface_findings.extend(offload::examine(subject, &port, tree, index));
    }
    let cut_off = lockout::examine(subject, &mut interface_findings);
    let level = |level| {
        interface_findings.iter().chain(&findings).find(|finding: &&Finding| finding.level == level)
    };
    let skip_reason = if !probe {
        Some("--no-probe".to_owned())
    } else if let Some(error) = level(Level::Error).filter(|_| all_present) {
        Some(format!("fix {} of {} first", error.check, error.subject))
    } else if !all_present {
        Some("an interface is missing".to_owned())
    } else if let Some(down) = interface_findings
        .iter()
        .find(|finding| finding.check == "link" && finding.level > Level::Ok)
    {
        Some(format!("{} {}", down.subject, down.finding))
    } else {
        cut_off
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
    // Sort by interface in the order of the plan; other findings belong to the host.
    let name = |finding: &Finding| {
        let index = if_nametoindex(&*finding.subject).ok();
        subject.plan.ports.iter().position(|port| {
            port.interface == finding.subject
                || index.is_some() && if_nametoindex(&*port.interface).ok() == index
        })
    };
    let (hosts, mut others): (Vec<_>, Vec<_>) =
        interface_findings.into_iter().partition(|finding| name(finding).is_none());
    others.sort_by_key(|finding| name(finding));
    for finding in &mut others {
        if let Some(port) = name(finding) {
            finding.subject.clone_from(&subject.plan.ports[port].interface);
        }
    }
    findings.extend(hosts);
    findings.extend(others);
    findings
}

fn missing(interface: &str) -> Finding {
    let available = ThisMachine.interfaces().join(", ");
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
