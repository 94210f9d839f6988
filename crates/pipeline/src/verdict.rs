//! A stage's decision about a packet.

use crate::reason::Reason;

/// The number of a port, from 0 in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// A stage's decision about a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on to the next stage. After the last stage, it goes to the egress port of
    /// the path.
    #[default]
    Next,
    /// The packet goes to the egress queue of this port and skips the remaining stages.
    To(PortId),
    /// The packet is dropped and counted under this reason.
    Drop(Reason),
}
