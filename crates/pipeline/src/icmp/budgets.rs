//! Rate limits of ICMP errors: one for each source prefix (an IPv4 address or an IPv6 /64), so that
//! one host cannot use up the messages of other hosts, and one for all prefixes together.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use super::token_bucket::TokenBucket;

/// All source prefixes together get at most this many times the messages of one prefix.
const ALL_SOURCES: u32 = 16;
/// Slots per set.
const WAYS: usize = 8;
const SLOTS: usize = 1024;

/// The budgets of one worker, in a set-associative table of fixed size. A new prefix without a free
/// slot in its set replaces the prefix with the fullest bucket, and inherits the bucket, so that a
/// sender gains nothing by having its prefix replaced.
#[derive(Clone, Debug)]
pub(super) struct Budgets {
    all: TokenBucket,
    /// Random, so that senders cannot find prefixes that share a set.
    hash_key: RandomState,
    slots: Box<[Slot]>,
}

#[derive(Clone, Debug)]
struct Slot {
    /// The hash of the prefix; 0 if the slot is free.
    prefix_hash: u64,
    bucket: TokenBucket,
}

impl Budgets {
    /// Creates the budgets of one worker. `per_second` is the number of messages that all workers
    /// together may send to one prefix: see [`TokenBucket::new`].
    pub(super) fn new(per_second: u32, workers: usize, cycles_per_second: f64) -> Self {
        let bucket = |per_second| TokenBucket::new(per_second, workers, cycles_per_second);
        let slot = Slot { prefix_hash: 0, bucket: bucket(per_second) };
        Self {
            all: bucket(per_second.saturating_mul(ALL_SOURCES)),
            hash_key: RandomState::new(),
            slots: vec![slot; SLOTS].into(),
        }
    }

    /// Returns the slot of the source's prefix, for [`Self::take`], and assigns one if it has none.
    /// `None` if the source may get no message now. `now` is in cycles.
    pub(super) fn find(&mut self, source: IpAddr, now: u64) -> Option<usize> {
        if !self.all.has_token(now) {
            return None;
        }
        let prefix = match source {
            IpAddr::V4(address) => (4, u64::from(address.to_bits())),
            IpAddr::V6(address) => (6, (address.to_bits() >> 64) as u64),
        };
        let hash = self.hash_key.hash_one(prefix) | 1;
        let start = (hash >> 32) as usize % (SLOTS / WAYS) * WAYS;
        let set = self.slots.get_mut(start..start + WAYS)?;
        let index = match set.iter().position(|slot| slot.prefix_hash == hash) {
            Some(found) => found,
            None => {
                // Refills buckets, to compare their tokens.
                for slot in &mut *set {
                    slot.bucket.has_token(now);
                }
                let tokens = |index: &usize| set[*index].bucket.tokens();
                let fullest = (0..WAYS).max_by(|a, b| tokens(a).total_cmp(&tokens(b)))?;
                set[fullest].prefix_hash = hash;
                fullest
            }
        };
        set[index].bucket.has_token(now).then_some(start + index)
    }

    /// Takes a message from the budgets of the slot and of all sources.
    pub(super) fn take(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.bucket.take();
            self.all.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cycles per second.
    const SECOND: u64 = 1_000_000;

    fn budgets(per_second: u32) -> Budgets {
        Budgets::new(per_second, 1, SECOND as f64)
    }

    /// Returns how many of `attempts` messages may be sent to the source at `now`.
    fn sent(budgets: &mut Budgets, source: IpAddr, attempts: usize, now: u64) -> usize {
        let mut sent = 0;
        for _ in 0..attempts {
            if let Some(slot) = budgets.find(source, now) {
                budgets.take(slot);
                sent += 1;
            }
        }
        sent
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 | number).into())
    }

    fn v6(prefix: u64, host: u64) -> IpAddr {
        IpAddr::V6((u128::from(prefix) << 64 | u128::from(host)).into())
    }

    #[test]
    fn rate_0_has_no_messages() {
        assert_eq!(sent(&mut budgets(0), v4(1), 200, SECOND), 0);
    }

    #[test]
    fn flood_of_one_source_leaves_messages_for_others() {
        let mut budgets = budgets(100);
        for step in 0..1000 {
            let now = SECOND + step * SECOND / 1000;
            sent(&mut budgets, v4(1), 100, now);
            sent(&mut budgets, v6(1, step), 100, now);
        }
        let now = 2 * SECOND;
        // Other sources still get their messages, even those with neighbouring addresses.
        assert_eq!(sent(&mut budgets, v4(2), 200, now), 10);
        assert_eq!(sent(&mut budgets, v6(2, 1), 200, now), 10);
        assert!(sent(&mut budgets, v4(1), 200, now) <= 1);
        assert!(sent(&mut budgets, v6(1, 2), 200, now) <= 1);
    }

    #[test]
    fn all_sources_together_get_sixteen_times_the_rate() {
        let mut budgets = budgets(100);
        let mut total = 0;
        for source in 0..100_000 {
            total +=
                sent(&mut budgets, v4(source), 1, SECOND + u64::from(source) * SECOND / 100_000);
        }
        assert!((1500..=1800).contains(&total), "{total}");
    }
}
