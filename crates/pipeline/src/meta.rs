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
    /// Whether a stage of the path has decrypted it: none of its content may go back in clear to the port it came from.
    pub decrypted: bool,
    /// What was parsed of it when it came, with offsets from the start of the frame: a stage that moves the start or
    /// rewrites headers parses again ([`PacketMut::reparse`](crate::PacketMut::reparse)). All zero if no stage of the path
    /// [`needs_headers`](crate::Stage::needs_headers).
    pub headers: Headers,
}
