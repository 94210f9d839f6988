//! TCP segments (RFC 9293, 3.1): as much of them as is filtered and rewritten. xdpfwd ends no connection.

use super::checksum::Sum;
use super::{Addresses, Error, Field, IpProtocol, read_u16, read_u32, write_u16};

/// Length of a header without options.
pub const HEADER_LEN: usize = field::URGENT.end;

/// A view of a segment: it ends where the buffer does, for TCP has no length of its own.
///
/// `new_checked` makes sure that 20 <= header length <= the buffer's length. After it no accessor panics, and no setter
/// can undo it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// The control bits, as they lie in the header's 14th byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer counts.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Whether all of `other` are set.
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
    /// A view of `buffer`, which must end with the segment: cut off Ethernet padding before.
    ///
    /// [`Error::Truncated`] if it ends before the header does; [`Error::Malformed`] if the data offset is below 5.
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

    /// The buffer back.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SOURCE_PORT)
    }

    /// Destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DESTINATION_PORT)
    }

    /// Sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::SEQUENCE)
    }

    /// Acknowledgment number.
    #[inline]
    pub fn acknowledgment(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::ACKNOWLEDGMENT)
    }

    /// Length of the header with its options, which the data offset gives: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// The control bits.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.buffer.as_ref()[field::FLAGS])
    }

    /// The checksum as it stands there.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Whether the checksum is right.
    #[inline]
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        self.sum(addresses).folded() == 0xffff
    }

    /// The options, not looked into: 0 to 40 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// All behind the header.
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
    /// [`payload`](Packet::payload), for as long as the buffer lives.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port; the checksum stays.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::SOURCE_PORT, port);
    }

    /// Sets the destination port; the checksum stays.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::DESTINATION_PORT, port);
    }

    /// Computes the checksum and writes it.
    #[inline]
    pub fn fill_checksum(&mut self, addresses: Addresses) {
        write_u16(self.buffer.as_mut(), field::CHECKSUM, 0);
        let checksum = self.sum(addresses).checksum();
        write_u16(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }
}

mod field {
    use super::Field;

    pub(super) const SOURCE_PORT: Field = 0..2;
    pub(super) const DESTINATION_PORT: Field = 2..4;
    pub(super) const SEQUENCE: Field = 4..8;
    pub(super) const ACKNOWLEDGMENT: Field = 8..12;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
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
    }
}
