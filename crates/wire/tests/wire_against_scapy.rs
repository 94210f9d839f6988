//! Compares the fields that [`xdpfwd_wire`] and scapy parse from random packets, which
//! `wire_against_scapy.py` builds from a fixed seed.

mod scapy;

use core::net::IpAddr;

use serde_json::Value;
use xdpfwd_wire::{
    Addresses, Fragment, Headers, IpProtocol, IpVersion, Status, icmp, ipv4, tcp, udp,
};

const PACKET_COUNT: usize = 600;

#[test]
fn parsed_fields_equal_those_of_scapy() {
    let lines = scapy::run("wire_against_scapy.py", &PACKET_COUNT.to_string(), "");
    assert_eq!(lines.len(), PACKET_COUNT);
    // The number of packets with an invalid checksum, and with a valid one.
    let mut checksum_counts = [0, 0];
    for expected in &lines {
        let frame = parse_hex(text(expected, "frame"));
        let headers = Headers::parse(&frame);
        compare_headers(expected, &frame, &headers);
        if let Some(is_valid) = compare_views(expected, &frame, &headers) {
            checksum_counts[usize::from(is_valid)] += 1;
        }
        assert_truncated(expected, &frame);
    }
    // With few packets of a class, the comparisons would prove little about this class.
    assert!(
        checksum_counts.iter().all(|&count| count > 20),
        "too few invalid or valid checksums: {checksum_counts:?}"
    );
    for fragment in ["whole", "first", "later"] {
        let count = lines.iter().filter(|expected| expected["fragment"] == fragment).count();
        assert!(count > 20, "only {count} packets have fragment = {fragment}");
    }
}

fn compare_headers(expected: &Value, frame: &[u8], headers: &Headers) {
    let vlans = [headers.outer_vlan, headers.inner_vlan].into_iter().flatten();
    assert_eq!(Value::from_iter(vlans.map(|vlan| vlan.get())), expected["vlans"], "{expected}");
    assert_eq!(u64::from(headers.ethertype.0), number(expected, "ethertype"), "{expected}");
    assert_eq!(u64::from(headers.l3_offset), number(expected, "l3_offset"), "{expected}");
    let version = match headers.ip_version {
        None => 0,
        Some(IpVersion::V4) => 4,
        Some(IpVersion::V6) => 6,
    };
    assert_eq!(version, number(expected, "version"), "{expected}");
    if version == 0 {
        assert_eq!(headers.status, Status::NotIp, "{expected}");
        return;
    }
    assert_eq!(headers.status, Status::Parsed, "{expected}");
    assert_eq!(u64::from(headers.l4_offset), number(expected, "l4_offset"), "{expected}");
    assert_eq!(u64::from(headers.l3_end), number(expected, "l3_end"), "{expected}");
    assert_eq!(
        headers.protocol.map(|protocol| u64::from(protocol.0)),
        Some(number(expected, "protocol")),
        "{expected}"
    );
    let fragment = match headers.fragment {
        Fragment::Whole => "whole",
        Fragment::First => "first",
        Fragment::Later => "later",
    };
    assert_eq!(fragment, text(expected, "fragment"), "{expected}");
    assert_eq!(u64::from(headers.source_port), number_or_zero(expected, "sport"), "{expected}");
    assert_eq!(
        u64::from(headers.destination_port),
        number_or_zero(expected, "dport"),
        "{expected}"
    );
    assert_eq!(
        headers.source_ip(frame).unwrap(),
        text(expected, "src").parse::<IpAddr>().unwrap(),
        "{expected}"
    );
    assert_eq!(
        headers.destination_ip(frame).unwrap(),
        text(expected, "dst").parse::<IpAddr>().unwrap(),
        "{expected}"
    );
}

/// Compares the IPv4 header, if any, and the upper-layer header. Returns whether the upper-layer
/// checksum is valid; `None` if scapy reports none.
fn compare_views(expected: &Value, frame: &[u8], headers: &Headers) -> Option<bool> {
    let addresses = headers.addresses(frame)?;
    if headers.ip_version == Some(IpVersion::V4) {
        compare_ipv4(expected, headers.l3(frame));
    }
    let l4 = headers.l4(frame);
    // scapy's checksum over the upper layer, including the packet's checksum; 0 if that is valid.
    let scapy_sum = expected["sum"].as_u64()?;
    let is_valid = match headers.protocol? {
        IpProtocol::UDP => {
            let packet = udp::Packet::new_checked(l4).unwrap();
            if packet.checksum() == 0 && matches!(addresses, Addresses::V4 { .. }) {
                assert!(packet.verify_checksum(addresses), "{expected}");
                return None; // scapy treats 0 as an ordinary checksum
            }
            packet.verify_checksum(addresses)
        }
        IpProtocol::TCP => {
            let packet = tcp::Packet::new_checked(l4).unwrap();
            assert_eq!(u64::from(packet.flags().0), number(expected, "flags"), "{expected}");
            assert_eq!(u64::from(packet.sequence()), number(expected, "seq"), "{expected}");
            assert_eq!(packet.header_len() as u64, number(expected, "header_len"), "{expected}");
            packet.verify_checksum(addresses)
        }
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            let packet = icmp::Packet::new_checked(l4).unwrap();
            assert_eq!(u64::from(packet.kind()), number(expected, "type"), "{expected}");
            assert_eq!(u64::from(packet.code()), number(expected, "code"), "{expected}");
            packet.verify_checksum(addresses)
        }
        other => panic!("scapy checks protocol {other}, but this test does not: {expected}"),
    };
    assert_eq!(is_valid, scapy_sum == 0, "{expected}");
    Some(is_valid)
}

fn compare_ipv4(expected: &Value, l3: &[u8]) {
    let mut packet = ipv4::Packet::new_checked(l3.to_vec()).unwrap();
    let (received, computed) =
        (number(expected, "header_checksum"), number(expected, "header_checksum_computed"));
    assert_eq!(u64::from(packet.checksum()), received, "{expected}");
    assert_eq!(u64::from(packet.ttl()), number(expected, "ttl"), "{expected}");
    assert_eq!(packet.verify_checksum(), received == computed, "{expected}");
    packet.fill_checksum();
    assert_eq!(u64::from(packet.checksum()), computed, "{expected}");
    if packet.decrement_ttl().is_some() {
        let updated = packet.checksum();
        packet.fill_checksum();
        assert_eq!(packet.checksum(), updated, "{expected}");
    }
}

/// Asserts that the first bytes of the frame are parsed as truncated if they end before the IP
/// packet (or, without an IP packet, the Ethernet header) does.
fn assert_truncated(expected: &Value, frame: &[u8]) {
    let end = expected["l3_end"].as_u64().unwrap_or(14) as usize;
    for len in 0..end {
        let status = Headers::parse(&frame[..len]).status;
        assert!(
            matches!(status, Status::Truncated(_)),
            "{status:?} after {len} bytes of {expected}"
        );
    }
}

fn text<'a>(expected: &'a Value, key: &str) -> &'a str {
    expected[key].as_str().unwrap_or_else(|| panic!("no text {key:?} in {expected}"))
}

fn number(expected: &Value, key: &str) -> u64 {
    expected[key].as_u64().unwrap_or_else(|| panic!("no number {key:?} in {expected}"))
}

fn number_or_zero(expected: &Value, key: &str) -> u64 {
    expected[key].as_u64().unwrap_or(0)
}

fn parse_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
