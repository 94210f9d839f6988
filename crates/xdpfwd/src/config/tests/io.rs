//! The values of the key `io`, and their combinations.

use std::path::Path;

use xdpfwd_engine::{Io, Qdisc};

use super::{diagnose_cases, plan};
use crate::config::{FakeMachine, Source};

/// Returns a configuration with the text `engine`, two ports with the additional lines `lan` and
/// `wan`, and a path between them.
fn two_ports(engine: &str, lan: &str, wan: &str) -> String {
    format!(
        "{engine}[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n{lan}\n[[port]]\nname = \"wan\"\n\
         interface = \"eth2\"\n{wan}\n[[path]]\nfrom = \"lan\"\nto = \"wan\""
    )
}

const PACKET_MMSG: &str = "io = \"packet-mmsg\"";
const PACKET: &str = "io = \"packet\"";
const PACKET_MMAP: &str = "io = \"packet-mmap\"";
const XSK_RS: &str = "io = \"xsk-rs\"";
const AF_XDP: &str = "io = \"af_xdp\"";

#[test]
fn ports_that_cannot_share_packet_memory_are_rejected() {
    for (lan, wan, accepted) in [
        (PACKET_MMSG, PACKET_MMSG, true),
        (PACKET_MMSG, "", true),
        (AF_XDP, PACKET_MMSG, true),
        (AF_XDP, PACKET_MMAP, true),
        (PACKET, PACKET_MMAP, true),
        (XSK_RS, PACKET_MMSG, true),
        (XSK_RS, XSK_RS, true),
        (XSK_RS, "", false),
        (AF_XDP, XSK_RS, false),
    ] {
        assert_eq!(plan(&two_ports("", lan, wan)).is_ok(), accepted, "{lan} and {wan}");
    }
    let (plan, _) = plan(&two_ports("", XSK_RS, PACKET_MMSG)).unwrap();
    assert_eq!(
        plan.ports.iter().map(|port| port.io).collect::<Vec<_>>(),
        [Io::XskRs, Io::PacketMmsg]
    );
    assert_snapshot!(diagnose_cases(&[&two_ports("", "", XSK_RS), &two_ports("", XSK_RS, AF_XDP)]));
}

#[test]
fn xdp_keys_without_effect_are_reported() {
    assert_snapshot!(diagnose_cases(&[
        &two_ports("", &format!("{PACKET_MMSG}\nkeep = [\"arp\"]"), ""),
        &two_ports("", &format!("{PACKET_MMSG}\nkeep = []"), ""),
        &two_ports("[engine]\nmode = \"copy\"\nbusy_poll = true\n", PACKET_MMSG, PACKET_MMSG),
        &two_ports("[engine]\nmode = \"copy\"\nbusy_poll = true\n", PACKET_MMSG, ""),
        &two_ports("[engine]\nbusy_poll = true\n", PACKET_MMSG, XSK_RS),
    ]));
}

#[test]
fn xdp_keys_with_each_packet_socket_are_reported() {
    for io in ["packet", "packet-mmsg", "packet-mmap"] {
        let line = format!("io = \"{io}\"");
        let error = diagnose_cases(&[&two_ports("", &format!("{line}\nkeep = [\"arp\"]"), "")]);
        assert!(error.contains(&format!("keep: with io = \"{io}\" the kernel")), "{error}");
        let text = two_ports("[engine]\nmode = \"copy\"\n", &line, &line);
        let (_, warnings) = plan(&text).unwrap();
        let warnings = warnings.to_string();
        assert!(warnings.contains(&format!("no port uses XDP (io = \"{io}\")")), "{warnings}");
    }
}

#[test]
fn qdisc_without_packet_socket_is_error() {
    for (lan, qdisc) in [
        (PACKET, Qdisc::Use),
        (PACKET_MMSG, Qdisc::Use),
        (PACKET_MMAP, Qdisc::Use),
        (PACKET, Qdisc::Bypass),
    ] {
        let value = if qdisc == Qdisc::Use { "use" } else { "bypass" };
        let text = two_ports("", &format!("{lan}\nqdisc = \"{value}\""), PACKET);
        let (plan, _) = plan(&text).unwrap();
        assert_eq!([plan.ports[0].qdisc, plan.ports[1].qdisc], [qdisc, Qdisc::Bypass]);
    }
    assert_snapshot!(diagnose_cases(&[
        &two_ports("", "qdisc = \"use\"", ""),
        &two_ports("", &format!("{XSK_RS}\nqdisc = \"bypass\""), XSK_RS),
        &two_ports("", &format!("{PACKET}\nqdisc = \"none\""), ""),
    ]));
}

fn diagnose_on(machine: &FakeMachine, text: &str) -> String {
    let source = Source::new("x.toml".into(), text.to_owned());
    match crate::config::plan(&source, Path::new(""), &xdpfwd_stages::builtin(), machine) {
        Ok((_, warnings)) => format!("{warnings}accepted\n"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn error_for_io_missing_from_build_names_build_command() {
    let mut machine = FakeMachine::new();
    machine.xsk_rs = false;
    assert_snapshot!(diagnose_on(&machine, &two_ports("", XSK_RS, XSK_RS)));
}

#[test]
fn vlan_rules_need_interfaces_that_leave_tags_in_frames() {
    let mut machine = FakeMachine::new();
    machine.without_vlan_tags = vec!["eth1", "eth2"];
    let with_rule = |interface: &str, port: &str, rule: &str| {
        let ports = two_ports("", port, "").replace("\"eth1\"", &format!("{interface:?}"));
        format!(
            "{ports}\nstages = [\"edge\"]\n[stage.edge]\nkind = \"filter\"\n\
             default = \"accept\"\nrules = [{rule:?}]\n"
        )
    };
    let cases = [
        ("eth1", "", "drop vlan 7"),
        ("eth1", "", "drop inner-vlan 7"),
        ("eth1", "keep = [\"arp\", \"vlan/7\"]", "drop"),
        // The machine cannot tell whether `opaque` removes tags.
        ("opaque", "", "drop vlan 7"),
    ];
    let texts: String = cases
        .map(|(interface, port, rule)| diagnose_on(&machine, &with_rule(interface, port, rule)))
        .concat();
    assert_snapshot!(texts);
    // These cases cause no error.
    for (interface, port, rule) in [
        // A packet socket receives removed tags as metadata.
        ("eth1", PACKET, "drop vlan 7"),
        ("eth1", PACKET_MMSG, "drop vlan 7"),
        ("eth1", PACKET_MMAP, "drop vlan 7"),
        // No rule compares tags.
        ("eth1", "keep = [\"arp\"]", "drop proto tcp"),
        // `multi1` leaves tags in frames. `eth2` removes tags, but is only the egress of the path.
        ("multi1", "", "drop vlan 7"),
    ] {
        let text = diagnose_on(&machine, &with_rule(interface, port, rule));
        assert!(text.ends_with("accepted\n") && !text.contains("tags"), "{text}");
    }
}

#[test]
fn kernel_forwarding_with_packet_sockets_causes_warning() {
    let mut machine = FakeMachine::new();
    machine.forwarding = vec!["eth1", "eth2"];
    assert_snapshot!(diagnose_on(&machine, &two_ports("", PACKET_MMSG, "")));
}
