//! GTP-U messages (3GPP TS 29.281): the header, and the walk along its extension headers to what a G-PDU carries.

use crate::error::Error;
use crate::field::{read_u16, read_u32};

/// The UDP port that messages are sent to (TS 29.281, 4.4.2.3).
pub const PORT: u16 = 2152;

/// Length of the header without its optional fields.
pub const HEADER_LEN: usize = 8;

/// How many extension headers [`Packet::new_checked`] walks over.
pub const MAX_EXTENSIONS: usize = 8;

/// The message that carries a user's packet (TS 29.281, 6.1).
pub const G_PDU: u8 = 255;

/// A view of a message. `new_checked` makes sure that the header, its optional fields and extension headers, and the length
/// that it states are within the buffer; after it no accessor panics.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
    payload: usize,
    end: usize,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of `buffer`, which begins behind UDP's header.
    ///
    /// - [`Error::Truncated`]: it ends before the header does, or before the length that it states.
    /// - [`Error::Malformed`]: another version than 1, GTP' (protocol type 0), or an extension header of length 0.
    /// - [`Error::ExtensionChainTooLong`]: more than [`MAX_EXTENSIONS`] of them.
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if data[0] >> 4 != 0b0011 {
            return Err(Error::Malformed);
        }
        let end = HEADER_LEN + usize::from(read_u16(data, 2..4));
        let data = data.get(..end).ok_or(Error::Truncated)?;
        let mut at = HEADER_LEN;
        // If one of the flags is there, all of the fields are: sequence number, N-PDU number, next extension header's type.
        if data[0] & 0b111 != 0 {
            at += 4;
            let mut next = *data.get(at - 1).ok_or(Error::Truncated)?;
            if data[0] & 0b100 == 0 {
                next = 0;
            }
            let mut walked = 0;
            while next != 0 {
                if walked == MAX_EXTENSIONS {
                    return Err(Error::ExtensionChainTooLong);
                }
                walked += 1;
                // In units of 4 bytes, itself and the next one's type included.
                let length = usize::from(*data.get(at).ok_or(Error::Truncated)?) * 4;
                if length == 0 {
                    return Err(Error::Malformed);
                }
                at += length;
                next = *data.get(at - 1).ok_or(Error::Truncated)?;
            }
        }
        Ok(Self { buffer, payload: at, end })
    }

    /// What sort of message it is: [`G_PDU`] or one between the nodes themselves.
    pub fn message_type(&self) -> u8 {
        self.buffer.as_ref()[1]
    }

    /// The tunnel endpoint identifier, of the receiver.
    pub fn teid(&self) -> u32 {
        read_u32(self.buffer.as_ref(), 4..8)
    }

    /// Where what it carries begins, in the buffer.
    pub fn payload_offset(&self) -> usize {
        self.payload
    }

    /// What it carries.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.payload..self.end]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_payload_is_behind_what_flags_and_extensions_say() {
        let plain = [0x30, 255, 0, 3, 0, 0, 0, 7, 1, 2, 3, 99];
        let packet = Packet::new_checked(&plain[..]).unwrap();
        assert_eq!((packet.message_type(), packet.teid(), packet.payload()), (G_PDU, 7, &[1, 2, 3][..]));
        // A sequence number; what stands where an extension header's type would be does not count.
        let numbered = [0x32, 255, 0, 5, 0, 0, 0, 7, 0, 1, 0, 0x85, 42];
        assert_eq!(Packet::new_checked(&numbered[..]).unwrap().payload(), [42]);
        // As 5G has it: a PDU session container (TS 38.415), and another one.
        let extended = [0x34, 255, 0, 14, 0, 0, 0, 7, 0, 0, 0, 0x85, 1, 0x10, 9, 0x40, 1, 0, 0, 0, 42, 43];
        let packet = Packet::new_checked(&extended[..]).unwrap();
        assert_eq!((packet.payload(), packet.payload_offset()), (&[42, 43][..], 20));
        let wrong = |at: usize, byte: u8| {
            let mut bytes = extended;
            bytes[at] = byte;
            Packet::new_checked(&bytes[..]).err()
        };
        assert_eq!(wrong(0, 0x54), Some(Error::Malformed), "version 2");
        assert_eq!(wrong(0, 0x24), Some(Error::Malformed), "GTP'");
        assert_eq!(wrong(12, 0), Some(Error::Malformed));
        assert_eq!(wrong(12, 9), Some(Error::Truncated));
        assert_eq!(wrong(3, 15), Some(Error::Truncated));
        let endless: Vec<u8> =
            [&[0x34, 255, 0, 44, 0, 0, 0, 7, 0, 0, 0, 0x40][..], &[1, 0, 0, 0x40].repeat(10)].concat();
        assert_eq!(Packet::new_checked(endless).err(), Some(Error::ExtensionChainTooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_payload_within_them_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[0x34, 255, 0][..], &bytes].concat();
            if let Ok(packet) = Packet::new_checked(&bytes) {
                prop_assert!(packet.payload_offset() + packet.payload().len() <= bytes.len());
                packet.teid();
            }
        }
    }
}
