use super::*;
use proptest::prelude::*;

// bytes(IP(src="192.0.2.1", dst="198.51.100.2", tos=0xb9, id=0x1234, flags="DF", ttl=64,
//          options=[IPOption_NOP(), IPOption_RR(pointer=4, routers=["0.0.0.0"])])
//       /UDP(sport=1024, dport=2152)/b"hello")
#[rustfmt::skip]
const PACKET: [u8; 41] = [
    0x47, 0xb9, 0x00, 0x29, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x31, 0x95, // version .. checksum
    0xc0, 0x00, 0x02, 0x01, 0xc6, 0x33, 0x64, 0x02,                         // addresses
    0x01, 0x07, 0x07, 0x04, 0x00, 0x00, 0x00, 0x00,                         // options
    0x04, 0x00, 0x08, 0x68, 0x00, 0x0d, 0xc3, 0x62, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
];

fn packet_with(at: usize, value: u8) -> [u8; 41] {
    let mut packet = PACKET;
    packet[at] = value;
    packet
}

fn view_error<T: AsRef<[u8]>>(packet: T) -> Error {
    Packet::new_checked(packet).map(|_| ()).unwrap_err()
}

#[test]
fn packet_accessors_return_header_fields() {
    let packet = Packet::new_checked(&PACKET[..]).unwrap();
    assert_eq!((packet.header_len(), packet.total_len()), (28, 41));
    assert_eq!((packet.dscp(), packet.ecn(), packet.ident()), (46, 1, 0x1234));
    assert!(packet.dont_fragment() && !packet.more_fragments());
    assert_eq!((packet.fragment_offset(), packet.fragment()), (0, Fragment::Whole));
    assert_eq!((packet.ttl(), packet.protocol()), (64, IpProtocol::UDP));
    assert_eq!(packet.source(), Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(packet.destination(), Ipv4Addr::new(198, 51, 100, 2));
    assert_eq!(packet.options(), &PACKET[20..28]);
    assert!(packet.verify_checksum());
    assert!(!Packet::new_checked(packet_with(field::TTL, 63)).unwrap().verify_checksum());
    assert_eq!(packet.into_payload(), &PACKET[28..]);
}

#[test]
fn fragment_variant_depends_on_offset_and_flag() {
    let read = |field: u16| {
        let mut bytes = PACKET;
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        let packet = Packet::new_checked(bytes).unwrap();
        (packet.fragment_offset(), packet.more_fragments(), packet.fragment())
    };
    assert_eq!(read(0xc000), (0, false, Fragment::Whole));
    assert_eq!(read(0x2000), (0, true, Fragment::First));
    assert_eq!(read(0x2001), (8, true, Fragment::Later));
    assert_eq!(read(0x1fff), (65_528, false, Fragment::Later));
}

#[test]
fn payload_excludes_padding() {
    let mut frame = [0xee; 46];
    frame[..41].copy_from_slice(&PACKET);
    assert_eq!(Packet::new_checked(frame).unwrap().payload(), &PACKET[28..]);
}

#[test]
fn view_rejects_inconsistent_lengths() {
    assert_eq!(view_error(&PACKET[..19]), Error::Truncated);
    assert_eq!(view_error(&PACKET[..40]), Error::Truncated);
    assert_eq!(view_error(packet_with(0, 0x67)), Error::Malformed); // version 6
    assert_eq!(view_error(packet_with(0, 0x44)), Error::Malformed); // header 16 bytes
    assert_eq!(view_error(packet_with(0, 0x4f)), Error::Malformed); // header 60, total 41 bytes
    assert_eq!(view_error(packet_with(3, 27)), Error::Malformed); // total 27, header 28 bytes
    assert_eq!(view_error(packet_with(3, 42)), Error::Truncated);
    assert!(Packet::new_checked(packet_with(3, 28)).unwrap().payload().is_empty());
}

#[test]
fn set_total_len_rejects_invalid_lengths() {
    let mut packet = Packet::new_checked(PACKET).unwrap();
    assert_eq!(packet.set_total_len(27), Err(Error::Malformed));
    assert_eq!(packet.set_total_len(42), Err(Error::Truncated));
    assert_eq!(packet.total_len(), 41);
    assert_eq!(packet.set_total_len(28), Ok(()));
    assert!(packet.payload_mut().is_empty());
}

#[test]
fn decrement_ttl_of_expired_packet_changes_nothing() {
    for ttl in [0, 1] {
        let mut packet = Packet::new_checked(packet_with(field::TTL, ttl)).unwrap();
        assert_eq!(packet.decrement_ttl(), None);
        assert_eq!(packet.into_inner(), packet_with(field::TTL, ttl));
    }
}

/// The checksum takes every value that a sender can compute, 0x0000 to 0xfffe. The 16-bit word
/// with time to live and protocol takes values up to 0xffff.
#[test]
fn decrement_ttl_equals_recomputation_for_every_checksum() {
    let mut seen = vec![false; 0x1_0000];
    for (ttl, protocol) in [(2, 0), (64, 17), (255, 255), (128, 6)] {
        for ident in 0..=u16::MAX {
            let mut packet = Packet::new_checked(PACKET).unwrap();
            packet.set_ttl(ttl);
            packet.set_protocol(IpProtocol(protocol));
            packet.set_ident(ident);
            packet.fill_checksum();
            seen[usize::from(packet.checksum())] = true;
            assert_eq!(packet.decrement_ttl(), Some(ttl - 1));
            let updated = packet.checksum();
            packet.fill_checksum();
            assert_eq!(
                updated,
                packet.checksum(),
                "ttl {ttl}, protocol {protocol}, ident {ident:#06x}"
            );
        }
    }
    assert_eq!(seen.iter().position(|is_seen| !is_seen), Some(0xffff));
}

/// No sender computes the checksum 0xffff (negative zero), but receivers accept it for 0x0000. The
/// updated checksum must equal a recomputation.
#[test]
fn decrement_ttl_of_checksum_0xffff_equals_recomputation() {
    let packet_with_checksum_0 = (0..=u16::MAX).find_map(|ident| {
        let mut packet = Packet::new_checked(PACKET).unwrap();
        packet.set_ident(ident);
        packet.fill_checksum();
        (packet.checksum() == 0).then(|| packet.into_inner())
    });
    let mut bytes = packet_with_checksum_0.unwrap();
    bytes[10..12].copy_from_slice(&[0xff, 0xff]);
    let mut packet = Packet::new_checked(bytes).unwrap();
    assert!(packet.verify_checksum());
    packet.decrement_ttl().unwrap();
    let updated = packet.checksum();
    packet.fill_checksum();
    assert_eq!(updated, packet.checksum());
}

/// If `bytes` is valid, asserts consistent lengths and correct checksum updates.
fn check_view(bytes: &[u8]) {
    let Ok(packet) = Packet::new_checked(bytes) else { return };
    assert_eq!(packet.header_len() + packet.payload().len(), usize::from(packet.total_len()));
    assert_eq!(packet.options().len(), packet.header_len() - HEADER_LEN);
    let _ = (packet.verify_checksum(), packet.fragment(), packet.addresses(), packet.checksum());
    let mut packet = Packet::new_checked(bytes.to_vec()).unwrap();
    let was_valid = packet.verify_checksum();
    if packet.decrement_ttl().is_some() {
        assert_eq!(packet.verify_checksum(), was_valid);
    }
    packet.fill_checksum();
    assert!(packet.verify_checksum());
    packet.payload_mut().fill(0);
}

proptest! {
    #[test]
    fn view_of_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_view(&bytes);
    }

    #[test]
    fn view_of_changed_packet_does_not_panic(at in 0..41usize, value: u8, len in 0..=41usize) {
        check_view(&packet_with(at, value)[..len]);
    }

    #[test]
    fn emit_and_parse_roundtrip(
        (dscp, ecn, ident, dont_fragment, ttl) in (0u8..64, 0u8..4, any::<u16>(), any::<bool>(), any::<u8>()),
        (protocol, source, destination) in (any::<u8>(), any::<u32>(), any::<u32>()),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let repr = Repr {
            dscp, ecn, ident, dont_fragment, ttl,
            protocol: IpProtocol(protocol),
            source: source.into(),
            destination: destination.into(),
            payload_len: payload.len() as u16,
        };
        let mut bytes = vec![0xee; HEADER_LEN];
        bytes.extend(&payload);
        repr.emit(&mut bytes).unwrap();
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        prop_assert!(packet.verify_checksum());
        prop_assert_eq!(packet.payload(), &payload[..]);
        prop_assert_eq!(packet.fragment(), Fragment::Whole);
        prop_assert_eq!(Repr::parse(&packet), Some(repr));
        prop_assert_eq!((repr.buffer_len(), repr.addresses()), (bytes.len(), packet.addresses()));
        let mut emitted = vec![0xee; repr.header_len()];
        Repr::parse(&packet).unwrap().emit(&mut emitted).unwrap();
        prop_assert_eq!(&emitted[..], &bytes[..HEADER_LEN]);
    }

    #[test]
    fn setters_and_getters_agree(dscp in 0u8..64, ecn in 0u8..4, source: u32, destination: u32) {
        let mut packet = Packet::new_checked(PACKET).unwrap();
        packet.set_dscp(dscp);
        packet.set_ecn(ecn);
        packet.set_source(source.into());
        packet.set_destination(destination.into());
        prop_assert_eq!((packet.dscp(), packet.ecn()), (dscp, ecn));
        prop_assert_eq!((packet.source(), packet.destination()), (source.into(), destination.into()));
    }
}

#[test]
fn repr_of_packet_with_options_or_of_fragment_is_none() {
    assert_eq!(Repr::parse(&Packet::new_checked(PACKET).unwrap()), None);
    let mut bytes = [0; HEADER_LEN];
    Repr::default().emit(&mut bytes).unwrap();
    assert_eq!(Repr::parse(&Packet::new_checked(bytes).unwrap()), Some(Repr::default()));
    bytes[6] = 0x20;
    assert_eq!(Repr::parse(&Packet::new_checked(bytes).unwrap()), None);
}

#[test]
fn emit_rejects_too_long_payload_and_short_buffer() {
    let repr = Repr { payload_len: 65_516, ..Repr::default() };
    assert_eq!(repr.emit(&mut [0; 20]), Err(Error::Malformed));
    assert_eq!(Repr::default().emit(&mut [0; 19]), Err(Error::Truncated));
}
