//! Determines the actual mode by attaching and binding as a start does, then detaching.

use xdpfwd_engine::{Control, DataPlane, Fallback, Mode, PortMode, Probe, StartError};

use super::{Finding, Subject};

pub(crate) const CHECK: &str = "mode";

/// Returns a finding for each port.
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
                    of_mode(&port.interface, subject.plan.mode, mode, fallback.as_ref())
                })
                .collect()
        }
        Err(error) => vec![of_error(subject, &error)],
    }
}

/// Rates a port's mode and suggests how to improve it. Also used when a start falls back to a
/// slower mode.
pub(crate) fn of_mode(
    interface: &str,
    asked: Mode,
    got: PortMode,
    fallback: Option<&Fallback>,
) -> Finding {
    let by_xdp = !matches!(got, PortMode::PacketMmsg | PortMode::None);
    let Some(fallback) = fallback.filter(|_| asked == Mode::Auto && by_xdp) else {
        return Finding::ok(CHECK, interface, got.name());
    };
    let Fallback { interface: decided, lacks, reason, .. } = fallback;
    let who = if decided == interface { "it has".to_owned() } else { format!("{decided} has") };
    let found = format!("{}: {who} no {lacks} ({reason}), which limits all ports", got.name());
    let look = format!(
        "`{} doctor {decided}` shows its mtu, virtio and xdp-features",
        crate::program::name()
    );
    let fix = match *lacks {
        "native XDP" => {
            format!(
                "{look}; or use an interface whose driver has native XDP; or, to accept this: \
                 [engine] mode = \"skb\""
            )
        }
        _ => format!(
            "{look}; or use an interface whose driver has zero-copy (docs/operations.md names \
             some); or, to accept this: [engine] mode = \"copy\""
        ),
    };
    Finding::warning(CHECK, interface, found, fix)
}

/// Returns the finding for a failed start.
fn of_error(subject: &Subject, error: &StartError) -> Finding {
    let text = crate::error_text::in_full(error);
    let names = |interface: &str| {
        let part_of_a_name =
            |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '_' | '-' | '.' | '@');
        text.split(|byte| !part_of_a_name(byte)).any(|word| word == interface)
    };
    let named = subject.plan.ports.iter().find(|port| names(&port.interface));
    let interface = named.map_or("host", |port| &port.interface).to_owned();
    Finding::error(CHECK, interface, text, "fix the cause that the message states, then run doctor again")
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
    fn fallback_fix_names_mode_that_all_ports_support() {
        // Only one port supports native XDP: configuring `copy` would break the other.
        let finding = of_mode("eth2", Mode::Auto, PortMode::Copy, Some(&fallback("native XDP")));
        assert!(
            finding.fix.as_deref().unwrap().ends_with(r#"[engine] mode = "skb""#),
            "{finding:?}"
        );
        let finding = of_mode("eth1", Mode::Auto, PortMode::Copy, Some(&fallback("zero-copy")));
        assert!(
            finding.fix.as_deref().unwrap().ends_with(r#"[engine] mode = "copy""#),
            "{finding:?}"
        );
        assert!(
            finding.finding.starts_with("copy: it has no zero-copy (Operation not supported)"),
            "{finding:?}"
        );
    }

    #[test]
    fn packet_socket_or_requested_mode_is_ok() {
        let fallback = fallback("zero-copy");
        assert_eq!(
            of_mode("eth3", Mode::Auto, PortMode::PacketMmsg, Some(&fallback)).level,
            Level::Ok
        );
        assert_eq!(of_mode("eth1", Mode::Copy, PortMode::Copy, Some(&fallback)).level, Level::Ok);
    }
}
