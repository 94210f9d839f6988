use super::*;
use crate::icmp;
use proptest::prelude::*;

const MACS: [u8; 12] = [0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01];

// bytes(IP(src="10.0.0.1", dst="10.0.0.2", id=1)/UDP(sport=1024, dport=2152)/b"hello!")
#[rustfmt::skip]
const UDP4: [u8; 34] = [
    0x45, 0x00, 0x00, 0x22, 0x00, 0x01, 0x00, 0x00, 0x40, 0x11, 0x66, 0xc8, 0x0a, 0, 0, 0x01, 0x0a, 0, 0, 0x02,
    0x04, 0x00, 0x08, 0x68, 0x00, 0x0e, 0x9b, 0x74, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x21,
];

// bytes(IPv6(src="2001:db8::1", dst="2001:db8::2")/IPv6ExtHdrDestOpt()/TCP(sport=1024, dport=80))
#[rustfmt::skip]
const TCP6: [u8; 68] = [
    0x60, 0x00, 0x00, 0x00, 0x00, 0x1c, 0x3c, 0x40,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02,
    0x06, 0x00, 0x01, 0x04, 0, 0, 0, 0,
    0x04, 0x00, 0x00, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0x00, 0x30, 0x1e, 0x00, 0x00,
];

fn frame(types: &[u8], l3: &[u8]) -> Vec<u8> {
    [&MACS, types, l3].concat()
}

fn udp4() -> Vec<u8> {
    frame(&[0x08, 0x00], &UDP4)
}

fn tcp6() -> Vec<u8> {
    frame(&[0x86, 0xdd], &TCP6)
}

fn offsets(headers: Headers) -> (u16, u16, u16) {
    (headers.l3_offset, headers.l4_offset, headers.l3_end)
}

/// Parses `frame`, and asserts what `Headers` documents.
fn check(frame: &[u8]) -> Headers {
    let headers = Headers::parse(frame);
    let (l3, l4, end) = offsets(headers);
    assert!(l3 <= l4 && l4 <= end && usize::from(end) <= frame.len(), "{headers:?}");
    let (l3, l4) = (headers.l3(frame), headers.l4(frame));
    match headers.ip_version {
        Some(IpVersion::V4) => {
            let packet = ipv4::Packet::new_checked(l3).unwrap();
            assert_eq!(
                (packet.payload(), headers.addresses(frame)),
                (l4, Some(packet.addresses()))
            );
        }
        Some(IpVersion::V6) => {
            let packet = ipv6::Packet::new_checked(l3).unwrap();
            assert_eq!(headers.addresses(frame), Some(packet.addresses()));
            assert_eq!(packet.upper().ok().map(|upper| upper.protocol), headers.protocol);
        }
        None => assert!(l4.is_empty() && headers.protocol.is_none()),
    }
    if headers.status != Status::Parsed || headers.fragment == Fragment::Later {
        assert_eq!((headers.source_port, headers.destination_port), (0, 0));
    } else {
        match headers.protocol.unwrap() {
            IpProtocol::UDP if headers.fragment == Fragment::First => {
                udp::Packet::new_first_fragment(l4).map(|_| ()).unwrap();
            }
            IpProtocol::UDP => udp::Packet::new_checked(l4).map(|_| ()).unwrap(),
            IpProtocol::TCP => tcp::Packet::new_checked(l4).map(|_| ()).unwrap(),
            IpProtocol::ICMP | IpProtocol::ICMPV6 => {
                icmp::Packet::new_checked(l4).map(|_| ()).unwrap()
            }
            _ => {}
        }
    }
    headers
}

#[test]
fn parse_of_padded_udp4_frame_returns_all_fields() {
    let mut frame = udp4();
    frame.resize(60, 0);
    let headers = check(&frame);
    assert_eq!(headers, Headers { flow_hash: headers.flow_hash, ..UDP4_HEADERS });
    assert_eq!(headers.l4(&frame), &UDP4[20..]);
}

const UDP4_HEADERS: Headers = Headers {
    flow_hash: 0,
    l3_offset: 14,
    l4_offset: 34,
    l3_end: 48,
    ethertype: EtherType::IPV4,
    outer_vlan: None,
    inner_vlan: None,
    source_port: 1024,
    destination_port: 2152,
    protocol: Some(IpProtocol::UDP),
    ip_version: Some(IpVersion::V4),
    extensions: ExtensionSet::EMPTY,
    has_segments_left: false,
    fragment: Fragment::Whole,
    status: Status::Parsed,
};

#[test]
fn parse_returns_two_vlan_tags_and_rejects_three() {
    let untagged = check(&udp4());
    let single_tagged = check(&frame(&[0x81, 0x00, 0x20, 0x07, 0x08, 0x00], &UDP4));
    assert_eq!(single_tagged.outer_vlan, VlanId::new(7));
    assert_eq!(single_tagged, Headers { outer_vlan: VlanId::new(7), ..shifted(untagged, 4) });
    let double_tagged =
        check(&frame(&[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0x00, 0x08, 0x00], &UDP4));
    let vlans = Headers { outer_vlan: VlanId::new(100), inner_vlan: VlanId::new(0), ..untagged };
    assert_eq!(double_tagged, shifted(vlans, 8));
    let three_tags = [0x81, 0x00, 0, 1, 0x81, 0x00, 0, 2, 0x81, 0x00, 0, 3, 0x08, 0x00];
    let triple_tagged = check(&frame(&three_tags, &UDP4));
    assert_eq!(
        (triple_tagged.status, triple_tagged.ethertype),
        (Status::TooManyVlanTags, EtherType::VLAN)
    );
}

#[test]
fn vlans_skips_priority_tags_whatever_the_tag_type() {
    let vlans = |tags: &[u8]| {
        let headers = check(&frame(tags, &UDP4));
        assert_eq!((headers.status, headers.ethertype), (Status::Parsed, EtherType::IPV4));
        headers.vlans().map(|vlan| vlan.map(VlanId::get))
    };
    assert_eq!(vlans(&[0x08, 0x00]), [None, None]);
    for tpid in [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00], [0x92, 0x00], [0x93, 0x00]] {
        let [a, b] = tpid;
        assert_eq!(vlans(&[a, b, 0x60, 0x07, 0x08, 0x00]), [Some(7), None]);
        assert_eq!(vlans(&[a, b, 0xe0, 0x00, 0x08, 0x00]), [None, None]);
        assert_eq!(vlans(&[a, b, 0x00, 0x00, 0x81, 0, 0, 10, 0x08, 0x00]), [Some(10), None]);
        assert_eq!(vlans(&[0x81, 0, 0, 10, a, b, 0x00, 0x00, 0x08, 0x00]), [Some(10), None]);
        assert_eq!(vlans(&[a, b, 0x00, 0x05, 0x81, 0, 0, 10, 0x08, 0x00]), [Some(5), Some(10)]);
    }
}

fn shifted(headers: Headers, tags_len: u16) -> Headers {
    Headers {
        l3_offset: headers.l3_offset + tags_len,
        l4_offset: headers.l4_offset + tags_len,
        l3_end: headers.l3_end + tags_len,
        ..headers
    }
}

#[test]
fn parse_finds_tcp_after_ipv6_extension_header() {
    let headers = check(&tcp6());
    assert_eq!(offsets(headers), (14, 62, 82));
    assert_eq!((headers.source_port, headers.destination_port), (1024, 80));
    assert_eq!((headers.protocol, headers.status), (Some(IpProtocol::TCP), Status::Parsed));
}

#[test]
fn parse_records_extension_headers_and_segments_left() {
    // Each header has 8 bytes, except AH with 12.
    let parse = |kinds: &[u8], segments_left: u8| {
        let mut payload = Vec::new();
        for (index, &kind) in kinds.iter().enumerate() {
            let next = kinds.get(index + 1).copied().unwrap_or(59);
            payload.extend(match kind {
                43 => vec![next, 0, 4, segments_left, 0, 0, 0, 0],
                44 => vec![next, 0, 0, 0, 0, 0, 0, 7],
                51 => vec![next, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
            });
        }
        let mut l3 = TCP6[..40].to_vec();
        (l3[5], l3[6]) = (payload.len() as u8, kinds.first().copied().unwrap_or(59));
        check(&frame(&[0x86, 0xdd], &[l3, payload].concat()))
    };
    assert_eq!(parse(&[], 0).extensions, ExtensionSet::EMPTY);
    for kind in ExtensionSet::TYPES {
        let headers = parse(&[kind.0], 0);
        assert_eq!(headers.protocol, Some(IpProtocol::NO_NEXT_HEADER), "{kind}");
        assert!(!headers.has_segments_left);
        for other in ExtensionSet::TYPES {
            assert_eq!(headers.extensions.contains(other), other == kind, "{kind}, {other}");
        }
    }
    let headers = parse(&[0, 60, 43, 44, 51, 60, 135, 140], 1);
    assert_eq!((headers.status, headers.has_segments_left), (Status::Parsed, true));
    let absent: Vec<_> = ExtensionSet::TYPES
        .into_iter()
        .filter(|kind| !headers.extensions.contains(*kind))
        .collect();
    assert_eq!(absent, [IpProtocol::HIP]);
    assert!(!headers.extensions.contains(IpProtocol::TCP));
}

#[test]
fn parse_of_truncated_frame_reports_layer() {
    for (frame, l4) in [(udp4(), 34), (tcp6(), 62)] {
        for len in 0..frame.len() {
            let headers = check(&frame[..len]);
            let layer = if len < 14 { Layer::Ethernet } else { Layer::L3 };
            assert_eq!(headers.status, Status::Truncated(layer), "{len} bytes");
            assert_eq!(headers.ip_version, None);
        }
        for len in 0..8 {
            let mut frame = frame.clone();
            match frame[12..14] {
                [0x08, 0x00] => frame[17] = 20 + len,
                _ => frame[19] = 8 + len,
            }
            let headers = check(&frame);
            assert_eq!(headers.status, Status::Truncated(Layer::L4), "{len} bytes of L4");
            assert_eq!((headers.l4_offset, headers.l3_end), (l4, l4 + u16::from(len)));
        }
    }
    assert_eq!(check(&[0; 13]).l3_offset, 13);
    let partial_tag = check(&frame(&[0x81, 0x00, 0x00], &[]));
    assert_eq!(
        (partial_tag.status, offsets(partial_tag)),
        (Status::Truncated(Layer::Vlan), (14, 15, 15))
    );
}

#[test]
fn parse_of_invalid_field_reports_layer() {
    let status = |at: usize, value: u8| {
        let mut frame = udp4();
        frame[at] = value;
        check(&frame).status
    };
    assert_eq!(status(14, 0x65), Status::Malformed(Layer::L3)); // version 6
    assert_eq!(status(14, 0x44), Status::Malformed(Layer::L3)); // header of 16 bytes
    assert_eq!(status(39, 7), Status::Malformed(Layer::L4)); // UDP length below 8
    assert_eq!(status(39, 15), Status::Truncated(Layer::L4)); // UDP length beyond the IP packet
    let mut frame = tcp6();
    frame[74] = 0x40; // TCP header of 16 bytes
    assert_eq!(check(&frame).status, Status::Malformed(Layer::L4));
    let mut frame = tcp6();
    frame[54] = 0; // hop-by-hop options after destination options
    let headers = check(&frame);
    assert_eq!((headers.status, headers.protocol), (Status::Malformed(Layer::L3), None));
    assert_eq!(offsets(headers), (14, 82, 82));
}

#[test]
fn too_long_extension_chain_leaves_protocol_unknown() {
    let mut l3 = TCP6[..40].to_vec();
    for _ in 0..9 {
        l3.extend([60, 0, 0, 0, 0, 0, 0, 0]);
    }
    l3[5] = 72;
    l3.extend([0; 6]); // padding
    let headers = check(&frame(&[0x86, 0xdd], &l3));
    assert_eq!(headers.status, Status::ExtensionChainTooLong);
    assert_eq!((headers.protocol, headers.ip_version), (None, Some(IpVersion::V6)));
    assert_eq!(offsets(headers), (14, 126, 126));
    assert_ne!(headers.flow_hash, 0);
}

#[test]
fn parse_returns_ports_of_first_fragment_only() {
    let fragment = |field: u16| {
        let mut frame = udp4();
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        frame[38] = 0x05; // UDP length 1294: valid in a first fragment, data in a later one
        check(&frame)
    };
    let first = fragment(0x2000);
    assert_eq!((first.fragment, first.status), (Fragment::First, Status::Parsed));
    assert_eq!((first.source_port, first.flow_hash), (1024, check(&udp4()).flow_hash));
    for field in [0x0001, 0x2001, 0x1fff] {
        let later = fragment(field);
        assert_eq!((later.fragment, later.status), (Fragment::Later, Status::Parsed));
        assert_eq!((later.source_port, later.destination_port, later.l4_offset), (0, 0, 34));
        assert_eq!(later.flow_hash, fragment(0x0002).flow_hash);
        assert_ne!(later.flow_hash, first.flow_hash);
    }
    assert_eq!(fragment(0x4000).status, Status::Truncated(Layer::L4));
}

#[test]
fn flow_hash_of_non_ip_frame_covers_mac_addresses() {
    let arp = check(&frame(&[0x08, 0x06], &[0; 28]));
    assert_eq!(
        (arp.status, arp.ethertype, offsets(arp)),
        (Status::NotIp, EtherType::ARP, (14, 42, 42))
    );
    assert_ne!(arp.flow_hash, 0);
    assert_eq!(check(&frame(&[0x88, 0xcc], &[])).flow_hash, arp.flow_hash);
    assert_eq!(check(&frame(&[0x00, 0x26], &[])).status, Status::NotIp); // LLC: a length
}

#[test]
fn ports_are_0_unless_protocol_is_udp_tcp_or_sctp() {
    // ICMP, ICMPv6, ESP, GRE and a reserved protocol.
    for (protocol, min_len) in [(1, 4), (58, 4), (50, 0), (47, 0), (255, 0)] {
        for len in 0..8 {
            let mut frame = udp4();
            frame[17] = 20 + len;
            frame[23] = protocol;
            let headers = check(&frame);
            let is_parsed = headers.status == Status::Parsed;
            assert_eq!(
                (is_parsed, headers.source_port),
                (len >= min_len, 0),
                "protocol {protocol}, {len} bytes"
            );
        }
    }
    let mut frame = udp4();
    frame[23] = IpProtocol::SCTP.0;
    assert_eq!((check(&frame).status, check(&frame).source_port), (Status::Parsed, 1024));
    frame[17] = 20 + 11;
    assert_eq!(check(&frame).status, Status::Truncated(Layer::L4));
}

#[test]
fn offsets_of_frame_over_65535_bytes_do_not_wrap() {
    let mut frame = vec![0; 70_000];
    assert_eq!(check(&frame).l3_end, u16::MAX);
    frame[..14].copy_from_slice(&udp4()[..14]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(check(&frame).status, Status::Truncated(Layer::L3));
    frame[16..18].copy_from_slice(&(65_535u16 - 14).to_be_bytes());
    assert_eq!((check(&frame).status, check(&frame).l3_end), (Status::Parsed, u16::MAX));
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(check(&frame).status, Status::Truncated(Layer::L3));
}

proptest! {
    #[test]
    fn headers_of_any_bytes_keep_guarantees(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn headers_of_changed_frame_keep_guarantees(
        valid in prop::sample::select(vec![
            udp4(),
            tcp6(),
            frame(&[0x81, 0x00, 0x20, 0x07, 0x08, 0x00], &UDP4),
            frame(&[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0x00, 0x86, 0xdd], &TCP6),
        ]),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        padding in 0..20usize,
        len in any::<prop::sample::Index>(),
    ) {
        let mut bytes = valid;
        bytes.resize(bytes.len() + padding, 0);
        for (at, value) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes);
        check(&bytes[..len.index(bytes.len() + 1)]);
    }
}
