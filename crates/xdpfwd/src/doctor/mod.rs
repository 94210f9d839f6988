//! `xdpfwd doctor`: what would keep it from running, or from running fast, and the fix.
//!
//! A check looks at one thing of one [`Subject`] and says what it found as [`Finding`]s. [`host`] and [`nic`] read files, from a
//! [`Tree`] that tests replace by a captured one; [`offload`] asks the kernel over netlink; [`probe`] binds a socket. A fix is
//! a command, or a line of the configuration, that clears its finding: tests make each condition, and apply it.

mod finding;
mod host;
mod nic;
mod offload;
mod probe;
mod subject;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use engine::{Fallback, Mode, PortMode};
use pipeline::Registry;

pub(crate) use finding::{Examination, Finding, Level};
pub(crate) use subject::Subject;
pub(crate) use tree::Tree;

use crate::cli::{Doctor, LogFormat};
use crate::config::{self, ThisMachine};

/// Examines what the command line says, prints what was found, and ends with the worst of it.
pub(crate) fn run(arguments: &Doctor, registry: &Registry) -> ExitCode {
    let subject = match &arguments.config {
        Some(path) => match config::load(path, registry, &ThisMachine) {
            // Its warnings are findings of ours, with more to say.
            Ok((plan, _)) => Subject::of_plan(&plan),
            Err(errors) => {
                errors.say(LogFormat::Text);
                return ExitCode::from(crate::USAGE);
            }
        },
        None => Subject::of_interfaces(&arguments.interfaces),
    };
    let examination = Examination::new(examine(&subject, &Tree::real(), !arguments.no_probe));
    let mut stdout = io::stdout().lock();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if arguments.json {
        serde_json::to_string(&examination).map_or_else(|error| error.to_string(), |json| json + "\n")
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

/// What is to be said of the mode that a port has got although a better one was asked for.
pub(crate) fn mode(interface: &str, got: PortMode, fallback: Option<&Fallback>) -> Finding {
    probe::of_mode(interface, Mode::Auto, got, fallback)
}

/// All findings, the host's first, then each interface's. `probe`: bind a socket to each queue, to see what it gets.
fn examine(subject: &Subject, tree: &Tree, probe: bool) -> Vec<Finding> {
    let mut findings = host::examine(subject, tree);
    let lockouts = lockouts(subject);
    let there: Vec<Option<u32>> =
        subject.plan.ports.iter().map(|port| nix::net::if_::if_nametoindex(&*port.interface).ok()).collect();
    let mut of_interfaces = Vec::new();
    for (port, index) in subject.plan.ports.iter().zip(&there) {
        match index {
            None => of_interfaces.push(missing(&port.interface)),
            Some(index) => {
                of_interfaces.extend(nic::examine(subject, port, tree, Some(*index)));
                of_interfaces.extend(offload::examine(subject, port, tree, *index));
            }
        }
    }
    let cut_off = lockouts.first().map(|finding| finding.subject.clone());
    of_interfaces.extend(lockouts);
    // What an error stands in the way of cannot be tried.
    let in_the_way = of_interfaces.iter().chain(&findings).any(|finding| finding.level == Level::Error);
    if probe && !in_the_way {
        of_interfaces.extend(probe::examine(subject, there.iter().all(Option::is_some), cut_off.as_deref()));
    }
    // By interface, in the order of the plan.
    let place = |finding: &Finding| subject.plan.ports.iter().position(|port| port.interface == finding.subject);
    of_interfaces.sort_by_key(|finding| place(finding).unwrap_or(usize::MAX));
    findings.extend(of_interfaces);
    findings
}

fn missing(interface: &str) -> Finding {
    let there = config::Machine::interfaces(&ThisMachine).join(", ");
    Finding::error(
        "interface",
        interface,
        format!("there is no interface {interface} in this network namespace; there are {there}"),
        "`ip link` shows them; `ip netns exec NAME xdpfwd doctor …` looks at another namespace's",
    )
}

/// Who would be cut off: the default route's users, and whoever is logged in.
fn lockouts(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "lockout";
    match engine::lockouts(&subject.plan) {
        Ok(lockouts) => lockouts
            .into_iter()
            .map(|lockout| {
                let needed = lockout.needed().iter().map(|rule| format!("\"{rule}\"")).collect::<Vec<_>>().join(", ");
                Finding::warning(
                    CHECK,
                    lockout.interface.clone(),
                    lockout.carries(),
                    format!("keep = [{needed}] for its port"),
                )
            })
            .collect(),
        Err(error) => vec![Finding::unknown(CHECK, "host", format!("addresses and routes cannot be read: {error}"))],
    }
}
