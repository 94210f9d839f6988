//! Tests of the stages `mac-swap`, `memcpy`, `set-mac` and `ttl`, from TOML tables to transmitted
//! frames.

use std::path::Path;
use std::process::Command;

use xdpfwd_pipeline::testing::{Disposition, TestBench};
use xdpfwd_pipeline::{BuildCx, NamedStage, PlanCx, PlanResult, Reason, Worker};
use xdpfwd_stages::Memcpy;
use xdpfwd_testkit::wires::{cross_connect, packet};

fn plan(kind: &str, table: &'static str) -> PlanResult<toml::de::Error> {
    let workers = 1;
    xdpfwd_testkit::plan(kind, table, &PlanCx::new(Path::new("."), workers))
}

fn bench(kind: &str, table: &'static str) -> TestBench {
    TestBench::builder().plans("lan", "wan", [(kind, plan(kind, table).unwrap())]).build().unwrap()
}

#[test]
fn mac_swap_changes_only_mac_addresses() {
    let mut expected = packet(7);
    expected[..12].copy_from_slice(b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02");
    let mut bench = bench("mac-swap", "{}");
    assert_eq!(bench.send("lan", &packet(7)), Disposition::sent("wan", expected));
}

#[test]
fn set_mac_sets_configured_addresses() {
    let source = r#"{ source = "0a:00:00:00:00:01" }"#;
    let destination = r#"{ destination = "0a:00:00:00:00:02" }"#;
    let both = r#"{ source = "0a:00:00:00:00:01", destination = "0a:00:00:00:00:02" }"#;
    let (new_source, new_destination) = (b"\x0a\0\0\0\0\x01", b"\x0a\0\0\0\0\x02");
    for (table, sets_source, sets_destination) in
        [(source, true, false), (destination, false, true), (both, true, true)]
    {
        let mut expected = packet(7);
        if sets_destination {
            expected[..6].copy_from_slice(new_destination);
        }
        if sets_source {
            expected[6..12].copy_from_slice(new_source);
        }
        let sent = bench("set-mac", table).send("lan", &packet(7));
        assert_eq!(sent, Disposition::sent("wan", expected), "{table}");
    }
}

#[test]
fn memcpy_sends_packets_of_every_length_unchanged() {
    for table in ["{ copies = 0 }", "{ copies = 1 }", "{ copies = 1024 }"] {
        let mut bench = bench("memcpy", table);
        for length in [14, 60, 64, 65, 512, 1514] {
            let packet: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let sent = bench.send("lan", &packet);
            assert_eq!(sent, Disposition::sent("wan", packet), "{table}, {length} bytes");
        }
    }
}

/// The cycles of the stage must grow with `copies`: the compiler must not remove copies, nor combine
/// them.
#[test]
fn memcpy_cost_is_proportional_to_copies() {
    let cycles = |copies| {
        let chain = || {
            vec![NamedStage::build("memcpy", &Memcpy::new(copies).unwrap(), &BuildCx::default())]
        };
        let (mut worker, wires) = cross_connect(chain(), chain());
        let mut cycles_per_packet = || {
            let account =
                |worker: &mut Worker<Vec<NamedStage>>| worker.report().paths[0].stages[0].account;
            let before = account(&mut worker);
            for _ in 0..64 {
                wires.lan.deliver(&[7; 1514]).unwrap();
            }
            assert_eq!(worker.poll_once(), 64);
            wires.wan.take_sent();
            let after = account(&mut worker);
            assert_eq!(after.packets - before.packets, 64);
            (after.cycles - before.cycles) / 64
        };
        // The thread is not preempted in at least one of ten batches.
        (0..10).map(|_| cycles_per_packet()).min().unwrap()
    };
    let (few, many) = (cycles(64), cycles(1024));
    assert!((8 * few..32 * few).contains(&many), "64 copies: {few}, 1024 copies: {many} cycles");
}

#[test]
fn invalid_table_error_names_the_problem() {
    let error = |kind, table| plan(kind, table).err().unwrap().to_string();
    assert!(error("mac-swap", "{ port = 1 }").contains("unknown field `port`"));
    assert!(error("ttl", "{ by = 2 }").contains("unknown field `by`"));
    assert!(error("memcpy", "{}").contains("missing field `copies`"));
    for table in [
        "{ copies = -1 }",
        "{ copies = 1025 }",
        "{ copies = 65537 }",
        "{ copies = 1.5 }",
        "{ copies = '8' }",
    ] {
        let error = error("memcpy", table);
        assert!(error.contains("expected a number of copies, 0 to 1024"), "{table}: {error}");
    }
    assert_eq!(Memcpy::new(1025), None);
    assert!(
        error("set-mac", "{}")
            .contains("missing address: expected `source`, `destination`, or both")
    );
    assert!(error("set-mac", r#"{ source = "01:00:5e:00:00:01" }"#).contains("multicast"));
    assert!(
        error("set-mac", r#"{ source = "2:3" }"#).contains("not a MAC address: found 2 groups")
    );
    assert_eq!(
        error("nat", "{}"),
        "unknown stage kind `nat`, expected one of `esp-open`, `esp-seal`, `filter`, `mac-swap`, `memcpy`, `payload`, `set-mac`, `ttl`"
    );
}

/// Returns packets built by scapy, each with the packet that the stage `ttl` must send, or `None`
/// if it must drop the packet.
fn scapy_cases() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    const SCRIPT: &str = r#"
from scapy.all import *
def case(p, ttl):
    e = p.copy()
    ip = e[IP] if IP in e else e[IPv6]
    if IP in e:
        ip.ttl = ttl - 1
    else:
        ip.hlim = ttl - 1
    print(raw(p).hex(), raw(e).hex() if ttl > 1 else "-")
# Set MAC addresses: otherwise scapy would resolve them over the network.
macs = dict(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
pad = Raw(b"payload that is long enough")
for ttl in (0, 1, 2, 3, 64, 128, 255):
    for ident in (0, 1, 0xffff, 0x1234):
        case(Ether(**macs)/IP(src="10.0.0.1", dst="192.168.3.4", ttl=ttl, id=ident)/UDP(sport=1, dport=2)/pad, ttl)
    case(Ether(**macs)/Dot1Q(vlan=7)/IP(src="10.0.0.1", dst="1.2.3.4", ttl=ttl)/TCP()/pad, ttl)
    case(Ether(type=0x88a8, **macs)/Dot1AD(vlan=7)/Dot1Q(vlan=9)/IP(src="10.0.0.1", dst="1.2.3.4", ttl=ttl, options=IPOption_RR())/UDP()/pad, ttl)
    case(Ether(type=0x9100, **macs)/Dot1Q(vlan=7, type=0x9300)/Dot1Q(vlan=9)/IP(src="10.0.0.1", dst="1.2.3.4", ttl=ttl)/UDP()/pad, ttl)
    case(Ether(**macs)/IP(src="10.0.0.1", dst="1.2.3.4", ttl=ttl, frag=100)/pad, ttl)
    case(Ether(**macs)/IPv6(src="fd00::1", dst="fd00::2", hlim=ttl)/UDP()/pad, ttl)
    case(Ether(**macs)/IPv6(src="fd00::1", dst="fd00::2", hlim=ttl)/IPv6ExtHdrHopByHop()/ICMPv6EchoRequest(), ttl)
"#;
    let mut failures = String::new();
    // Debian's Python has scapy; the first one in the PATH may lack it.
    for python in ["python3", "/usr/bin/python3"] {
        match Command::new(python).args(["-c", SCRIPT]).output() {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8(output.stdout).unwrap();
                return text.lines().map(parse_case).collect();
            }
            Ok(output) => {
                failures += &format!("{python}: {}\n", String::from_utf8_lossy(&output.stderr))
            }
            Err(error) => failures += &format!("{python}: {error}\n"),
        }
    }
    panic!("cannot run scapy (Debian: python3-scapy; `make test` installs it)\n{failures}");
}

/// Parses a line with a packet, and the expected packet or `-`.
fn parse_case(line: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    let bytes = |hex: &str| {
        (0..hex.len())
            .step_by(2)
            .map(|digit| u8::from_str_radix(&hex[digit..digit + 2], 16).unwrap())
            .collect()
    };
    let (packet, expected) = line.split_once(' ').unwrap();
    (bytes(packet), (expected != "-").then(|| bytes(expected)))
}

#[test]
fn ttl_sends_same_bytes_as_scapy() {
    let cases = scapy_cases();
    assert_eq!(cases.len(), 7 * 10, "expected 10 packets for each of 7 TTLs");
    let mut bench = bench("ttl", "{}");
    let dispositions = bench.send_all("lan", cases.iter().map(|(packet, _)| packet));
    for (disposition, (packet, expected)) in dispositions.into_iter().zip(cases) {
        let expected = match expected {
            Some(sent) => Disposition::sent("wan", sent),
            None => Disposition::dropped(Reason::TTL_EXPIRED),
        };
        assert_eq!(disposition, expected, "{packet:02x?}");
    }
    assert_eq!(bench.drops(), [("ttl_expired", 2 * 10)]);
    assert_eq!(bench.counters("ttl"), [("expired", 20), ("not_ip", 0)]);
}

#[test]
fn ttl_passes_non_ip_and_drops_malformed_ip() {
    let arp = [&b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06"[..], &[0; 46]].concat();
    let ethernet = |ethertype: [u8; 2], payload: &[u8]| {
        [&b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01"[..], &ethertype, payload].concat()
    };
    // Ends in the IPv4 header.
    let truncated_ipv4 = ethernet([0x08, 0], b"\x45\0\0\x20\0\0\0\0\x40\x11");
    // Its IHL of 16 bytes is below the minimum.
    let short_ihl = ethernet([0x08, 0], &[&[0x44; 1][..], &[0x40; 45]].concat());
    let truncated_ipv6 = ethernet([0x86, 0xdd], &[0x60; 30]);
    let three_tags =
        ethernet([0x81, 0], &[&b"\0\x01\x81\0\0\x02\x81\0\0\x03\x08\0"[..], &[0x45; 40]].concat());
    let mut bench = bench("ttl", "{}");
    assert_eq!(bench.send("lan", &arp), Disposition::sent("wan", arp));
    for packet in [truncated_ipv4, short_ihl, truncated_ipv6, three_tags] {
        let disposition = bench.send("lan", &packet);
        assert_eq!(disposition, Disposition::dropped(Reason::MALFORMED), "{packet:02x?}");
    }
    assert_eq!(bench.drops(), [("malformed", 4)]);
    assert_eq!(bench.counters("ttl"), [("expired", 0), ("not_ip", 1)]);
}
