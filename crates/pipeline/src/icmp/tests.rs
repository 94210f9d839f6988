use std::net::Ipv6Addr;

use proptest::prelude::*;
use xdpfwd_wire::{IpProtocol, IpVersion, icmp, ipv4, ipv6};
use xdpfwd_xsk::{HugePages, Pool, Umem, UmemConfig};

use super::token_bucket::TokenBucket;
use super::*;

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];

// Offsets in a frame without VLAN tags.
const ETHERTYPE: usize = 12;
const V4_TOTAL_LEN: usize = 14 + 2;
const V4_FRAGMENT: usize = 14 + 6;
const V4_PROTOCOL: usize = 14 + 9;
const V4_SOURCE: usize = 14 + 12;
const V4_DESTINATION: usize = 14 + 16;
const V4_PAYLOAD: usize = 14 + 20;
const V6_NEXT_HEADER: usize = 14 + 6;
const V6_SOURCE: usize = 14 + 8;
const V6_DESTINATION: usize = 14 + 24;
const V6_PAYLOAD: usize = 14 + 40;

/// Headroom of a received frame.
const HEADROOM: usize = 256;

/// Length of the padding after the IP packet, in each frame that the tests build.
const PADDING_LEN: usize = 6;

/// Maximum length of the IP packet with a message (RFC 1812, section 4.3.2.3).
const V4_MAX_LEN: usize = 576;

/// Maximum length of the IP packet with a message (RFC 4443, section 2.4 (c)).
const V6_MAX_LEN: usize = 1280;

/// Minimum MTU of IPv6, which a message reports instead of a smaller one.
const V6_MIN_MTU: u16 = 1280;

/// MTU of most tests.
const MTU: u16 = 600;

/// No source address for messages: a message then comes from the packet's destination address.
const NO_SOURCES: Sources = Sources { v4: None, v6: None };

fn umem_with_frame_size(frame_size: u32) -> (Umem, Pool) {
    Umem::new(&UmemConfig { frame_size, frames: 256, huge_pages: HugePages::Off }).unwrap()
}

/// Turns a frame with these bytes and this headroom into a "packet too big" message. Returns the
/// remaining headroom and the message, or `None` if the frame is not answered. Checks that the
/// chunk outside the message, and the neighbouring chunks, stay unchanged.
#[track_caller]
fn answer(
    bytes: &[u8],
    headroom: usize,
    headers: &Headers,
    mtu: u16,
    sources: &Sources,
) -> Option<(usize, Vec<u8>)> {
    let (_umem, mut pool) = umem_with_frame_size(4096);
    let [mut lower, mut frame, mut upper] = [(); 3].map(|()| pool.alloc().unwrap());
    assert_eq!(
        (lower.chunk().abs_diff(frame.chunk()), upper.chunk().abs_diff(frame.chunk())),
        (1, 1),
        "the chunks are not neighbours"
    );
    for frame in [&mut lower, &mut frame, &mut upper] {
        extend_to_chunk(frame).fill(0xee);
    }
    frame.trim_front(headroom);
    frame.truncate(bytes.len());
    frame.copy_from_slice(bytes);
    let chunk_before =
        [&vec![0xee; headroom], bytes, &vec![0xee; 4096 - headroom - bytes.len()]].concat();

    let is_answered = rewrite(&mut frame, headers, Problem::TooBig { mtu }, sources);
    let (start, message) = (frame.headroom(), frame.to_vec());
    let chunk_after = extend_to_chunk(&mut frame);
    assert_eq!(chunk_after[..start], chunk_before[..start]);
    assert_eq!(chunk_after[start + message.len()..], chunk_before[start + message.len()..]);
    for neighbour in [&lower, &upper] {
        assert!(neighbour.iter().all(|&byte| byte == 0xee));
    }
    if !is_answered {
        assert_eq!((start, &message[..]), (headroom, bytes));
        return None;
    }
    Some((start, message))
}

/// Extends the frame to its whole chunk.
fn extend_to_chunk(frame: &mut Frame) -> &mut Frame {
    let (headroom, tailroom) = (frame.headroom(), frame.tailroom());
    frame.prepend(headroom).unwrap();
    frame.append(tailroom).unwrap();
    frame
}

/// Returns the message for the MTU [`MTU`]. An IPv6 packet is answered only if it is longer than
/// [`V6_MIN_MTU`].
#[track_caller]
fn too_big_message(frame: &[u8], sources: &Sources) -> Option<Vec<u8>> {
    answer(frame, HEADROOM, &Headers::parse(frame), MTU, sources).map(|(_, message)| message)
}

fn ethernet_header(tags: usize, ethertype: [u8; 2]) -> Vec<u8> {
    let mut frame = [ROUTER, SENDER].concat();
    for tag in 0..tags {
        frame.extend([0x81, 0x00, 0xa0, tag as u8 + 1]);
    }
    frame.extend(ethertype);
    frame
}

/// Returns a frame with VLAN tags, an IPv4 packet of `len` bytes that contains UDP, and padding.
fn v4_frame(tags: usize, options_len: usize, len: usize) -> Vec<u8> {
    let mut frame = ethernet_header(tags, [8, 0]);
    let l3 = frame.len();
    frame.resize(l3 + ipv4::HEADER_LEN, 0);
    let repr = ipv4::Repr {
        protocol: IpProtocol::UDP,
        source: [192, 0, 2, 1].into(),
        destination: [198, 51, 100, 2].into(),
        payload_len: (len - ipv4::HEADER_LEN) as u16,
        dont_fragment: true,
        ..ipv4::Repr::default()
    };
    repr.emit(&mut frame[l3..]).unwrap();
    frame[l3] = 0x45 + (options_len / 4) as u8;
    frame.resize(frame.len() + options_len, 1);
    append_udp_and_padding(frame, l3, len)
}

/// Like [`v4_frame`], over IPv6. The options are in a destination options header.
fn v6_frame(tags: usize, options_len: usize, len: usize) -> Vec<u8> {
    let mut frame = ethernet_header(tags, [0x86, 0xdd]);
    let l3 = frame.len();
    frame.resize(l3 + ipv6::HEADER_LEN, 0);
    let repr = ipv6::Repr {
        next_header: match options_len {
            0 => IpProtocol::UDP,
            _ => IpProtocol::DESTINATION_OPTIONS,
        },
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8:1::2".parse().unwrap(),
        payload_len: (len - ipv6::HEADER_LEN) as u16,
        ..ipv6::Repr::default()
    };
    repr.emit(&mut frame[l3..]).unwrap();
    if options_len > 0 {
        frame.extend([17, (options_len / 8 - 1) as u8, 1, (options_len - 4) as u8]);
        frame.resize(frame.len() + options_len - 4, 0);
    }
    append_udp_and_padding(frame, l3, len)
}

/// Completes the IP packet, which starts at offset `l3`, to `len` bytes with a UDP datagram. Then
/// appends padding.
fn append_udp_and_padding(mut frame: Vec<u8>, l3: usize, len: usize) -> Vec<u8> {
    let udp_len = (len - (frame.len() - l3)) as u16;
    frame.extend([0, 7, 0, 8]);
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend((frame.len()..l3 + len).map(|offset| offset as u8));
    assert_eq!(Headers::parse(&frame).status, xdpfwd_wire::Status::Parsed);
    frame.extend([0x55; PADDING_LEN]);
    frame
}

/// Asserts that `message` is a valid answer to `frame`, from the address in `sources`, if any.
#[track_caller]
fn check(frame: &[u8], message: &[u8], mtu: u16, sources: &Sources) {
    let [frame_headers, message_headers] = [frame, message].map(Headers::parse);
    let l2_len = frame_headers.l2_len();
    assert_eq!(message_headers.l2_len(), l2_len);
    assert_eq!((&message[..6], &message[12..l2_len]), (&frame[6..12], &frame[12..l2_len]));
    assert!(message[6] & 1 == 0, "the source MAC address is a group address");
    if frame[0] & 1 == 0 {
        assert_eq!(message[6..12], frame[..6]);
    }
    let packet = message_headers.l3(message);
    assert_eq!(packet.len(), message.len() - l2_len, "the frame has bytes after the message");
    let addresses = message_headers.addresses(message).unwrap();
    let (headers_len, max_len, router, type_and_code) = match message_headers.ip_version.unwrap() {
        IpVersion::V4 => {
            let ip = ipv4::Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum() && ip.options().is_empty() && !ip.dont_fragment());
            assert_eq!(
                (packet[1], ip.ttl(), ip.ident(), ip.protocol()),
                (0xc0, 64, 0, IpProtocol::ICMP)
            );
            (28, V4_MAX_LEN, sources.v4.map(Into::into), (3, 4))
        }
        IpVersion::V6 => {
            let ip = ipv6::Packet::new_checked(packet).unwrap();
            assert_eq!((ip.hop_limit(), ip.next_header()), (64, IpProtocol::ICMPV6));
            (48, V6_MAX_LEN, sources.v6.map(Into::into), (2, 0))
        }
    };
    let frame_addresses = frame_headers.addresses(frame).unwrap();
    assert_eq!(addresses.destination(), frame_addresses.source());
    assert_eq!(addresses.source(), router.unwrap_or(frame_addresses.destination()));
    let icmp = icmp::Packet::new_checked(message_headers.l4(message)).unwrap();
    assert!(icmp.verify_checksum(addresses));
    assert_eq!((icmp.kind(), icmp.code()), type_and_code);
    let (mtu_field, quoted) = icmp.payload().split_first_chunk::<4>().unwrap();
    let mtu = if max_len == V6_MAX_LEN { mtu.max(V6_MIN_MTU) } else { mtu };
    assert_eq!(u32::from_be_bytes(*mtu_field), u32::from(mtu));
    let original = frame_headers.l3(frame);
    assert_eq!(quoted.len(), original.len().min(max_len - headers_len));
    assert_eq!(quoted, &original[..quoted.len()]);
}

#[test]
fn too_big_message_is_valid_with_0_to_2_vlan_tags() {
    let router =
        Sources { v4: Some([192, 0, 2, 254].into()), v6: Some("2001:db8::fe".parse().unwrap()) };
    for sources in [NO_SOURCES, router] {
        for tags in 0..=2 {
            for (options, len) in [(0, 601), (0, 1500), (4, 601), (40, 1500), (40, 3000)] {
                let frame = v4_frame(tags, options, len);
                let message = too_big_message(&frame, &sources).unwrap();
                check(&frame, &message, MTU, &sources);
                assert_eq!(message.len(), frame.len() - len - PADDING_LEN + V4_MAX_LEN);
            }
            for (options, len) in [(0, 1281), (0, 1500), (8, 1281), (248, 1500), (248, 3000)] {
                let frame = v6_frame(tags, options, len);
                let message = too_big_message(&frame, &sources).unwrap();
                check(&frame, &message, MTU, &sources);
                assert_eq!(message.len(), frame.len() - len - PADDING_LEN + V6_MAX_LEN);
            }
        }
    }
}

#[test]
fn too_big_message_quotes_short_packet_without_padding() {
    let frame = v4_frame(1, 8, 100);
    let (_, message) = answer(&frame, HEADROOM, &Headers::parse(&frame), 99, &NO_SOURCES).unwrap();
    check(&frame, &message, 99, &NO_SOURCES);
    assert_eq!(message.len(), 18 + 28 + 100);
}

#[test]
fn only_packet_larger_than_mtu_gets_too_big_message() {
    let is_answered = |frame: Vec<u8>, mtu| {
        answer(&frame, HEADROOM, &Headers::parse(&frame), mtu, &NO_SOURCES).is_some()
    };
    assert!(!is_answered(v4_frame(0, 0, 1400), 1400) && is_answered(v4_frame(0, 0, 1400), 1399));
    assert!(!is_answered(v6_frame(0, 0, 1400), 1400) && is_answered(v6_frame(0, 0, 1400), 1399));
    assert!(!is_answered(v6_frame(0, 0, 1280), 1000) && is_answered(v6_frame(0, 0, 1281), 1000));
}

#[test]
fn packet_is_answered_only_with_enough_headroom() {
    for (frame, needed) in [(v4_frame(2, 0, 1500), 28), (v6_frame(2, 0, 1500), 48)] {
        let headers = Headers::parse(&frame);
        for headroom in 0..needed {
            assert_eq!(answer(&frame, headroom, &headers, MTU, &NO_SOURCES), None);
        }
        let (headroom, message) = answer(&frame, needed, &headers, MTU, &NO_SOURCES).unwrap();
        check(&frame, &message, MTU, &NO_SOURCES);
        assert_eq!(headroom, 0);
    }
}

/// Returns the frame with `bytes` written at `offset`.
fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn packet_to_group_mac_address_is_answered_only_over_ipv6() {
    let from_group = [0x03, 0, 0, 0, 0, 1];
    assert_eq!(too_big_message(&with(v4_frame(0, 0, 1400), 6, &from_group), &NO_SOURCES), None);
    assert_eq!(too_big_message(&with(v6_frame(0, 0, 1400), 6, &from_group), &NO_SOURCES), None);
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        assert_eq!(too_big_message(&with(v4_frame(0, 0, 1400), 0, &group), &NO_SOURCES), None);
        let frame = with(v6_frame(0, 0, 1400), 0, &group);
        let message = too_big_message(&frame, &NO_SOURCES).unwrap();
        check(&frame, &message, MTU, &NO_SOURCES);
        assert_eq!(
            message[6] & 3,
            2,
            "the source is not a locally administered unicast MAC address"
        );
        assert_eq!(message[7..12], group[1..]);
    }
}

#[test]
fn ipv4_packet_with_non_host_address_is_not_answered() {
    let router = Sources { v4: Some([192, 0, 2, 254].into()), v6: None };
    let non_host_addresses = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 9, 9, 9],
        [240, 0, 0, 1],
        [255; 4],
    ];
    for address in non_host_addresses {
        for sources in [NO_SOURCES, router] {
            assert_eq!(
                too_big_message(&with(v4_frame(0, 0, 1400), V4_SOURCE, &address), &sources),
                None,
                "answered a packet from {address:?}"
            );
            assert_eq!(
                too_big_message(&with(v4_frame(0, 0, 1400), V4_DESTINATION, &address), &sources),
                None,
                "answered a packet to {address:?}"
            );
        }
    }
    for address in
        [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 0], [223, 255, 255, 255], [10, 0, 0, 255]]
    {
        for offset in [V4_SOURCE, V4_DESTINATION] {
            assert!(
                too_big_message(&with(v4_frame(0, 0, 1400), offset, &address), &NO_SOURCES)
                    .is_some(),
                "no answer with {address:?} at offset {offset}"
            );
        }
    }
}

#[test]
fn ipv6_packet_to_non_host_address_is_answered_only_with_router_address() {
    let router = Sources { v4: None, v6: Some("2001:db8::fe".parse().unwrap()) };
    for address in ["::", "::1", "ff02::1", "ff3e::1"] {
        let address: Ipv6Addr = address.parse().unwrap();
        for sources in [NO_SOURCES, router] {
            assert_eq!(
                too_big_message(
                    &with(v6_frame(0, 0, 1400), V6_SOURCE, &address.octets()),
                    &sources
                ),
                None,
                "answered a packet from {address}"
            );
        }
        // Only an address of the router answers, because the packet's destination cannot be a
        // source address (RFC 4443, sections 2.2 and 2.4 (e.3)).
        let frame = with(v6_frame(0, 0, 1400), V6_DESTINATION, &address.octets());
        assert_eq!(too_big_message(&frame, &NO_SOURCES), None, "answered a packet to {address}");
        check(&frame, &too_big_message(&frame, &router).unwrap(), MTU, &router);
    }
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    assert!(
        too_big_message(&with(v6_frame(0, 0, 1400), V6_SOURCE, &link_local.octets()), &NO_SOURCES)
            .is_some()
    );
}

#[test]
fn icmp_error_is_not_answered_but_other_icmp_is() {
    let mut v4_icmp = with(v4_frame(0, 0, 1400), V4_PROTOCOL, &[IpProtocol::ICMP.0]);
    let mut v6_icmp = with(v6_frame(0, 8, 1400), V6_PAYLOAD, &[IpProtocol::ICMPV6.0]);
    for kind in 0..=255 {
        v4_icmp[V4_PAYLOAD] = kind;
        // After the destination options header of 8 bytes.
        v6_icmp[V6_PAYLOAD + 8] = kind;
        let [v4, v6] = [&v4_icmp, &v6_icmp].map(|frame| too_big_message(frame, &NO_SOURCES));
        assert_eq!(v4.is_none(), [3, 4, 5, 11, 12].contains(&kind), "ICMP type {kind}");
        assert_eq!(v6.is_none(), kind < 128 || kind == 137, "ICMPv6 type {kind}");
    }
}

#[test]
fn packet_with_icmp_protocol_of_other_ip_version_is_answered() {
    let icmpv6 = [IpProtocol::ICMPV6.0];
    let frame = with(with(v4_frame(0, 0, 1400), V4_PROTOCOL, &icmpv6), V4_PAYLOAD, &[3]);
    assert!(too_big_message(&frame, &NO_SOURCES).is_some());
    let icmp = [IpProtocol::ICMP.0];
    let frame = with(with(v6_frame(0, 0, 1400), V6_NEXT_HEADER, &icmp), V6_PAYLOAD, &[3]);
    assert!(too_big_message(&frame, &NO_SOURCES).is_some());
}

#[test]
fn packet_is_not_answered_if_icmp_type_is_unreadable() {
    for icmp_len in 0..=4 {
        // The IP options leave `icmp_len` bytes for ICMP; 4 are enough to read the type.
        let frame = with(v4_frame(0, 40, 68), V4_PROTOCOL, &[IpProtocol::ICMP.0]);
        let frame = with(frame, V4_TOTAL_LEN, &[0, 60 + icmp_len]);
        let answer = answer(&frame, HEADROOM, &Headers::parse(&frame), 59, &NO_SOURCES);
        assert_eq!(answer.is_some(), icmp_len == 4, "{icmp_len} bytes of ICMP");
    }
    // The length field of the extension header exceeds the packet, so the protocol after it is
    // unknown.
    let frame = with(v6_frame(0, 8, 1400), V6_PAYLOAD + 1, &[255]);
    assert_eq!(too_big_message(&frame, &NO_SOURCES), None);
}

#[test]
fn only_unfragmented_packet_and_first_fragment_are_answered() {
    for (field, is_answered) in
        [([0x20, 0], true), ([0x20, 1], false), ([0, 1], false), ([0x40, 0], true), ([0, 0], true)]
    {
        assert_eq!(
            too_big_message(&with(v4_frame(0, 0, 1400), V4_FRAGMENT, &field), &NO_SOURCES)
                .is_some(),
            is_answered,
            "fragment field {field:?}"
        );
    }
    for (field, is_answered) in [([0, 1], true), ([0, 9], false), ([0, 8], false), ([0, 0], true)] {
        let frame = with(v6_frame(0, 8, 1400), V6_NEXT_HEADER, &[IpProtocol::FRAGMENT.0]);
        assert_eq!(
            too_big_message(&with(frame, V6_PAYLOAD + 2, &field), &NO_SOURCES).is_some(),
            is_answered,
            "fragment field {field:?}"
        );
    }
}

#[test]
fn non_ip_frame_is_not_answered() {
    assert_eq!(too_big_message(&with(v4_frame(0, 0, 1400), ETHERTYPE, &[8, 6]), &NO_SOURCES), None);
    assert_eq!(
        too_big_message(&with(v4_frame(2, 0, 1400), ETHERTYPE + 8, &[0x81, 0]), &NO_SOURCES),
        None,
        "answered a frame with three tags"
    );
    assert_eq!(too_big_message(&[], &NO_SOURCES), None);
}

#[derive(Clone, Debug)]
struct FrameShape {
    v6: bool,
    tags: usize,
    options_len: usize,
    len: usize,
}

fn any_shape() -> impl Strategy<Value = FrameShape> {
    let length = prop_oneof![120usize..600, 120usize..1800, 120usize..3300];
    (any::<bool>(), 0..3usize, 0..6usize, length).prop_map(|(v6, tags, options, len)| FrameShape {
        v6,
        tags,
        options_len: options * 8,
        len,
    })
}

fn build_frame(shape: &FrameShape) -> Vec<u8> {
    if shape.v6 {
        v6_frame(shape.tags, shape.options_len, shape.len)
    } else {
        v4_frame(shape.tags, shape.options_len, shape.len)
    }
}

fn any_sources() -> impl Strategy<Value = Sources> {
    let v4 = prop::option::of(any::<[u8; 4]>().prop_map(Into::into));
    (v4, prop::option::of(any::<[u8; 16]>().prop_map(Into::into)))
        .prop_map(|(v4, v6)| Sources { v4, v6 })
}

proptest! {
    /// Takes frames with a few changed bytes, any length and any headroom. Also tries each with the
    /// parsed headers of another frame.
    #[test]
    fn any_frame_gets_valid_message_or_stays_unchanged(
        shape in any_shape(),
        other_shape in any_shape(),
        changes in prop::collection::vec((0usize..110, any::<u8>()), 0..3),
        cut in prop_oneof![2 => Just(usize::MAX), 1 => 0usize..200],
        headroom in prop_oneof![0usize..64, Just(256usize)],
        mtu in prop_oneof![Just(1400u16), any::<u16>(), 0u16..200],
        sources in any_sources(),
    ) {
        let mut frame = build_frame(&shape);
        for (offset, byte) in changes {
            frame[offset] = byte;
        }
        frame.truncate(cut);
        let headers = Headers::parse(&frame);
        if let Some((remaining, message)) = answer(&frame, headroom, &headers, mtu, &sources) {
            check(&frame, &message, mtu, &sources);
            let headers_len = if headers.ip_version == Some(IpVersion::V4) { 28 } else { 48 };
            prop_assert_eq!(remaining, headroom - headers_len);
        }
        // `answer` checks that this meaningless message changes no other bytes.
        let other_headers = Headers::parse(&build_frame(&other_shape));
        let _ = answer(&frame, headroom, &other_headers, mtu, &sources);
    }

    #[test]
    fn random_bytes_do_not_panic(
        frame in prop::collection::vec(any::<u8>(), 0..300),
        mtu: u16,
        sources in any_sources(),
    ) {
        let _ = answer(&frame, 100, &Headers::parse(&frame), mtu, &sources);
    }

    /// Between any two calls, the bucket must allow at most a burst, plus the refill for the time
    /// between them.
    #[test]
    fn token_bucket_never_exceeds_limit(
        per_second in 0u32..2000,
        workers in 1usize..5,
        steps in prop::collection::vec(
            (prop_oneof![0..SECOND / 300, 0..SECOND], 1usize..300),
            1..40,
        ),
    ) {
        let mut bucket = TokenBucket::new(per_second, workers, HZ);
        let per_worker = f64::from(per_second) / workers as f64;
        let rate = if per_second == 0 { 0.0 } else { per_worker.max(1.0) };
        let burst = (rate / 10.0).max(rate.min(1.0));
        let mut now = 17;
        let mut calls = Vec::new();
        for &(step, count) in &steps {
            now += step;
            calls.push((now, take_messages(&mut bucket, count, now)));
        }
        for first in 0..calls.len() {
            let mut sent = 0;
            for &(time, count) in &calls[first..] {
                sent += count;
                let refill = rate * (time - calls[first].0) as f64 / HZ;
                prop_assert!(
                    sent as f64 <= burst + refill + 1e-6,
                    "{} messages; burst {}, refill {}", sent, burst, refill
                );
            }
        }
    }

    /// Calls are frequent enough that the bucket never fills up.
    #[test]
    fn token_bucket_reaches_limit(per_second in 20u32..10_000, millis in 1u64..2000) {
        let mut bucket = TokenBucket::new(per_second, 1, HZ);
        let first = take_messages(&mut bucket, 1001, SECOND);
        let time = |ms| SECOND + ms * (SECOND / 1000);
        let later: usize = (1..=millis).map(|ms| take_messages(&mut bucket, 20, time(ms))).sum();
        let burst = (f64::from(per_second) / 10.0).max(1.0);
        let refill = f64::from(per_second) * millis as f64 / 1000.0;
        prop_assert!((first + later) as f64 > burst + refill - 1.001);
    }
}

const HZ: f64 = 1e9;
const SECOND: u64 = 1_000_000_000;

/// Returns how many of `count` messages the bucket allows.
fn take_messages(bucket: &mut TokenBucket, count: usize, now: u64) -> usize {
    let mut take_one = || {
        let is_allowed = bucket.has_token(now);
        if is_allowed {
            bucket.take();
        }
        is_allowed
    };
    (0..count).filter(|_| take_one()).count()
}

#[test]
fn token_bucket_allows_burst_of_tenth_of_second_then_limit() {
    let mut bucket = TokenBucket::new(1000, 1, HZ);
    assert_eq!(take_messages(&mut bucket, 500, 5), 100, "the bucket was not full at the start");
    assert_eq!(take_messages(&mut bucket, 500, 5 + SECOND / 100), 10);
    let sent: usize =
        (2..102).map(|tick| take_messages(&mut bucket, 50, 5 + tick * SECOND / 100)).sum();
    assert!((999..=1000).contains(&sent), "{sent}");
    assert_eq!(
        take_messages(&mut bucket, 500, 1000 * SECOND),
        100,
        "a pause refilled more than a burst"
    );
    assert_eq!(take_messages(&mut bucket, 500, u64::MAX), 100);
}

#[test]
fn token_bucket_of_worker_has_share_of_limit_and_at_least_one_per_second() {
    assert_eq!(take_messages(&mut TokenBucket::new(1000, 4, HZ), 500, SECOND), 25);
    let mut minimum = TokenBucket::new(3, 8, HZ);
    let sent: usize =
        (0..10).map(|second| take_messages(&mut minimum, 5, SECOND + second * SECOND)).sum();
    assert_eq!(sent, 10, "expected one message per second");
    assert_eq!(take_messages(&mut TokenBucket::new(1_000_000, 1, HZ), 200_000, SECOND), 100_000);
    for workers in [0, 1, 64] {
        let mut empty = TokenBucket::new(0, workers, HZ);
        assert_eq!(
            (0..10).map(|second| take_messages(&mut empty, 5, second * SECOND)).sum::<usize>(),
            0
        );
    }
}

#[test]
fn token_bucket_refills_after_clock_jumps_back() {
    let mut bucket = TokenBucket::new(10, 1, HZ);
    assert_eq!(take_messages(&mut bucket, 5, 100 * SECOND), 1);
    assert_eq!(take_messages(&mut bucket, 5, 50 * SECOND), 0);
    assert_eq!(take_messages(&mut bucket, 5, 50 * SECOND + SECOND / 20), 0);
    assert_eq!(take_messages(&mut bucket, 5, 50 * SECOND + SECOND / 9), 1);
    assert_eq!(take_messages(&mut bucket, 5, 0), 0);
    assert_eq!(take_messages(&mut bucket, 5, SECOND), 1);
}
