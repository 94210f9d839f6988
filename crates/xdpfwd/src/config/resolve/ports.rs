//! Resolves the ports: names, interfaces, and distribution of queues to workers.

use xdpfwd_engine::{Io, Lockout, NotEthernet, Plan, PortPlan, Qdisc, VlanTagLoss};
use xdpfwd_pipeline::PortId;

use crate::config::findings::Findings;
use crate::config::machine::{Interface, Machine};
use crate::config::parsed::{EngineTable, PortTable, Tables};
use crate::config::words::{and_list, count, or_list};

pub(super) const DEFAULT_QUEUES: u16 = 1;

/// Returns the ports' plans. A [`PortId`] is an index into them.
pub(super) fn resolve(ports: &Tables<PortTable>) -> Vec<PortPlan> {
    let plan = |port: &PortTable| PortPlan {
        name: port.name.or(String::new()).unwrap_or_default(),
        interface: port.interface.or(String::new()).unwrap_or_default(),
        io: port.io.or(Io::default()).unwrap_or_default(),
        queues: port.queues.or(DEFAULT_QUEUES).unwrap_or(DEFAULT_QUEUES),
        keep: port
            .keep
            .value()
            .iter()
            .flat_map(|rules| rules.get_ref())
            .map(|rule| *rule.get_ref())
            .collect(),
        promiscuous: port.promiscuous.or(true).unwrap_or(true),
        qdisc: port.qdisc.or(Qdisc::default()).unwrap_or_default(),
    };
    ports.tables.iter().map(plan).collect()
}

/// Returns each port's interface, or `None` if it is unknown. A missing interface causes only a
/// warning, because it may appear later.
pub(super) fn interfaces(
    ports: &Tables<PortTable>,
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) -> Vec<Option<Interface>> {
    let mut look_up = |port: &PortTable| {
        let name = port.interface.value()?;
        let interface = machine.interface(name.get_ref());
        let available = machine.interfaces();
        // `NoMachine` lists no interfaces.
        if interface.is_none() && !available.is_empty() {
            let available = and_list(available.iter().map(|name| format!("{name:?}")));
            // `ip link` appends `@` and the parent or peer to a name.
            let base_name = name
                .get_ref()
                .split_once('@')
                .filter(|(base_name, _)| machine.interface(base_name).is_some());
            let hint = base_name.map_or(String::new(), |(base_name, _)| {
                format!("; its name is {base_name:?}, without the part from the @")
            });
            let message = format!(
                "interface {:?} does not exist now; available: {available}{hint}; a start waits until it \
                 exists",
                name.get_ref()
            );
            findings.warning(&name.span(), message);
        }
        interface
    };
    ports.tables.iter().map(&mut look_up).collect()
}

/// Checks each port, alone and against earlier ones. Returns whether all port names are distinct.
pub(super) fn check(
    ports: &Tables<PortTable>,
    interfaces: &[Option<Interface>],
    findings: &mut Findings<'_>,
) -> bool {
    let mut are_distinct = true;
    if ports.tables.is_empty() && ports.is_complete {
        findings.error(
            &(0..0),
            "no port is defined; add a [[port]] with `name` and `interface`".to_owned(),
        );
    }
    for (index, (port, interface)) in ports.tables.iter().zip(interfaces).enumerate() {
        let earlier = || ports.tables.iter().zip(interfaces).take(index);
        let has_same_name =
            |other: &PortTable| Some(other.name.value()?.get_ref() == port.name.value()?.get_ref());
        if let Some(name) = port.name.value()
            && let Some((other, _)) =
                earlier().find(|(other, _)| has_same_name(other) == Some(true))
        {
            let line = findings.line(&other.span);
            let message = format!(
                "a port {:?} already exists on line {line}; each port needs its own name",
                name.get_ref()
            );
            findings.error(&name.span(), message);
            are_distinct = false;
        }
        if let Some(name) = port.interface.value() {
            let is_same_interface = |(other, properties): &(&PortTable, &Option<Interface>)| {
                let index =
                    |interface: &Option<Interface>| interface.as_ref().map(|found| found.index);
                other.interface.value().map(toml::Spanned::get_ref) == Some(name.get_ref())
                    || index(interface).is_some() && index(interface) == index(properties)
            };
            if let Some((other, _)) = earlier().find(is_same_interface) {
                let line = findings.line(&other.span);
                let message = format!(
                    "interface {:?} already belongs to the port on line {line}; each port needs \
                     its own interface (a path may lead from a port back to itself)",
                    name.get_ref()
                );
                findings.error(&name.span(), message);
            }
        }
        if let Some(interface) = interface {
            check_hardware_type(port, interface, findings);
            warn_of_unchecked(port, interface, findings);
            check_interface_queues(port, interface, findings);
        }
        check_keep(port, findings);
        check_qdisc(port, findings);
    }
    are_distinct
}

/// Only a port with packet sockets may have the key `qdisc`.
fn check_qdisc(port: &PortTable, findings: &mut Findings<'_>) {
    if let Some(qdisc) = port.qdisc.value()
        && let Some(io) = port.io.or(Io::default()).filter(|io| io.uses_xdp())
    {
        let message = format!(
            "qdisc: io = \"{io}\" always bypasses the queueing disciplines; remove `qdisc`, or set \
             io = \"packet\", \"packet-mmsg\" or \"packet-mmap\""
        );
        findings.error(&qdisc.span(), message);
    }
}

/// Checks that this program supports each port's `io`, that the ports can share packet memory, and
/// that `mode` and `busy_poll` have an effect. Warns if the kernel would also forward a packet
/// socket's packets.
pub(super) fn check_io(
    ports: &Tables<PortTable>,
    engine: &EngineTable,
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) {
    let port_with_io =
        |io| ports.tables.iter().find(move |port| port.io.or(Io::default()) == Some(io));
    for port in &ports.tables {
        let span = port.io.span_or(&port.span);
        if port.io.or(Io::default()).is_some_and(|io| !machine.is_built(io)) {
            let message = "io = \"xsk-rs\": not built into this program; build it with `cargo \
                           build --release --features xsk-rs` (which requires clang and m4), or \
                           set \"af_xdp\"";
            findings.error(&span, message.to_owned());
        } else if port.io.or(Io::default()) == Some(Io::XskRs)
            && let Some(other) = port_with_io(Io::AfXdp)
        {
            let message = format!(
                "io = \"xsk-rs\": {} has \"af_xdp\", and the two cannot share packet memory; set \
                 the same `io` for both, or \"packet-mmsg\" for one of them",
                port_label(other)
            );
            findings.error(&span, message);
        }
        if let Some(io) = port.io.or(Io::default()).filter(|io| io.uses_packet_sockets())
            && let Some(name) = port.interface.value()
        {
            match machine.forwarding(name.get_ref()) {
                Ok(None) => {}
                Ok(Some(setting)) => {
                    let message = format!(
                        "io = \"{io}\": the kernel also receives every packet of {} and \
                         forwards it; run `sysctl -w {setting}=0` so that it does not send a \
                         second copy",
                        name.get_ref()
                    );
                    findings.warning(&span, message);
                }
                Err(error) => {
                    let message = format!(
                        "cannot check whether the kernel forwards packets of {}: {error}",
                        name.get_ref()
                    );
                    findings.warning(&span, message);
                }
            }
        }
    }
    if let (Some(busy_poll), Some(port)) =
        (engine.busy_poll.value().filter(|on| *on.get_ref()), port_with_io(Io::XskRs))
    {
        let message = format!(
            "busy_poll = true: {} has io = \"xsk-rs\", which does not support busy polling; remove \
             `busy_poll`",
            port_label(port)
        );
        findings.error(&busy_poll.span(), message);
    }
    // If a table is invalid, its port may use XDP.
    let no_port_uses_xdp =
        ports.is_complete && ports.tables.iter().all(PortTable::uses_packet_sockets);
    if no_port_uses_xdp && let Some(io) = ports.tables.first().and_then(|port| port.io.value()) {
        let mode = engine.mode.value().filter(|mode| *mode.get_ref() != xdpfwd_engine::Mode::Auto);
        let busy_poll = engine.busy_poll.value().filter(|on| *on.get_ref());
        let spans = [
            ("mode", mode.map(toml::Spanned::span)),
            ("busy_poll", busy_poll.map(toml::Spanned::span)),
        ];
        for (key, span) in spans.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let message = format!(
                "{key}: has no effect, because no port uses XDP (io = \"{}\")",
                io.get_ref()
            );
            findings.warning(&span, message);
        }
    }
}

/// Only a port that uses XDP may have `keep` rules; no rule may be repeated.
fn check_keep(port: &PortTable, findings: &mut Findings<'_>) {
    let rules = port.keep.value().map(|rules| rules.get_ref().as_slice()).unwrap_or_default();
    if let Some(keep) = port.keep.value().filter(|rules| !rules.get_ref().is_empty())
        && let Some(io) = port.io.or(Io::default()).filter(|io| io.uses_packet_sockets())
    {
        let message = format!(
            "keep: with io = \"{io}\" the kernel receives every packet and this port receives \
             copies; remove `keep`, or set io = \"af_xdp\""
        );
        findings.error(&keep.span(), message);
    }
    for (index, rule) in rules.iter().enumerate() {
        if rules.iter().take(index).any(|earlier| earlier.get_ref() == rule.get_ref()) {
            findings.error(
                &rule.span(),
                format!("keep: \"{}\" is listed twice; keep one", rule.get_ref()),
            );
        }
    }
}

/// Rules about VLAN tags need an interface that leaves the tags in received frames.
pub(super) fn check_vlan_tags(
    plan: &Plan,
    ports: &Tables<PortTable>,
    interfaces: &[Option<Interface>],
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) {
    let numbered = (0..=u8::MAX).map(PortId).zip(&ports.tables).zip(interfaces);
    // Skip missing interfaces. A start checks each when it appears.
    for ((id, port), _) in numbered.filter(|(_, found)| found.is_some()) {
        let Some(name) = port.interface.value().filter(|_| plan.needs_vlan_tags(id)) else {
            continue;
        };
        let interface = name.get_ref();
        match machine.vlan_tag_loss(interface) {
            Ok(None) => {}
            Ok(Some(VlanTagLoss { cause, fix, depends_on_sender })) => {
                let message = format!("{interface}: rules compare VLAN tags, but {cause}; {fix}");
                match depends_on_sender {
                    true => findings.warning(&name.span(), message),
                    false => findings.error(&name.span(), message),
                }
            }
            Err(error) => findings.warning(
                &name.span(),
                format!(
                    "{interface}: cannot check whether it removes VLAN tags, which rules compare: \
                     {error}; run `ethtool -K {interface} rxvlan off rx-vlan-stag-hw-parse off`"
                ),
            ),
        }
    }
}

/// Warns of each port that would take traffic on which this host may depend.
pub(super) fn warn_of_lockouts(
    ports: &Tables<PortTable>,
    lockouts: &[Lockout],
    findings: &mut Findings<'_>,
) {
    for lockout in lockouts {
        if let Some(port) = ports.tables.get(lockout.port) {
            findings.warning(&port.interface.span_or(&port.span), lockout.to_string());
        }
    }
}

fn check_hardware_type(port: &PortTable, interface: &Interface, findings: &mut Findings<'_>) {
    let (Some(name), Some(hardware_type)) = (port.interface.value(), interface.hardware_type)
    else {
        return;
    };
    if !hardware_type.is_ethernet() {
        let error = NotEthernet { interface: name.get_ref().clone(), hardware_type };
        findings.error(&name.span(), error.to_string());
    }
}

/// Warns of each property that cannot be read. Otherwise, a check that did not run would look like
/// one that found no problem.
fn warn_of_unchecked(port: &PortTable, interface: &Interface, findings: &mut Findings<'_>) {
    let Some(name) = port.interface.value() else { return };
    for unchecked in &interface.unchecked {
        let message = format!("cannot check {unchecked} (interface {:?})", name.get_ref());
        findings.warning(&name.span(), message);
    }
}

fn check_interface_queues(port: &PortTable, interface: &Interface, findings: &mut Findings<'_>) {
    let (Some(queues), Some(active), Some(name)) =
        (port.queues.or(DEFAULT_QUEUES), interface.queues, port.interface.value())
    else {
        return;
    };
    let span = port.queues.span_or(&port.span);
    let name = name.get_ref();
    let channels = match interface.has_combined_queues {
        true => format!("combined {queues}"),
        false => format!("rx {queues} tx {queues}"),
    };
    if queues > active {
        let message = format!(
            "queues = {queues}: {name} has only {}; use fewer, or add some with `ethtool -L {name} \
             {channels}`",
            count(active, "active queue")
        );
        findings.error(&span, message);
    } else if queues < active && !port.uses_packet_sockets() {
        // Packet sockets are exempt, because they receive the packets of all queues.
        let message = format!(
            "queues = {queues}: {name} has {}, and packets on the others go to the kernel; use \
             all, or remove some with `ethtool -L {name} {channels}`",
            count(active, "active queue")
        );
        findings.warning(&span, message);
    }
}

/// All ports need the same number of queues, divisible by the number of workers.
pub(super) fn check_queues(
    ports: &Tables<PortTable>,
    interfaces: &[Option<Interface>],
    workers: usize,
    findings: &mut Findings<'_>,
) {
    let mut queue_counts =
        ports.tables.iter().filter_map(|port| Some((port, port.queues.or(DEFAULT_QUEUES)?)));
    let Some((first, queues)) = queue_counts.next() else { return };
    let max = interfaces.iter().flatten().filter_map(|interface| interface.queues).min();
    let valid_counts = valid_queue_counts(workers, max);
    let mut are_equal = true;
    for (port, other_count) in queue_counts.filter(|&(_, other_count)| other_count != queues) {
        are_equal = false;
        let message = format!(
            "{} uses {} and {} {other_count}: all ports need the same number; {valid_counts}",
            port_label(first),
            count(queues, "queue"),
            port_label(port),
        );
        findings.error(&port.queues.span_or(&port.span), message);
    }
    if are_equal && !usize::from(queues).is_multiple_of(workers) {
        let message = format!(
            "{} cannot be divided evenly among {workers} workers; {valid_counts}; or change `cores`",
            count(queues, "queue")
        );
        findings.error(&first.queues.span_or(&first.span), message);
    }
}

/// Describes the queue counts up to `max` that are divisible by `workers`.
fn valid_queue_counts(workers: usize, max: Option<u16>) -> String {
    /// If there are more counts, only the first two and the last are listed.
    const MAX_LISTED: usize = 4;
    let Some(max) = max else {
        return match workers {
            1 => "any number would fit".to_owned(),
            _ => format!(
                "{} and so on would fit",
                (1..=3).map(|n| (n * workers).to_string()).collect::<Vec<_>>().join(", ")
            ),
        };
    };
    let counts: Vec<usize> =
        (1..=usize::from(max)).filter(|count| count.is_multiple_of(workers)).collect();
    match counts.as_slice() {
        [] => format!("none would fit, as an interface has only {}", count(max, "queue")),
        [first, second, _, .., last] if counts.len() > MAX_LISTED => {
            format!("{first}, {second} and so on up to {last} would fit")
        }
        few => format!("{} would fit", or_list(few)),
    }
}

/// Returns `port "NAME"`, or `a port` if the name is invalid.
fn port_label(port: &PortTable) -> String {
    port.name
        .value()
        .map_or_else(|| "a port".to_owned(), |name| format!("port {:?}", name.get_ref()))
}

pub(super) fn port_names(ports: &Tables<PortTable>) -> String {
    and_list(
        ports
            .tables
            .iter()
            .filter_map(|port| port.name.value())
            .map(|name| format!("{:?}", name.get_ref())),
    )
}
