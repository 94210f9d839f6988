//! Generic netlink. The kernel assigns family IDs at run time, so families are opened by name.

use std::io;

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// The family that resolves names (linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
/// Attributes of the control family.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Length of a netlink header in bytes: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;
/// Length of a generic netlink header in bytes: command, version, two reserved bytes.
const GENERIC_HEADER_LEN: usize = 4;
/// Message types (linux/netlink.h).
const DONE: u16 = 3;
const ERROR: u16 = 2;

/// Size in bytes. The longest reply, the names of an interface's offloads, has a few thousand.
const RECEIVE_BUFFER_LEN: usize = 1 << 16;

pub(crate) struct Family {
    socket: Socket,
    id: u16,
}

impl Family {
    /// Fails with `NotFound` if the kernel has no such family.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut family = Self { socket, id: CONTROL };
        let reply =
            family.query(GET_FAMILY, &attribute(FAMILY_NAME, format!("{name}\0").as_bytes()))?;
        let id =
            find(&reply, FAMILY_ID).and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)));
        family.id = id.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel's reply has no ID of the netlink family",
            )
        })?;
        Ok(family)
    }

    pub(crate) fn query(&self, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
        const VERSION: u8 = 1;
        let length = HEADER_LEN + GENERIC_HEADER_LEN + attributes.len();
        let mut message = Vec::with_capacity(length);
        message.extend((length as u32).to_ne_bytes());
        message.extend(self.id.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend([0; 8]); // sequence number and port
        message.extend([command, VERSION, 0, 0]);
        message.extend(attributes);
        self.socket.send(&message, 0)?;
        let mut reply = Vec::new();
        loop {
            let mut datagram = Vec::with_capacity(RECEIVE_BUFFER_LEN);
            self.socket.recv(&mut datagram, 0)?;
            if read(&datagram, self.id, &mut reply)? {
                return Ok(reply);
            }
        }
    }
}

/// Appends attributes to `reply`. Returns whether the reply is complete.
fn read(datagram: &[u8], family: u16, reply: &mut Vec<u8>) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some((length, kind)) = message_header(rest) {
        let (message, after) = rest.split_at(length);
        match kind {
            DONE => return Ok(true),
            // The requested acknowledgement is an error with code 0.
            ERROR => {
                let code = message
                    .get(HEADER_LEN..HEADER_LEN + 4)
                    .and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
                return match code {
                    Some(0) => Ok(true),
                    Some(code) => Err(io::Error::from_raw_os_error(-code)),
                    None => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the kernel's netlink error message has no code",
                    )),
                };
            }
            kind if kind == family => {
                reply.extend(message.get(HEADER_LEN + GENERIC_HEADER_LEN..).unwrap_or_default());
            }
            _ => {}
        }
        rest = after;
    }
    Ok(false)
}

/// Returns the padded length and the type; `None` for an incomplete message.
fn message_header(messages: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(messages.get(4..6)?.try_into().ok()?);
    let padded = length.next_multiple_of(4).min(messages.len());
    (length >= HEADER_LEN && length <= messages.len()).then_some((padded, kind))
}

/// Returns the bytes of an attribute, padded to a multiple of 4 bytes.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Returns the types and values of attributes, up to the first malformed attribute.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|attribute| (attribute.kind() & NLA_TYPE_MASK, value(attribute.into_inner())))
}

fn value(attribute: &[u8]) -> &[u8] {
    let length =
        attribute.first_chunk().map_or(0, |length| usize::from(u16::from_ne_bytes(*length)));
    attribute.get(4..length).unwrap_or_default()
}

pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(other, _)| *other == kind).map(|(_, value)| value)
}

/// Like [`find`], for a number of 32 bits. Returns `None` also if the value is not 4 bytes long.
pub(crate) fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(bytes, kind)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_decode_to_encoded_values() {
        const NESTED: u16 = 1 << 15;
        let bytes =
            [attribute(3, b"abc"), attribute(1 | NESTED, &7u32.to_ne_bytes()), attribute(2, b"")]
                .concat();
        assert_eq!(
            attributes(&bytes).collect::<Vec<_>>(),
            [(3, &b"abc"[..]), (1, &7u32.to_ne_bytes()), (2, b"")]
        );
        assert_eq!(find_u32(&bytes, 1), Some(7));
        assert_eq!(find_u32(&bytes, 3), None);
    }

    #[test]
    fn truncated_attribute_or_header_is_ignored() {
        let bytes = attribute(1, &[9; 40]);
        for length in 0..bytes.len() {
            assert_eq!(attributes(&bytes[..length]).count(), 0, "{length}");
        }
        for length in 0..HEADER_LEN {
            assert_eq!(message_header(&vec![16; length]), None);
        }
    }

    #[test]
    fn family_open_with_unknown_name_returns_enoent() {
        let error = Family::open("xdpfwd-none").err().unwrap();
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENOENT as i32), "{error}");
    }
}
