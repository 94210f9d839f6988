use std::net::Ipv6Addr;

use proptest::prelude::*;
use xdpfwd_wire::{IpProtocol, IpVersion, icmp, ipv4, ipv6};
use xdpfwd_xsk::{HugePages, Pool, Umem, UmemConfig};

use super::*;

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NO_SOURCES: Sources = Sources { v4: None, v6: None };

fn umem(frame_size: u32) -> (Umem, Pool) {
    Umem::new(&UmemConfig { frame_size, frames: 256, huge_pages: HugePages::Off }).unwrap()
}

/// Rewrites a frame with these bytes and this headroom. Returns the headroom that is left and the
/// message; `None` if the frame is unchanged. Checks that the rest of the chunk and the neighbours
/// are unchanged in either case.
#[track_caller]
fn answered(
    bytes: &[u8],
    headroom: usize,
    headers: &Headers,
    mtu: u16,
    sources: &Sources,
) -> Option<(usize, Vec<u8>)> {
    let (_umem, mut pool) = umem(4096);
    let [mut before, mut frame, mut after] = [(); 3].map(|()| pool.alloc().unwrap());
    assert_eq!(
        (before.chunk().abs_diff(frame.chunk()), after.chunk().abs_diff(frame.chunk())),
        (1, 1)
    );
    for frame in [&mut before, &mut frame, &mut after] {
        extend_to_chunk(frame).fill(0xee);
    }
    frame.trim_front(headroom);
    frame.truncate(bytes.len());
    frame.copy_from_slice(bytes);
    let chunk = [&vec![0xee; headroom], bytes, &vec![0xee; 4096 - headroom - bytes.len()]].concat();

    let is_answered = rewrite(&mut frame, headers, Problem::TooBig { mtu }, sources);
    let (start, message) = (frame.headroom(), frame.to_vec());
    let now = extend_to_chunk(&mut frame);
    assert_eq!(now[..start], chunk[..start]);
    assert_eq!(now[start + message.len()..], chunk[start + message.len()..]);
    for neighbour in [&before, &after] {
        assert!(neighbour.iter().all(|&byte| byte == 0xee));
    }
    if !is_answered {
        assert_eq!((start, &message[..]), (headroom, bytes));
        return None;
    }
    Some((start, message))
}

/// Extends a frame to its whole chunk.
fn extend_to_chunk(frame: &mut Frame) -> &mut Frame {
    let (headroom, tailroom) = (frame.headroom(), frame.tailroom());
    frame.prepend(headroom).unwrap();
    frame.append(tailroom).unwrap();
    frame
}

/// Returns the message about a frame for an MTU of 600. An IPv6 packet needs more than 1280 bytes.
#[track_caller]
fn about(frame: &[u8], sources: &Sources) -> Option<Vec<u8>> {
    answered(frame, 256, &Headers::parse(frame), 600, sources).map(|(_, message)| message)
}

fn tagged(tags: usize, ethertype: [u8; 2]) -> Vec<u8> {
    let mut frame = [ROUTER, SENDER].concat();
    for tag in 0..tags {
        frame.extend([0x81, 0x00, 0xa0, tag as u8 + 1]);
    }
    frame.extend(ethertype);
    frame
}

/// Returns a padded frame of UDP over IPv4 with this number of VLAN tags, bytes of IP options and
/// bytes of IP packet.
fn v4(tags: usize, options: usize, len: usize) -> Vec<u8> {
    let mut frame = tagged(tags, [8, 0]);
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
    frame[l3] = 0x45 + (options / 4) as u8;
    frame.resize(frame.len() + options, 1);
    fill(frame, l3, len)
}

/// Returns the same over IPv6, with destination options of this length.
fn v6(tags: usize, options: usize, len: usize) -> Vec<u8> {
    let mut frame = tagged(tags, [0x86, 0xdd]);
    let l3 = frame.len();
    frame.resize(l3 + ipv6::HEADER_LEN, 0);
    let repr = ipv6::Repr {
        next_header: if options == 0 { IpProtocol::UDP } else { IpProtocol::DESTINATION_OPTIONS },
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8:1::2".parse().unwrap(),
        payload_len: (len - ipv6::HEADER_LEN) as u16,
        ..ipv6::Repr::default()
    };
    repr.emit(&mut frame[l3..]).unwrap();
    if options > 0 {
        frame.extend([17, (options / 8 - 1) as u8, 1, (options - 4) as u8]);
        frame.resize(frame.len() + options - 4, 0);
    }
    fill(frame, l3, len)
}

/// Appends a UDP datagram up to the packet's length, and padding.
fn fill(mut frame: Vec<u8>, l3: usize, len: usize) -> Vec<u8> {
    let udp_len = (len - (frame.len() - l3)) as u16;
    frame.extend([0, 7, 0, 8]);
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend((frame.len()..l3 + len).map(|at| at as u8));
    assert_eq!(Headers::parse(&frame).status, xdpfwd_wire::Status::Parsed);
    frame.extend([0x55; 6]);
    frame
}

/// Checks every field of a message about `before`.
#[track_caller]
fn check(before: &[u8], message: &[u8], mtu: u16, sources: &Sources) {
    let (was, is) = (Headers::parse(before), Headers::parse(message));
    let l2 = was.l2_len();
    assert_eq!(is.l2_len(), l2);
    assert_eq!((&message[..6], &message[12..l2]), (&before[6..12], &before[12..l2]));
    assert!(message[6] & 1 == 0, "the source MAC address is a group address");
    if before[0] & 1 == 0 {
        assert_eq!(message[6..12], before[..6]);
    }
    let packet = is.l3(message);
    assert_eq!(packet.len(), message.len() - l2, "the frame has bytes behind the message");
    let addresses = is.addresses(message).unwrap();
    let (front, most, own, kind) = match is.ip_version.unwrap() {
        IpVersion::V4 => {
            let ip = ipv4::Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum() && ip.options().is_empty() && !ip.dont_fragment());
            assert_eq!(
                (packet[1], ip.ttl(), ip.ident(), ip.protocol()),
                (0xc0, 64, 0, IpProtocol::ICMP)
            );
            (28, 576, sources.v4.map(Into::into), (3, 4))
        }
        IpVersion::V6 => {
            let ip = ipv6::Packet::new_checked(packet).unwrap();
            assert_eq!((ip.hop_limit(), ip.next_header()), (64, IpProtocol::ICMPV6));
            (48, 1280, sources.v6.map(Into::into), (2, 0))
        }
    };
    let asked = was.addresses(before).unwrap();
    assert_eq!(addresses.destination(), asked.source());
    assert_eq!(addresses.source(), own.unwrap_or(asked.destination()));
    let icmp = icmp::Packet::new_checked(is.l4(message)).unwrap();
    assert!(icmp.verify_checksum(addresses));
    assert_eq!((icmp.kind(), icmp.code()), kind);
    let (word, quoted) = icmp.payload().split_first_chunk::<4>().unwrap();
    let mtu = if most == 1280 { mtu.max(1280) } else { mtu };
    assert_eq!(u32::from_be_bytes(*word), u32::from(mtu));
    let original = was.l3(before);
    assert_eq!(quoted.len(), original.len().min(most - front));
    assert_eq!(quoted, &original[..quoted.len()]);
}

#[test]
fn too_big_message_is_valid_after_any_number_of_tags() {
    let sources =
        Sources { v4: Some([192, 0, 2, 254].into()), v6: Some("2001:db8::fe".parse().unwrap()) };
    for sources in [NO_SOURCES, sources] {
        for tags in 0..=2 {
            for (options, len) in [(0, 601), (0, 1500), (4, 601), (40, 1500), (40, 3000)] {
                let frame = v4(tags, options, len);
                let message = about(&frame, &sources).unwrap();
                check(&frame, &message, 600, &sources);
                assert_eq!(message.len(), frame.len() - len - 6 + 576);
            }
            for (options, len) in [(0, 1281), (0, 1500), (8, 1281), (248, 1500), (248, 3000)] {
                let frame = v6(tags, options, len);
                let message = about(&frame, &sources).unwrap();
                check(&frame, &message, 600, &sources);
                assert_eq!(message.len(), frame.len() - len - 6 + 1280);
            }
        }
    }
}

#[test]
fn too_big_message_quotes_short_packet_without_padding() {
    let frame = v4(1, 8, 100);
    let (_, message) = answered(&frame, 256, &Headers::parse(&frame), 99, &NO_SOURCES).unwrap();
    check(&frame, &message, 99, &NO_SOURCES);
    assert_eq!(message.len(), 18 + 28 + 100);
}

#[test]
fn too_big_message_needs_packet_larger_than_mtu() {
    let is_answered = |frame: Vec<u8>, mtu| {
        answered(&frame, 256, &Headers::parse(&frame), mtu, &NO_SOURCES).is_some()
    };
    assert!(!is_answered(v4(0, 0, 1400), 1400) && is_answered(v4(0, 0, 1400), 1399));
    assert!(!is_answered(v6(0, 0, 1400), 1400) && is_answered(v6(0, 0, 1400), 1399));
    assert!(!is_answered(v6(0, 0, 1280), 1000) && is_answered(v6(0, 0, 1281), 1000));
}

#[test]
fn message_needs_headroom() {
    for (frame, needed) in [(v4(2, 0, 1500), 28), (v6(2, 0, 1500), 48)] {
        let headers = Headers::parse(&frame);
        for headroom in 0..needed {
            assert_eq!(answered(&frame, headroom, &headers, 600, &NO_SOURCES), None);
        }
        let (left, message) = answered(&frame, needed, &headers, 600, &NO_SOURCES).unwrap();
        check(&frame, &message, 600, &NO_SOURCES);
        assert_eq!(left, 0);
    }
}

/// Returns the frame with its bytes at `at` replaced.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn message_to_or_from_group_mac_address_follows_rfc() {
    let from_group = [0x03, 0, 0, 0, 0, 1];
    assert_eq!(about(&with(v4(0, 0, 1400), 6, &from_group), &NO_SOURCES), None);
    assert_eq!(about(&with(v6(0, 0, 1400), 6, &from_group), &NO_SOURCES), None);
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        assert_eq!(about(&with(v4(0, 0, 1400), 0, &group), &NO_SOURCES), None);
        let frame = with(v6(0, 0, 1400), 0, &group);
        let message = about(&frame, &NO_SOURCES).unwrap();
        check(&frame, &message, 600, &NO_SOURCES);
        assert_eq!(message[6] & 3, 2, "not a locally administered unicast MAC address");
        assert_eq!(message[7..12], group[1..]);
    }
}

#[test]
fn ipv4_packet_with_non_host_address_is_not_answered() {
    let ours = Sources { v4: Some([192, 0, 2, 254].into()), v6: None };
    let none = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 9, 9, 9],
        [240, 0, 0, 1],
        [255; 4],
    ];
    for address in none {
        for sources in [NO_SOURCES, ours] {
            assert_eq!(
                about(&with(v4(0, 0, 1400), 26, &address), &sources),
                None,
                "from {address:?}"
            );
            assert_eq!(
                about(&with(v4(0, 0, 1400), 30, &address), &sources),
                None,
                "to {address:?}"
            );
        }
    }
    for address in
        [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 0], [223, 255, 255, 255], [10, 0, 0, 255]]
    {
        for at in [26, 30] {
            assert!(
                about(&with(v4(0, 0, 1400), at, &address), &NO_SOURCES).is_some(),
                "{address:?}"
            );
        }
    }
}

#[test]
fn ipv6_packet_with_non_host_address_is_not_answered() {
    let ours = Sources { v4: None, v6: Some("2001:db8::fe".parse().unwrap()) };
    for address in ["::", "::1", "ff02::1", "ff3e::1"] {
        let address: Ipv6Addr = address.parse().unwrap();
        for sources in [NO_SOURCES, ours] {
            assert_eq!(
                about(&with(v6(0, 0, 1400), 22, &address.octets()), &sources),
                None,
                "from {address}"
            );
        }
        // Allowed for a multicast destination if there is a source address (RFC 4443, 2.4 (e.3)).
        let frame = with(v6(0, 0, 1400), 38, &address.octets());
        assert_eq!(about(&frame, &NO_SOURCES), None, "to {address}");
        check(&frame, &about(&frame, &ours).unwrap(), 600, &ours);
    }
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    assert!(about(&with(v6(0, 0, 1400), 22, &link_local.octets()), &NO_SOURCES).is_some());
}

#[test]
fn icmp_error_is_not_answered_but_other_icmp_is() {
    let mut v4_icmp = with(v4(0, 0, 1400), 23, &[IpProtocol::ICMP.0]);
    let mut v6_icmp = with(v6(0, 8, 1400), 14 + 40, &[IpProtocol::ICMPV6.0]);
    for kind in 0..=255 {
        v4_icmp[34] = kind;
        v6_icmp[14 + 48] = kind;
        let (v4, v6) = (about(&v4_icmp, &NO_SOURCES), about(&v6_icmp, &NO_SOURCES));
        assert_eq!(v4.is_none(), [3, 4, 5, 11, 12].contains(&kind), "{kind}");
        assert_eq!(v6.is_none(), kind < 128 || kind == 137, "{kind}");
    }
}

#[test]
fn icmp_number_of_other_ip_version_is_answered() {
    assert!(about(&with(with(v4(0, 0, 1400), 23, &[58]), 34, &[3]), &NO_SOURCES).is_some());
    assert!(about(&with(with(v6(0, 0, 1400), 20, &[1]), 54, &[3]), &NO_SOURCES).is_some());
}

#[test]
fn unreadable_icmp_is_not_answered() {
    for rest in 0..=4 {
        // The options leave `rest` bytes of ICMP, which is less than its header.
        let frame = with(v4(0, 40, 68), 23, &[IpProtocol::ICMP.0]);
        let frame = with(frame, 16, &[0, 60 + rest]);
        let is_answered = answered(&frame, 256, &Headers::parse(&frame), 59, &NO_SOURCES);
        assert_eq!(is_answered.is_some(), rest == 4, "{rest}");
    }
    // An extension header that reaches beyond the packet hides the protocol.
    let frame = with(v6(0, 8, 1400), 14 + 41, &[255]);
    assert_eq!(about(&frame, &NO_SOURCES), None);
}

#[test]
fn only_first_fragment_is_answered() {
    for (field, answer) in
        [([0x20, 0], true), ([0x20, 1], false), ([0, 1], false), ([0x40, 0], true), ([0, 0], true)]
    {
        assert_eq!(
            about(&with(v4(0, 0, 1400), 20, &field), &NO_SOURCES).is_some(),
            answer,
            "{field:?}"
        );
    }
    for (field, answer) in [([0, 1], true), ([0, 9], false), ([0, 8], false), ([0, 0], true)] {
        let frame = with(v6(0, 8, 1400), 20, &[IpProtocol::FRAGMENT.0]);
        assert_eq!(
            about(&with(frame, 14 + 42, &field), &NO_SOURCES).is_some(),
            answer,
            "{field:?}"
        );
    }
}

#[test]
fn non_ip_frame_is_not_answered() {
    assert_eq!(about(&with(v4(0, 0, 1400), 12, &[8, 6]), &NO_SOURCES), None);
    assert_eq!(about(&with(v4(2, 0, 1400), 20, &[0x81, 0]), &NO_SOURCES), None, "three tags");
    assert_eq!(about(&[], &NO_SOURCES), None);
}

#[derive(Clone, Debug)]
struct Shape {
    v6: bool,
    tags: usize,
    options: usize,
    len: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let length = prop_oneof![120usize..600, 120usize..1800, 120usize..3300];
    (any::<bool>(), 0..3usize, 0..6usize, length).prop_map(|(v6, tags, options, len)| Shape {
        v6,
        tags,
        options: options * 8,
        len,
    })
}

fn built(shape: &Shape) -> Vec<u8> {
    if shape.v6 {
        v6(shape.tags, shape.options, shape.len)
    } else {
        v4(shape.tags, shape.options, shape.len)
    }
}

fn sources() -> impl Strategy<Value = Sources> {
    let v4 = prop::option::of(any::<[u8; 4]>().prop_map(Into::into));
    (v4, prop::option::of(any::<[u8; 16]>().prop_map(Into::into)))
        .prop_map(|(v4, v6)| Sources { v4, v6 })
}

proptest! {
    /// Tries frames with a few changed bytes, cut anywhere, with any headroom, and with the headers
    /// of another frame.
    #[test]
    fn any_frame_gets_valid_message_or_stays_unchanged(
        shape in shape(),
        other in shape(),
        changes in prop::collection::vec((0usize..110, any::<u8>()), 0..3),
        cut in prop_oneof![2 => Just(usize::MAX), 1 => 0usize..200],
        headroom in prop_oneof![0usize..64, Just(256usize)],
        mtu in prop_oneof![Just(1400u16), any::<u16>(), 0u16..200],
        sources in sources(),
    ) {
        let mut frame = built(&shape);
        for (at, byte) in changes {
            frame[at] = byte;
        }
        frame.truncate(cut);
        let headers = Headers::parse(&frame);
        if let Some((left, message)) = answered(&frame, headroom, &headers, mtu, &sources) {
            check(&frame, &message, mtu, &sources);
            let added = if headers.ip_version == Some(IpVersion::V4) { 28 } else { 48 };
            prop_assert_eq!(left, headroom - added);
        }
        // The result is meaningless for another frame's headers, but nothing else may change.
        let _ = answered(&frame, headroom, &Headers::parse(&built(&other)), mtu, &sources);
    }

    #[test]
    fn random_bytes_do_not_panic(
        frame in prop::collection::vec(any::<u8>(), 0..300),
        mtu: u16,
        sources in sources(),
    ) {
        let _ = answered(&frame, 100, &Headers::parse(&frame), mtu, &sources);
    }

    /// Checks that between any two calls at most a burst and the refill of that time are allowed.
    #[test]
    fn rate_never_exceeds_limit(
        per_second in 0u32..2000,
        workers in 1usize..5,
        steps in prop::collection::vec(
            (prop_oneof![0..SECOND / 300, 0..SECOND], 1usize..300),
            1..40,
        ),
    ) {
        let mut rate = Rate::new(per_second, workers, HZ);
        let per_worker = f64::from(per_second) / workers as f64;
        let share = if per_second == 0 { 0.0 } else { per_worker.max(1.0) };
        let burst = (share / 10.0).max(share.min(1.0));
        let mut now = 17;
        let mut calls = Vec::new();
        for &(step, count) in &steps {
            now += step;
            calls.push((now, allowed(&mut rate, count, now)));
        }
        for from in 0..calls.len() {
            let mut sent = 0;
            for &(at, count) in &calls[from..] {
                sent += count;
                let refill = share * (at - calls[from].0) as f64 / HZ;
                prop_assert!(
                    sent as f64 <= burst + refill + 1e-6,
                    "{} messages; burst {}, refill {}", sent, burst, refill
                );
            }
        }
    }

    /// Checks that the limit is used up if calls come before the bucket is full.
    #[test]
    fn rate_reaches_limit(per_second in 20u32..10_000, millis in 1u64..2000) {
        let mut rate = Rate::new(per_second, 1, HZ);
        let first = allowed(&mut rate, 1001, SECOND);
        let later = |ms| SECOND + ms * (SECOND / 1000);
        let then: usize = (1..=millis).map(|ms| allowed(&mut rate, 20, later(ms))).sum();
        let burst = (f64::from(per_second) / 10.0).max(1.0);
        let refill = f64::from(per_second) * millis as f64 / 1000.0;
        prop_assert!((first + then) as f64 > burst + refill - 1.001);
    }
}

const HZ: f64 = 1e9;
const SECOND: u64 = 1_000_000_000;

/// Returns how many of `count` messages are allowed at this time.
fn allowed(rate: &mut Rate, count: usize, now: u64) -> usize {
    let mut allows = || {
        let has = rate.has_token(now);
        if has {
            rate.take();
        }
        has
    };
    (0..count).filter(|_| allows()).count()
}

#[test]
fn rate_allows_burst_of_tenth_of_second_then_limit() {
    let mut rate = Rate::new(1000, 1, HZ);
    assert_eq!(allowed(&mut rate, 500, 5), 100, "the bucket is not full at the start");
    assert_eq!(allowed(&mut rate, 500, 5 + SECOND / 100), 10);
    let sent: usize = (2..102).map(|at| allowed(&mut rate, 50, 5 + at * SECOND / 100)).sum();
    assert!((999..=1000).contains(&sent), "{sent}");
    assert_eq!(allowed(&mut rate, 500, 1000 * SECOND), 100, "a pause refills more than a burst");
    assert_eq!(allowed(&mut rate, 500, u64::MAX), 100);
}

#[test]
fn rate_is_shared_by_workers_with_at_least_one_per_second() {
    assert_eq!(allowed(&mut Rate::new(1000, 4, HZ), 500, SECOND), 25);
    let mut least = Rate::new(3, 8, HZ);
    let sent: usize = (0..10).map(|at| allowed(&mut least, 5, SECOND + at * SECOND)).sum();
    assert_eq!(sent, 10, "expected one message per second");
    assert_eq!(allowed(&mut Rate::new(1_000_000, 1, HZ), 200_000, SECOND), 100_000);
    for workers in [0, 1, 64] {
        let mut none = Rate::new(0, workers, HZ);
        assert_eq!((0..10).map(|at| allowed(&mut none, 5, at * SECOND)).sum::<usize>(), 0);
    }
}

#[test]
fn rate_survives_clock_that_jumps_back() {
    let mut rate = Rate::new(10, 1, HZ);
    assert_eq!(allowed(&mut rate, 5, 100 * SECOND), 1);
    assert_eq!(allowed(&mut rate, 5, 50 * SECOND), 0);
    assert_eq!(allowed(&mut rate, 5, 50 * SECOND + SECOND / 20), 0);
    assert_eq!(allowed(&mut rate, 5, 50 * SECOND + SECOND / 9), 1);
    assert_eq!(allowed(&mut rate, 5, 0), 0);
    assert_eq!(allowed(&mut rate, 5, SECOND), 1);
}
