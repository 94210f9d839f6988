//! Promiscuous mode: the interface accepts frames for any MAC address.

use std::io;

use crate::socket::PacketSocket;

/// Keeps an interface in promiscuous mode until this value is dropped or the process ends. The
/// kernel counts the mode's users (`PACKET_MR_PROMISC` in
/// [packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html)).
#[derive(Debug)]
pub struct Promiscuous(#[expect(dead_code, reason = "keeps the socket open")] PacketSocket);

impl Promiscuous {
    /// Enables promiscuous mode on the interface with this index.
    pub fn enable(ifindex: u32) -> io::Result<Self> {
        let socket = PacketSocket::unbound()?;
        socket.enable_promiscuous(ifindex)?;
        Ok(Self(socket))
    }
}
