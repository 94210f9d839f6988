//! Questions to the kernel over rtnetlink, and the news that it sends.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// How often a list is asked for again that changed while the kernel told it.
const ATTEMPTS: usize = 10;

/// Everything that the kernel answers to a request for a list.
pub(crate) fn dump(request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut interrupted = io::Error::from(io::ErrorKind::Interrupted);
    for _ in 0..ATTEMPTS {
        match dump_once(request) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => interrupted = error,
            result => return result,
        }
    }
    Err(interrupted)
}

fn dump_once(request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request.clone());
    message.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut answers = Vec::new();
    let mut consistent = true;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some(length) = message_length(rest) {
            let (message, after) = rest.split_at(length);
            rest = after;
            let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%error, "a netlink message that cannot be read is left out");
                    continue;
                }
            };
            consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) if consistent => return Ok(answers),
                NetlinkPayload::Done(_) => return Err(io::ErrorKind::Interrupted.into()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
        }
    }
}

/// The length of the first message, padding included; `None` if there is no whole one.
fn message_length(messages: &[u8]) -> Option<usize> {
    const HEADER: usize = 16;
    let length = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let padded = length.next_multiple_of(4).min(messages.len());
    (HEADER <= length && length <= messages.len()).then_some(padded)
}

/// Hears when links or addresses of this network namespace change.
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

    /// Takes the news that have come. What they say is not looked at: whoever wants to know asks for all of it, so that it does
    /// not matter if the kernel had to leave some out.
    pub(crate) fn drain(&self) {
        const ENOBUFS: i32 = 105; // some were left out; reading it clears it
        while self.0.recv_from_full().map_or_else(|error| error.raw_os_error() == Some(ENOBUFS), |_| true) {}
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
