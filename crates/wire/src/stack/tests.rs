use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::gtpu::{DownlinkInformation, Extension, ExtensionHeader, ExtensionType};
use crate::gtpu::{MAX_EXTENSIONS, PORT, PduSessionContainer};
use crate::{Headers, MacAddr, Pretty, Status, VlanId};

const DOWNLINK: PduSessionContainer = PduSessionContainer::Downlink(DownlinkInformation {
    qfi: 9,
    reflective_qos: true,
    paging_policy: Some(3),
    sending_timestamp: None,
    sequence_number: Some(0x01_0203),
    mbs_sequence_number: None,
});
const CONTAINER: Extension<'_> = Extension::PduSessionContainer(DOWNLINK);
const OTHER_EXTENSION: Extension<'_> = extension(&[8, 104]);
const INVALID_EXTENSION: Extension<'_> = extension(&[8]);

const fn extension(content: &'static [u8]) -> Extension<'static> {
    Extension::Other(ExtensionHeader { kind: ExtensionType(0x40), content })
}

const EXTENSIONS: [&[Extension<'_>]; 3] = [&[], &[CONTAINER], &[CONTAINER, OTHER_EXTENSION]];
const OPTIONS: [&[u8]; 3] = [&[], &[2, 4, 5, 0xb4], &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]];

fn ethernet() -> impl Strategy<Value = Header<'static>> {
    any::<([u8; 6], [u8; 6], u16)>().prop_map(|(destination, source, ethertype)| {
        let (destination, source) = (MacAddr(destination), MacAddr(source));
        ethernet::Repr { destination, source, ethertype: EtherType(ethertype) }.into()
    })
}

fn vlan() -> impl Strategy<Value = Header<'static>> {
    let ethertype = prop_oneof![any::<u16>(), Just(0x8100), Just(0x88a8)].prop_map(EtherType);
    (0..4096_u16, 0..8_u8, any::<bool>(), ethertype).prop_map(|(id, priority, dei, ethertype)| {
        let (id, drop_eligible) = (VlanId::new(id).unwrap(), dei);
        vlan::Repr { id, priority, drop_eligible, ethertype }.into()
    })
}

fn ipv4() -> impl Strategy<Value = Header<'static>> {
    let fields = any::<(u16, bool, u8, u8, u32, u32, u16)>();
    (0..64_u8, 0..4_u8, fields).prop_map(|(dscp, ecn, fields)| {
        let (ident, dont_fragment, ttl, protocol, source, destination, payload_len) = fields;
        let protocol = IpProtocol(protocol);
        let (source, destination) = (source.into(), destination.into());
        let repr = ipv4::Repr { dscp, ecn, ident, dont_fragment, ttl, ..ipv4::Repr::default() };
        Header::Ipv4(ipv4::Repr { protocol, source, destination, payload_len, ..repr })
    })
}

fn ipv6() -> impl Strategy<Value = Header<'static>> {
    let fields = any::<(u8, u8, u8, u128, u128, u16)>();
    (0..1_u32 << 20, fields).prop_map(|(flow_label, fields)| {
        let (traffic_class, next_header, hop_limit, source, destination, payload_len) = fields;
        let next_header = IpProtocol(next_header);
        let (source, destination) = (source.into(), destination.into());
        let repr = ipv6::Repr { traffic_class, flow_label, hop_limit, ..ipv6::Repr::default() };
        Header::Ipv6(ipv6::Repr { next_header, source, destination, payload_len, ..repr })
    })
}

fn udp() -> impl Strategy<Value = udp::Repr> {
    any::<(u16, u16, u16)>().prop_map(|(source_port, destination_port, payload_len)| udp::Repr {
        source_port,
        destination_port,
        payload_len,
    })
}

fn tcp(options: impl Strategy<Value = &'static [u8]>) -> impl Strategy<Value = Header<'static>> {
    (any::<((u16, u16), u32, u32, u8, u16, u16, u16)>(), options).prop_map(|(fields, options)| {
        let (ports, sequence, acknowledgment, flags, window, urgent, payload_len) = fields;
        let (source_port, destination_port) = ports;
        let flags = tcp::Flags(flags);
        Header::Tcp(tcp::Repr {
            source_port,
            destination_port,
            sequence,
            acknowledgment,
            flags,
            window,
            urgent,
            options,
            payload_len,
        })
    })
}

fn icmp() -> impl Strategy<Value = Header<'static>> {
    any::<(u8, u8, [u8; 4], u16)>().prop_map(|(kind, code, second_word, payload_len)| {
        let repr = icmp::Repr { kind, code, second_word, payload_len };
        Header::Icmp(repr)
    })
}

fn gtpu<S>(extensions: S) -> impl Strategy<Value = Header<'static>>
where
    S: Strategy<Value = &'static [Extension<'static>]>,
{
    let fields = any::<(u8, u32, Option<u16>, Option<u8>, u16)>();
    (fields, extensions).prop_map(|(fields, extensions)| {
        let (message_type, teid, sequence_number, n_pdu_number, payload_len) = fields;
        let repr = gtpu::Repr { message_type, teid, extensions, ..gtpu::Repr::default() };
        Header::Gtpu(gtpu::Repr { sequence_number, n_pdu_number, payload_len, ..repr })
    })
}

/// Generates a header with fields that `emit` may reject.
fn header() -> impl Strategy<Value = Header<'static>> {
    const LONG_OPTIONS: [&[u8]; 2] = [&[1; 41], &[1; 70_000]];
    const INVALID_EXTENSIONS: [&[Extension<'_>]; 2] =
        [&[INVALID_EXTENSION], &[OTHER_EXTENSION; MAX_EXTENSIONS + 1]];
    let options = prop_oneof![9 => select(&OPTIONS[..]), 1 => select(&LONG_OPTIONS[..])];
    let extensions =
        prop_oneof![9 => select(&EXTENSIONS[..]), 1 => select(&INVALID_EXTENSIONS[..])];
    prop_oneof![
        ethernet(),
        vlan(),
        ipv4(),
        ipv6(),
        udp().prop_map(Header::Udp),
        udp().prop_map(Header::UdpWithoutChecksum),
        tcp(options),
        icmp(),
        gtpu(extensions),
    ]
}

fn valid_headers() -> impl Strategy<Value = Vec<Header<'static>>> {
    let link = || {
        prop_oneof![
            Just(Vec::new()),
            (ethernet(), prop::collection::vec(vlan(), 0..4)).prop_map(|(ethernet, tags)| [
                vec![ethernet],
                tags
            ]
            .concat()),
        ]
    };
    let ip = || prop::collection::vec(prop_oneof![ipv4(), ipv6()], 0..3);
    let upper = prop_oneof![udp().prop_map(Header::Udp), tcp(select(&OPTIONS[..])), icmp(),];
    let plain = (link(), ip(), prop::option::of(upper)).prop_map(|(link, ip, upper)| {
        let upper = if ip.is_empty() { None } else { upper };
        [link, ip, Vec::from_iter(upper)].concat()
    });
    let udp_over = |ip: Header<'static>, repr: udp::Repr, has_checksum: bool| match ip {
        Header::Ipv4(_) if !has_checksum => Header::UdpWithoutChecksum(repr),
        _ => Header::Udp(repr),
    };
    plain.prop_recursive(2, 12, 1, move |inner| {
        let ip = prop_oneof![ipv4(), ipv6()];
        let tunnel = (ip, udp(), any::<bool>(), gtpu(select(&EXTENSIONS[..])));
        (link(), tunnel, inner).prop_map(move |(link, (ip, udp, has_checksum, gtpu), inner)| {
            let tunnel = vec![ip, udp_over(ip, udp, has_checksum), gtpu];
            [link, tunnel, inner].concat()
        })
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

/// Asserts that each header has the fields of its `Repr`, the type of the next header, its
/// payload's length, and a valid checksum.
fn assert_emitted(headers: &[Header<'_>], payload: &[u8], packet: &[u8]) {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let mut remaining = packet;
    let mut next_ip_addresses = None;
    for (index, header) in headers.iter().enumerate() {
        let next = headers.get(index + 1);
        let header_payload = &remaining[header.header_len()..];
        let payload_len = header_payload.len() as u16;
        let ip_addresses = next_ip_addresses.take();
        match *header {
            Header::Ethernet(repr) => {
                let view = ethernet::Frame::new_checked(remaining).unwrap();
                let ethertype = expected_ethertype(next, repr.ethertype, view.ethertype());
                assert_eq!(ethernet::Repr::parse(&view), ethernet::Repr { ethertype, ..repr });
                assert_eq!(view.payload(), header_payload);
            }
            Header::Vlan(repr) => {
                let view = vlan::Tag::new_checked(remaining).unwrap();
                let ethertype = expected_ethertype(next, repr.ethertype, view.ethertype());
                assert_eq!(vlan::Repr::parse(&view), vlan::Repr { ethertype, ..repr });
                assert_eq!(view.into_payload(), header_payload);
            }
            Header::Ipv4(repr) => {
                let view = ipv4::Packet::new_checked(remaining).unwrap();
                let protocol = expected_protocol(next, ICMP, repr.protocol);
                let expected = ipv4::Repr { protocol, payload_len, ..repr };
                assert_eq!(ipv4::Repr::parse(&view), Some(expected));
                assert!(view.verify_checksum());
                assert_eq!(view.payload(), header_payload);
                next_ip_addresses = Some(view.addresses());
            }
            Header::Ipv6(repr) => {
                let view = ipv6::Packet::new_checked(remaining).unwrap();
                let next_header = expected_protocol(next, ICMPV6, repr.next_header);
                let expected = ipv6::Repr { next_header, payload_len, ..repr };
                assert_eq!(ipv6::Repr::parse(&view), expected);
                assert_eq!(view.payload(), header_payload);
                next_ip_addresses = Some(view.addresses());
            }
            Header::Udp(repr) | Header::UdpWithoutChecksum(repr) => {
                let view = udp::Packet::new_checked(remaining).unwrap();
                assert_eq!(udp::Repr::parse(&view), udp::Repr { payload_len, ..repr });
                let is_checked = matches!(header, Header::Udp(_));
                assert_eq!(view.checksum() != 0, is_checked);
                assert!(view.verify_checksum(ip_addresses.unwrap()));
                assert_eq!(view.payload(), header_payload);
            }
            Header::Tcp(repr) => {
                let view = tcp::Packet::new_checked(remaining).unwrap();
                assert_eq!(tcp::Repr::parse(&view), Ok(tcp::Repr { payload_len, ..repr }));
                assert!(view.verify_checksum(ip_addresses.unwrap()));
                assert_eq!(view.payload(), header_payload);
            }
            Header::Icmp(repr) => {
                let view = icmp::Packet::new_checked(remaining).unwrap();
                assert_eq!(icmp::Repr::parse(&view), Ok(icmp::Repr { payload_len, ..repr }));
                assert!(view.verify_checksum(ip_addresses.unwrap()));
            }
            Header::Gtpu(repr) => {
                let view = gtpu::Packet::new_checked(remaining).unwrap();
                let mut storage = [Extension::default(); MAX_EXTENSIONS];
                let parsed = gtpu::Repr::parse(&view, &mut storage);
                assert_eq!(parsed, gtpu::Repr { payload_len, ..repr });
                assert_eq!(view.payload(), header_payload);
            }
        }
        remaining = header_payload;
    }
    assert_eq!(remaining, payload);
}

/// Returns the expected EtherType before `next`. For a VLAN type before a tag, and for the type of
/// an IP payload, returns `emitted`, so that any value is accepted: other tests check these values.
fn expected_ethertype(
    next: Option<&Header<'_>>,
    fallback: EtherType,
    emitted: EtherType,
) -> EtherType {
    match next {
        Some(Header::Ipv4(_)) => EtherType(0x0800),
        Some(Header::Ipv6(_)) => EtherType(0x86dd),
        Some(_) if !fallback.is_vlan() && emitted.is_vlan() => emitted,
        None if fallback == EtherType(0) => emitted,
        _ => fallback,
    }
}

/// `icmp`: the protocol number of ICMP or ICMPv6.
fn expected_protocol(next: Option<&Header<'_>>, icmp: u8, fallback: IpProtocol) -> IpProtocol {
    let Some(next) = next else { return fallback };
    IpProtocol(match next {
        Header::Ipv4(_) => 4,
        Header::Ipv6(_) => 41,
        Header::Tcp(_) => 6,
        Header::Icmp(_) => icmp,
        _ => 17,
    })
}

#[test]
fn ethertype_0_becomes_type_of_ip_payload() {
    let emitted_type = |ethertype, first: u8| {
        let repr = ethernet::Repr { ethertype: EtherType(ethertype), ..ethernet::Repr::default() };
        let packet = HeaderStack(&[repr.into()]).packet(&[first, 0]).unwrap();
        u16::from_be_bytes([packet[12], packet[13]])
    };
    assert_eq!([0x45, 0x60, 0x50, 0].map(|first| emitted_type(0, first)), [0x0800, 0x86dd, 0, 0]);
    assert_eq!(emitted_type(0x88cc, 0x45), 0x88cc);
    assert_eq!(HeaderStack(&[ethernet::Repr::default().into()]).packet(&[]).unwrap(), [0; 14]);
    let id = VlanId::new(7).unwrap();
    let tag = vlan::Repr { id, priority: 0, drop_eligible: false, ethertype: EtherType(0) };
    let packet =
        HeaderStack(&[ethernet::Repr::default().into(), tag.into()]).packet(&[0x45]).unwrap();
    assert_eq!(packet[12..], [0x81, 0, 0, 7, 8, 0, 0x45]);
}

proptest! {
    #[test]
    fn emit_of_any_stack_writes_headers_or_fails(
        headers in prop::collection::vec(header(), 0..6),
        payload in payload(),
        missing in 0..200_usize,
    ) {
        let stack = HeaderStack(&headers);
        let len = stack.header_len();
        let mut packet = [&vec![0xee; len][..], &payload].concat();
        let emitted = stack.emit(&mut packet);
        prop_assert_eq!(&packet[len..], &payload[..]);
        prop_assert_eq!(stack.packet(&payload), emitted.map(|()| packet.clone()));
        if emitted.is_ok() {
            assert_emitted(&headers, &payload, &packet);
        }
        let mut short = vec![0xee; len.saturating_sub(1 + missing)];
        if short.len() < len {
            prop_assert_eq!(stack.emit(&mut short), Err(Error::Truncated));
        }
    }

    #[test]
    fn emit_of_valid_stack_writes_every_header(headers in valid_headers(), payload in payload()) {
        let stack = HeaderStack(&headers);
        let packet = stack.packet(&payload).unwrap();
        prop_assert_eq!(packet.len(), stack.header_len() + payload.len());
        assert_emitted(&headers, &payload, &packet);
        let _ = Pretty::new(&packet).to_string();
        if let [Header::Ethernet(_), .., Header::Udp(_) | Header::Icmp(_)] = headers[..] {
            let is_tag = |header: &&Header<'_>| matches!(header, Header::Vlan(_));
            let tags = headers[1..].iter().take_while(is_tag).count();
            let status = if tags > 2 { Status::TooManyVlanTags } else { Status::Parsed };
            prop_assert_eq!(Headers::parse(&packet).status, status);
        }
    }
}

fn default_ipv4() -> Header<'static> {
    ipv4::Repr::default().into()
}

fn default_ipv6() -> Header<'static> {
    ipv6::Repr::default().into()
}

fn tag(ethertype: EtherType) -> Header<'static> {
    let id = VlanId::new(1).unwrap();
    vlan::Repr { id, priority: 0, drop_eligible: false, ethertype }.into()
}

#[test]
fn emit_accepts_only_documented_orders() {
    let udp = udp::Repr { source_port: PORT, destination_port: PORT, payload_len: 0 };
    let gtpu = Header::from(gtpu::Repr::default());
    // Each name is that of the last header.
    let named_headers: [(&str, Vec<Header<'_>>); 9] = [
        ("ethernet", vec![ethernet::Repr::default().into()]),
        ("vlan", vec![tag(EtherType(0))]),
        ("ipv4", vec![default_ipv4()]),
        ("ipv6", vec![default_ipv6()]),
        ("udp", vec![default_ipv6(), udp.into()]),
        ("udp-without-checksum", vec![default_ipv4(), Header::UdpWithoutChecksum(udp)]),
        ("tcp", vec![default_ipv4(), tcp::Repr::default().into()]),
        ("icmp", vec![default_ipv4(), icmp::Repr::default().into()]),
        ("gtpu", vec![gtpu]),
    ];
    let valid_orders = [
        "ethernet",
        "vlan",
        "ipv4",
        "ipv6",
        "gtpu",
        "gtpu ethernet",
        "ethernet vlan",
        "vlan vlan",
        "ethernet ipv4",
        "vlan ipv4",
        "ipv4 ipv4",
        "ipv6 ipv4",
        "gtpu ipv4",
        "ethernet ipv6",
        "vlan ipv6",
        "ipv4 ipv6",
        "ipv6 ipv6",
        "gtpu ipv6",
        "ipv4 udp",
        "ipv6 udp",
        "ipv4 udp-without-checksum",
        "ipv4 tcp",
        "ipv6 tcp",
        "ipv4 icmp",
        "ipv6 icmp",
        "udp gtpu",
        "udp-without-checksum gtpu",
    ];
    let mut valid_count = 0;
    for (inner, inner_headers) in &named_headers {
        let header = *inner_headers.last().unwrap();
        for (outer, outer_headers) in [("", vec![])].iter().chain(&named_headers) {
            let order = format!("{outer} {inner}");
            let headers = [&outer_headers[..], &[header]].concat();
            let result = HeaderStack(&headers).packet(b"data").map(|_| ());
            let is_valid = valid_orders.contains(&order.trim());
            let expected = if is_valid { Ok(()) } else { Err(Error::Malformed) };
            assert_eq!(result, expected, "{order}");
            valid_count += usize::from(is_valid);
        }
    }
    assert_eq!(valid_count, valid_orders.len());
}

#[test]
fn empty_stack_writes_nothing() {
    let stack = HeaderStack(&[]);
    assert_eq!(stack.header_len(), 0);
    assert_eq!(stack.packet(b"data"), Ok(b"data".to_vec()));
    assert_eq!(stack.packet(b""), Ok(Vec::new()));
}

#[test]
fn last_header_keeps_its_payload_type() {
    let ethernet = ethernet::Repr { ethertype: EtherType::ARP, ..ethernet::Repr::default() };
    let ip = ipv4::Repr { protocol: IpProtocol::GRE, ..ipv4::Repr::default() };
    let packet = HeaderStack(&[ethernet.into()]).packet(b"data").unwrap();
    assert_eq!(packet[12..14], [0x08, 0x06]);
    let packet = HeaderStack(&[ethernet.into(), ip.into()]).packet(b"data").unwrap();
    assert_eq!((&packet[12..14], packet[14 + 9]), (&[0x08, 0x00][..], 47));
    assert_eq!(packet[14 + 2..][..2], [0, 24]);
}

#[test]
fn outer_of_two_vlan_tags_has_service_type_by_default() {
    let types = |fallback: EtherType, tags: usize| {
        let ethernet = ethernet::Repr { ethertype: fallback, ..ethernet::Repr::default() };
        let mut headers = vec![tag(fallback); tags + 1];
        headers[0] = ethernet.into();
        headers.push(default_ipv6());
        let packet = HeaderStack(&headers).packet(b"").unwrap();
        (0..=tags).map(|tag| packet[12 + 4 * tag..][..2].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(types(EtherType::IPV4, 1), [[0x81, 0], [0x86, 0xdd]]);
    assert_eq!(types(EtherType::default(), 2), [[0x88, 0xa8], [0x81, 0], [0x86, 0xdd]]);
    assert_eq!(types(EtherType::VLAN, 2), [[0x81, 0], [0x81, 0], [0x86, 0xdd]]);
    assert_eq!(types(EtherType::SERVICE_VLAN, 1), [[0x88, 0xa8], [0x86, 0xdd]]);
}

#[test]
fn payload_too_long_for_length_field_is_malformed() {
    let udp = Header::from(udp::Repr::default());
    let packet = |headers: &[Header<'_>], len: usize| {
        let packet = HeaderStack(headers).packet(&vec![0xab; len]);
        packet.map(|packet| packet.len())
    };
    assert_eq!(packet(&[default_ipv4()], 65_515), Ok(65_535));
    assert_eq!(packet(&[default_ipv4()], 65_516), Err(Error::Malformed));
    assert_eq!(packet(&[default_ipv6()], 65_535), Ok(65_575));
    assert_eq!(packet(&[default_ipv6()], 65_536), Err(Error::Malformed));
    assert_eq!(packet(&[default_ipv6(), udp], 65_527), Ok(65_575));
    assert_eq!(packet(&[default_ipv6(), udp], 65_528), Err(Error::Malformed));
    assert_eq!(packet(&[gtpu::Repr::default().into()], 65_536), Err(Error::Malformed));
    let ethernet = Header::from(ethernet::Repr::default());
    assert_eq!(packet(&[ethernet], 70_000), Ok(70_014));
}
