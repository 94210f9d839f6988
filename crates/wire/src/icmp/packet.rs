//! A view of the four bytes that all ICMP messages begin with.

use crate::checksum::Sum;
use crate::error::Error;
use crate::field::{read_u16, write_u16};
use crate::ip::{Addresses, IpProtocol};

/// Length of what all messages have in common: type, code, checksum.
pub const HEADER_LEN: usize = field::CHECKSUM.end;

/// A view of a message of either version: it ends where the buffer does, for ICMP has no length of its own.
///
/// `new_checked` makes sure of the 4 bytes; after it no accessor panics, and no setter can undo it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, which must end with the message: cut off Ethernet padding before. [`Error::Truncated`] below
    /// [`HEADER_LEN`] bytes.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        Ok(Packet { buffer })
    }

    /// The buffer back.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Type. The numbers of the two versions have nothing in common: 8 and 128 are echo requests.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE]
    }

    /// Code: what the type leaves open.
    #[inline]
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[field::CODE]
    }

    /// The checksum as it stands there.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Whether the checksum is right: with `addresses` of IPv6 over a pseudo header too (RFC 4443, 2.3), with those of
    /// IPv4 over the message alone (RFC 792).
    #[inline]
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        self.sum(addresses).folded() == 0xffff
    }

    /// All behind the checksum.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    #[inline]
    fn sum(&self, addresses: Addresses) -> Sum {
        let data = self.buffer.as_ref();
        let sum = match addresses {
            Addresses::V4 { .. } => Sum::new(),
            Addresses::V6 { .. } => Sum::pseudo_header(addresses, IpProtocol::ICMPV6, data.len() as u32),
        };
        sum.with(data)
    }
}

impl<'a> Packet<&'a [u8]> {
    /// [`payload`](Packet::payload), for as long as the buffer lives.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the type; the checksum stays.
    #[inline]
    pub fn set_kind(&mut self, kind: u8) {
        self.buffer.as_mut()[field::TYPE] = kind;
    }

    /// Sets the code; the checksum stays.
    #[inline]
    pub fn set_code(&mut self, code: u8) {
        self.buffer.as_mut()[field::CODE] = code;
    }

    /// Computes the checksum as [`verify_checksum`](Packet::verify_checksum) does and writes it.
    #[inline]
    pub fn fill_checksum(&mut self, addresses: Addresses) {
        write_u16(self.buffer.as_mut(), field::CHECKSUM, 0);
        let checksum = self.sum(addresses).checksum();
        write_u16(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }
}

mod field {
    use crate::field::Field;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: Field = 2..4;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    const V4: Addresses = Addresses::V4 { source: Ipv4Addr::LOCALHOST, destination: Ipv4Addr::LOCALHOST };
    const V6: Addresses = Addresses::V6 {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };

    // bytes(ICMP(type=8, code=0, id=1, seq=2)/b"ping")
    const V4_ECHO: [u8; 12] = [0x08, 0x00, 0x19, 0x2c, 0x00, 0x01, 0x00, 0x02, 0x70, 0x69, 0x6e, 0x67];
    // bytes(IPv6(src="2001:db8::1", dst="2001:db8::2")/ICMPv6EchoRequest(id=1, seq=2, data=b"ping"))[40:]
    const V6_ECHO: [u8; 12] = [0x80, 0x00, 0x45, 0x70, 0x00, 0x01, 0x00, 0x02, 0x70, 0x69, 0x6e, 0x67];

    #[test]
    fn deconstructs() {
        for (bytes, kind, addresses, other) in [(V4_ECHO, 8, V4, V6), (V6_ECHO, 128, V6, V4)] {
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            assert_eq!((packet.kind(), packet.code()), (kind, 0));
            assert!(packet.verify_checksum(addresses) && !packet.verify_checksum(other));
            assert_eq!(packet.into_payload(), &bytes[4..]);
        }
    }

    #[test]
    fn header_or_nothing() {
        assert_eq!(Packet::new_checked([8, 0, 0]).map(|_| ()).unwrap_err(), Error::Truncated);
        assert!(Packet::new_checked([8, 0, 0, 0]).unwrap().payload().is_empty());
    }

    proptest! {
        #[test]
        fn fill_then_verify(bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..100), kind: u8, code: u8) {
            let mut packet = Packet::new_checked(bytes).unwrap();
            packet.set_kind(kind);
            packet.set_code(code);
            for addresses in [V4, V6] {
                packet.fill_checksum(addresses);
                prop_assert!(packet.verify_checksum(addresses));
            }
            prop_assert_eq!((packet.kind(), packet.code()), (kind, code));
        }
    }
}
