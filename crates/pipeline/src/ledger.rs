//! The ledger: what each stage did, and what it cost.

/// One stage's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageAccount {
    /// Batches that it was called with.
    pub calls: u64,
    /// Packets in them.
    pub packets: u64,
    /// Packets that it dropped.
    pub drops: u64,
    /// Cycles of [`xsk::clock`] that it took, verdicts carried out included.
    pub cycles: u64,
    /// Frames that it holds at this moment.
    pub held: u32,
}

impl StageAccount {
    /// Cycles per packet; 0 before the first packet.
    pub fn cycles_per_packet(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.cycles as f64 / self.packets as f64 }
    }

    /// Adds what another worker's copy of the stage did.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.packets += other.packets;
        self.drops += other.drops;
        self.cycles += other.cycles;
        self.held += other.held;
    }
}
