//! Tests of ICMP messages about packets that are too big for the MTU after encapsulation.

use serde_json::json;
use xdpfwd_pipeline::{BuildCx, NamedStage, PortAddress, PortId, PortInfo, Ports};

use super::support::*;

/// An IPv4 and an IPv6 address.
type AddressPair = [Option<&'static str>; 2];

#[test]
fn too_big_packet_is_answered_with_mtu_that_fits() {
    let folder = Folder::new();
    // The key `icmp_source`, the addresses of the port, and the expected sources of ICMP messages.
    // An expected source of `None` is the destination of the packet.
    let sources: [(&str, AddressPair, AddressPair); 4] = [
        (
            ", icmp_source = ['192.0.2.77', '2001:db8::77']",
            [Some("192.0.2.5"), Some("2001:db8::5")],
            [Some("192.0.2.77"), Some("2001:db8::77")],
        ),
        ("", [Some("192.0.2.5"), Some("2001:db8::5")], [Some("192.0.2.5"), Some("2001:db8::5")]),
        (
            ", icmp_source = ['192.0.2.77']",
            [None, Some("2001:db8::5")],
            [Some("192.0.2.77"), Some("2001:db8::5")],
        ),
        ("", [None, None], [None, None]),
    ];
    let mut replies = String::new();
    let mut answered = vec![];
    for (sa_index, sa) in encapsulations().iter().enumerate() {
        for mtu in [1400, 1500] {
            let (source, port_addresses, expected_sources) = &sources[sa_index % sources.len()];
            let other_keys = format!(", mtu = {mtu}, icmp_rate = 1000000{source}");
            let state = format!("{sa_index}-{mtu}.state");
            let plan = plan("esp-seal", &table(&folder, &state, &[sa], &other_keys));
            let address = |ip: &&str| PortAddress { ip: ip.parse().unwrap(), prefix_len: 64 };
            let addresses = port_addresses.iter().flatten().map(address).collect();
            let ports = Ports::from_iter([PortInfo {
                addresses,
                ..PortInfo::new(PortId(0), "lan", "eth0")
            }]);
            let stage = build_for(&plan, BuildCx { ports: &ports, ..BuildCx::default() });
            let mut bench = EspBench::new(vec![stage]);
            for (is_v6, expected_source) in [false, true].into_iter().zip(expected_sources) {
                for (tags, size) in [(0, mtu + 1), (1, mtu), (2, mtu + 100)] {
                    let frame = tagged(&packet_of_size(size, is_v6), tags);
                    let Disposition::Answered(answer) = bench.send_one(&frame) else {
                        panic!("{size} over {mtu}: {sa}: {:?}", bench.drops())
                    };
                    let reply = json!({ "plain": hex(&frame), "answer": hex(&answer), "tags": tags, "source": expected_source });
                    replies += &format!("{reply}\n");
                }
                answered.push((bench.counter("icmp_sent"), is_v6, mtu));
            }
            assert_eq!((bench.counter("icmp_sent"), bench.drops()), (6, vec![]));
            bench.assert_balanced();
        }
    }
    // The MTU in a message is exact: one byte more does not pass.
    let answers = scapy("icmp", &replies);
    let mtus: Vec<usize> = answers.lines().map(|line| line.parse().unwrap()).collect();
    let mut mtus = mtus.chunks(3).map(|equal_mtus| {
        assert!(equal_mtus.iter().all(|mtu| *mtu == equal_mtus[0]), "{equal_mtus:?}");
        equal_mtus[0]
    });
    for (sa_index, sa) in encapsulations().iter().enumerate() {
        for mtu in [1400, 1500] {
            let state = format!("{sa_index}-{mtu}.state");
            let mut bench = bench(&plan(
                "esp-seal",
                &table(&folder, &state, &[sa], &format!(", mtu = {mtu}, icmp_rate = 1000000")),
            ));
            for is_v6 in [false, true] {
                let reported_mtu = mtus.next().unwrap();
                let Disposition::Passed(sealed) =
                    bench.send_one(&packet_of_size(reported_mtu, is_v6))
                else {
                    panic!(
                        "a packet of {reported_mtu} bytes did not pass with an MTU of {mtu}: {sa}"
                    )
                };
                assert!(sealed.len() - 14 <= mtu, "{} bytes over {mtu}: {sa}", sealed.len() - 14);
                assert!(
                    matches!(
                        bench.send_one(&packet_of_size(reported_mtu + 1, is_v6)),
                        Disposition::Answered(_)
                    ),
                    "a packet of {} bytes was not answered with an MTU of {mtu}: {sa}",
                    reported_mtu + 1
                );
            }
            bench.assert_balanced();
        }
    }
    assert_eq!((mtus.next(), answered.len()), (None, 12 * 2 * 2));
}

/// RFCs forbid ICMP messages about the packets with `false`: RFC 1122, section 3.2.2; RFC 1812,
/// section 4.3.2.7; RFC 4443, section 2.4 (e).
#[test]
fn forbidden_icmp_message_is_not_sent() {
    let payload = vec![0; 1500];
    let v4 = |source: [u8; 4], destination: [u8; 4]| {
        ipv4(UDP, source, destination, 0x4000, &udp(1, 2, &payload))
    };
    let icmp = |kind: u8| {
        ipv4(1, SOURCE_V4, DESTINATION_V4, 0x4000, &[&[kind, 0, 0, 0][..], &payload].concat())
    };
    let v6 = |source: u128| ipv6(UDP, source, DESTINATION_V6, 64, &udp(1, 2, &payload));
    let icmp6 = |kind: u8| {
        ipv6(58, SOURCE_V6, DESTINATION_V6, 64, &[&[kind, 0, 0, 0][..], &payload].concat())
    };
    let to_broadcast_mac = [&[0xff; 6], &v4(SOURCE_V4, DESTINATION_V4)[6..]].concat();
    let cases = [
        ("ICMP unreachable", icmp(3), false),
        ("ICMP source quench", icmp(4), false),
        ("ICMP redirect", icmp(5), false),
        ("ICMP time exceeded", icmp(11), false),
        ("ICMP parameter problem", icmp(12), false),
        ("ICMP echo request", icmp(8), true),
        ("ICMP echo reply", icmp(0), true),
        ("later fragment", ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0x4000 | 7, &payload), false),
        ("to a multicast address", v4(SOURCE_V4, [224, 0, 0, 9]), false),
        ("to an administratively scoped multicast address", v4(SOURCE_V4, [239, 1, 2, 3]), false),
        ("to the broadcast address", v4(SOURCE_V4, [255; 4]), false),
        ("from the unspecified address", v4([0; 4], DESTINATION_V4), false),
        ("from loopback", v4([127, 0, 0, 1], DESTINATION_V4), false),
        ("from a multicast address", v4([224, 0, 0, 1], DESTINATION_V4), false),
        ("from the broadcast address", v4([255; 4], DESTINATION_V4), false),
        ("to the broadcast MAC address", to_broadcast_mac, false),
        ("UDP over IPv4", v4(SOURCE_V4, DESTINATION_V4), true),
        ("ICMPv6 unreachable", icmp6(1), false),
        ("ICMPv6 packet too big", icmp6(2), false),
        ("ICMPv6 time exceeded", icmp6(3), false),
        ("ICMPv6 parameter problem", icmp6(4), false),
        ("ICMPv6 unassigned error", icmp6(127), false),
        ("ICMPv6 redirect", icmp6(137), false),
        ("ICMPv6 echo request", icmp6(128), true),
        ("ICMPv6 echo reply", icmp6(129), true),
        ("from the IPv6 unspecified address", v6(0), false),
        ("from an IPv6 multicast address", v6(0xff02 << 112 | 1), false),
        ("UDP over IPv6", v6(SOURCE_V6), true),
    ];
    let folder = Folder::new();
    let mut bench = bench(&plan_seal(&folder, SEAL, ", icmp_rate = 1000000"));
    for (name, frame, is_answered) in &cases {
        match bench.send_one(frame) {
            Disposition::Answered(_) => assert!(is_answered, "{name}"),
            other => assert_eq!(
                (other, *is_answered),
                (Disposition::Dropped("too_big"), false),
                "{name}"
            ),
        }
    }
    assert_eq!(bench.counter("icmp_sent"), 6);
    // A packet without the don't-fragment bit is not encapsulated either: routers would fragment
    // the ESP packet, and the receiver would drop the fragments.
    let fragmentable = ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0, &udp(1, 2, &payload));
    assert!(!matches!(bench.send_one(&fragmentable), Disposition::Passed(_)));
    bench.assert_balanced();
}

#[test]
fn icmp_rate_limits_number_of_messages() {
    let folder = Folder::new();
    let frames = vec![packet_of_size(1500, false); 200];
    for (rate, max_messages) in [(0, 0), (1, 4), (1_000_000, 200)] {
        let mut bench = bench(&plan_seal(&folder, SEAL, &format!(", icmp_rate = {rate}")));
        let (wan, lan) = bench.send(&frames);
        assert_eq!((wan.len(), bench.counter("icmp_sent")), (0, lan.len() as u64));
        assert!(
            lan.len() <= max_messages && (rate == 0 || !lan.is_empty()),
            "{} messages about 200 packets at a rate of {rate}",
            lan.len()
        );
        let dropped = 200 - lan.len() as u64;
        assert_eq!(bench.drops(), if dropped > 0 { vec![("too_big", dropped)] } else { vec![] });
        bench.assert_balanced();
    }
}

/// An ICMP message would quote the decrypted packet in clear text.
#[test]
fn decapsulated_packet_that_is_too_big_gets_no_icmp_message() {
    let folder = Folder::new();
    let packets = [packet_of_size(1440, false), packet_of_size(1440, true)];
    let first = plan("esp-seal", &table(&folder, "first.state", &[SEAL], ""));
    let sealed = bench(&first).forward(&packets);
    let open = plan("esp-open", &table(&folder, "open.state", &[OPEN], ""));
    let small_mtu = plan(
        "esp-seal",
        &table(&folder, "small_mtu.state", &[SEAL], ", mtu = 1300, icmp_rate = 1000000"),
    );
    let mut gateway = EspBench::new(vec![
        build(&open),
        NamedStage::build("small_mtu", &*small_mtu, &BuildCx::default()),
    ]);
    assert_eq!(
        gateway.send_each(&sealed),
        [Disposition::Dropped("too_big"), Disposition::Dropped("too_big")]
    );
    assert!(matches!(bench(&small_mtu).send_one(&packets[0]), Disposition::Answered(_)));
    gateway.assert_balanced();
}
