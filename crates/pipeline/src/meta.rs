//! Metadata of a packet.

use crate::verdict::PortId;
use xdpfwd_wire::Headers;

/// Metadata of a packet: where it arrived, and its parsed headers.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The port on which the packet arrived.
    pub ingress: PortId,
    /// The queue of that port, from 0.
    pub queue: u16,
    /// Whether a stage of the path has decrypted it: none of its content may go back in clear to
    /// the port it came from.
    pub decrypted: bool,
    /// The headers as they were on arrival, with offsets from the start of the frame. A stage that
    /// moves the start or rewrites headers calls [`PacketMut::reparse`](crate::PacketMut::reparse).
    /// Undefined if no stage of the path [`needs_headers`](crate::Stage::needs_headers).
    pub headers: Headers,
}
