//! The `io` methods, and their combinations.

use std::path::Path;

use xdpfwd_engine::Io;

use super::{diagnose_cases, plan};
use crate::config::{FakeMachine, Source};

/// Two ports, each with its lines, and a path between them.
fn two(engine: &str, lan: &str, wan: &str) -> String {
    format!(
        "{engine}[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n{lan}\n[[port]]\nname = \"wan\"\n\
         interface = \"eth2\"\n{wan}\n[[path]]\nfrom = \"lan\"\nto = \"wan\""
    )
}

const PACKET: &str = "io = \"packet-mmsg\"";
const XSK_RS: &str = "io = \"xsk-rs\"";
const AF_XDP: &str = "io = \"af_xdp\"";

#[test]
fn ports_without_common_packet_memory_are_rejected() {
    for (lan, wan, accepted) in [
        (PACKET, PACKET, true),
        (PACKET, "", true),
        (AF_XDP, PACKET, true),
        (XSK_RS, PACKET, true),
        (XSK_RS, XSK_RS, true),
        (XSK_RS, "", false),
        (AF_XDP, XSK_RS, false),
    ] {
        assert_eq!(plan(&two("", lan, wan)).is_ok(), accepted, "{lan} and {wan}");
    }
    let (plan, _) = plan(&two("", XSK_RS, PACKET)).unwrap();
    assert_eq!(
        plan.ports.iter().map(|port| port.io).collect::<Vec<_>>(),
        [Io::XskRs, Io::PacketMmsg]
    );
    assert_snapshot!(diagnose_cases(&[&two("", "", XSK_RS), &two("", XSK_RS, AF_XDP)]));
}

#[test]
fn xdp_keys_with_packet_sockets_are_reported() {
    assert_snapshot!(diagnose_cases(&[
        &two("", &format!("{PACKET}\nkeep = [\"arp\"]"), ""),
        &two("", &format!("{PACKET}\nkeep = []"), ""),
        &two("[engine]\nmode = \"copy\"\nbusy_poll = true\n", PACKET, PACKET),
        &two("[engine]\nmode = \"copy\"\nbusy_poll = true\n", PACKET, ""),
        &two("[engine]\nbusy_poll = true\n", PACKET, XSK_RS),
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
fn io_not_built_error_names_build_command() {
    let mut machine = FakeMachine::new();
    machine.xsk_rs = false;
    assert_snapshot!(diagnose_on(&machine, &two("", XSK_RS, XSK_RS)));
}

#[test]
fn kernel_forwarding_with_packet_sockets_is_warning() {
    let mut machine = FakeMachine::new();
    machine.forwarding = vec!["eth1", "eth2"];
    assert_snapshot!(diagnose_on(&machine, &two("", PACKET, "")));
}
