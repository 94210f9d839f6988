//! Metadata of a packet.

use crate::verdict::PortId;
use xdpfwd_wire::Headers;

/// Metadata of a packet: its ingress queue and its parsed headers.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The port on which the packet arrived.
    pub ingress: PortId,
    /// The number of the queue on which the packet arrived, from 0.
    pub queue: u16,
    /// Whether a stage has decrypted the packet. Its content must then not be sent in clear text to
    /// the ingress port.
    pub decrypted: bool,
    /// The headers as parsed on arrival, with offsets from the start of the frame. A stage that
    /// rewrites headers or moves the start of the frame updates them with
    /// [`PacketMut::reparse`](crate::PacketMut::reparse). Meaningless, for example those of an
    /// earlier packet, if no stage of the path [needs headers](crate::Stage::needs_headers).
    pub headers: Headers,
}
