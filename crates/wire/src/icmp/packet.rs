//! A view of an ICMP message.

use crate::checksum::Sum;
use crate::error::Error;
use crate::field::{read_u16, write_u16};
use crate::ip::{Addresses, IpProtocol};

/// Length of the fields that all messages share: type, code and checksum.
pub const HEADER_LEN: usize = field::CHECKSUM.end;

/// A view of an ICMP or ICMPv6 message, which is the whole buffer, because ICMP has no length
/// field. Setters do not update the checksum.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`, which must have no Ethernet padding.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        Ok(Packet { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the type: for example, a constant of [`v4`](super::v4) for ICMP or of
    /// [`v6`](super::v6) for ICMPv6.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE]
    }

    /// Returns the code, whose meaning depends on the type.
    #[inline]
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[field::CODE]
    }

    /// Returns the checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Returns whether the checksum is valid. With IPv6 addresses, it covers a pseudo header and
    /// the message (RFC 4443, section 2.3); with IPv4 addresses, only the message (RFC 792).
    #[inline]
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        self.sum(addresses).folded() == 0xffff
    }

    /// Returns the bytes after the checksum.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    #[inline]
    fn sum(&self, addresses: Addresses) -> Sum {
        let data = self.buffer.as_ref();
        let sum = match addresses {
            Addresses::V4 { .. } => Sum::new(),
            Addresses::V6 { .. } => {
                Sum::pseudo_header(addresses, IpProtocol::ICMPV6, data.len() as u32)
            }
        };
        sum.with(data)
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the type.
    #[inline]
    pub fn set_kind(&mut self, kind: u8) {
        self.buffer.as_mut()[field::TYPE] = kind;
    }

    /// Sets the code.
    #[inline]
    pub fn set_code(&mut self, code: u8) {
        self.buffer.as_mut()[field::CODE] = code;
    }

    /// Writes the checksum, over the bytes that [`verify_checksum`](Packet::verify_checksum) names.
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

    const V4: Addresses =
        Addresses::V4 { source: Ipv4Addr::LOCALHOST, destination: Ipv4Addr::LOCALHOST };
    const V6: Addresses = Addresses::V6 {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };

    // bytes(ICMP(type=8, code=0, id=1, seq=2)/b"ping")
    const V4_ECHO: [u8; 12] =
        [0x08, 0x00, 0x19, 0x2c, 0x00, 0x01, 0x00, 0x02, 0x70, 0x69, 0x6e, 0x67];
    // bytes(IPv6(src="2001:db8::1", dst="2001:db8::2")/ICMPv6EchoRequest(id=1, seq=2,
    // data=b"ping"))[40:]
    const V6_ECHO: [u8; 12] =
        [0x80, 0x00, 0x45, 0x70, 0x00, 0x01, 0x00, 0x02, 0x70, 0x69, 0x6e, 0x67];

    #[test]
    fn packet_accessors_return_fields_and_verify_checksum() {
        for (bytes, kind, addresses, wrong_addresses) in
            [(V4_ECHO, 8, V4, V6), (V6_ECHO, 128, V6, V4)]
        {
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            assert_eq!((packet.kind(), packet.code()), (kind, 0));
            assert!(packet.verify_checksum(addresses) && !packet.verify_checksum(wrong_addresses));
            assert_eq!(packet.into_payload(), &bytes[4..]);
        }
    }

    #[test]
    fn packet_shorter_than_header_is_truncated() {
        assert_eq!(Packet::new_checked([8, 0, 0]).map(|_| ()).unwrap_err(), Error::Truncated);
        assert!(Packet::new_checked([8, 0, 0, 0]).unwrap().payload().is_empty());
    }

    proptest! {
        #[test]
        fn filled_checksum_is_valid(bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..100), kind: u8, code: u8) {
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
