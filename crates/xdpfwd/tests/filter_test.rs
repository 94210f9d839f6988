//! Tests `xdpfwd filter test` on pcap and pcapng captures written by scapy. Needs no privileges.

use std::process::{Command, Output};

use serde_json::Value;
use xdpfwd_testkit::Folder;

const XDPFWD: &str = env!("CARGO_BIN_EXE_xdpfwd");

const CONFIG: &str = r#"
    [[port]]
    name = "lan"
    interface = "eth77"
    [[path]]
    from = "lan"
    to = "lan"
    stages = ["edge"]
    [stage.edge]
    kind = "filter"
    default = "drop"
    rules = "edge.rules"
"#;

const RULES: &str = "# edge
accept proto tcp dport 443
continue src 10.0.0.0/8 limit 1pps burst 2
accept src 10.0.0.0/8 proto udp
accept src 2001:db8::/32 proto icmpv6 icmp-type 128
";

/// Writes the packets in three captures: pcap, pcapng, and pcap cut to 60 bytes.
const SCAPY_SCRIPT: &str = r#"
from scapy.all import *
import sys
mac = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
udp = mac/IP(src="10.0.0.1", dst="192.0.2.1")/UDP(dport=53)/b"x"
packets = [
    mac/IP(src="192.0.2.7", dst="192.0.2.1")/TCP(dport=443),
    mac/IP(src="192.0.2.7", dst="192.0.2.1")/TCP(dport=80),
    udp, udp, udp,
    mac/IPv6(src="2001:db8::1", dst="2001:db8::2")/ICMPv6EchoRequest(),
    mac/ARP(pdst="192.0.2.1"),
    mac/IP(src="10.0.0.1", dst="192.0.2.1", options=[IPOption_NOP()]*4)/UDP(dport=53),
    mac/IP(src="10.0.0.1", dst="192.0.2.1", frag=5, proto=17)/b"12345678",
    mac/Dot1Q(vlan=5)/Dot1Q(vlan=6)/IP(src="192.0.2.7")/TCP(dport=443),
    mac/Dot1Q(vlan=5)/Dot1Q(vlan=6)/Dot1Q(vlan=7)/IP()/TCP(dport=443),
    mac/IPv6(src="2001:db8::1")/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/TCP(dport=443),
    Ether(bytes(mac/IP(src="192.0.2.7")/TCP(dport=443))[:30]),
    udp,
]
packets = [packet.copy() for packet in packets]
for index, packet in enumerate(packets):
    packet.time = 1700000000 + index * 0.001
packets[-1].time += 10
wrpcap(sys.argv[1], packets)
wrpcapng(sys.argv[2], packets)
wrpcap(sys.argv[3], packets, snaplen=60)
"#;

/// Returns verdict, index of the matching rule, and reason for each packet of [`SCAPY_SCRIPT`].
fn expected_decisions() -> Vec<(&'static str, Option<u64>, Option<&'static str>)> {
    vec![
        ("accept", Some(0), None),
        ("drop", None, Some("policy")),
        ("accept", Some(2), None),
        ("accept", Some(2), None),
        ("drop", Some(1), Some("rate_limit")),
        ("accept", Some(3), None),
        ("accept", None, Some("not_ip")),
        ("drop", None, Some("ip_options")),
        ("drop", None, Some("later_fragment")),
        ("accept", Some(0), None),
        ("drop", None, Some("vlan_stack")),
        ("accept", Some(0), None),
        ("drop", None, Some("malformed")),
        // After ten seconds, the limit allows the packet.
        ("accept", Some(2), None),
    ]
}

fn run(config: &std::path::Path, pcap: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(XDPFWD);
    command
        .args(["filter", "test", "--config"])
        .arg(config)
        .arg("--pcap")
        .arg(pcap)
        .args(arguments);
    command.output().unwrap()
}

#[test]
fn filter_test_prints_verdict_rule_and_reason_per_packet() {
    let folder = Folder::new();
    let config = folder.join("fw.toml");
    std::fs::write(&config, CONFIG).unwrap();
    std::fs::write(folder.join("edge.rules"), RULES).unwrap();
    let captures = ["a.pcap", "a.pcapng", "cut.pcap"].map(|name| folder.join(name));
    let python = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(SCAPY_SCRIPT)
        .args(&captures)
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    for capture in &captures {
        let output = run(&config, capture, &["--json"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), expected_decisions().len(), "{}", capture.display());
        for ((index, line), (verdict, rule, reason)) in
            lines.iter().enumerate().zip(expected_decisions())
        {
            let expected = serde_json::json!({
                "index": index, "verdict": verdict, "rule": rule, "reason": reason
            });
            assert_eq!(*line, expected, "{}", capture.display());
        }
    }
    let text = String::from_utf8(run(&config, &captures[0], &[]).stdout).unwrap();
    assert!(text.contains("\n14 packets\n"), "{text}");
    assert!(text.contains("       3  accept  rule 2: accept src 10.0.0.0/8 proto udp\n"), "{text}");
    assert!(text.contains("       1  drop    no rule (vlan_stack)\n"), "{text}");
    // Line of packet 6, then the summary.
    assert!(text.contains("       6  accept  no rule (not_ip)\n"), "{text}");
    assert!(text.contains("       1  accept  no rule (not_ip)\n"), "{text}");
}

#[test]
fn filter_test_error_names_invalid_file_and_reason() {
    let folder = Folder::new();
    let (config, pcap) = (folder.join("fw.toml"), folder.join("a.pcap"));
    std::fs::write(&config, CONFIG).unwrap();
    std::fs::write(folder.join("edge.rules"), RULES).unwrap();
    let assert_rejected = |exit_code: i32, error: &str| {
        let output = run(&config, &pcap, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit_code), "{text}");
        assert!(text.contains(error), "{error:?} is not in: {text}");
    };
    assert_rejected(1, "a.pcap: No such file");
    std::fs::write(&pcap, "").unwrap();
    assert_rejected(1, "is empty: expected a capture in pcap or pcapng format");
    std::fs::write(&pcap, "hello, this is a text and not a capture").unwrap();
    assert_rejected(1, "is not a capture: expected pcap or pcapng format");
    let pcap_header = |link_type: u8| {
        [&b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0"[..], &[link_type, 0, 0, 0]]
            .concat()
    };
    // Link type 105 is IEEE 802.11.
    std::fs::write(&pcap, pcap_header(105)).unwrap();
    assert_rejected(1, "link type 105: expected Ethernet (1)");
    // The header announces 60 bytes, but only three follow.
    std::fs::write(
        &pcap,
        [pcap_header(1), vec![0, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 1, 2, 3]].concat(),
    )
    .unwrap();
    assert_rejected(1, "is truncated: it ends in the middle of a packet");
    std::fs::write(folder.join("edge.rules"), "accept porto tcp").unwrap();
    assert_rejected(2, "edge.rules:1:8: unknown word `porto`");
    std::fs::write(&config, CONFIG.replace(r#"stages = ["edge"]"#, "")).unwrap();
    std::fs::write(folder.join("edge.rules"), RULES).unwrap();
    assert_rejected(2, "no path has a stage with kind");
}
