//! The generator's frame: `bpf/frame.h` in Rust.

use std::net::Ipv4Addr;

/// UDP source port of flow 0; flow *f* has `FIRST_FLOW_PORT + f`.
pub const FIRST_FLOW_PORT: u16 = 1024;
/// Maximum number of flows: source ports 1024–65535.
pub const MAX_FLOWS: u32 = 65536 - FIRST_FLOW_PORT as u32;
/// UDP destination port of the generator's frames (discard, RFC 863).
pub const DESTINATION_PORT: u16 = 9;
/// Minimum frame length in bytes, without FCS: headers, magic number, sequence number, send time.
pub const MIN_SIZE: u16 = 60;
/// Bytes on the wire in addition to the length in memory: FCS, preamble and inter-frame gap.
pub const WIRE_OVERHEAD: u64 = 24;

const MAGIC: [u8; 2] = *b"LB";
const PATTERN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A frame of the generator, for tests that modify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestFrame {
    /// Length in bytes, without FCS, at least [`MIN_SIZE`].
    pub size: u16,
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// Flow, below [`MAX_FLOWS`].
    pub flow: u32,
    /// Sequence number: number of the generator's run << 40 | frame of the run, from 0.
    pub sequence: u64,
    /// Send time, `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
}

impl TestFrame {
    /// Returns the bytes, with a valid IPv4 checksum. The UDP checksum is 0, which means none.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let size = self.size.max(MIN_SIZE);
        let mut b = Vec::with_capacity(usize::from(size) + 8);
        b.extend(self.destination_mac);
        b.extend(self.source_mac);
        b.extend([0x08, 0x00]);
        // version and header length, DSCP, total length, identification, flags (don't fragment),
        // TTL, protocol (UDP), checksum (filled in below)
        b.extend([0x45, 0]);
        b.extend((size - 14).to_be_bytes());
        b.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        b.extend(self.source.octets());
        b.extend(self.destination.octets());
        let checksum = internet_checksum(&b[14..34]);
        b[24..26].copy_from_slice(&checksum.to_be_bytes());
        let port = u32::from(FIRST_FLOW_PORT) + self.flow % MAX_FLOWS;
        b.extend(&port.to_be_bytes()[2..]);
        b.extend(DESTINATION_PORT.to_be_bytes());
        b.extend((size - 34).to_be_bytes());
        b.extend([0, 0]);
        b.extend(MAGIC);
        b.extend(self.sequence.to_be_bytes());
        b.extend(self.time.to_be_bytes());
        let mut word = PATTERN_STEP;
        while b.len() < usize::from(size) {
            b.extend(word.to_ne_bytes());
            word = word.wrapping_add(PATTERN_STEP);
        }
        b.truncate(usize::from(size));
        b
    }
}

/// Returns the Internet checksum (RFC 1071).
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GEN_ADDRESS, SINK_ADDRESS, mac};

    fn frame(size: u16) -> TestFrame {
        TestFrame {
            size,
            destination_mac: mac(4),
            source_mac: mac(1),
            source: GEN_ADDRESS,
            destination: SINK_ADDRESS,
            flow: 3,
            sequence: 7,
            time: 9,
        }
    }

    #[test]
    fn internet_checksum_matches_known_header() {
        // A common textbook example.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(internet_checksum(&header), 0xb861);
    }

    #[test]
    fn frame_header_is_valid_at_every_size() {
        for size in 60..=1514 {
            let b = frame(size).bytes();
            assert_eq!(b.len(), usize::from(size));
            assert_eq!(internet_checksum(&b[14..34]), 0, "IPv4 header checksum");
            assert_eq!(u16::from_be_bytes([b[16], b[17]]), size - 14, "IPv4 total length");
            assert_eq!(u16::from_be_bytes([b[38], b[39]]), size - 34, "UDP length");
            assert_eq!(&b[34..38], &[4, 3, 0, 9], "source port 1024 + 3, destination port 9");
        }
    }

    #[test]
    fn smallest_frame_holds_magic_sequence_and_time() {
        let b = frame(60).bytes();
        assert_eq!(&b[42..44], b"LB");
        assert_eq!(&b[44..52], &7u64.to_be_bytes());
        assert_eq!(&b[52..60], &9u64.to_be_bytes());
    }

    #[test]
    fn frame_pattern_depends_only_on_offset() {
        assert_eq!(&frame(1514).bytes()[60..100], &frame(100).bytes()[60..]);
        assert_eq!(&frame(76).bytes()[68..76], &PATTERN_STEP.wrapping_mul(2).to_ne_bytes());
    }
}
