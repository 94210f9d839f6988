//! Worker functions for the test bench.

use super::Worker;
use crate::chain::Chain;

impl<C: Chain> Worker<C> {
    /// Stops the clock that stages see; it stays at `now` (in cycles).
    pub(crate) fn freeze_clock(&mut self, now: u64) {
        self.ledger.freeze(now);
        self.last_tick = now;
    }

    /// Sets the stopped clock that stages see to `now` (in cycles), and runs the stages' ticks.
    pub(crate) fn tick_at(&mut self, now: u64) {
        self.freeze_clock(now);
        self.tick(now);
    }

    /// Returns the number of frames that stages hold, by the worker's count.
    pub(crate) fn held_by_stages(&self) -> u32 {
        self.hold_quota - self.hold_quota_left
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.has_unsent_frames()
    }

    pub(crate) fn is_queued(&self, chunk: u32) -> bool {
        self.egress.has_chunk(chunk)
    }
}
