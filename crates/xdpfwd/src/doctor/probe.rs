//! The mode that will really be got: by attaching and binding, as a start does, and letting go again.

use engine::{Control, DataPlane, Fallback, Mode, PortMode, Probe, StartError};

use super::{Finding, Subject};

const CHECK: &str = "mode";

/// A finding for each port of the subject, or none for those that are not there.
pub(crate) fn examine(subject: &Subject, there: bool, cut_off: Option<&str>) -> Vec<Finding> {
    if !there || subject.plan.ports.is_empty() {
        return Vec::new();
    }
    if let Some(interface) = cut_off {
        let why = "not tried: a bind may set the interface up anew, and this host is reached through it";
        return vec![Finding::unknown(CHECK, interface, why)];
    }
    let probed = match Control::new() {
        Ok(control) => DataPlane::probe(&subject.plan, &control),
        Err(error) => return vec![Finding::unknown(CHECK, "host", format!("signals cannot be set up: {error}"))],
    };
    match probed {
        Ok(Probe { modes, fallback }) => {
            let ports = subject.plan.ports.iter().zip(modes);
            ports.map(|(port, mode)| of_mode(&port.interface, subject.plan.mode, mode, fallback.as_ref())).collect()
        }
        Err(error) => vec![of_error(subject, &error)],
    }
}

/// What a port's mode is worth, and what would make it better. The same at a start that settles for less.
pub(crate) fn of_mode(interface: &str, asked: Mode, got: PortMode, fallback: Option<&Fallback>) -> Finding {
    let Some(fallback) = fallback.filter(|_| asked == Mode::Auto) else {
        return Finding::ok(CHECK, interface, got.name());
    };
    let Fallback { interface: decided, lacks, reason, .. } = fallback;
    let who = if decided == interface { "it has".to_owned() } else { format!("{decided} has") };
    let found = format!("{}: {who} no {lacks} ({reason}), which decides for all ports", got.name());
    let fix = match *lacks {
        "native XDP" => format!(
            "look at mtu and xdp-features of {decided} above; or take an interface whose driver has native XDP; \
             or say that it is meant: [engine] mode = \"{}\"",
            got.name()
        ),
        _ => format!(
            "look at virtio, mtu and xdp-features of {decided} above; or take an interface whose driver has zero-copy \
             (docs/operations.md names some); or say that it is meant: [engine] mode = \"{}\"",
            got.name()
        ),
    };
    Finding::warning(CHECK, interface, found, fix)
}

/// A start that fails, as it would.
fn of_error(subject: &Subject, error: &StartError) -> Finding {
    let text = error.to_string();
    let named = subject.plan.ports.iter().find(|port| text.contains(&port.interface));
    let subject = named.map_or("host", |port| &port.interface);
    Finding::error(CHECK, subject, text, "as it says; then run this again")
}
