//! Message types (TS 29.281, table 6.1-1), and payloads of messages between nodes.

use core::net::IpAddr;

use crate::error::Error;

/// Echo request (TS 29.281, clause 7.2.1).
pub const ECHO_REQUEST: u8 = 1;
/// Echo response, with payload [`RECOVERY`] (TS 29.281, clause 7.2.2).
pub const ECHO_RESPONSE: u8 = 2;
/// Error indication (TS 29.281, clause 7.3.1): the receiver of a G-PDU has no such tunnel. The
/// payload is an [`ErrorIndication`].
pub const ERROR_INDICATION: u8 = 26;
/// Supported extension headers notification (TS 29.281, clause 7.2.3).
pub const SUPPORTED_EXTENSION_HEADERS_NOTIFICATION: u8 = 31;
/// Tunnel status (TS 29.281, clause 7.3.3).
pub const TUNNEL_STATUS: u8 = 253;
/// End marker: the tunnel's last message (TS 29.281, clause 7.3.2).
pub const END_MARKER: u8 = 254;
/// G-PDU, which carries a user's packet (TS 29.281, clause 6.1).
pub const G_PDU: u8 = 255;

/// The payload of an echo response (TS 29.281, clause 8.2): the type 14, and a restart counter that
/// is always 0.
pub const RECOVERY: [u8; 2] = [14, 0];

/// Returns the name of a message type, such as `"echo request"`, if this module has a constant for
/// the type.
pub const fn message_name(message_type: u8) -> Option<&'static str> {
    Some(match message_type {
        ECHO_REQUEST => "echo request",
        ECHO_RESPONSE => "echo response",
        ERROR_INDICATION => "error indication",
        SUPPORTED_EXTENSION_HEADERS_NOTIFICATION => "supported extension headers notification",
        TUNNEL_STATUS => "tunnel status",
        END_MARKER => "end marker",
        G_PDU => "G-PDU",
        _ => return None,
    })
}

/// The payload of an error indication (TS 29.281, clause 7.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorIndication {
    /// TEID of the G-PDU for which the receiver had no tunnel.
    pub teid: u32,
    /// Destination address of that G-PDU.
    pub peer: IpAddr,
}

/// "Tunnel endpoint identifier data I" (TS 29.281, clause 8.3).
const TEID_DATA_I: u8 = 16;
/// "GTP-U peer address" (TS 29.281, clause 8.4).
const PEER_ADDRESS: u8 = 133;
/// The TEID element (5 bytes), and type and length of the address element (3).
const FRONT_LEN: usize = 8;

impl ErrorIndication {
    /// Parses the payload of an error indication. Later elements are ignored.
    ///
    /// Returns [`Error::Truncated`] if `payload` ends within the TEID or address element, and
    /// [`Error::Malformed`] if it does not begin with them.
    pub fn parse(payload: &[u8]) -> Result<ErrorIndication, Error> {
        let (front, rest) = payload.split_first_chunk::<FRONT_LEN>().ok_or(Error::Truncated)?;
        let [TEID_DATA_I, a, b, c, d, PEER_ADDRESS, high, low] = *front else {
            return Err(Error::Malformed);
        };
        let peer = match u16::from_be_bytes([high, low]) {
            4 => IpAddr::from(*rest.first_chunk::<4>().ok_or(Error::Truncated)?),
            16 => IpAddr::from(*rest.first_chunk::<16>().ok_or(Error::Truncated)?),
            _ => return Err(Error::Malformed),
        };
        Ok(ErrorIndication { teid: u32::from_be_bytes([a, b, c, d]), peer })
    }

    /// Returns the length that [`emit`](Self::emit) writes: 12 or 24.
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        FRONT_LEN + if self.peer.is_ipv4() { 4 } else { 16 }
    }

    /// Writes the payload of the message to the front of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is too short.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let payload = buffer.get_mut(..self.buffer_len()).ok_or(Error::Truncated)?;
        let (front, address) = payload.split_at_mut(FRONT_LEN);
        let [a, b, c, d] = self.teid.to_be_bytes();
        // Cannot overflow: 4 or 16.
        let len = address.len() as u8;
        front.copy_from_slice(&[TEID_DATA_I, a, b, c, d, PEER_ADDRESS, 0, len]);
        match self.peer {
            IpAddr::V4(peer) => address.copy_from_slice(&peer.octets()),
            IpAddr::V6(peer) => address.copy_from_slice(&peer.octets()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn error_indication_is_emitted_parsed_and_checked() {
        let indication = ErrorIndication { teid: 0x0102_0304, peer: [10, 0, 0, 1].into() };
        let mut payload = [0xee; 12];
        indication.emit(&mut payload).unwrap();
        assert_eq!(payload, [16, 1, 2, 3, 4, 133, 0, 4, 10, 0, 0, 1]);
        assert_eq!(ErrorIndication::parse(&payload), Ok(indication));
        assert_eq!(ErrorIndication::parse(&payload[..11]), Err(Error::Truncated));
        assert_eq!(indication.emit(&mut payload[..11]), Err(Error::Truncated));
        payload[7] = 5;
        assert_eq!(ErrorIndication::parse(&payload), Err(Error::Malformed));
        payload[0] = 17;
        assert_eq!(ErrorIndication::parse(&payload), Err(Error::Malformed));
    }

    proptest! {
        #[test]
        fn parsed_error_indication_equals_emitted(teid: u32, peer: IpAddr) {
            let indication = ErrorIndication { teid, peer };
            let mut payload = vec![0xee; indication.buffer_len()];
            indication.emit(&mut payload).unwrap();
            prop_assert_eq!(ErrorIndication::parse(&payload), Ok(indication));
        }

        #[test]
        fn parse_of_any_error_indication_does_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(front) = bytes.first_chunk_mut::<FRONT_LEN>() {
                front[0] = TEID_DATA_I;
                front[5] = PEER_ADDRESS;
            }
            let _ = ErrorIndication::parse(&bytes);
        }
    }
}
