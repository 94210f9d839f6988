//! What a stage decides about a packet.

use crate::reason::Reason;

/// The number of a port in its worker, in the order in which ports were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// What becomes of a packet after a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next stage, and after the last one to the path's port.
    #[default]
    Next,
    /// Out of this port at once, past the stages that follow.
    To(PortId),
    /// Dropped, and counted under this reason.
    Drop(Reason),
}
