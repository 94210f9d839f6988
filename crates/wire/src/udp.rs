//! UDP datagrams (RFC 768).

use crate::checksum::Sum;
use crate::error::Error;
use crate::field::{read_u16, write_u16};
use crate::ip::{Addresses, IpProtocol};

/// Length of the header.
pub const HEADER_LEN: usize = field::CHECKSUM.end;

/// A view of a datagram, whose payload ends where the length field states. Setters do not update
/// the checksum.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// A header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length of the payload, at most 65527.
    pub payload_len: u16,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the header or than stated, and
    /// [`Error::Malformed`] if the stated length is below 8.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let packet = Self::new_first_fragment(buffer)?;
        if packet.buffer.as_ref().len() < usize::from(packet.len()) {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Creates a view of a first fragment: if the length field exceeds `buffer`, the payload ends
    /// with `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the header, and
    /// [`Error::Malformed`] if the length field is below 8.
    #[inline]
    pub fn new_first_fragment(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if usize::from(read_u16(data, field::LEN)) < HEADER_LEN {
            return Err(Error::Malformed);
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

    /// Returns the length of header and payload, at least 8.
    #[expect(clippy::len_without_is_empty, reason = "named like the field; no datagram is empty")]
    #[inline]
    pub fn len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::LEN)
    }

    /// Returns the checksum field; 0 means "no checksum".
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Returns whether the checksum is valid. 0 (no checksum) counts as valid over IPv4 (RFC 768)
    /// and as invalid over IPv6 (RFC 8200, section 8.1). For tunnels without checksum over IPv6
    /// (RFC 6936), test [`checksum`](Packet::checksum) first.
    ///
    /// The result is meaningless for a first fragment with a checksum, which also covers the later
    /// fragments.
    #[inline]
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        if self.checksum() == 0 {
            return matches!(addresses, Addresses::V4 { .. });
        }
        self.sum(addresses).folded() == 0xffff
    }

    /// Returns the bytes after the header, up to the stated length; in a first fragment, at most to
    /// the end of the buffer.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.payload_end()]
    }

    #[inline]
    fn payload_end(&self) -> usize {
        usize::from(self.len()).min(self.buffer.as_ref().len())
    }

    #[inline]
    fn sum(&self, addresses: Addresses) -> Sum {
        Sum::pseudo_header(addresses, IpProtocol::UDP, u32::from(self.len()))
            .with(&self.buffer.as_ref()[..self.payload_end()])
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..self.payload_end()]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::SOURCE_PORT, port);
    }

    /// Sets the destination port.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::DESTINATION_PORT, port);
    }

    /// Sets the checksum field; 0 means "no checksum".
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        write_u16(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }

    /// Writes the checksum; 0 becomes 0xffff (RFC 768).
    #[inline]
    pub fn fill_checksum(&mut self, addresses: Addresses) {
        self.set_checksum(0);
        let checksum = match self.sum(addresses).checksum() {
            0 => 0xffff,
            checksum => checksum,
        };
        self.set_checksum(checksum);
    }

    /// Returns the [`payload`](Packet::payload) for writing.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = HEADER_LEN..self.payload_end();
        &mut self.buffer.as_mut()[range]
    }
}

impl Repr {
    /// Creates a header with these ports. [`HeaderStack`](crate::HeaderStack) fills in its length.
    #[inline]
    pub const fn new(source_port: u16, destination_port: u16) -> Repr {
        Repr { source_port, destination_port, payload_len: 0 }
    }

    /// Returns the header of a datagram, without its checksum.
    ///
    /// If the checksum field is 0, `emit` writes the same bytes; if it is valid,
    /// `emit_with_checksum` does.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Repr {
        Repr {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            // Cannot underflow: the view checked the length field.
            payload_len: packet.len() - HEADER_LEN as u16,
        }
    }

    /// Returns [`HEADER_LEN`].
    #[inline]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Returns the length of header and payload.
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.payload_len as usize
    }

    /// Writes the header to the front of `buffer`, with the checksum of header and payload. The
    /// payload must already follow the header.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than header and payload, and
    /// [`Error::Malformed`] if they exceed 65535 bytes.
    #[inline]
    pub fn emit_with_checksum(&self, buffer: &mut [u8], addresses: Addresses) -> Result<(), Error> {
        let datagram = buffer.get_mut(..self.buffer_len()).ok_or(Error::Truncated)?;
        self.emit(datagram)?;
        Packet::new_checked(datagram)?.fill_checksum(addresses);
        Ok(())
    }

    /// Writes the header to the front of `buffer`, with a checksum field of 0: "no checksum". Over
    /// IPv6, only some tunnels may omit it (RFC 8200, section 8.1; RFC 6936).
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the header, and
    /// [`Error::Malformed`] if header and payload exceed 65535 bytes.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let len = self.payload_len.checked_add(HEADER_LEN as u16).ok_or(Error::Malformed)?;
        let header = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        write_u16(header, field::SOURCE_PORT, self.source_port);
        write_u16(header, field::DESTINATION_PORT, self.destination_port);
        write_u16(header, field::LEN, len);
        write_u16(header, field::CHECKSUM, 0);
        Ok(())
    }
}

mod field {
    use crate::field::Field;

    pub(super) const SOURCE_PORT: Field = 0..2;
    pub(super) const DESTINATION_PORT: Field = 2..4;
    pub(super) const LEN: Field = 4..6;
    pub(super) const CHECKSUM: Field = 6..8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: Addresses = Addresses::V4 {
        source: core::net::Ipv4Addr::new(192, 0, 2, 1),
        destination: core::net::Ipv4Addr::new(198, 51, 100, 2),
    };
    const V6: Addresses = Addresses::V6 {
        source: core::net::Ipv6Addr::LOCALHOST,
        destination: core::net::Ipv6Addr::LOCALHOST,
    };

    // bytes(IP(src="192.0.2.1", dst="198.51.100.2")/UDP(sport=48896,
    // dport=53)/b"\xaa\0\0\xff")[20:]
    const PACKET: [u8; 12] =
        [0xbf, 0x00, 0x00, 0x35, 0x00, 0x0c, 0xa9, 0x69, 0xaa, 0x00, 0x00, 0xff];

    fn packet_with_len(len: u8) -> [u8; 12] {
        let mut packet = PACKET;
        packet[5] = len;
        packet
    }

    #[test]
    fn packet_accessors_return_header_fields() {
        let packet = Packet::new_checked(&PACKET[..]).unwrap();
        assert_eq!(
            (packet.source_port(), packet.destination_port(), packet.len()),
            (48896, 53, 12)
        );
        assert!(packet.verify_checksum(V4) && !packet.verify_checksum(V6));
        assert_eq!(packet.into_payload(), &PACKET[8..]);
    }

    #[test]
    fn emitted_datagram_equals_datagram_of_scapy() {
        let mut bytes = PACKET;
        Repr { source_port: 48896, destination_port: 53, payload_len: 4 }.emit(&mut bytes).unwrap();
        let mut packet = Packet::new_checked(bytes).unwrap();
        assert_eq!(packet.checksum(), 0);
        packet.fill_checksum(V4);
        assert_eq!(packet.into_inner(), PACKET);
    }

    #[test]
    fn view_and_emit_reject_invalid_lengths() {
        let view_error = |bytes: &[u8]| Packet::new_checked(bytes).map(|_| ()).unwrap_err();
        assert_eq!(view_error(&PACKET[..7]), Error::Truncated);
        assert_eq!(view_error(&PACKET[..11]), Error::Truncated);
        assert_eq!(view_error(&packet_with_len(7)), Error::Malformed);
        assert_eq!(view_error(&packet_with_len(13)), Error::Truncated);
        assert!(Packet::new_checked(packet_with_len(8)).unwrap().payload().is_empty());
        let repr = Repr { payload_len: 65_528, ..Repr::default() };
        assert_eq!(repr.emit(&mut [0; 8]), Err(Error::Malformed));
        assert_eq!(Repr::default().emit(&mut [0; 7]), Err(Error::Truncated));
    }

    #[test]
    fn first_fragment_may_be_shorter_than_length_field() {
        assert_eq!(
            Packet::new_first_fragment(packet_with_len(200)).unwrap().payload(),
            &PACKET[8..]
        );
        assert_eq!(
            Packet::new_first_fragment(packet_with_len(7)).map(|_| ()).unwrap_err(),
            Error::Malformed
        );
    }

    #[test]
    fn missing_checksum_is_valid_over_ipv4_only() {
        let mut packet = Packet::new_checked(PACKET).unwrap();
        packet.set_checksum(0);
        assert!(packet.verify_checksum(V4) && !packet.verify_checksum(V6));
    }

    #[test]
    fn fill_checksum_writes_0_as_0xffff() {
        let mut packet = Packet::new_checked(PACKET).unwrap();
        // Adding the old checksum to the source port (0xbf00 + 0xa969 in ones' complement) makes
        // the new one 0.
        packet.set_source_port(0x686a);
        packet.fill_checksum(V4);
        assert_eq!(packet.checksum(), 0xffff);
        assert!(packet.verify_checksum(V4));
    }

    #[test]
    fn emit_with_checksum_rejects_short_buffer_and_long_payload() {
        let repr = Repr { source_port: 48896, destination_port: 53, payload_len: 4 };
        let mut bytes = PACKET;
        bytes[..8].fill(0xee);
        assert_eq!(repr.emit_with_checksum(&mut bytes[..11], V4), Err(Error::Truncated));
        assert_eq!(bytes[..8], [0xee; 8]);
        repr.emit_with_checksum(&mut bytes, V4).unwrap();
        assert_eq!(bytes, PACKET);
        let long = Repr { payload_len: 65_528, ..repr };
        assert_eq!(long.emit_with_checksum(&mut vec![0; 65_536], V4), Err(Error::Malformed));
    }

    proptest! {
        #[test]
        fn views_of_any_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), len: u8) {
            if let Some(header) = bytes.first_chunk_mut::<6>() {
                header[4] = 0; // otherwise, most length fields would exceed the buffer
                header[5] = len;
            }
            if let Ok(packet) = Packet::new_checked(&bytes[..]) {
                prop_assert_eq!(packet.payload().len(), usize::from(packet.len()) - HEADER_LEN);
            }
            if let Ok(mut packet) = Packet::new_first_fragment(bytes) {
                packet.verify_checksum(V6);
                packet.fill_checksum(V4);
                packet.payload_mut().fill(0);
            }
        }

        #[test]
        fn emit_and_parse_roundtrip(ports: (u16, u16), payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let repr = Repr { source_port: ports.0, destination_port: ports.1, payload_len: payload.len() as u16 };
            let mut bytes = vec![0xee; HEADER_LEN];
            bytes.extend(&payload);
            repr.emit(&mut bytes).unwrap();
            let mut packet = Packet::new_checked(bytes).unwrap();
            packet.fill_checksum(V6);
            prop_assert!(packet.verify_checksum(V6));
            prop_assert_eq!(packet.payload(), &payload[..]);
            prop_assert_eq!(Repr::parse(&packet), repr);
            prop_assert_eq!(repr.buffer_len(), usize::from(packet.len()));
            let bytes = packet.into_inner();
            let mut emitted = bytes.clone();
            emitted[..repr.header_len()].fill(0xee);
            repr.emit_with_checksum(&mut emitted, V6).unwrap();
            prop_assert_eq!(emitted, bytes);
        }
    }
}
