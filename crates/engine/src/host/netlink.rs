//! rtnetlink queries and notifications.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub(crate) struct Dump {
    pub(crate) replies: Vec<RouteNetlinkMessage>,
    /// Whether nothing changed during the dump. Otherwise entries may be missing or duplicated.
    pub(crate) consistent: bool,
}

const MAX_ATTEMPTS: usize = 3;

/// Requests all objects of a kind (a dump). The result is inconsistent only if every attempt was.
pub(crate) fn dump(request: &RouteNetlinkMessage) -> io::Result<Dump> {
    let mut dump = dump_once(request)?;
    for _ in 1..MAX_ATTEMPTS {
        if dump.consistent {
            break;
        }
        dump = dump_once(request)?;
    }
    Ok(dump)
}

pub(crate) fn query(request: &RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
    let socket = send(request, NLM_F_REQUEST)?;
    let mut dump = Dump { replies: Vec::new(), consistent: true };
    read(&socket.recv_from_full()?.0, &mut dump)?;
    dump.replies.pop().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "cannot parse the kernel's reply")
    })
}

fn send(request: &RouteNetlinkMessage, flags: u16) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // With strict checking (Linux 4.20) the kernel returns only the requested routing table.
    let _ = socket.set_netlink_get_strict_chk(true);
    let mut message = NetlinkMessage::from(request.clone());
    message.header.flags = flags;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    Ok(socket)
}

fn dump_once(request: &RouteNetlinkMessage) -> io::Result<Dump> {
    let socket = send(request, NLM_F_DUMP | NLM_F_REQUEST)?;
    let mut dump = Dump { replies: Vec::new(), consistent: true };
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if read(&datagram, &mut dump)? {
            return Ok(dump);
        }
    }
}

/// Adds to `dump`. Returns whether the reply is complete.
fn read(datagram: &[u8], dump: &mut Dump) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some(length) = message_length(rest) {
        let (message, after) = rest.split_at(length);
        rest = after;
        let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            Ok(message) => message,
            Err(error) => {
                static ONCE: std::sync::Once = std::sync::Once::new();
                ONCE.call_once(|| {
                    tracing::warn!(%error, "skipping netlink messages that cannot be parsed");
                });
                continue;
            }
        };
        dump.consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
        match message.payload {
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(-done.code));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(reply) => dump.replies.push(reply),
            _ => {}
        }
    }
    Ok(false)
}

/// Returns the length with padding; `None` for an incomplete message.
fn message_length(messages: &[u8]) -> Option<usize> {
    const HEADER_LEN: usize = 16;
    let length = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let padded = length.next_multiple_of(4).min(messages.len());
    (HEADER_LEN <= length && length <= messages.len()).then_some(padded)
}

/// Notifications of changed links and addresses.
pub(crate) struct Monitor(Socket);

impl Monitor {
    pub(crate) fn new() -> io::Result<Self> {
        // linux/rtnetlink.h, `enum rtnetlink_groups`
        const LINK: u32 = 1;
        const IPV4_ADDRESS: u32 = 5;
        const IPV6_ADDRESS: u32 = 9;
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in [LINK, IPV4_ADDRESS, IPV6_ADDRESS] {
            socket.add_membership(group)?;
        }
        Ok(Self(socket))
    }

    /// Discards all pending notifications. Callers then read all links and addresses,
    /// so a lost notification does no harm.
    pub(crate) fn drain(&self) {
        const ENOBUFS: i32 = 105; // the kernel lost notifications; reading clears this error
        while self
            .0
            .recv_from_full()
            .map_or_else(|error| error.raw_os_error() == Some(ENOBUFS), |_| true)
        {}
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn message(payload: NetlinkPayload<RouteNetlinkMessage>, flags: u16) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        message.header.flags |= flags;
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn link() -> NetlinkPayload<RouteNetlinkMessage> {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(LinkMessage::default()))
    }

    fn done(code: i32) -> NetlinkPayload<RouteNetlinkMessage> {
        let mut done = DoneMessage::default();
        done.code = code;
        NetlinkPayload::Done(done)
    }

    #[test]
    fn interrupted_dump_is_not_consistent() {
        for (flags, consistent) in [(0, true), (NLM_F_DUMP_INTR, false)] {
            let mut dump = Dump { replies: Vec::new(), consistent: true };
            let datagram = [message(link(), flags), message(link(), 0)].concat();
            assert!(!read(&datagram, &mut dump).unwrap());
            assert!(read(&message(done(0), 0), &mut dump).unwrap());
            assert_eq!((dump.replies.len(), dump.consistent), (2, consistent));
        }
    }

    #[test]
    fn read_returns_error_of_done_message_and_skips_invalid_data() {
        let mut dump = Dump { replies: Vec::new(), consistent: true };
        assert_eq!(read(&message(done(-12), 0), &mut dump).unwrap_err().raw_os_error(), Some(12));
        for datagram in [&[][..], &[1], &[0; 16], &[255; 40], &[4, 0, 0, 0, 9, 9, 9, 9]] {
            assert!(!read(datagram, &mut dump).unwrap(), "{datagram:?}");
        }
        assert!(dump.replies.is_empty());
    }
}
