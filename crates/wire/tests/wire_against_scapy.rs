//! Compares [`xdpfwd_wire`] with scapy on random packets (fixed seed) that scapy builds and parses.
//! The script `wire_against_scapy.py` lists the compared fields.

mod scapy;

use core::net::IpAddr;

use serde_json::Value;
use xdpfwd_wire::{
    Addresses, Fragment, Headers, IpProtocol, IpVersion, Status, icmp, ipv4, tcp, udp,
};

const PACKETS: usize = 600;

#[test]
fn parsed_fields_equal_those_of_scapy() {
    let lines = scapy::run("wire_against_scapy.py", &PACKETS.to_string(), "");
    assert_eq!(lines.len(), PACKETS);
    let mut sums = [0, 0];
    for want in &lines {
        let frame = unhex(text(want, "frame"));
        let headers = Headers::parse(&frame);
        compare_headers(want, &frame, &headers);
        if let Some(right) = compare_payload(want, &frame, &headers) {
            sums[usize::from(right)] += 1;
        }
        compare_cuts(want, &frame);
    }
    // A faulty generator could pass every comparison.
    assert!(sums.iter().all(|&count| count > 20), "checksums wrong and right: {sums:?}");
    for fragment in ["whole", "first", "later"] {
        let count = lines.iter().filter(|want| want["fragment"] == fragment).count();
        assert!(count > 20, "only {count} packets are {fragment}");
    }
}

fn compare_headers(want: &Value, frame: &[u8], headers: &Headers) {
    let vlans = [headers.outer_vlan, headers.inner_vlan].into_iter().flatten();
    assert_eq!(Value::from_iter(vlans.map(|vlan| vlan.get())), want["vlans"], "{want}");
    assert_eq!(u64::from(headers.ethertype.0), number(want, "ethertype"), "{want}");
    assert_eq!(u64::from(headers.l3_offset), number(want, "l3_offset"), "{want}");
    let version = match headers.ip_version {
        None => 0,
        Some(IpVersion::V4) => 4,
        Some(IpVersion::V6) => 6,
    };
    assert_eq!(version, number(want, "version"), "{want}");
    if version == 0 {
        assert_eq!(headers.status, Status::NotIp, "{want}");
        return;
    }
    assert_eq!(headers.status, Status::Parsed, "{want}");
    assert_eq!(u64::from(headers.l4_offset), number(want, "l4_offset"), "{want}");
    assert_eq!(u64::from(headers.l3_end), number(want, "l3_end"), "{want}");
    assert_eq!(
        headers.protocol.map(|protocol| u64::from(protocol.0)),
        Some(number(want, "protocol")),
        "{want}"
    );
    let fragment = match headers.fragment {
        Fragment::Whole => "whole",
        Fragment::First => "first",
        Fragment::Later => "later",
    };
    assert_eq!(fragment, text(want, "fragment"), "{want}");
    assert_eq!(u64::from(headers.source_port), number_or_zero(want, "sport"), "{want}");
    assert_eq!(u64::from(headers.destination_port), number_or_zero(want, "dport"), "{want}");
    assert_eq!(
        headers.source_ip(frame).unwrap(),
        text(want, "src").parse::<IpAddr>().unwrap(),
        "{want}"
    );
    assert_eq!(
        headers.destination_ip(frame).unwrap(),
        text(want, "dst").parse::<IpAddr>().unwrap(),
        "{want}"
    );
}

/// Checks the views behind the headers. Returns whether the upper checksum is valid, if scapy
/// reports it.
fn compare_payload(want: &Value, frame: &[u8], headers: &Headers) -> Option<bool> {
    let addresses = headers.addresses(frame)?;
    if headers.ip_version == Some(IpVersion::V4) {
        compare_ipv4(want, headers.l3(frame));
    }
    let l4 = headers.l4(frame);
    let computed = want["sum"].as_u64()?;
    let right = match headers.protocol? {
        IpProtocol::UDP => {
            let packet = udp::Packet::new_checked(l4).unwrap();
            if packet.checksum() == 0 && matches!(addresses, Addresses::V4 { .. }) {
                assert!(packet.verify_checksum(addresses), "{want}");
                return None; // scapy takes it for a sum like any other
            }
            packet.verify_checksum(addresses)
        }
        IpProtocol::TCP => {
            let packet = tcp::Packet::new_checked(l4).unwrap();
            assert_eq!(u64::from(packet.flags().0), number(want, "flags"), "{want}");
            assert_eq!(u64::from(packet.sequence()), number(want, "seq"), "{want}");
            assert_eq!(packet.header_len() as u64, number(want, "header_len"), "{want}");
            packet.verify_checksum(addresses)
        }
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            let packet = icmp::Packet::new_checked(l4).unwrap();
            assert_eq!(u64::from(packet.kind()), number(want, "type"), "{want}");
            assert_eq!(u64::from(packet.code()), number(want, "code"), "{want}");
            packet.verify_checksum(addresses)
        }
        other => panic!("scapy has a checksum of {other}: {want}"),
    };
    assert_eq!(right, computed == 0, "{want}");
    Some(right)
}

fn compare_ipv4(want: &Value, l3: &[u8]) {
    let mut packet = ipv4::Packet::new_checked(l3.to_vec()).unwrap();
    let (stands, computed) =
        (number(want, "header_checksum"), number(want, "header_checksum_computed"));
    assert_eq!(u64::from(packet.checksum()), stands, "{want}");
    assert_eq!(u64::from(packet.ttl()), number(want, "ttl"), "{want}");
    assert_eq!(packet.verify_checksum(), stands == computed, "{want}");
    packet.fill_checksum();
    assert_eq!(u64::from(packet.checksum()), computed, "{want}");
    if packet.decrement_ttl().is_some() {
        let updated = packet.checksum();
        packet.fill_checksum();
        assert_eq!(packet.checksum(), updated, "{want}");
    }
}

/// A frame that ends before its IP packet is never parsed as complete.
fn compare_cuts(want: &Value, frame: &[u8]) {
    let end = want["l3_end"].as_u64().unwrap_or(14) as usize;
    for len in 0..end {
        let status = Headers::parse(&frame[..len]).status;
        assert!(matches!(status, Status::Truncated(_)), "{status:?} after {len} bytes of {want}");
    }
}

fn text<'a>(want: &'a Value, key: &str) -> &'a str {
    want[key].as_str().unwrap_or_else(|| panic!("no text {key:?} in {want}"))
}

fn number(want: &Value, key: &str) -> u64 {
    want[key].as_u64().unwrap_or_else(|| panic!("no number {key:?} in {want}"))
}

fn number_or_zero(want: &Value, key: &str) -> u64 {
    want[key].as_u64().unwrap_or(0)
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
