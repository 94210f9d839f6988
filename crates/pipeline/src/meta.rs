//! What is known of a packet besides its bytes.

use crate::verdict::PortId;
use xdpfwd_wire::Headers;

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The port that it came in on.
    pub ingress: PortId,
    /// The queue of that port.
    pub queue: u16,
    /// Whether it came out of encryption on its path: nothing of it may go back in clear to where it came from.
    pub opened: bool,
    /// What was parsed of it when it came, with offsets from the start of the frame: a stage that moves the start or
    /// rewrites headers parses again ([`PacketMut::reparse`](crate::PacketMut::reparse)). All zero if no stage of the path
    /// [`needs_headers`](crate::Stage::needs_headers).
    pub headers: Headers,
}
