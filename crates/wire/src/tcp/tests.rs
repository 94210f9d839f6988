use super::*;
use proptest::prelude::*;

const ADDRESSES: Addresses = Addresses::V4 {
    source: core::net::Ipv4Addr::new(192, 0, 2, 1),
    destination: core::net::Ipv4Addr::new(198, 51, 100, 2),
};

// bytes(IP(src="192.0.2.1", dst="198.51.100.2")/TCP(sport=48896, dport=80, seq=0x01020304,
// ack=0x05060708,
// flags="SECU", window=0x1000, urgptr=7, options=[("MSS", 1460)])/b"hi")[20:]
#[rustfmt::skip]
const PACKET: [u8; 26] = [
    0xbf, 0x00, 0x00, 0x50, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
    0x60, 0xe2, 0x10, 0x00, 0x63, 0x38, 0x00, 0x07, 0x02, 0x04, 0x05, 0xb4, 0x68, 0x69,
];

fn packet_with_data_offset(words: u8) -> [u8; 26] {
    let mut packet = PACKET;
    packet[12] = words << 4;
    packet
}

#[test]
fn packet_accessors_return_header_fields() {
    let packet = Packet::new_checked(&PACKET[..]).unwrap();
    assert_eq!((packet.source_port(), packet.destination_port()), (48896, 80));
    assert_eq!((packet.sequence(), packet.acknowledgment()), (0x01020304, 0x05060708));
    assert_eq!(packet.flags(), Flags::SYN | Flags::ECE | Flags::CWR | Flags::URG);
    assert!(
        packet.flags().contains(Flags::SYN | Flags::URG)
            && !packet.flags().contains(Flags::SYN | Flags::ACK)
    );
    assert!(packet.verify_checksum(ADDRESSES));
    assert_eq!(packet.options(), [2, 4, 5, 0xb4]);
    assert_eq!(packet.into_payload(), b"hi");
}

#[test]
fn view_rejects_short_buffer_and_invalid_data_offset() {
    let view_error = |bytes: &[u8]| Packet::new_checked(bytes).map(|_| ()).unwrap_err();
    assert_eq!(view_error(&PACKET[..19]), Error::Truncated);
    assert_eq!(view_error(&packet_with_data_offset(4)), Error::Malformed);
    assert_eq!(view_error(&packet_with_data_offset(7)), Error::Truncated);
    assert_eq!(view_error(&PACKET[..23]), Error::Truncated);
    assert!(Packet::new_checked(&PACKET[..24]).unwrap().payload().is_empty());
}

#[test]
fn fill_checksum_equals_checksum_of_scapy() {
    let mut packet = Packet::new_checked(PACKET).unwrap();
    packet.set_source_port(1);
    assert!(!packet.verify_checksum(ADDRESSES));
    packet.set_source_port(48896);
    packet.set_destination_port(80);
    packet.fill_checksum(ADDRESSES);
    assert_eq!(packet.into_inner(), PACKET);
}

#[test]
fn repr_with_checksum_equals_segment_of_scapy() {
    let repr = Repr {
        source_port: 48896,
        destination_port: 80,
        sequence: 0x01020304,
        acknowledgment: 0x05060708,
        flags: Flags::SYN | Flags::ECE | Flags::CWR | Flags::URG,
        window: 0x1000,
        urgent: 7,
        options: &[2, 4, 5, 0xb4],
        payload_len: 2,
    };
    assert_eq!(Repr::parse(&Packet::new_checked(PACKET).unwrap()), Ok(repr));
    let mut bytes = PACKET;
    bytes[..24].fill(0xee);
    assert_eq!(repr.emit_with_checksum(&mut bytes[..25], ADDRESSES), Err(Error::Truncated));
    assert_eq!(repr.emit(&mut bytes[..23]), Err(Error::Truncated));
    assert_eq!(bytes[..24], [0xee; 24]);
    repr.emit_with_checksum(&mut bytes, ADDRESSES).unwrap();
    assert_eq!(bytes, PACKET);
}

#[test]
fn emit_and_parse_reject_too_long_segments() {
    let mut bytes = vec![0; 65_536];
    let long_options = Repr { options: &[1; 41], ..Repr::default() };
    assert_eq!(long_options.emit(&mut bytes), Err(Error::Malformed));
    let long_payload = Repr { payload_len: 65_516, ..Repr::default() };
    assert_eq!(long_payload.emit_with_checksum(&mut bytes, ADDRESSES), Err(Error::Malformed));
    assert_eq!(
        Repr::parse(&Packet::new_checked(segment_with_payload(65_516)).unwrap()),
        Err(Error::Malformed)
    );
    assert!(Repr::parse(&Packet::new_checked(segment_with_payload(65_515)).unwrap()).is_ok());
}

fn segment_with_payload(len: usize) -> Vec<u8> {
    let mut segment = vec![0; HEADER_LEN + len];
    segment[12] = 0x50;
    segment
}

/// Pads the options with END, and adds four bytes of payload and a valid checksum.
fn segment_with_options(options: &[u8]) -> Vec<u8> {
    let mut packet = PACKET[..HEADER_LEN].to_vec();
    packet.extend_from_slice(options);
    packet.resize(packet.len().next_multiple_of(4), option::END);
    packet[12] = (packet.len() as u8 / 4) << 4;
    packet.extend_from_slice(b"data");
    Packet::new_checked(&mut packet[..]).unwrap().fill_checksum(ADDRESSES);
    packet
}

/// Returns the result and the new options. Asserts a valid checksum and that no other byte changed.
fn lower_mss_in(options: &[u8], max: u16) -> (Result<bool, Error>, Vec<u8>) {
    let before = segment_with_options(options);
    let mut after = Packet::new_checked(before.clone()).unwrap();
    let result = after.lower_mss(max);
    assert!(after.verify_checksum(ADDRESSES));
    assert_eq!(after.options().len(), options.len().next_multiple_of(4));
    let options_after = after.options()[..options.len()].to_vec();
    let mut restored = after.into_inner();
    restored[16..18].copy_from_slice(&before[16..18]);
    restored[HEADER_LEN..HEADER_LEN + options.len()].copy_from_slice(options);
    assert_eq!(restored, before);
    (result, options_after)
}

#[test]
fn lower_mss_lowers_larger_value_at_any_offset() {
    assert_eq!(lower_mss_in(&[2, 4, 0x05, 0xb4], 1400), (Ok(true), vec![2, 4, 0x05, 0x78]));
    assert_eq!(lower_mss_in(&[1, 2, 4, 0xff, 0xff, 1], 88), (Ok(true), vec![1, 2, 4, 0, 88, 1]));
    // After window scale, an unknown option and a no-operation.
    let before = [3, 3, 7, 254, 5, 1, 2, 3, 1, 2, 4, 0x23, 0x28, 4, 2];
    let mut expected = before.to_vec();
    expected[11..13].copy_from_slice(&[0x22, 0x60]);
    assert_eq!(lower_mss_in(&before, 0x2260), (Ok(true), expected));
    // Options at even, odd and odd offsets; only the second value is small.
    let three_options = [2, 4, 0x10, 0, 1, 2, 4, 1, 0, 2, 4, 0x20, 0];
    assert_eq!(
        lower_mss_in(&three_options, 0x0fff),
        (Ok(true), vec![2, 4, 0x0f, 0xff, 1, 2, 4, 1, 0, 2, 4, 0x0f, 0xff])
    );
}

#[test]
fn lower_mss_keeps_smaller_or_missing_mss() {
    for options in
        [&[][..], &[2, 4, 0x05, 0xb4], &[2, 4, 0, 0], &[1, 1, 4, 2], &[0, 2, 4, 0xff, 0xff]]
    {
        assert_eq!(lower_mss_in(options, 1460), (Ok(false), options.to_vec()));
    }
}

#[test]
fn lower_mss_with_malformed_options_changes_nothing() {
    const LARGE: [u8; 4] = [2, 4, 0xff, 0xff];
    let after_large_mss = |options: &[u8]| [&LARGE[..], options].concat();
    // Lengths 0, 1 and beyond the header; a missing length; maximum segment size options of three
    // and six bytes.
    for options in [
        &[3, 0][..],
        &[3, 1, 1, 1],
        &[3, 5, 7, 1],
        &[1, 1, 1, 3],
        &[2, 3, 9, 1],
        &[2, 6, 9, 9, 9, 9],
    ] {
        assert_eq!(
            lower_mss_in(&after_large_mss(options), 100),
            (Err(Error::Malformed), after_large_mss(options)),
            "{options:?}"
        );
    }
}

proptest! {
    #[test]
    fn view_of_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = Packet::new_checked(&bytes[..]) {
            prop_assert_eq!(HEADER_LEN + packet.options().len() + packet.payload().len(), bytes.len());
            let mut packet = Packet::new_checked(bytes.clone()).unwrap();
            packet.fill_checksum(ADDRESSES);
            prop_assert!(packet.verify_checksum(ADDRESSES));
        }
    }

    #[test]
    fn parsed_header_equals_emitted_header(
        ((source_port, destination_port), (sequence, acknowledgment), flags) in (any::<(u16, u16)>(), any::<(u32, u32)>(), any::<u8>()),
        (window, urgent) in (any::<u16>(), any::<u16>()),
        options in prop::collection::vec(any::<u8>(), 0..=40),
        payload in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let repr = Repr {
            source_port,
            destination_port,
            sequence,
            acknowledgment,
            flags: Flags(flags),
            window,
            urgent,
            options: &options,
            payload_len: payload.len() as u16,
        };
        let mut bytes = vec![0xee; repr.header_len()];
        bytes.extend(&payload);
        repr.emit_with_checksum(&mut bytes, ADDRESSES).unwrap();
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        prop_assert!(packet.verify_checksum(ADDRESSES));
        prop_assert_eq!(packet.payload(), &payload[..]);
        let parsed = Repr::parse(&packet).unwrap();
        prop_assert!(parsed.options.starts_with(&options));
        prop_assert_eq!(parsed, Repr { options: parsed.options, ..repr });
        let mut emitted = bytes.clone();
        emitted[..parsed.header_len()].fill(0xee);
        parsed.emit_with_checksum(&mut emitted, ADDRESSES).unwrap();
        prop_assert_eq!(emitted, bytes);
    }

    #[test]
    fn lower_mss_changes_only_value_and_checksum(
        options in prop::collection::vec(prop_oneof![
            4 => any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
            2 => Just(vec![1]),
            2 => (5..=255u8, prop::collection::vec(any::<u8>(), 0..6))
                .prop_map(|(kind, value)| [&[kind, value.len() as u8 + 2][..], &value].concat()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ], 0..8),
        max: u16,
    ) {
        let mut options = options.concat();
        options.truncate(40);
        let (result, after) = lower_mss_in(&options, max);
        let changed: Vec<_> = (0..options.len()).filter(|&at| options[at] != after[at]).collect();
        prop_assert_eq!(result.unwrap_or(false), !changed.is_empty());
        for at in changed {
            let value = (at.max(1) - 1..=at).find(|&at| after.get(at..at + 2) == Some(&max.to_be_bytes()[..]));
            let old = value.map(|at| u16::from_be_bytes([options[at], options[at + 1]]));
            prop_assert!(old.is_some_and(|old| old > max), "{:?} to {:?}", options, after);
        }
        prop_assert_eq!(lower_mss_in(&after, max).0.unwrap_or(false), false);
    }
}
