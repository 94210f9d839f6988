//! An ICMP header to be written.

use super::kind::{v4, v6};
use super::packet::Packet;
use crate::error::Error;
use crate::ip::{Addresses, IpVersion};

/// The first 8 bytes of a message to be written, and the length of the payload after them.
///
/// Every message of RFC 792, RFC 4443 and RFC 4861 has at least 8 bytes. The addresses for
/// [`emit_with_checksum`](Self::emit_with_checksum) select ICMP or ICMPv6.
///
/// ```
/// use xdpfwd_wire::icmp;
/// use xdpfwd_wire::{Addresses, IpVersion};
///
/// let addresses =
///     Addresses::V4 { source: [10, 0, 0, 1].into(), destination: [10, 0, 0, 2].into() };
/// let (ident, sequence, payload_len) = (7, 1, 4);
/// let repr = icmp::Repr::echo_request(IpVersion::V4, ident, sequence, payload_len);
/// let mut message = *b"........ping";
/// repr.emit_with_checksum(&mut message, addresses)?;
/// let packet = icmp::Packet::new_checked(&message)?;
/// assert_eq!(packet.kind(), icmp::v4::ECHO_REQUEST);
/// assert!(packet.verify_checksum(addresses));
/// assert_eq!(icmp::Repr::parse(&packet)?, repr);
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Repr {
    /// Type, for example a constant of [`v4`] or [`v6`].
    pub kind: u8,
    /// Code, whose meaning depends on the type.
    pub code: u8,
    /// Bytes 4 to 7: for example, identifier and sequence number of an echo, or the MTU of "packet
    /// too big".
    pub second_word: [u8; 4],
    /// Length of the payload after the first 8 bytes.
    pub payload_len: u16,
}

impl Repr {
    /// The number of bytes that [`emit`](Self::emit) writes.
    pub const LEN: usize = 8;

    /// Creates an echo request (RFC 792; RFC 4443, section 4.1).
    #[inline]
    pub const fn echo_request(
        version: IpVersion,
        ident: u16,
        sequence: u16,
        payload_len: u16,
    ) -> Repr {
        let kind = match version {
            IpVersion::V4 => v4::ECHO_REQUEST,
            IpVersion::V6 => v6::ECHO_REQUEST,
        };
        Repr { kind, code: 0, second_word: echo_second_word(ident, sequence), payload_len }
    }

    /// Creates an echo reply (RFC 792; RFC 4443, section 4.2).
    #[inline]
    pub const fn echo_reply(
        version: IpVersion,
        ident: u16,
        sequence: u16,
        payload_len: u16,
    ) -> Repr {
        let kind = match version {
            IpVersion::V4 => v4::ECHO_REPLY,
            IpVersion::V6 => v6::ECHO_REPLY,
        };
        Repr { kind, code: 0, second_word: echo_second_word(ident, sequence), payload_len }
    }

    /// Returns the first 8 bytes of a message.
    ///
    /// Does not verify the checksum. If it is valid, `emit_with_checksum` writes the same bytes.
    ///
    /// Returns [`Error::Truncated`] if the message is shorter than 8 bytes, and
    /// [`Error::Malformed`] if it is longer than 65535 bytes.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Repr, Error> {
        let (second_word, payload) =
            packet.payload().split_first_chunk().ok_or(Error::Truncated)?;
        let len = Self::LEN + payload.len();
        if len > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        let payload_len = payload.len() as u16;
        Ok(Repr {
            kind: packet.kind(),
            code: packet.code(),
            second_word: *second_word,
            payload_len,
        })
    }

    /// Returns the identifier and sequence number of an echo message.
    #[inline]
    pub const fn echo_ident_and_sequence(&self) -> (u16, u16) {
        let [a, b, c, d] = self.second_word;
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    /// Returns [`LEN`](Self::LEN).
    #[inline]
    pub const fn header_len(&self) -> usize {
        Self::LEN
    }

    /// Returns the length of the message.
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        Self::LEN + self.payload_len as usize
    }

    /// Writes the 8 bytes to the front of `buffer`, with a checksum field of 0: call
    /// [`Packet::fill_checksum`] when the payload is complete.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than 8 bytes, and [`Error::Malformed`]
    /// if the message exceeds 65535 bytes.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        if self.buffer_len() > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        let header = buffer.first_chunk_mut::<{ Self::LEN }>().ok_or(Error::Truncated)?;
        let [a, b, c, d] = self.second_word;
        *header = [self.kind, self.code, 0, 0, a, b, c, d];
        Ok(())
    }

    /// Writes the 8 bytes to the front of `buffer`, with the checksum of the message. The payload
    /// must already follow them.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the message, and
    /// [`Error::Malformed`] if the message exceeds 65535 bytes.
    #[inline]
    pub fn emit_with_checksum(&self, buffer: &mut [u8], addresses: Addresses) -> Result<(), Error> {
        let message = buffer.get_mut(..self.buffer_len()).ok_or(Error::Truncated)?;
        self.emit(message)?;
        Packet::new_checked(message)?.fill_checksum(addresses);
        Ok(())
    }
}

const fn echo_second_word(ident: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (ident.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const V4: Addresses =
        Addresses::V4 { source: Ipv4Addr::LOCALHOST, destination: Ipv4Addr::LOCALHOST };
    const V6: Addresses =
        Addresses::V6 { source: Ipv6Addr::LOCALHOST, destination: Ipv6Addr::LOCALHOST };

    #[test]
    fn message_shorter_than_eight_bytes_is_truncated() {
        let packet = Packet::new_checked([8, 0, 0, 0, 1, 2, 3]).unwrap();
        assert_eq!(Repr::parse(&packet), Err(Error::Truncated));
        assert_eq!(Repr::default().emit(&mut [0; 7]), Err(Error::Truncated));
        let repr = Repr { payload_len: 1, ..Repr::default() };
        assert_eq!(repr.emit_with_checksum(&mut [0; 8], V4), Err(Error::Truncated));
    }

    #[test]
    fn message_longer_than_65535_bytes_is_malformed() {
        let repr = Repr { payload_len: 65_528, ..Repr::default() };
        assert_eq!(repr.emit(&mut [0; 8]), Err(Error::Malformed));
        let parsed = Repr::parse(&Packet::new_checked(vec![0; 65_536]).unwrap());
        assert_eq!(parsed, Err(Error::Malformed));
    }

    #[test]
    fn echo_repr_has_type_of_ip_version() {
        let request = Repr::echo_request(IpVersion::V6, 0x0102, 0x0304, 5);
        assert_eq!(request, Repr { kind: 128, code: 0, second_word: [1, 2, 3, 4], payload_len: 5 });
        assert_eq!(request.echo_ident_and_sequence(), (0x0102, 0x0304));
        assert_eq!(Repr::echo_request(IpVersion::V4, 0, 0, 0).kind, 8);
        assert_eq!(Repr::echo_reply(IpVersion::V4, 0, 0, 0).kind, 0);
        assert_eq!(Repr::echo_reply(IpVersion::V6, 0, 0, 0).kind, 129);
    }

    proptest! {
        #[test]
        fn parsed_message_equals_emitted_message(
            (kind, code, second_word) in any::<(u8, u8, [u8; 4])>(),
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let repr = Repr { kind, code, second_word, payload_len: payload.len() as u16 };
            for addresses in [V4, V6] {
                let mut bytes = [&[0xee; Repr::LEN][..], &payload].concat();
                repr.emit_with_checksum(&mut bytes, addresses).unwrap();
                let packet = Packet::new_checked(&bytes[..]).unwrap();
                prop_assert!(packet.verify_checksum(addresses));
                prop_assert_eq!(&packet.payload()[4..], &payload[..]);
                prop_assert_eq!(Repr::parse(&packet), Ok(repr));
                prop_assert_eq!(repr.buffer_len(), bytes.len());
            }
        }
    }
}
