//! A pair of counters: packets and bytes.

/// Packets and bytes (frame lengths in memory), counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames.
    pub packets: u64,
    /// Bytes: the sum of the frames' lengths in memory.
    pub bytes: u64,
}

impl std::ops::Sub for Counters {
    type Output = Self;

    /// Returns the increase between two readings. Saturates at zero.
    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}
