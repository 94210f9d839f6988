//! A view of a GTP-U message (3GPP TS 29.281, clause 5).

use super::extension::{ExtensionType, Extensions};
use super::pdu_session::PduSessionContainer;
use crate::error::Error;
use crate::field::{read_u16, read_u32, write_u32};

/// The UDP destination port of messages (TS 29.281, clause 4.4.2).
pub const PORT: u16 = 2152;

/// Flag in the first byte: extension headers follow.
const FLAG_E: u8 = 0b100;
/// Flag in the first byte: the sequence number is valid.
const FLAG_S: u8 = 0b010;
/// Flag in the first byte: the N-PDU number is valid.
const FLAG_PN: u8 = 0b001;

/// Length of the header without optional fields.
pub const HEADER_LEN: usize = 8;

/// The most extension headers that [`Packet::new_checked`] accepts.
pub const MAX_EXTENSIONS: usize = 8;

/// A view of a GTP-U message.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
    payload_offset: usize,
    end: usize,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`, which begins after the UDP header.
    ///
    /// Errors:
    ///
    /// - [`Error::Truncated`]: `buffer` is shorter than the message, or the message ends within its
    ///   headers.
    /// - [`Error::Malformed`]: the version is not 1, the protocol type is GTP' (0), or an extension
    ///   header has length 0.
    /// - [`Error::ExtensionChainTooLong`]: more than [`MAX_EXTENSIONS`] extension headers.
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        // Version 1 (three bits), protocol type GTP (one bit).
        if data[0] >> 4 != 0b0011 {
            return Err(Error::Malformed);
        }
        let end = HEADER_LEN + usize::from(read_u16(data, 2..4));
        let data = data.get(..end).ok_or(Error::Truncated)?;
        let mut at = HEADER_LEN;
        // Any flag adds all optional fields.
        if data[0] & (FLAG_E | FLAG_S | FLAG_PN) != 0 {
            at += 4;
            // The type of the first extension header, to be ignored without the flag E.
            let mut next = *data.get(at - 1).ok_or(Error::Truncated)?;
            if data[0] & FLAG_E == 0 {
                next = 0;
            }
            let mut count = 0;
            while next != 0 {
                if count == MAX_EXTENSIONS {
                    return Err(Error::ExtensionChainTooLong);
                }
                count += 1;
                // The length field counts units of 4 bytes and covers the whole extension header.
                let length = usize::from(*data.get(at).ok_or(Error::Truncated)?) * 4;
                if length == 0 {
                    return Err(Error::Malformed);
                }
                at += length;
                next = *data.get(at - 1).ok_or(Error::Truncated)?;
            }
        }
        Ok(Self { buffer, payload_offset: at, end })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the message type: for example, [`G_PDU`](super::G_PDU).
    pub fn message_type(&self) -> u8 {
        self.buffer.as_ref()[1]
    }

    /// Returns the tunnel endpoint identifier (TEID), which the receiver assigned.
    pub fn teid(&self) -> u32 {
        read_u32(self.buffer.as_ref(), 4..8)
    }

    /// Returns the sequence number, or `None` without the flag S.
    #[inline]
    pub fn sequence_number(&self) -> Option<u16> {
        let data = self.buffer.as_ref();
        (data[0] & FLAG_S != 0).then(|| read_u16(data, 8..10))
    }

    /// Returns the N-PDU number, or `None` without the flag PN.
    #[inline]
    pub fn n_pdu_number(&self) -> Option<u8> {
        let data = self.buffer.as_ref();
        (data[0] & FLAG_PN != 0).then(|| data[10])
    }

    /// Returns an iterator over the extension headers.
    #[inline]
    pub fn extensions(&self) -> Extensions<'_> {
        let data = self.buffer.as_ref();
        if data[0] & FLAG_E == 0 {
            return Extensions::new(ExtensionType::NONE, &[]);
        }
        Extensions::new(ExtensionType(data[11]), &data[12..self.payload_offset])
    }

    /// Returns the first PDU session container (TS 38.415), if any.
    ///
    /// Returns the errors of [`PduSessionContainer::parse`].
    #[inline]
    pub fn pdu_session_container(&self) -> Result<Option<PduSessionContainer>, Error> {
        let is_container = |kind| kind == ExtensionType::PDU_SESSION_CONTAINER;
        let container = self.extensions().find(|header| is_container(header.kind));
        container.map(|header| PduSessionContainer::parse(header.content)).transpose()
    }

    /// Returns the offset of the payload in the buffer, in bytes.
    pub fn payload_offset(&self) -> usize {
        self.payload_offset
    }

    /// Returns the bytes after all headers, up to the end of the message: in a G-PDU, the user's
    /// packet.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.payload_offset..self.end]
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[self.payload_offset..self.end]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the tunnel endpoint identifier. Does not update the outer UDP checksum.
    #[inline]
    pub fn set_teid(&mut self, teid: u32) {
        write_u32(self.buffer.as_mut(), 4..8, teid);
    }

    /// Returns the [`payload`](Packet::payload) for writing.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[self.payload_offset..self.end]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::G_PDU;
    use super::*;

    #[test]
    fn view_finds_payload_and_rejects_invalid_headers() {
        let plain = [0x30, 255, 0, 3, 0, 0, 0, 7, 1, 2, 3, 99];
        let packet = Packet::new_checked(&plain[..]).unwrap();
        assert_eq!(
            (packet.message_type(), packet.teid(), packet.payload()),
            (G_PDU, 7, &[1, 2, 3][..])
        );
        // The extension header type 0x85 is ignored, because flag E is not set.
        let numbered = [0x32, 255, 0, 5, 0, 0, 0, 7, 0, 1, 0, 0x85, 42];
        assert_eq!(Packet::new_checked(&numbered[..]).unwrap().payload(), [42]);
        // A PDU session container (TS 38.415), and another extension header.
        let extended =
            [0x34, 255, 0, 14, 0, 0, 0, 7, 0, 0, 0, 0x85, 1, 0x10, 9, 0x40, 1, 0, 0, 0, 42, 43];
        let packet = Packet::new_checked(&extended[..]).unwrap();
        assert_eq!((packet.payload(), packet.payload_offset()), (&[42, 43][..], 20));
        let error_with = |at: usize, byte: u8| {
            let mut bytes = extended;
            bytes[at] = byte;
            Packet::new_checked(&bytes[..]).err()
        };
        assert_eq!(error_with(0, 0x54), Some(Error::Malformed), "version 2");
        assert_eq!(error_with(0, 0x24), Some(Error::Malformed), "GTP'");
        assert_eq!(error_with(12, 0), Some(Error::Malformed), "extension of 0 bytes");
        assert_eq!(error_with(12, 9), Some(Error::Truncated), "extension of 36 bytes");
        assert_eq!(error_with(3, 15), Some(Error::Truncated), "message length");
        let long_chain: Vec<u8> =
            [&[0x34, 255, 0, 44, 0, 0, 0, 7, 0, 0, 0, 0x40][..], &[1, 0, 0, 0x40].repeat(10)]
                .concat();
        assert_eq!(Packet::new_checked(long_chain).err(), Some(Error::ExtensionChainTooLong));
    }

    #[test]
    fn optional_field_is_none_unless_its_flag_is_set() {
        let mut bytes = [0x30, 255, 0, 4, 0, 0, 0, 7, 1, 2, 3, 0];
        let fields = |bytes: &[u8]| {
            let packet = Packet::new_checked(bytes).unwrap();
            (packet.sequence_number(), packet.n_pdu_number(), packet.payload().len())
        };
        assert_eq!(fields(&bytes), (None, None, 4));
        bytes[0] = 0x32;
        assert_eq!(fields(&bytes), (Some(0x0102), None, 0));
        bytes[0] = 0x31;
        assert_eq!(fields(&bytes), (None, Some(3), 0));
        bytes[0] = 0x34;
        assert_eq!(fields(&bytes), (None, None, 0));
    }

    #[test]
    fn extensions_are_listed_with_type_and_content() {
        let bytes =
            [0x34, 255, 0, 14, 0, 0, 0, 7, 0, 0, 0, 0x85, 1, 0x10, 9, 0x40, 1, 8, 104, 0, 42, 43];
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        let extensions: Vec<_> =
            packet.extensions().map(|header| (header.kind, header.content)).collect();
        let container = (ExtensionType::PDU_SESSION_CONTAINER, &[0x10, 9][..]);
        assert_eq!(extensions, [container, (ExtensionType::UDP_PORT, &[8, 104][..])]);
        assert_eq!(packet.pdu_session_container().unwrap().unwrap().qfi(), 9);
        assert_eq!(packet.into_payload(), [42, 43]);
    }

    #[test]
    fn set_teid_changes_the_teid_only() {
        let mut packet = Packet::new_checked([0x30, 255, 0, 1, 0, 0, 0, 7, 42]).unwrap();
        packet.set_teid(0x0102_0304);
        packet.payload_mut()[0] = 43;
        assert_eq!(packet.into_inner(), [0x30, 255, 0, 1, 1, 2, 3, 4, 43]);
    }

    proptest! {
        #[test]
        fn view_of_any_bytes_has_payload_within_buffer(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[0x34, 255, 0][..], &bytes].concat();
            if let Ok(packet) = Packet::new_checked(&bytes) {
                prop_assert!(packet.payload_offset() + packet.payload().len() <= bytes.len());
                let extensions: usize = packet.extensions().map(|header| header.content.len() + 2).sum();
                prop_assert_eq!(packet.payload_offset(), 12 + extensions);
                let _ = (packet.teid(), packet.sequence_number(), packet.n_pdu_number());
                let _ = packet.pdu_session_container();
            }
        }
    }
}
