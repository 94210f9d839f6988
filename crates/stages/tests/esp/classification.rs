//! Tests which packets bypass ESP, and which SA applies to the others.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::*;

fn packet_to(destination: Ipv4Addr) -> Vec<u8> {
    ipv4(UDP, SOURCE_V4, destination.octets(), 0, &udp(1, 2, b"payload"))
}

fn packet_to_v6(destination: Ipv6Addr) -> Vec<u8> {
    ipv6(UDP, SOURCE_V6, destination.to_bits(), 64, &udp(1, 2, b"payload"))
}

#[test]
fn bypass_passes_only_configured_traffic() {
    let icmp6 = |kind: u8, hop_limit: u8| {
        ipv6(58, SOURCE_V6, DESTINATION_V6, hop_limit, &[&[kind, 0, 0, 0][..], &[0; 20]].concat())
    };
    let arp = [&b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06"[..], &[0; 46]].concat();
    let matching = |payload: &[u8]| ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0, payload);
    let between_endpoints = |payload: &[u8]| ipv4(UDP, [192, 0, 2, 1], [192, 0, 2, 2], 0, payload);
    let with_marker = [&[0; 4][..], b"a message of IKE"].concat();
    // Name, frame, the values of `bypass` that let it bypass ESP (in one stage if "in …" follows),
    // and whether an outbound SA matches it.
    let cases: Vec<(&str, Vec<u8>, &[&str], bool)> = vec![
        ("ARP", arp, &["arp", "not-ip", "unmatched"], false),
        ("router solicitation", icmp6(133, 255), &["nd", "unmatched"], false),
        ("neighbour solicitation", icmp6(135, 255), &["nd", "unmatched"], false),
        ("neighbour advertisement", icmp6(136, 255), &["nd", "unmatched"], false),
        ("redirect", icmp6(137, 255), &["nd", "unmatched"], false),
        ("neighbour solicitation with a hop limit of 254", icmp6(135, 254), &["unmatched"], false),
        ("echo request", icmp6(128, 255), &["unmatched"], false),
        ("not IP", ethernet(0x88b5, &[0; 50]), &["not-ip", "unmatched"], false),
        (
            "UDP to an address without an SA",
            packet_to(Ipv4Addr::new(10, 3, 0, 1)),
            &["unmatched"],
            false,
        ),
        (
            "IKE from 500 to 500",
            between_endpoints(&udp(500, 500, b"a message of IKE")),
            &["ike", "unmatched"],
            false,
        ),
        (
            "IKE to 500",
            between_endpoints(&udp(9, 500, b"a message of IKE")),
            &["ike in open", "unmatched"],
            false,
        ),
        (
            "IKE from 500",
            between_endpoints(&udp(500, 9, b"a message of IKE")),
            &["ike in seal", "unmatched"],
            false,
        ),
        (
            "IKE to 4500",
            between_endpoints(&udp(9, 4500, &with_marker)),
            &["ike in open", "unmatched"],
            false,
        ),
        (
            "IKE from 4500",
            between_endpoints(&udp(4500, 9, &with_marker)),
            &["ike in seal", "unmatched"],
            false,
        ),
        (
            "UDP to 4500 without a marker",
            matching(&udp(4500, 4500, b"a message of IKE")),
            &[],
            true,
        ),
        ("UDP to 4500 with three bytes", matching(&udp(4500, 4500, &[0; 3])), &[], true),
        ("UDP to 501", matching(&udp(9, 501, &with_marker)), &[], true),
        ("IKE between other addresses", matching(&udp(500, 500, b"a message of IKE")), &[], true),
        (
            "TCP to 500",
            ipv4(6, SOURCE_V4, DESTINATION_V4, 0, &udp(9, 500, &with_marker)),
            &[],
            true,
        ),
    ];
    let folder = Folder::new();
    for bypass in [None, Some("arp"), Some("nd"), Some("ike"), Some("not-ip"), Some("unmatched")] {
        let other_keys = format!(
            ", bypass = [{}]",
            bypass.map(|bypass| format!("'{bypass}'")).unwrap_or_default()
        );
        let seal_sa = format!("{SEAL}, selector = ['10.2.0.0/16']");
        let mut seal = bench(&plan_seal(&folder, &seal_sa, &other_keys));
        let open_sa = format!("{OPEN}, destination = '192.0.2.2'");
        let mut open = bench(&plan_open(&folder, &open_sa, &other_keys));
        for (name, frame, bypasses, has_sa) in &cases {
            for tags in 0..3 {
                let frame = tagged(frame, tags);
                let is_bypassed_in = |stage: &str| {
                    bypass.is_some_and(|bypass| {
                        let in_stage = format!("{bypass} in {stage}");
                        bypasses.iter().any(|name| *name == bypass || *name == in_stage)
                    })
                };
                let is_bypassed = is_bypassed_in("seal");
                match seal.send_one(&frame) {
                    Disposition::Passed(got) if is_bypassed => {
                        assert_eq!(got, frame, "{name} with {bypass:?}")
                    }
                    Disposition::Passed(got) => {
                        assert!(*has_sa && got.len() > frame.len(), "{name} with {bypass:?}")
                    }
                    other => assert_eq!(
                        (other, is_bypassed, *has_sa),
                        (Disposition::Dropped("no_sa"), false, false),
                        "{name} with {bypass:?}"
                    ),
                }
                // No inbound SA matches a packet that is not ESP.
                let is_bypassed = is_bypassed_in("open") || bypass == Some("unmatched");
                let expected = if is_bypassed {
                    Disposition::Passed(frame.clone())
                } else {
                    Disposition::Dropped("unprotected")
                };
                assert_eq!(open.send_one(&frame), expected, "{name} with {bypass:?}");
            }
        }
        let unknown_spi = ipv4(50, SOURCE_V4, DESTINATION_V4, 0, &[9; 60]);
        let expected = if bypass == Some("unmatched") {
            Disposition::Passed(unknown_spi.clone())
        } else {
            Disposition::Dropped("no_sa")
        };
        assert_eq!(open.send_one(&unknown_spi), expected, "{bypass:?}");
        seal.assert_balanced();
        open.assert_balanced();
    }
}

#[test]
fn packet_is_encapsulated_by_first_sa_with_matching_selector() {
    let folder = Folder::new();
    // Most prefixes are small and close to each other, so that many overlap.
    let prefix = prop_oneof![
        (0_u32..16, 24_u8..=32).prop_map(|(low, bits)| format!(
            "{}/{bits}",
            Ipv4Addr::from_bits((0x0a02_0000 | low) & !host_mask(bits))
        )),
        (0_u128..16, 124_u8..=128).prop_map(|(low, bits)| {
            format!(
                "{}/{bits}",
                Ipv6Addr::from_bits(
                    (0xfd00 << 112 | low) & !(u128::MAX.checked_shr(bits.into()).unwrap_or(0))
                )
            )
        }),
        Just("0.0.0.0/0".to_owned()),
        Just("::/0".to_owned()),
    ];
    let selectors = prop::collection::vec(
        prop::option::weighted(0.9, prop::collection::vec(prefix, 1..4)),
        1..5,
    );
    let mut runner =
        TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let strategy = (selectors, prop::collection::vec((any::<bool>(), 0_u8..20), 1..40));
    let outcome = runner.run(&strategy, |(selectors, packets)| {
        let sas: Vec<String> = selectors
            .iter()
            .enumerate()
            .map(|(index, selector)| {
                let selector =
                    selector.as_ref().map(|prefixes| format!(", selector = {prefixes:?}")).unwrap_or_default();
                format!(
                    "spi = {}, transform = 'aes-128-gcm', source = '192.0.2.1', destination = '192.0.2.2'{selector}",
                    1000 + index
                )
            })
            .collect();
        let sas: Vec<&str> = sas.iter().map(String::as_str).collect();
        // The epoch (upper half of the IVs) in the state file is the time of the previous case:
        // without a new file, `plan` would wait until that second has passed.
        folder.state("selectors.state");
        let mut bench = bench(&plan("esp-seal", &table(&folder, "selectors.state", &sas, "")));
        for (is_v6, low) in packets {
            let (frame, destination) = if is_v6 {
                let destination = Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(low));
                (packet_to_v6(destination), std::net::IpAddr::from(destination))
            } else {
                let destination = Ipv4Addr::from_bits(0x0a02_0000 | u32::from(low));
                (packet_to(destination), std::net::IpAddr::from(destination))
            };
            let matches = |prefixes: &Option<Vec<String>>| {
                prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(|prefix| contains(prefix, destination)))
            };
            match (bench.send_one(&frame), selectors.iter().position(matches)) {
                (Disposition::Passed(sealed), Some(index)) => prop_assert_eq!(spi(&sealed), 1000 + index as u32),
                (Disposition::Dropped("no_sa"), None) => {}
                (disposition, expected) => {
                    prop_assert!(false, "{disposition:?}, expected SA {expected:?}: {selectors:?} {destination}")
                }
            }
        }
        bench.assert_balanced();
        Ok(())
    });
    outcome.unwrap();
}

/// Returns the mask of the host bits of an IPv4 prefix with this length.
fn host_mask(bits: u8) -> u32 {
    u32::MAX.checked_shr(bits.into()).unwrap_or(0)
}

/// Returns whether the prefix contains the address. Compares bit by bit, unlike the implementation
/// under test.
fn contains(prefix: &str, address: std::net::IpAddr) -> bool {
    let (base, bits) = prefix.split_once('/').unwrap();
    let version_and_bytes = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => (4, v4.octets().to_vec()),
        std::net::IpAddr::V6(v6) => (6, v6.octets().to_vec()),
    };
    let (version, base) = version_and_bytes(base.parse().unwrap());
    let (address_version, address) = version_and_bytes(address);
    version == address_version
        && (0..bits.parse().unwrap())
            .all(|bit: usize| (base[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8) & 1 == 0)
}

#[test]
fn inbound_sa_is_found_by_spi_destination_and_udp_port() {
    let folder = Folder::new();
    let seal_sa = |destination: &str, udp: &str, spi: u32| {
        format!(
            "spi = {spi}, transform = 'aes-128-gcm', source = '192.0.2.9', destination = '{destination}'{udp}"
        )
    };
    // Each SA has the key of the inbound SA at the same index in `opens`.
    let seals = [
        seal_sa("192.0.2.1", "", 4096),
        seal_sa("192.0.2.2", "", 4096),
        seal_sa("192.0.2.3", ", udp_ports = [7, 4500]", 4097),
        seal_sa("192.0.2.3", "", 4098),
    ];
    let opens = [
        "spi = 4096, transform = 'aes-128-gcm', destination = '192.0.2.1'",
        "spi = 4096, transform = 'aes-128-gcm', destination = '192.0.2.2'",
        "spi = 4097, transform = 'aes-128-gcm', udp_port = 4500",
        "spi = 4098, transform = 'aes-128-gcm'",
    ];
    let mut open = bench(&plan("esp-open", &table(&folder, "open.state", &opens, "")));
    let packet = udp_v4(20);
    let sealed: Vec<Vec<u8>> = (0..seals.len())
        .map(|index| {
            // An SA's key depends on its index, so add other SAs before.
            let sas: Vec<String> = (0..=index)
                .map(|sa_index| {
                    if sa_index == index {
                        seals[sa_index].clone()
                    } else {
                        format!(
                            "{}, selector = ['192.168.{sa_index}.0/24']",
                            seal_sa("192.0.2.7", "", 5000 + sa_index as u32)
                        )
                    }
                })
                .collect();
            let sas: Vec<&str> = sas.iter().map(String::as_str).collect();
            let mut seal =
                bench(&plan("esp-seal", &table(&folder, &format!("{index}.state"), &sas, "")));
            seal.forward(std::slice::from_ref(&packet)).remove(0)
        })
        .collect();
    for sealed in &sealed {
        assert_eq!(open.send_one(sealed), Disposition::Passed(packet.clone()));
    }
    // A changed copy of a sealed frame with a valid IP checksum.
    let altered = |index: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = sealed[index].clone();
        change(&mut frame);
        frame[24..26].fill(0);
        let checksum = !ones_complement_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame
    };
    let to_other_destination = altered(0, &|frame| frame[33] = 3);
    assert_eq!(open.send_one(&to_other_destination), Disposition::Dropped("no_sa"));
    // Send the packet to the other SA with the same SPI, which has already received sequence number
    // 1. With number 2, the packet is no replay: the SA checks the ICV with its own key.
    let to_other_sa = altered(0, &|frame| (frame[33], frame[41]) = (2, 2));
    assert_eq!(open.send_one(&to_other_sa), Disposition::Dropped("bad_tag"));
    let to_any_destination = altered(3, &|frame| frame[33] = 77);
    assert_eq!(
        open.send_one(&to_any_destination),
        Disposition::Dropped("replay"),
        "expected a match with the SA that accepts every destination"
    );
    let without_udp = ipv4(50, [192, 0, 2, 9], [192, 0, 2, 3], 0, &sealed[2][42..]);
    assert_eq!(open.send_one(&without_udp), Disposition::Dropped("no_sa"));
    let in_udp = ipv4(UDP, [192, 0, 2, 9], [192, 0, 2, 3], 0, &udp(7, 4500, &sealed[3][34..]));
    assert_eq!(open.send_one(&in_udp), Disposition::Dropped("no_sa"));
    open.assert_balanced();
}

/// Returns a TCP SYN with an MSS of 1460 and an invalid checksum.
fn syn() -> Vec<u8> {
    let tcp =
        [&[0, 1, 0, 2][..], &[0; 8], &[0x60, 2, 0, 0, 0, 0, 0, 0], &[2, 4, 0x05, 0xb4]].concat();
    ipv4(6, SOURCE_V4, DESTINATION_V4, 0, &tcp)
}

#[test]
fn bypassed_syn_keeps_its_mss() {
    let folder = Folder::new();
    let other_keys = ", bypass = ['unmatched'], tcp_mss = 500";
    let mut open = bench(&plan_open(&folder, OPEN, other_keys));
    assert_eq!(open.send_one(&syn()), Disposition::Passed(syn()));
    let seal_sa = format!("{SEAL}, selector = ['10.3.0.0/16']");
    let mut seal = bench(&plan_seal(&folder, &seal_sa, other_keys));
    assert_eq!(seal.send_one(&syn()), Disposition::Passed(syn()));
    // In contrast, a decapsulated SYN is changed.
    let sealed =
        bench(&plan("esp-seal", &table(&folder, "all.state", &[SEAL], ""))).forward(&[syn()]);
    let Disposition::Passed(opened) = open.send_one(&sealed[0]) else {
        panic!("{:?}", open.drops())
    };
    assert_eq!((&opened[..50], &opened[56..]), (&syn()[..50], &500_u16.to_be_bytes()[..]));
}
