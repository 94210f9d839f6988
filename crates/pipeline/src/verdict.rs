//! A stage's decision about a packet.

use crate::reason::Reason;

/// The number of a port, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// A stage's decision about a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on to the next stage or, after the last, to the path's egress port.
    #[default]
    Next,
    /// The packet skips the remaining stages and goes to the egress queue of this port.
    To(PortId),
    /// The packet is dropped and counted under this reason.
    Drop(Reason),
}
