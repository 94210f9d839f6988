//! `keep` rules, and warnings about lockouts: that xdpfwd would cut off an SSH session or the
//! default route.

use xdpfwd_engine::{Keep, KeepRule, Lockout, TrafficUse};

use super::{MINIMAL, diagnose, diagnose_cases};
use crate::config::{FakeMachine, Source, plan};

fn with_keep(keep: &str) -> String {
    MINIMAL.replacen("interface = \"eth1\"", &format!("interface = \"eth1\"\nkeep = {keep}"), 1)
}

#[test]
fn invalid_keep_rule_error_lists_accepted_rules() {
    let cases = [
        "\"arp\"",
        "[\"arp\", 22]",
        "[\"ARP\", \"tcp/0\", \"tcp/65536\", \"udp/dns\", \"vlan/4095\", \"tcp\"]",
        "[\"arp\", \"tcp/22\", \"arp\", \"tcp/22\"]",
        "[[\"arp\"]]",
        "[\"\"]",
    ];
    let cases = cases.map(with_keep);
    assert_snapshot!(diagnose_cases(&cases.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn warning_for_interface_with_peer_suffix_names_the_interface() {
    assert_snapshot!(diagnose(&MINIMAL.replacen("\"eth1\"", "\"eth1@if2\"", 1)));
}

#[test]
fn keep_on_port_without_path_causes_warning() {
    // No path starts at the port of eth2.
    let unused_keep =
        MINIMAL.replacen("interface = \"eth2\"", "interface = \"eth2\"\nkeep = [\"arp\"]", 1);
    assert_snapshot!(diagnose(&unused_keep));
}

#[test]
fn lockout_causes_warning_at_the_interface() {
    let mut machine = FakeMachine::new();
    let lockout =
        |traffic| Lockout { port: 0, name: "lan".into(), interface: "eth1".into(), traffic };
    machine.lockouts = vec![
        lockout(TrafficUse::DefaultRoute),
        lockout(TrafficUse::Ssh {
            peer: "192.0.2.7".parse().unwrap(),
            needed: Keep::from([KeepRule::Arp, KeepRule::Tcp(22)]),
        }),
    ];
    let source = Source::new("x.toml".into(), MINIMAL.to_owned());
    let (_, warnings) =
        plan(&source, std::path::Path::new(""), &xdpfwd_stages::builtin(), &machine).unwrap();
    assert_snapshot!(warnings.to_string());
}
