//! Tests which frames a running filter matches against its rules, in user space and in the XDP
//! program, and that `filter test` decides the same. Also tests that xdpfwd refuses VLAN rules on
//! an interface that loses VLAN tags. Needs root.

mod support;

use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use support::examination::Examination;
use support::socket::Socket;
use support::wire::{gen0, send_and_capture, sink0};
use support::{Config, Running, XDPFWD, build_lab, stderr};
use xdpfwd_lab::Chain;

const MACS: &[u8] = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01";

fn frame(types_and_tags: &[u8], l3: &[u8]) -> Vec<u8> {
    [MACS, types_and_tags, l3].concat()
}

/// Returns a UDP packet, or a TCP packet to port 22, padded to the minimum length of a frame.
fn ipv4(protocol: u8) -> Vec<u8> {
    let l4: &[u8] = match protocol {
        6 => &[4, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0],
        _ => &[4, 0, 0, 53, 0, 20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    };
    let header = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], l4, &[0; 6]].concat()
}

/// Returns a UDP packet with one extension header of type `kind`. `content` is the header without
/// its next-header field.
fn ipv6(kind: u8, content: &[u8]) -> Vec<u8> {
    let udp = [4, 0, 0, 53, 0, 8, 0, 0];
    let extension = [&[17], content].concat();
    let mut addresses = [0; 32];
    (addresses[0], addresses[15], addresses[16], addresses[31]) = (0x20, 1, 0x20, 2);
    let length = (extension.len() + udp.len()) as u8;
    [&[0x60, 0, 0, 0, 0, length, kind, 64][..], &addresses, &extension, &udp].concat()
}

const RULES: [&str; 4] =
    ["drop vlan 10", "drop inner-vlan 20", "drop proto ah", "drop proto tcp dport 22"];

/// Returns each frame with the index of the rule that drops it, and its kind of exceptional packet.
/// A frame that no rule drops passes, except one with a routing header.
fn frames() -> Vec<(Vec<u8>, Option<u64>, Option<&'static str>)> {
    let ah = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        // A priority tag, then VLAN 10.
        (frame(&[0x81, 0, 0xe0, 0, 0x81, 0, 0, 10, 8, 0], &ipv4(17)), Some(0), None),
        (frame(&[0x91, 0, 0, 10, 8, 0], &ipv4(17)), Some(0), None),
        (frame(&[0x92, 0, 0, 5, 8, 0], &ipv4(6)), Some(3), None),
        (frame(&[0x93, 0, 0, 5, 0x81, 0, 0, 20, 8, 0], &ipv4(17)), Some(1), None),
        (frame(&[0x86, 0xdd], &ipv6(51, &ah)), Some(2), None),
        // Routing headers with one segment left, then none.
        (frame(&[0x86, 0xdd], &ipv6(43, &[0, 4, 1, 0, 0, 0, 0])), None, Some("routing_header")),
        (frame(&[0x86, 0xdd], &ipv6(43, &[0, 4, 0, 0, 0, 0, 0])), None, None),
        // Rule 3 must not match these packets to TCP port 22, which are inside PPPoE and MPLS.
        (frame(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21], &ipv4(6)), None, Some("not_ip")),
        (frame(&[0x88, 0x47, 0, 1, 1, 64], &ipv4(6)), None, Some("not_ip")),
        (frame(&[8, 0], &ipv4(17)), None, None),
    ]
}

/// Disables the offloads of fwd0 that remove VLAN tags.
fn keep_tags(lab: &Chain) {
    let features = ["rxvlan", "off", "rx-vlan-stag-hw-parse", "off"];
    let output = lab.fwd().command("ethtool").args(["-K", "fwd0"]).args(features).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0".to_vec();
    for frame in frames {
        let length = (frame.len() as u32).to_le_bytes();
        file.extend([&[0; 8][..], &length, &length, frame].concat());
    }
    file
}

#[test]
fn both_placements_and_filter_test_agree_on_tags_extensions_and_tunnels() {
    let sent: Vec<Vec<u8>> = frames().into_iter().map(|(frame, ..)| frame).collect();
    let passing: Vec<Vec<u8>> = frames()
        .into_iter()
        .filter(|(_, rule, kind)| rule.is_none() && *kind != Some("routing_header"))
        .map(|(frame, ..)| frame)
        .collect();
    let socket = Socket::new("frames");
    for place in ["user", "kernel"] {
        let lab = build_lab(Chain::builder());
        keep_tags(&lab);
        let text = socket
            .config_with_place(place, &RULES)
            .replace("default = \"drop\"", "default = \"accept\"");
        let running = Running::start(&lab, &text);
        let arrived = send_and_capture(gen0(&lab), sink0(&lab), &sent);
        assert_eq!(arrived, passing, "{place}");
        let filter = &socket.query("rules")["filters"][0];
        let text = String::from_utf8(socket.ctl(&["rules"]).stdout).unwrap();
        running.stop();
        assert_eq!(filter["place"], place);
        let packets: Vec<&Value> =
            filter["rules"].as_array().unwrap().iter().map(|rule| &rule["packets"]).collect();
        assert_eq!(packets, [2, 1, 1, 1], "{place}: {filter}");
        let counts = |name: &str| {
            let exceptions = filter["exceptions"].as_array().unwrap();
            let row = exceptions.iter().find(|row| row["exception"] == name).unwrap();
            (row["accepted"].as_u64().unwrap(), row["dropped"].as_u64().unwrap())
        };
        assert_eq!(counts("routing_header"), (0, 1), "{place}: {filter}");
        // Two frames are not IP, nor are the marks (frames that wire.py sends after each window).
        let (accepted, dropped) = counts("not_ip");
        assert!(accepted >= 2 && dropped == 0, "{place}: {filter}");
        assert!(text.contains("(routing_header, dropped)"), "{place}: {text}");
        assert!(text.contains("(not_ip, accepted)"), "{place}: {text}");
        assert!(!text.contains("(malformed"), "{place}: {text}");
    }
    let folder = xdpfwd_testkit::Folder::new();
    let capture = folder.join("frames.pcap");
    fs::write(&capture, pcap(&sent)).unwrap();
    let text = socket
        .config_with_place("user", &RULES)
        .replace("default = \"drop\"", "default = \"accept\"");
    let config = Config::new(&text);
    let output = std::process::Command::new(XDPFWD)
        .args(["filter", "test", "--json", "--config", config.path(), "--pcap"])
        .arg(&capture)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let decisions: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<Value> = frames()
        .into_iter()
        .enumerate()
        .map(|(index, (_, rule, kind))| {
            let is_dropped = rule.is_some() || kind == Some("routing_header");
            json!({
                "index": index,
                "verdict": if is_dropped { "drop" } else { "accept" },
                "rule": rule,
                "reason": if rule.is_some() { Some("policy") } else { kind },
            })
        })
        .collect();
    assert_eq!(decisions, expected);
}

fn run(lab: &Chain, text: &str, arguments: &[&str]) -> Output {
    let config = Config::new(text);
    let mut command = lab.fwd().command(XDPFWD);
    command.args(["--config", config.path()]).args(arguments).output().unwrap()
}

#[test]
fn vlan_rules_are_refused_on_interface_that_loses_tags() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("tags"));
    let with_rule = |rule: &str| socket.config(&[rule]);
    let keep = "name = \"lan\"\nkeep = [\"vlan/7\"]";
    let with_keep = with_rule("accept").replace("name = \"lan\"", keep);
    let fix = "run `ethtool -K fwd0 rxvlan off rx-vlan-stag-hw-parse off`";
    for text in [with_rule("drop vlan 7"), with_rule("accept inner-vlan 7"), with_keep.clone()] {
        for arguments in [&["--check"][..], &["--duration", "0.1"]] {
            let output = run(&lab, &text, arguments);
            assert_eq!(output.status.code(), Some(2), "{text}: {output:?}");
            let error = stderr(&output);
            assert!(error.contains("fwd0: rules compare VLAN tags, but") && error.contains(fix));
        }
    }
    // The first configuration compares no tags, and the second receives removed tags as metadata.
    let packet_sockets =
        with_rule("drop vlan 7").replace("queues = 1", "queues = 1\nio = \"packet-mmsg\"");
    for text in [with_rule("drop proto tcp"), packet_sockets] {
        let output = run(&lab, &text, &["--check"]);
        assert!(output.status.success(), "{text}: {output:?}");
    }
    Examination::run_with_config(lab.fwd(), &with_rule("drop vlan 7")).fix(
        "fwd0",
        "vlan-tags",
        "error",
        "rules compare VLAN tags, but a veth can receive VLAN tags outside of frames",
    );
    // A reload must not add such a rule either.
    let running = Running::start(&lab, &with_rule("accept"));
    running.config.write(&with_rule("drop vlan 7"));
    let reload = socket.ctl(&["reload"]);
    assert!(!reload.status.success() && stderr(&reload).contains(fix), "{reload:?}");
    running.stop();
    keep_tags(&lab);
    for text in [with_rule("drop vlan 7"), with_keep] {
        let output = run(&lab, &text, &["--duration", "0.1"]);
        assert!(output.status.success(), "{text}: {output:?}");
    }
}

#[test]
fn check_shows_action_for_each_exception_and_warns_of_accepted_ones() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("settings"));
    let text = socket.config(&["accept proto tcp"]);
    let output = run(&lab, &text, &["--check"]);
    let plan = String::from_utf8(output.stdout.clone()).unwrap();
    let settings = "    edge: extension_chain = drop, ip_options = drop, later_fragments = drop, \
                    malformed = drop, not_ip = arp, routing_header = drop, vlan_stack = drop\n";
    assert!(plan.contains(settings), "{plan}");
    assert!(!stderr(&output).contains("warning"), "{}", stderr(&output));
    let text = text.replace("place =", "routing_header = \"judge\"\nnot_ip = \"accept\"\nplace =");
    let output = run(&lab, &text, &["--check", "--json"]);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "not_ip": "accept", "malformed": "drop", "vlan_stack": "drop", "extension_chain": "drop",
        "ip_options": "drop", "routing_header": "judge", "later_fragments": "drop",
    });
    assert_eq!(plan["paths"][0]["stages"][0]["settings"], expected);
    let warning = "not_ip = \"accept\" lets all packets that are not IP";
    assert!(plan["warnings"][0]["message"].as_str().unwrap().starts_with(warning), "{plan}");
    assert!(plan["warnings"][0]["line"].is_number(), "{plan}");
    // A start logs the same warning.
    let output = run(&lab, &text, &["--duration", "0.1"]);
    assert!(output.status.success() && stderr(&output).contains(warning), "{output:?}");
}
