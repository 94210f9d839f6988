//! Determines the actual mode by attaching and binding as a start does, then detaching.

use xdpfwd_engine::{Control, DataPlane, Fallback, Mode, PortMode, Probe, StartError};

use super::{Finding, Subject};

pub(crate) const CHECK: &str = "mode";

/// Returns one finding per port, or one about the failure of the probe.
pub(crate) fn examine(subject: &Subject) -> Vec<Finding> {
    let probed = match Control::new() {
        Ok(control) => DataPlane::probe(&subject.plan, &control),
        Err(error) => {
            return vec![Finding::unknown(
                CHECK,
                "host",
                format!("cannot set up signals: {error}"),
            )];
        }
    };
    match probed {
        Ok(Probe { modes, fallback }) => {
            let ports = subject.plan.ports.iter().zip(modes);
            ports
                .map(|(port, mode)| {
                    mode_finding(&port.interface, subject.plan.mode, mode, fallback.as_ref())
                })
                .collect()
        }
        Err(error) => vec![error_finding(subject, &error)],
    }
}

/// Returns the finding about an interface's mode, with a fix if `auto` fell back to a slower one.
pub(crate) fn mode_finding(
    interface: &str,
    requested: Mode,
    actual: PortMode,
    fallback: Option<&Fallback>,
) -> Finding {
    let Some(fallback) = fallback.filter(|_| requested == Mode::Auto && actual.uses_xdp()) else {
        return Finding::ok(CHECK, interface, actual.name());
    };
    let Fallback { interface: limiting, lacks, reason, .. } = fallback;
    let found =
        format!("{}: {limiting} has no {lacks} ({reason}), which limits all ports", actual.name());
    let hint = format!(
        "`{} doctor {limiting}` shows its mtu, virtio and xdp-features",
        crate::program::name()
    );
    let fix = match *lacks {
        "native XDP" => {
            format!(
                "{hint}; or use an interface whose driver has native XDP; or, to accept this: \
                 [engine] mode = \"skb\""
            )
        }
        _ => format!(
            "{hint}; or use an interface whose driver has zero-copy (docs/operations.md names \
             some); or, to accept this: [engine] mode = \"copy\""
        ),
    };
    Finding::warning(CHECK, interface, found, fix)
}

/// Returns a finding about an error of the probe. Its subject is the interface that the error
/// names, or else the host.
fn error_finding(subject: &Subject, error: &StartError) -> Finding {
    let text = crate::error_text::with_causes(error);
    let is_named = |interface: &str| {
        let is_name_char = |character: char| {
            character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | '@')
        };
        text.split(|character| !is_name_char(character)).any(|word| word == interface)
    };
    let named = subject.plan.ports.iter().find(|port| is_named(&port.interface));
    let interface = named.map_or("host", |port| &port.interface).to_owned();
    Finding::error(
        CHECK,
        interface,
        text,
        "fix the cause that the message states, then run doctor again",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn fallback(lacks: &'static str) -> Fallback {
        Fallback {
            port: "lan".into(),
            interface: "eth1".into(),
            lacks,
            reason: "Operation not supported".into(),
        }
    }

    #[test]
    fn fix_for_fallback_names_a_mode_that_all_ports_support() {
        // `copy` needs native XDP, which eth1 lacks, so `copy` would prevent a start.
        let finding =
            mode_finding("eth2", Mode::Auto, PortMode::Copy, Some(&fallback("native XDP")));
        assert!(
            finding.fix.as_deref().unwrap().ends_with(r#"[engine] mode = "skb""#),
            "{finding:?}"
        );
        let finding =
            mode_finding("eth1", Mode::Auto, PortMode::Copy, Some(&fallback("zero-copy")));
        assert!(
            finding.fix.as_deref().unwrap().ends_with(r#"[engine] mode = "copy""#),
            "{finding:?}"
        );
        assert!(
            finding.finding.starts_with("copy: eth1 has no zero-copy (Operation not supported)"),
            "{finding:?}"
        );
    }

    #[test]
    fn packet_socket_or_requested_mode_is_ok() {
        let fallback = fallback("zero-copy");
        assert_eq!(
            mode_finding("eth3", Mode::Auto, PortMode::PacketMmsg, Some(&fallback)).level,
            Level::Ok
        );
        assert_eq!(
            mode_finding("eth1", Mode::Copy, PortMode::Copy, Some(&fallback)).level,
            Level::Ok
        );
    }
}
