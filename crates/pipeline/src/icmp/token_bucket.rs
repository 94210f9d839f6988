//! A rate limit of messages.

/// A token bucket for messages of one worker, full at first.
///
/// Unlike the filter's rate limits, it is not shared by workers, and may have rate 0.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    max_tokens: f64,
    tokens_per_cycle: f64,
    /// Time of the last refill, in cycles.
    last_refill: u64,
}

impl TokenBucket {
    /// The rate is an equal share of `per_second`, and at least one per second unless `per_second`
    /// is 0. The bucket holds the messages of a tenth of a second, but at least one.
    pub(super) fn new(per_second: u32, workers: usize, cycles_per_second: f64) -> Self {
        if per_second == 0 {
            return Self { tokens: 0.0, max_tokens: 0.0, tokens_per_cycle: 0.0, last_refill: 0 };
        }
        let share = (f64::from(per_second) / workers.max(1) as f64).max(1.0);
        let max_tokens = (share / 10.0).max(1.0);
        let tokens_per_cycle = share / cycles_per_second;
        Self { tokens: max_tokens, max_tokens, tokens_per_cycle, last_refill: 0 }
    }

    /// Returns the number of tokens, without those that have arrived since the last
    /// [`Self::has_token`].
    pub(super) fn tokens(&self) -> f64 {
        self.tokens
    }

    /// Refills the bucket, and returns whether a message may be sent. If the clock has jumped back,
    /// adds no token and continues from the new time.
    pub(super) fn has_token(&mut self, now_cycles: u64) -> bool {
        let elapsed = now_cycles.saturating_sub(self.last_refill);
        self.last_refill = now_cycles;
        self.tokens = (self.tokens + elapsed as f64 * self.tokens_per_cycle).min(self.max_tokens);
        self.tokens >= 1.0
    }

    pub(super) fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}
