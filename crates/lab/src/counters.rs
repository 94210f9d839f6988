//! Packets and bytes.

/// Numbers of packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of packets.
    pub packets: u64,
    /// Sum of the packets' lengths in bytes, without FCS.
    pub bytes: u64,
}

impl std::ops::Sub for Counters {
    type Output = Self;

    /// Saturates at zero.
    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}
