//! Promiscuous mode: an interface that takes in frames for any MAC address.

use std::io;

use crate::socket::PacketSocket;

/// Keeps an interface in promiscuous mode for as long as this, or the process, lives: the kernel
/// counts who wants it, and takes it back with the last.
/// [packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html), `PACKET_MR_PROMISC`.
#[derive(Debug)]
pub struct Promiscuous(#[expect(dead_code, reason = "kept open")] PacketSocket);

impl Promiscuous {
    /// Of the interface with this number.
    pub fn on(ifindex: u32) -> io::Result<Self> {
        let socket = PacketSocket::closed_to_all()?;
        socket.be_promiscuous(ifindex)?;
        Ok(Self(socket))
    }
}
