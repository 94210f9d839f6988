//! Tests captures that scapy does not write. tests/filter_captures.rs compares the verdicts on
//! other captures with tshark.

use std::io::{self, Cursor, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::record::{ByteOrder, MAX_PACKET_BYTES};
use super::*;

/// A writer of captures in either byte order.
struct Writer {
    order: ByteOrder,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(order: ByteOrder) -> Self {
        Self { order, bytes: Vec::new() }
    }

    fn u16(mut self, value: u16) -> Self {
        let swap = self.order == ByteOrder::Big;
        self.bytes.extend(if swap { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn u32(mut self, value: u32) -> Self {
        let swap = self.order == ByteOrder::Big;
        self.bytes.extend(if swap { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn pcap_header(self, magic: u32, version: (u16, u16), network: u32) -> Self {
        let snap_len = 65_535;
        self.u32(magic).u16(version.0).u16(version.1).u32(0).u32(0).u32(snap_len).u32(network)
    }

    fn block(self, kind: u32, body: &[u8]) -> Self {
        let padding = body.len().next_multiple_of(4) - body.len();
        let length = (body.len() + padding + FRAMING_BYTES) as u32;
        self.u32(kind).u32(length).raw(body).raw(&[0; 3][..padding]).u32(length)
    }

    fn section(self) -> Self {
        let body = Self::new(self.order).u32(0x1a2b_3c4d).u16(1).u16(0).raw(&[0xff; 8]).bytes;
        self.block(pcapng::SECTION_HEADER, &body)
    }

    fn interface(self, link_type: u16, snap_len: u32, options: &[(u16, &[u8])]) -> Self {
        let mut body = Self::new(self.order).u16(link_type).u16(0).u32(snap_len);
        for (code, value) in options {
            let padding = value.len().next_multiple_of(4) - value.len();
            body = body.u16(*code).u16(value.len() as u16).raw(value).raw(&[0; 3][..padding]);
        }
        self.block(1, &body.bytes)
    }

    fn packet(self, interface: u32, time: u64, data: &[u8], original: u32) -> Self {
        let body = Self::new(self.order).u32(interface).u32((time >> 32) as u32).u32(time as u32);
        let body = body.u32(data.len() as u32).u32(original).raw(data).bytes;
        self.block(6, &body)
    }
}

const FRAMING_BYTES: usize = 12;
const BOTH: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

fn read_bytes(bytes: &[u8]) -> (Vec<Record>, Result<(), String>) {
    let mut records = Vec::new();
    let result = read_from(Box::new(Cursor::new(bytes.to_vec())), &mut |record| {
        records.push(record);
        Ok(())
    });
    (records, result.map_err(|end| end.describe("a.pcap").to_string()))
}

fn read_all(bytes: &[u8]) -> Vec<Record> {
    let (records, result) = read_bytes(bytes);
    assert_eq!(result, Ok(()));
    records
}

fn packet(time: i128, bytes: &[u8]) -> Record {
    let (bytes, length) = (bytes.to_vec(), bytes.len());
    Record::Packet(CapturedPacket { time: Some(time), bytes, length })
}

fn skipped(text: &str) -> Record {
    Record::Skipped(Skip::from_reason(text.to_owned()))
}

fn skipped_as(reason: &'static str, text: &str) -> Record {
    Record::Skipped(Skip::new(text.to_owned(), reason))
}

#[test]
fn pcap_variants_of_both_byte_orders_are_read() {
    for order in BOTH {
        for (magic, extra_record_header, nanoseconds) in
            [(0xa1b2_c3d4, 0, 5000), (0xa1b2_3c4d, 0, 5), (0xa1b2_cd34, 8, 5000)]
        {
            let bytes = Writer::new(order)
                .pcap_header(magic, (2, 4), 1)
                .u32(7)
                .u32(5)
                .u32(3)
                .u32(3)
                .raw(&[0; 8][..extra_record_header])
                .raw(&[1, 2, 3])
                .bytes;
            let expected = [Record::Interface, packet(7_000_000_000 + nanoseconds, &[1, 2, 3])];
            assert_eq!(read_all(&bytes), expected, "{order:?} {magic:#x}");
        }
        let ixia = Writer::new(order).pcap_header(0x1c00_01ac, (2, 4), 1).u32(19);
        let ixia = ixia.u32(0).u32(5).u32(3).u32(3).raw(&[1, 2, 3]).bytes;
        assert_eq!(read_all(&ixia)[1], packet(5, &[1, 2, 3]));
    }
}

/// The formats `nokiapcap`, `rh6_1pcap` and `suse6_3pcap` of `editcap -F` have longer record
/// headers, but the magics of other variants.
#[test]
fn pcap_variant_with_longer_record_headers_is_detected() {
    for (magic, extra) in
        [(0xa1b2_c3d4, 4), (0xa1b2_c3d4, 8), (0xa1b2_cd34, 12), (0xa1b2_c3d4, 0), (0xa1b2_cd34, 8)]
    {
        for packets in [1, 2, 5] {
            let mut writer = Writer::new(ByteOrder::Little).pcap_header(magic, (2, 4), 1);
            for _ in 0..packets {
                let time = 1_700_000_000;
                writer =
                    writer.u32(time).u32(5).u32(60).u32(60).raw(&[0; 12][..extra]).raw(&[7; 60]);
            }
            let records = read_all(&writer.bytes);
            assert_eq!(records.len(), 1 + packets, "{magic:#x}, {extra} more bytes");
            let expected = packet(1_700_000_000_000_005_000, &[7; 60]);
            assert!(records[1..].iter().all(|record| *record == expected));
        }
    }
}

/// Early versions of libpcap wrote the original length before the captured length.
#[test]
fn old_pcap_has_original_length_first() {
    for version in [(2, 2), (2, 3), (543, 0)] {
        let writer = Writer::new(ByteOrder::Big).pcap_header(0xa1b2_c3d4, version, 1);
        let bytes = writer.u32(0).u32(0).u32(5).u32(3).raw(&[1, 2, 3]).bytes;
        let truncated = CapturedPacket { time: Some(0), bytes: vec![1, 2, 3], length: 5 };
        assert_eq!(read_all(&bytes), [Record::Interface, Record::Packet(truncated)], "{version:?}");
    }
}

#[test]
fn frame_check_sequence_is_removed() {
    let network = 0x2400_0001; // Ethernet, FCS of two 16-bit words
    let bytes = Writer::new(ByteOrder::Little).pcap_header(0xa1b2_c3d4, (2, 4), network);
    let bytes = bytes.u32(0).u32(0).u32(6).u32(6).raw(&[1, 2, 3, 4, 5, 6]).bytes;
    assert_eq!(read_all(&bytes), [Record::Interface, packet(0, &[1, 2])]);
    let bytes = Writer::new(ByteOrder::Little).section().interface(1, 0, &[(13, &[4])]);
    assert_eq!(read_all(&bytes.packet(0, 0, &[1; 6], 6).bytes)[1], packet(0, &[1, 1]));
}

#[test]
fn pcapng_time_units_are_exact_to_the_nanosecond() {
    let minus_two = (-2_i64).to_be_bytes();
    type Options<'o> = &'o [(u16, &'o [u8])];
    let cases: [(Options<'_>, u64, i128); 9] = [
        (&[], 1_700_000_000_123_457, 1_700_000_000_123_457_000),
        (&[(9, &[9])], 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (&[(9, &[0])], 3, 3_000_000_000),
        (&[(9, &[12])], 1_999, 1),
        (&[(9, &[127])], u64::MAX, 0),
        (&[(9, &[0x80 | 10])], 1, 976_562),
        (&[(9, &[0x80 | 63])], 1 << 63, 1_000_000_000),
        (&[(9, &[3]), (14, &minus_two)], 5_000, 3_000_000_000),
        (&[(14, &i64::MIN.to_be_bytes())], 0, i64::MIN as i128 * 1_000_000_000),
    ];
    for (options, time, expected) in cases {
        let writer = Writer::new(ByteOrder::Big).section().interface(1, 0, options);
        let records = read_all(&writer.packet(0, time, &[1], 1).bytes);
        assert_eq!(records[1], packet(expected, &[1]), "{options:?}");
    }
}

#[test]
fn sections_of_different_byte_order_have_their_own_interfaces() {
    let mut bytes = Vec::new();
    for (order, link_type) in [(ByteOrder::Big, 228), (ByteOrder::Little, 1)] {
        let section = Writer::new(order).section().interface(link_type, 0, &[]);
        bytes.extend(section.packet(0, 1, &[9], 1).packet(1, 1, &[9], 1).bytes);
    }
    let ipv4 = [&[0; 12][..], &[8, 0, 9]].concat();
    let missing = skipped_as(
        "interface that the capture does not describe",
        "interface 1, which the capture does not describe",
    );
    let expected = [
        Record::Interface,
        packet(1000, &ipv4),
        missing.clone(),
        Record::Interface,
        packet(1000, &[9]),
        missing,
    ];
    assert_eq!(read_all(&bytes), expected);
}

#[test]
fn simple_and_obsolete_packet_blocks_are_read() {
    for order in BOTH {
        let simple = Writer::new(order).u32(5).raw(&[1, 2, 3, 0]).bytes;
        let obsolete = Writer::new(order).u16(0).u16(9).u32(0).u32(4).u32(1).u32(1).raw(&[7]).bytes;
        let writer = Writer::new(order).section().interface(1, 3, &[]);
        // Blocks of unknown types, name resolution and statistics have no packet.
        let writer =
            writer.block(3, &simple).block(0x7777, &[1; 9]).block(4, &[]).block(5, &[0; 12]);
        let records = read_all(&writer.block(2, &obsolete).block(9, b"A=B\n").bytes);
        let without_time = CapturedPacket { time: None, bytes: vec![1, 2, 3], length: 5 };
        let journal = skipped("block type 0x9: not a packet");
        assert_eq!(
            records,
            [Record::Interface, Record::Packet(without_time), packet(4000, &[7]), journal]
        );
    }
}

#[test]
fn damaged_blocks_are_skipped_and_the_rest_is_read() {
    let writer = Writer::new(ByteOrder::Little).section().interface(1, 0, &[]);
    let block_offset = writer.bytes.len();
    let captured_too_long =
        Writer::new(ByteOrder::Little).u32(0).u32(0).u32(0).u32(99).u32(99).bytes;
    let writer = writer.block(6, &captured_too_long).block(6, &[0; 4]).block(1, &[1, 0]);
    let time_unit_without_value: (u16, &[u8]) = (9, &[]);
    let writer = writer.interface(1, 0, &[time_unit_without_value]).packet(1, 0, &[1], 1);
    let records = read_all(&writer.packet(0, 0, &[2], 1).bytes);
    assert_eq!(
        records[1],
        skipped_as("damaged block", &format!("damaged block at byte {block_offset}"))
    );
    assert!(matches!(&records[2], Record::Skipped(_)));
    for (record, name) in [(&records[3], "interface 1"), (&records[4], "interface 2")] {
        let text = format!("{name}: damaged block; its packets are skipped");
        assert_eq!(*record, Record::UnreadableInterface(text));
    }
    assert_eq!(records[5], skipped("damaged interface block"));
    assert_eq!(records[6], packet(0, &[2]));
}

#[test]
fn packets_without_ethernet_header_become_ethernet_frames() {
    let (ipv4, ipv6) = (&[0x45, 1, 2][..], &[0x60, 1, 2][..]);
    let frame = |ethertype: &[u8], payload: &[u8]| Ok([&[0; 12][..], ethertype, payload].concat());
    let (v4, v6) = ([8, 0], [0x86, 0xdd]);
    for link_type in [12, 14, 101] {
        assert_eq!(link::to_ethernet(link_type, ipv4), frame(&v4, ipv4));
        assert_eq!(link::to_ethernet(link_type, ipv6), frame(&v6, ipv6));
        let error = Err(Skip::from_reason(format!("link type {link_type}: neither IPv4 nor IPv6")));
        assert_eq!(link::to_ethernet(link_type, &[0x15]), error);
        assert_eq!(link::to_ethernet(link_type, &[]), error);
    }
    assert_eq!(link::to_ethernet(228, ipv4), frame(&v4, ipv4));
    assert_eq!(link::to_ethernet(229, ipv6), frame(&v6, ipv6));
    for (family, ethertype) in [(2, v4), (10, v6), (24, v6), (28, v6), (30, v6)] {
        for header in [[family, 0, 0, 0], [0, 0, 0, family]] {
            let packet = [&header[..], ipv4].concat();
            assert_eq!(link::to_ethernet(0, &packet), frame(&ethertype, ipv4));
            assert_eq!(link::to_ethernet(108, &packet), frame(&ethertype, ipv4));
        }
    }
    assert!(link::to_ethernet(0, &[7, 0, 0, 0]).is_err());
    assert!(link::to_ethernet(0, &[2, 0, 0]).is_err());
    // This cooked packet has a VLAN tag, whose TPID libpcap writes into the protocol field.
    let sll =
        [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x81, 0][..], &[0, 5, 8, 0], ipv4].concat();
    assert_eq!(link::to_ethernet(113, &sll), frame(&[0x81, 0], &[&[0, 5, 8, 0], ipv4].concat()));
    let sll2 = [&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], ipv4].concat();
    assert_eq!(link::to_ethernet(276, &sll2), frame(&v4, ipv4));
    assert_eq!(
        link::to_ethernet(113, &sll[..15]),
        Err(Skip::from_reason("link type 113: truncated header"))
    );
    let netlink = [&[0, 4, 3, 0x38][..], &[0; 12]].concat();
    assert_eq!(
        link::to_ethernet(113, &netlink),
        Err(Skip::new(
            "link type 113: hardware type 824".to_owned(),
            "hardware type whose packets have no EtherType"
        ))
    );
}

#[test]
fn capture_of_other_link_type_names_the_known_ones() {
    let bytes = Writer::new(ByteOrder::Little).pcap_header(0xa1b2_c3d4, (2, 4), 105);
    let bytes = bytes.u32(0).u32(0).u32(1).u32(1).raw(&[1]).bytes;
    let records = read_all(&bytes);
    let Record::UnreadableInterface(text) = &records[0] else { panic!("{records:?}") };
    assert!(text.starts_with("link type 105: expected Ethernet (1), Linux cooked (113"), "{text}");
    assert_eq!(records[1], skipped("link type 105"));
}

#[test]
fn truncated_capture_is_read_up_to_its_end() {
    let pcap = Writer::new(ByteOrder::Little).pcap_header(0xa1b2_c3d4, (2, 4), 1);
    let pcap = pcap.u32(0).u32(0).u32(1).u32(1).raw(&[1]);
    let pcapng = Writer::new(ByteOrder::Little).section().interface(1, 0, &[]);
    let pcapng = pcapng.packet(0, 0, &[1], 1);
    for (whole, next) in [
        (&pcap, Writer::new(ByteOrder::Little).u32(0).u32(0).u32(1).u32(1).raw(&[1])),
        (&pcapng, Writer::new(ByteOrder::Little).packet(0, 0, &[1], 1)),
    ] {
        let expected = [Record::Interface, packet(0, &[1])];
        assert_eq!(read_all(&whole.bytes), expected);
        for length in 1..next.bytes.len() {
            let bytes = [&whole.bytes[..], &next.bytes[..length]].concat();
            let (records, result) = read_bytes(&bytes);
            assert_eq!(records, expected, "{length} more bytes");
            assert!(result.unwrap_err().starts_with("a.pcap is truncated"));
        }
    }
    for start in 1..4 {
        let error = read_bytes(&pcap.bytes[..start]).1.unwrap_err();
        assert!(error.contains("not a capture"), "{error}");
    }
}

#[test]
fn damaged_framing_ends_the_capture_with_an_error() {
    let start = Writer::new(ByteOrder::Little).section().interface(1, 0, &[]).packet(0, 0, &[1], 1);
    let block = |length: u32, end: u32| {
        Writer::new(ByteOrder::Little).u32(6).u32(length).raw(&[0; 4]).u32(end).bytes
    };
    for (block, what) in [
        (block(8, 16), "too short"),
        (block(16, 20), "two different lengths"),
        (block(18, 18), "not a multiple of 4"),
        (block(u32::MAX, 16), "a record of 4294967295 bytes"),
    ] {
        let (records, result) = read_bytes(&[&start.bytes[..], &block].concat());
        assert_eq!(records.len(), 2);
        let error = result.unwrap_err();
        assert!(error.contains(&format!("after {} bytes", start.bytes.len())), "{error}");
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn gzip_is_decompressed_and_other_compression_is_named() {
    let plain = Writer::new(ByteOrder::Little).section().interface(1, 0, &[]).packet(0, 0, &[1], 1);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain.bytes).unwrap();
    let compressed = encoder.finish().unwrap();
    assert_eq!(read_all(&compressed), read_all(&plain.bytes));
    let (_, result) = read_bytes(&compressed[..compressed.len() - 9]);
    assert!(result.unwrap_err().contains("truncated"));
    let (_, result) = read_bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
    assert!(result.unwrap_err().contains("`zstd -dc FILE | xdpfwd filter test --pcap - …`"));
}

#[test]
fn packet_longer_than_any_frame_is_skipped() {
    let data = vec![1; MAX_PACKET_BYTES + 1];
    let writer = Writer::new(ByteOrder::Little).section().interface(1, 0, &[]);
    let records = read_all(&writer.packet(0, 0, &data, 1).packet(0, 0, &[2], u32::MAX).bytes);
    let reason = skipped("packet longer than 262144 bytes");
    assert_eq!(records[1..], [reason.clone(), reason]);
}

/// A pipe that delivers the parts of a capture one after the other.
struct Parts(Vec<Vec<u8>>);

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.0.iter_mut().find(|part| !part.is_empty()) else { return Ok(0) };
        let length = buffer.len().min(part.len());
        buffer[..length].copy_from_slice(&part[..length]);
        part.drain(..length);
        Ok(length)
    }
}

fn read_parts(parts: Vec<Vec<u8>>) -> Vec<Record> {
    let mut records = Vec::new();
    let result = read_from(Box::new(Parts(parts)), &mut |record| {
        records.push(record);
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
    records
}

#[test]
fn capture_in_parts_is_read_as_a_whole_one() {
    let pcap = |magic, version, extra| {
        let mut writer = Writer::new(ByteOrder::Little).pcap_header(magic, version, 1);
        for _ in 0..3 {
            writer = writer.u32(1_700_000_000).u32(5).u32(60).u32(60);
            writer = writer.raw(&[0; 12][..extra]).raw(&[7; 60]);
        }
        writer.bytes
    };
    // Version 2.2 has the original length before the captured one.
    let old = Writer::new(ByteOrder::Big).pcap_header(0xa1b2_c3d4, (2, 2), 1);
    let old = old.u32(0).u32(0).u32(5).u32(3).raw(&[1, 2, 3]).bytes;
    let pcapng = Writer::new(ByteOrder::Big).section().interface(1, 0, &[]);
    let pcapng = pcapng.packet(0, 0, &[1], 1).bytes;
    let captures =
        [pcap(0xa1b2_c3d4, (2, 4), 0), pcap(0xa1b2_cd34, (2, 4), 8), old.clone(), pcapng];
    for bytes in &captures {
        let whole = read_all(bytes);
        for split in 0..bytes.len() {
            let (start, end) = bytes.split_at(split);
            assert_eq!(read_parts(vec![start.to_vec(), end.to_vec()]), whole, "{split}");
        }
        assert_eq!(read_parts(bytes.iter().map(|byte| vec![*byte]).collect()), whole);
    }
    for bytes in [pcap(0xa1b2_c3d4, (2, 4), 4), pcap(0xa1b2_c3d4, (2, 4), 8), old] {
        let whole = read_all(&bytes);
        // Split in the file header or the first record.
        for split in 0..40 {
            let (start, end) = bytes.split_at(split);
            assert_eq!(read_parts(vec![start.to_vec(), end.to_vec()]), whole, "{split}");
        }
    }
}

#[test]
fn section_with_too_many_interfaces_is_damaged() {
    let start = Writer::new(ByteOrder::Little).section().bytes;
    let empty = Writer::new(ByteOrder::Little).block(1, &[]).bytes;
    let interfaces = 1 << 16;
    let bytes = [&start[..], &empty.repeat(interfaces)].concat();
    assert_eq!(read_all(&bytes).len(), interfaces);
    // The limit is per section.
    assert_eq!(read_all(&bytes.repeat(2)).len(), 2 * interfaces);
    let (records, result) = read_bytes(&[&bytes[..], &empty].concat());
    assert_eq!(records.len(), interfaces);
    let error = result.unwrap_err();
    assert!(error.contains("a section with more than 65536 interfaces"), "{error}");
}

/// With memory for the missing bytes, a block of 32 bytes could allocate 256 KiB.
#[test]
fn packet_without_captured_bytes_allocates_nothing() {
    let writer = Writer::new(ByteOrder::Little).section().interface(1, 0, &[]);
    let records = read_all(&writer.packet(0, 0, &[], MAX_PACKET_BYTES as u32).bytes);
    let Record::Packet(packet) = &records[1] else { panic!("{records:?}") };
    assert_eq!((packet.length, packet.bytes.capacity()), (MAX_PACKET_BYTES, 0));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind in 0..5_usize) {
        let start = match kind {
            0 => Vec::new(),
            1 => Writer::new(ByteOrder::Big).section().bytes,
            2 => Writer::new(ByteOrder::Little).section().interface(113, 0, &[]).bytes,
            _ => Writer::new(ByteOrder::Little).pcap_header(0xa1b2_c3d4, (2, 4), 276).bytes,
        };
        let _ = read_bytes(&[&start[..], &bytes].concat());
    }
}
