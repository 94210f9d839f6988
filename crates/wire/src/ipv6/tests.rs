use super::*;
use proptest::prelude::*;

// bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", tc=0xb9, fl=0x12345, hlim=64)
//       /IPv6ExtHdrHopByHop(options=[RouterAlert()])
//       /IPv6ExtHdrRouting(addresses=["2001:db8::3"], segleft=0)
//       /IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0"*4)])
//       /IPv6ExtHdrFragment(offset=0, m=1, id=0xdeadbeef)
//       /UDP(sport=1024, dport=2152, chksum=0xabcd)/b"hello")
#[rustfmt::skip]
const PACKET: [u8; 101] = [
    0x6b, 0x91, 0x23, 0x45, 0x00, 0x3d, 0x00, 0x40,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02,
    0x2b, 0x00, 0x05, 0x02, 0x00, 0x00, 0x01, 0x00,
    0x3c, 0x02, 0x00, 0x00, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x03,
    0x2c, 0x00, 0x01, 0x04, 0, 0, 0, 0,
    0x11, 0x00, 0x00, 0x01, 0xde, 0xad, 0xbe, 0xef,
    0x04, 0x00, 0x08, 0x68, 0x00, 0x0d, 0xab, 0xcd, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
];

/// Returns a packet with extension headers of these types, 8 bytes each, then 8 zero bytes.
fn packet_of(extensions: &[IpProtocol], upper_protocol: IpProtocol) -> Vec<u8> {
    let mut types = extensions.iter().chain([&upper_protocol]);
    let mut bytes = vec![0; HEADER_LEN];
    let payload_len = (extensions.len() as u16 + 1) * 8;
    Repr { next_header: *types.next().unwrap(), payload_len, ..Repr::default() }
        .emit(&mut bytes)
        .unwrap();
    for next_header in types {
        bytes.extend([next_header.0, 0, 0, 0, 0, 0, 0, 0]);
    }
    bytes.extend([0; 8]);
    bytes
}

fn upper(bytes: &[u8]) -> Result<Upper, Error> {
    Packet::new_checked(bytes).unwrap().upper()
}

/// `extensions` are the extension headers of the packet, without segments left.
fn upper_of(
    protocol: IpProtocol,
    offset: usize,
    fragment: Option<FragmentHeader>,
    extensions: &[IpProtocol],
) -> Upper {
    let mut set = ExtensionSet::EMPTY;
    extensions.iter().for_each(|kind| set.insert(*kind));
    Upper { protocol, offset, fragment, extensions: set, has_segments_left: false }
}

#[test]
fn packet_accessors_return_header_fields() {
    let packet = Packet::new_checked(&PACKET[..]).unwrap();
    assert_eq!((packet.traffic_class(), packet.flow_label()), (0xb9, 0x12345));
    assert_eq!((packet.payload_len(), packet.total_len()), (61, 101));
    assert_eq!((packet.next_header(), packet.hop_limit()), (IpProtocol::HOP_BY_HOP, 64));
    assert_eq!(packet.source(), "2001:db8::1".parse::<Ipv6Addr>().unwrap());
    assert_eq!(packet.destination(), "2001:db8::2".parse::<Ipv6Addr>().unwrap());
    let upper = packet.upper().unwrap();
    let fragment = FragmentHeader { offset: 0, more: true, ident: 0xdead_beef };
    let kinds: Vec<_> = packet.extensions().map(|header| header.unwrap().kind).collect();
    assert_eq!(upper, upper_of(IpProtocol::UDP, 88, Some(fragment), &kinds));
    assert_eq!(upper.fragment(), Fragment::First);
    assert_eq!(packet.into_payload(), &PACKET[40..]);
}

#[test]
fn view_and_setter_reject_inconsistent_lengths() {
    let view_error = |bytes: &[u8]| Packet::new_checked(bytes).map(|_| ()).unwrap_err();
    assert_eq!(view_error(&PACKET[..39]), Error::Truncated);
    assert_eq!(view_error(&PACKET[..100]), Error::Truncated);
    assert_eq!(view_error(&[0x45; 40]), Error::Malformed);
    let mut packet = Packet::new_checked(PACKET).unwrap();
    assert_eq!(packet.set_payload_len(62), Err(Error::Truncated));
    assert_eq!(packet.set_payload_len(0), Ok(()));
    assert_eq!(packet.upper(), Err(Error::Truncated)); // as for a jumbogram
}

#[test]
fn payload_excludes_padding() {
    let mut frame = PACKET.to_vec();
    frame.extend([0xee; 5]);
    assert_eq!(Packet::new_checked(frame).unwrap().payload(), &PACKET[40..]);
}

#[test]
fn upper_walks_eight_extensions_and_rejects_nine() {
    let options = [IpProtocol::DESTINATION_OPTIONS; 9];
    let eight = upper(&packet_of(&options[..8], IpProtocol::TCP)).unwrap();
    assert_eq!(eight, upper_of(IpProtocol::TCP, 104, None, &options));
    assert_eq!(upper(&packet_of(&options, IpProtocol::TCP)), Err(Error::ExtensionChainTooLong));
}

#[test]
fn upper_stops_at_esp_unknown_protocol_and_no_next_header() {
    for last in [IpProtocol::ESP, IpProtocol::NO_NEXT_HEADER, IpProtocol(253)] {
        let found = upper(&packet_of(&[IpProtocol::ROUTING], last)).unwrap();
        assert_eq!(found, upper_of(last, 48, None, &[IpProtocol::ROUTING]));
        assert_eq!(upper(&packet_of(&[], last)).unwrap().offset, 40);
    }
}

#[test]
fn misplaced_repeated_or_short_extension_is_malformed() {
    let late_hop_by_hop =
        packet_of(&[IpProtocol::DESTINATION_OPTIONS, IpProtocol::HOP_BY_HOP], IpProtocol::UDP);
    assert_eq!(upper(&late_hop_by_hop), Err(Error::Malformed));
    let two_fragment_headers =
        packet_of(&[IpProtocol::FRAGMENT, IpProtocol::FRAGMENT], IpProtocol::UDP);
    assert_eq!(upper(&two_fragment_headers), Err(Error::Malformed));
    assert_eq!(upper(&packet_of(&[IpProtocol::AH], IpProtocol::UDP)), Err(Error::Malformed));
}

#[test]
fn ah_length_is_in_units_of_4_bytes() {
    let mut bytes = packet_of(&[IpProtocol::AH, IpProtocol::DESTINATION_OPTIONS], IpProtocol::UDP);
    bytes[40] = IpProtocol::UDP.0;
    bytes[41] = 2; // AH of 16 bytes: the destination options become its ICV
    let found = upper(&bytes).unwrap();
    assert_eq!(found, upper_of(IpProtocol::UDP, 56, None, &[IpProtocol::AH]));
    bytes[41] = 4; // AH of 24 bytes, up to the end of the packet
    assert_eq!(upper(&bytes).unwrap().offset, 64);
    bytes[41] = 5;
    assert_eq!(upper(&bytes), Err(Error::Truncated));
}

#[test]
fn upper_stops_at_later_fragment() {
    let mut bytes = packet_of(&[IpProtocol::FRAGMENT], IpProtocol::DESTINATION_OPTIONS);
    bytes[42..44].copy_from_slice(&0x05a8u16.to_be_bytes()); // offset 1448, no more fragments
    let found = upper(&bytes).unwrap();
    let fragment = FragmentHeader { offset: 1448, more: false, ident: 0 };
    let headers = [IpProtocol::FRAGMENT, IpProtocol::DESTINATION_OPTIONS];
    assert_eq!(found, upper_of(IpProtocol::DESTINATION_OPTIONS, 48, Some(fragment), &headers));
    assert_eq!(found.fragment(), Fragment::Later);
}

#[test]
fn atomic_fragment_is_whole() {
    let found = upper(&packet_of(&[IpProtocol::FRAGMENT], IpProtocol::UDP)).unwrap();
    assert!(found.fragment.is_some());
    assert_eq!(found.fragment(), Fragment::Whole);
}

#[test]
fn decrement_hop_limit_stops_at_one() {
    let mut packet = Packet::new_checked(PACKET).unwrap();
    packet.set_hop_limit(2);
    assert_eq!(packet.decrement_hop_limit(), Some(1));
    assert_eq!(packet.decrement_hop_limit(), None);
    packet.set_hop_limit(0);
    assert_eq!(packet.decrement_hop_limit(), None);
    assert_eq!(packet.hop_limit(), 0);
}

#[test]
fn extensions_yields_headers_up_to_first_error() {
    let bytes = packet_of(&[IpProtocol::HOP_BY_HOP, IpProtocol::FRAGMENT], IpProtocol::UDP);
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    let content = &[0; 6][..];
    let (kind, next_header) = (IpProtocol::HOP_BY_HOP, IpProtocol::FRAGMENT);
    let options = ExtensionHeader { kind, next_header, content };
    let (kind, next_header) = (IpProtocol::FRAGMENT, IpProtocol::UDP);
    let fragment = ExtensionHeader { kind, next_header, content };
    assert_eq!(packet.extensions().collect::<Vec<_>>(), [Ok(options), Ok(fragment)]);
    let atomic = FragmentHeader { offset: 0, more: false, ident: 0 };
    assert_eq!((options.fragment(), fragment.fragment()), (None, Some(atomic)));

    let late_hop_by_hop =
        packet_of(&[IpProtocol::ROUTING, IpProtocol::HOP_BY_HOP], IpProtocol::UDP);
    let packet = Packet::new_checked(&late_hop_by_hop[..]).unwrap();
    let mut extensions = packet.extensions();
    assert!(extensions.next().unwrap().is_ok());
    assert_eq!(extensions.next(), Some(Err(Error::Malformed)));
    assert_eq!(extensions.next(), None);
}

#[test]
fn extension_emit_rejects_invalid_lengths() {
    let emit = |kind, content: &[u8]| {
        let header = ExtensionHeader { kind, next_header: IpProtocol::UDP, content };
        header.emit(&mut [0; 4096])
    };
    for len in [0, 5, 7, 2054] {
        assert_eq!(emit(IpProtocol::ROUTING, &vec![0; len]), Err(Error::Malformed), "{len}");
    }
    assert_eq!(emit(IpProtocol::ROUTING, &[0; 2046]), Ok(()));
    assert_eq!(emit(IpProtocol::AH, &[0; 6]), Err(Error::Malformed));
    assert_eq!(emit(IpProtocol::AH, &[0; 10]), Ok(()));
    assert_eq!(emit(IpProtocol::FRAGMENT, &[0; 14]), Err(Error::Malformed));
    assert_eq!(emit(IpProtocol::UDP, &[0; 6]), Err(Error::Malformed));
    let fragment = FragmentHeader { offset: 4, more: false, ident: 0 };
    assert_eq!(fragment.emit(IpProtocol::UDP, &mut [0; 8]), Err(Error::Malformed));
    let fragment = FragmentHeader { offset: 8, ..fragment };
    assert_eq!(fragment.emit(IpProtocol::UDP, &mut [0; 7]), Err(Error::Truncated));
}

/// If `bytes` is valid, asserts consistent lengths, and that emitting its parsed extension headers
/// gives the same bytes.
fn check_view(bytes: &[u8]) {
    let Ok(packet) = Packet::new_checked(bytes) else { return };
    assert_eq!(packet.payload().len(), usize::from(packet.payload_len()));
    let mut emitted = Vec::new();
    for header in packet.extensions().map_while(Result::ok) {
        let at = emitted.len();
        emitted.resize(at + header.header_len(), 0xee);
        header.emit(&mut emitted[at..]).unwrap();
        let original = &packet.payload()[at..emitted.len()];
        if let Some(fragment) = header.fragment() {
            // `FragmentHeader` does not keep reserved bits.
            let mut bytes = [0xee; FragmentHeader::LEN];
            fragment.emit(header.next_header, &mut bytes).unwrap();
            assert_eq!((bytes[0], &bytes[4..]), (original[0], &original[4..]));
            assert_eq!([bytes[2], bytes[3]], [original[2], original[3] & 0xf9]);
            emitted[at + 1] = original[1];
        }
        assert_eq!(emitted[at..], *original);
    }
    assert_eq!(packet.extensions().all(|header| header.is_ok()), packet.upper().is_ok());
    if let Ok(upper) = packet.upper() {
        assert_eq!(upper.offset, HEADER_LEN + emitted.len());
        assert!((HEADER_LEN..=packet.total_len()).contains(&upper.offset));
    }
    let mut packet = Packet::new_checked(bytes.to_vec()).unwrap();
    packet.decrement_hop_limit();
    packet.payload_mut().fill(0);
}

proptest! {
    #[test]
    fn view_of_any_bytes_does_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_view(&bytes);
        if let Some(header) = bytes.first_chunk_mut::<7>() {
            header[0] = 0x60;
            header[4] = 0;
            check_view(&bytes);
        }
    }

    #[test]
    fn view_of_changed_packet_does_not_panic(at in 0..101usize, value: u8, len in 0..=101usize, payload_len in 0u8..62) {
        let mut bytes = PACKET;
        bytes[at] = value;
        check_view(&bytes[..len]);
        bytes[5] = payload_len;
        check_view(&bytes);
    }

    #[test]
    fn emit_and_parse_roundtrip(
        (traffic_class, flow_label, next_header, hop_limit) in (any::<u8>(), 0u32..1 << 20, any::<u8>(), any::<u8>()),
        (source, destination) in (any::<u128>(), any::<u128>()),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let repr = Repr {
            traffic_class, flow_label, hop_limit,
            next_header: IpProtocol(next_header),
            source: source.into(),
            destination: destination.into(),
            payload_len: payload.len() as u16,
        };
        let mut bytes = vec![0xee; HEADER_LEN];
        bytes.extend(&payload);
        repr.emit(&mut bytes).unwrap();
        let mut packet = Packet::new_checked(bytes).unwrap();
        prop_assert_eq!(packet.payload(), &payload[..]);
        prop_assert_eq!(Repr::parse(&packet), repr);
        prop_assert_eq!((repr.buffer_len(), repr.addresses()), (packet.total_len(), packet.addresses()));
        packet.set_traffic_class(!traffic_class);
        prop_assert_eq!((packet.traffic_class(), packet.flow_label()), (!traffic_class, flow_label));
        prop_assert!(Packet::new_checked(packet.into_inner()).is_ok());
    }
}
