//! TCP segments (RFC 9293, 3.1): as much of them as is filtered and rewritten. xdpfwd ends no connection.

use crate::checksum::{self, Sum};
use crate::error::Error;
use crate::field::{Field, read_u16, read_u32, write_u16, write_u32};
use crate::ip::{Addresses, IpProtocol};

/// Length of a header without options.
pub const HEADER_LEN: usize = field::URGENT.end;

/// The maximum length of the options, which the data offset sets.
pub const MAX_OPTIONS_LEN: usize = 40;

/// A view of a segment, which ends where the buffer ends: TCP has no length field.
///
/// `new_checked` checks that 20 <= header length <= length of the buffer. After it no accessor
/// panics, and no setter can invalidate what it checked.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// A header to be written, with its options.
///
/// The reserved bits are written as zero, and so is the accurate ECN flag among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Repr<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window in bytes, before window scaling.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, at most 40 bytes. `emit` pads them with zero bytes (end of option list) to a
    /// multiple of 4.
    pub options: &'a [u8],
    /// Bytes behind the header.
    pub payload_len: u16,
}

/// The control bits in the header's 14th byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN: no more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// SYN: synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// RST: reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// PSH: push.
    pub const PSH: Flags = Flags(0x08);
    /// ACK: the acknowledgment number is significant.
    pub const ACK: Flags = Flags(0x10);
    /// URG: the urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECE: ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// CWR: congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Returns whether all bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;

    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`, which must end with the segment: cut off Ethernet padding
    /// before.
    ///
    /// Returns [`Error::Truncated`] if `buffer` ends before the header, and [`Error::Malformed`] if
    /// the data offset is below 5.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let header_len = usize::from(data[field::DATA_OFFSET] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(Error::Malformed);
        }
        if data.len() < header_len {
            return Err(Error::Truncated);
        }
        Ok(Packet { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SOURCE_PORT)
    }

    /// Returns the destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DESTINATION_PORT)
    }

    /// Returns the sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::SEQUENCE)
    }

    /// Returns the acknowledgment number.
    #[inline]
    pub fn acknowledgment(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::ACKNOWLEDGMENT)
    }

    /// Returns the length of the header with its options in bytes, 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// Returns the control bits.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.buffer.as_ref()[field::FLAGS])
    }

    /// Returns the window in bytes, before window scaling.
    #[inline]
    pub fn window(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::WINDOW)
    }

    /// Returns the urgent pointer, which counts only with [`Flags::URG`].
    #[inline]
    pub fn urgent(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::URGENT)
    }

    /// Returns the checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Returns whether the checksum is valid.
    #[inline]
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        self.sum(addresses).folded() == 0xffff
    }

    /// Returns the options, 0 to 40 bytes, which are not parsed.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// Returns the bytes behind the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..]
    }

    #[inline]
    fn sum(&self, addresses: Addresses) -> Sum {
        let data = self.buffer.as_ref();
        Sum::pseudo_header(addresses, IpProtocol::TCP, data.len() as u32).with(data)
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the lifetime of the buffer.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port. Does not update the checksum.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::SOURCE_PORT, port);
    }

    /// Sets the destination port. Does not update the checksum.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::DESTINATION_PORT, port);
    }

    /// Lowers every maximum segment size option (RFC 9293, section 3.2) above `most` to `most`, and
    /// updates the checksum (RFC 1624): a valid checksum stays valid. Returns whether an option was
    /// lowered.
    ///
    /// Returns [`Error::Malformed`] and changes nothing if an option ends beyond the header or is
    /// shorter than two bytes, or if a maximum segment size option has not four bytes. Does not
    /// check that the segment is a SYN, the only one that may have this option.
    pub fn lower_mss(&mut self, most: u16) -> Result<bool, Error> {
        let header_len = self.header_len();
        let header = &mut self.buffer.as_mut()[..header_len];
        // Up to the end, before the first is changed.
        let mut at = HEADER_LEN;
        while let Some(mss) = next_mss(header, at)? {
            at = mss.end;
        }
        let mut lowered = false;
        at = HEADER_LEN;
        while let Some(mss) = next_mss(header, at)? {
            at = mss.end;
            let (old, odd) = (read_u16(header, mss.clone()), mss.start % 2 != 0);
            if old > most {
                // What begins at an odd offset is in the sum with its bytes exchanged (RFC 1071, 2 (B)).
                let word = |value: u16| if odd { value.swap_bytes() } else { value };
                let checksum = checksum::update(read_u16(header, field::CHECKSUM), word(old), word(most));
                write_u16(header, mss, most);
                write_u16(header, field::CHECKSUM, checksum);
                lowered = true;
            }
        }
        Ok(lowered)
    }

    /// Computes the checksum and writes it to its field.
    #[inline]
    pub fn fill_checksum(&mut self, addresses: Addresses) {
        write_u16(self.buffer.as_mut(), field::CHECKSUM, 0);
        let checksum = self.sum(addresses).checksum();
        write_u16(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }
}

impl<'a> Repr<'a> {
    /// Returns the header of a segment. The options are borrowed from the segment's buffer.
    ///
    /// Does not verify the checksum. If the checksum is valid and the reserved bits are clear,
    /// `emit_with_checksum` writes the same bytes again.
    ///
    /// Returns [`Error::Malformed`] if the segment is longer than 65535 bytes.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &'a Packet<T>) -> Result<Repr<'a>, Error> {
        let len = packet.header_len() + packet.payload().len();
        if len > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        Ok(Repr {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            sequence: packet.sequence(),
            acknowledgment: packet.acknowledgment(),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            options: packet.options(),
            payload_len: packet.payload().len() as u16,
        })
    }

    /// Returns the number of bytes that [`emit`](Self::emit) writes: header and padded options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len().next_multiple_of(4)
    }

    /// Returns the length of header and payload in bytes.
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        self.header_len() + self.payload_len as usize
    }

    /// Writes the header to the front of `buffer`, with a checksum of 0, which is not valid: call
    /// [`Packet::fill_checksum`] when the payload is complete. The payload need not be in `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the header, and
    /// [`Error::Malformed`] if there are more than 40 bytes of options or if header and payload
    /// exceed 65535 bytes; writes nothing then.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        if self.options.len() > MAX_OPTIONS_LEN || self.buffer_len() > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        let header_len = self.header_len();
        let header = buffer.get_mut(..header_len).ok_or(Error::Truncated)?;
        write_u16(header, field::SOURCE_PORT, self.source_port);
        write_u16(header, field::DESTINATION_PORT, self.destination_port);
        write_u32(header, field::SEQUENCE, self.sequence);
        write_u32(header, field::ACKNOWLEDGMENT, self.acknowledgment);
        // Cannot overflow: at most 60 / 4.
        header[field::DATA_OFFSET] = (header_len as u8 / 4) << 4;
        header[field::FLAGS] = self.flags.0;
        write_u16(header, field::WINDOW, self.window);
        write_u16(header, field::CHECKSUM, 0);
        write_u16(header, field::URGENT, self.urgent);
        let (options, padding) = header[HEADER_LEN..].split_at_mut(self.options.len());
        options.copy_from_slice(self.options);
        padding.fill(option::END);
        Ok(())
    }

    /// Writes the header to the front of `buffer`, with the checksum of header and payload. The
    /// payload must already follow the header's place in `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than header and payload, and
    /// [`Error::Malformed`] as [`emit`](Self::emit) does; writes nothing then.
    #[inline]
    pub fn emit_with_checksum(&self, buffer: &mut [u8], addresses: Addresses) -> Result<(), Error> {
        let segment = buffer.get_mut(..self.buffer_len()).ok_or(Error::Truncated)?;
        self.emit(segment)?;
        Packet::new_checked(segment)?.fill_checksum(addresses);
        Ok(())
    }
}

/// Options that have a meaning here (RFC 9293, 3.2), and the length of the last.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const MSS_LEN: usize = 4;
}

/// Where the value of the first maximum segment size stands, of the options from `at` on.
fn next_mss(header: &[u8], mut at: usize) -> Result<Option<Field>, Error> {
    while let Some(rest) = header.get(at..) {
        match *rest {
            [] | [option::END, ..] => break,
            [option::NO_OPERATION, ..] => at += 1,
            [kind, len, ..] => {
                let len = usize::from(len);
                if len < 2 || len > rest.len() || (kind == option::MSS && len != option::MSS_LEN) {
                    return Err(Error::Malformed);
                }
                at += len;
                if kind == option::MSS {
                    return Ok(Some(at - 2..at));
                }
            }
            [_] => return Err(Error::Malformed),
        }
    }
    Ok(None)
}

mod field {
    use crate::field::Field;

    pub(super) const SOURCE_PORT: Field = 0..2;
    pub(super) const DESTINATION_PORT: Field = 2..4;
    pub(super) const SEQUENCE: Field = 4..8;
    pub(super) const ACKNOWLEDGMENT: Field = 8..12;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: Field = 14..16;
    pub(super) const CHECKSUM: Field = 16..18;
    pub(super) const URGENT: Field = 18..20;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESSES: Addresses = Addresses::V4 {
        source: core::net::Ipv4Addr::new(192, 0, 2, 1),
        destination: core::net::Ipv4Addr::new(198, 51, 100, 2),
    };

    // bytes(IP(src="192.0.2.1", dst="198.51.100.2")/TCP(sport=48896, dport=80, seq=0x01020304, ack=0x05060708,
    //       flags="SECU", window=0x1000, urgptr=7, options=[("MSS", 1460)])/b"hi")[20:]
    #[rustfmt::skip]
    const PACKET: [u8; 26] = [
        0xbf, 0x00, 0x00, 0x50, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
        0x60, 0xe2, 0x10, 0x00, 0x63, 0x38, 0x00, 0x07, 0x02, 0x04, 0x05, 0xb4, 0x68, 0x69,
    ];

    fn with_offset(words: u8) -> [u8; 26] {
        let mut packet = PACKET;
        packet[12] = words << 4;
        packet
    }

    #[test]
    fn deconstructs() {
        let packet = Packet::new_checked(&PACKET[..]).unwrap();
        assert_eq!((packet.source_port(), packet.destination_port()), (48896, 80));
        assert_eq!((packet.sequence(), packet.acknowledgment()), (0x01020304, 0x05060708));
        assert_eq!(packet.flags(), Flags::SYN | Flags::ECE | Flags::CWR | Flags::URG);
        assert!(packet.flags().contains(Flags::SYN | Flags::URG) && !packet.flags().contains(Flags::SYN | Flags::ACK));
        assert!(packet.verify_checksum(ADDRESSES));
        assert_eq!(packet.options(), [2, 4, 5, 0xb4]);
        assert_eq!(packet.into_payload(), b"hi");
    }

    #[test]
    fn data_offsets_that_cannot_be_are_refused() {
        let refusal = |bytes: &[u8]| Packet::new_checked(bytes).map(|_| ()).unwrap_err();
        assert_eq!(refusal(&PACKET[..19]), Error::Truncated);
        assert_eq!(refusal(&with_offset(4)), Error::Malformed);
        assert_eq!(refusal(&with_offset(7)), Error::Truncated);
        assert_eq!(refusal(&PACKET[..23]), Error::Truncated);
        assert!(Packet::new_checked(&PACKET[..24]).unwrap().payload().is_empty());
    }

    #[test]
    fn fill_checksum_restores_what_scapy_computed() {
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
    fn emit_rejects_what_no_segment_can_hold() {
        let mut bytes = vec![0; 65_536];
        let options = Repr { options: &[1; 41], ..Repr::default() };
        assert_eq!(options.emit(&mut bytes), Err(Error::Malformed));
        let payload = Repr { payload_len: 65_516, ..Repr::default() };
        assert_eq!(payload.emit_with_checksum(&mut bytes, ADDRESSES), Err(Error::Malformed));
        assert_eq!(Repr::parse(&Packet::new_checked(with_payload(65_516)).unwrap()), Err(Error::Malformed));
        assert!(Repr::parse(&Packet::new_checked(with_payload(65_515)).unwrap()).is_ok());
    }

    /// Returns a segment without options and with `len` bytes of payload.
    fn with_payload(len: usize) -> Vec<u8> {
        let mut segment = vec![0; HEADER_LEN + len];
        segment[12] = 0x50;
        segment
    }

    /// A segment with these options, padded with END, and a right checksum.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut packet = PACKET[..HEADER_LEN].to_vec();
        packet.extend_from_slice(options);
        packet.resize(packet.len().next_multiple_of(4), option::END);
        packet[12] = (packet.len() as u8 / 4) << 4;
        packet.extend_from_slice(b"data");
        Packet::new_checked(&mut packet[..]).unwrap().fill_checksum(ADDRESSES);
        packet
    }

    /// What becomes of options, and whether the rest is as it was and the checksum right.
    fn lowered(options: &[u8], most: u16) -> (Result<bool, Error>, Vec<u8>) {
        let before = with_options(options);
        let mut after = Packet::new_checked(before.clone()).unwrap();
        let result = after.lower_mss(most);
        assert!(after.verify_checksum(ADDRESSES));
        assert_eq!(after.options().len(), options.len().next_multiple_of(4));
        let now = after.options()[..options.len()].to_vec();
        let mut back = after.into_inner();
        back[16..18].copy_from_slice(&before[16..18]);
        back[HEADER_LEN..HEADER_LEN + options.len()].copy_from_slice(options);
        assert_eq!(back, before);
        (result, now)
    }

    #[test]
    fn a_larger_mss_is_lowered_wherever_it_stands() {
        assert_eq!(lowered(&[2, 4, 0x05, 0xb4], 1400), (Ok(true), vec![2, 4, 0x05, 0x78]));
        assert_eq!(lowered(&[1, 2, 4, 0xff, 0xff, 1], 88), (Ok(true), vec![1, 2, 4, 0, 88, 1]));
        // Behind a window scale, an unknown option, no operations; with something behind it.
        let (before, after) = ([3, 3, 7, 254, 5, 1, 2, 3, 1, 2, 4, 0x23, 0x28, 4, 2], 0x22);
        let mut want = before.to_vec();
        want[11..13].copy_from_slice(&[after, 0x60]);
        assert_eq!(lowered(&before, 0x2260), (Ok(true), want));
        // Two, of which one is small already: at an even and at an odd offset.
        let two = [2, 4, 0x10, 0, 1, 2, 4, 1, 0, 2, 4, 0x20, 0];
        assert_eq!(lowered(&two, 0x0fff), (Ok(true), vec![2, 4, 0x0f, 0xff, 1, 2, 4, 1, 0, 2, 4, 0x0f, 0xff]));
    }

    #[test]
    fn what_is_no_larger_or_not_there_stays() {
        for options in [&[][..], &[2, 4, 0x05, 0xb4], &[2, 4, 0, 0], &[1, 1, 4, 2], &[0, 2, 4, 0xff, 0xff]] {
            assert_eq!(lowered(options, 1460), (Ok(false), options.to_vec()));
        }
    }

    #[test]
    fn malformed_options_stay() {
        const LARGE: [u8; 4] = [2, 4, 0xff, 0xff];
        let behind = |options: &[u8]| [&LARGE[..], options].concat();
        // A length of 0, of 1, one beyond the header, none; a maximum segment size of three bytes, and of six.
        for options in [&[3, 0][..], &[3, 1, 1, 1], &[3, 5, 7, 1], &[1, 1, 1, 3], &[2, 3, 9, 1], &[2, 6, 9, 9, 9, 9]] {
            assert_eq!(lowered(&behind(options), 100), (Err(Error::Malformed), behind(options)), "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packet) = Packet::new_checked(&bytes[..]) {
                prop_assert_eq!(HEADER_LEN + packet.options().len() + packet.payload().len(), bytes.len());
                let mut packet = Packet::new_checked(bytes.clone()).unwrap();
                packet.fill_checksum(ADDRESSES);
                prop_assert!(packet.verify_checksum(ADDRESSES));
            }
        }

        #[test]
        fn emitted_header_equals_parsed_header(
            (ports, numbers, flags) in (any::<(u16, u16)>(), any::<(u32, u32)>(), any::<u8>()),
            (window, urgent) in (any::<u16>(), any::<u16>()),
            options in prop::collection::vec(any::<u8>(), 0..=40),
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let repr = Repr {
                source_port: ports.0,
                destination_port: ports.1,
                sequence: numbers.0,
                acknowledgment: numbers.1,
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
            let mut again = bytes.clone();
            again[..parsed.header_len()].fill(0xee);
            parsed.emit_with_checksum(&mut again, ADDRESSES).unwrap();
            prop_assert_eq!(again, bytes);
        }

        /// Any options: what was changed is nothing but values of more than `most`, which are `most` then, and the checksum.
        #[test]
        fn lowering_changes_the_value_and_the_checksum_only(
            options in prop::collection::vec(prop_oneof![
                4 => any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
                2 => Just(vec![1]),
                2 => (5..=255u8, prop::collection::vec(any::<u8>(), 0..6))
                    .prop_map(|(kind, value)| [&[kind, value.len() as u8 + 2][..], &value].concat()),
                1 => prop::collection::vec(any::<u8>(), 0..4),
            ], 0..8),
            most: u16,
        ) {
            let mut options = options.concat();
            options.truncate(40);
            let (result, after) = lowered(&options, most);
            let changed: Vec<_> = (0..options.len()).filter(|&at| options[at] != after[at]).collect();
            prop_assert_eq!(result.unwrap_or(false), !changed.is_empty());
            for at in changed {
                let value = (at.max(1) - 1..=at).find(|&at| after.get(at..at + 2) == Some(&most.to_be_bytes()[..]));
                let old = value.map(|at| u16::from_be_bytes([options[at], options[at + 1]]));
                prop_assert!(old.is_some_and(|old| old > most), "{:?} to {:?}", options, after);
            }
            prop_assert_eq!(lowered(&after, most).0.unwrap_or(false), false);
        }
    }
}
