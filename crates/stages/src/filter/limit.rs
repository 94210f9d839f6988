//! Rate limits: token buckets that all workers share.
//!
//! A bucket is a single time, `empty_at`. The bucket holds the tokens earned since then, but at
//! most the burst. Taking tokens advances `empty_at` by the time to earn them. (The generic cell
//! rate algorithm, ITU-T I.371, instead stores the time at which the bucket is full again.)
//!
//! A worker takes tokens for several packets at once and spends them locally. So workers contend
//! for a bucket a few thousand times per second instead of once per packet.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portable_atomic::AtomicU128;
use xdpfwd_filter::{Limit, Unit};
use xdpfwd_xsk::clock;

/// The frequency of the clock of packet times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    per_second: u64,
}

impl Ticks {
    /// For the timestamps in a capture.
    pub(crate) const NANOSECONDS: Self = Self { per_second: 1_000_000_000 };

    /// Returns the frequency of [`clock::cycles`].
    pub(crate) fn cycles() -> Self {
        Self { per_second: clock::cycles_per_second() as u64 }
    }
}

/// A rate, with times in steps. One tick of the clock has `tokens_per_second` steps, so that a
/// token takes exactly `ticks_per_second` steps, without rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    ticks_per_second: u64,
    tokens_per_second: u64,
    /// Steps in which an empty bucket fills up.
    fill_time: u128,
    /// Tokens that a worker draws in advance for later packets; only a fraction of the burst, so
    /// that other workers find some.
    advance_tokens: u64,
}

impl Rate {
    /// Creates a rate with which workers draw no tokens in advance.
    pub(super) fn new(limit: &Limit, ticks: Ticks) -> Self {
        let fill_time = u128::from(limit.burst) * u128::from(ticks.per_second);
        Self {
            ticks_per_second: ticks.per_second,
            tokens_per_second: limit.rate,
            fill_time,
            advance_tokens: 0,
        }
    }

    /// Lets `workers` workers, which share a bucket, draw tokens in advance.
    pub(super) fn with_advance_tokens(self, limit: &Limit, workers: usize) -> Self {
        // Draw at most the tokens of one millisecond in advance: if this worker becomes idle,
        // others cannot use them.
        let advance_tokens = (limit.burst / (8 * workers.max(1) as u64)).min(limit.rate / 1000);
        Self { advance_tokens, ..self }
    }
}

/// The time `empty_at` in steps. A new bucket is full.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU128);

impl Bucket {
    /// Takes `tokens` tokens at the time `now`, in ticks. If there are too few, takes none and
    /// returns false.
    fn draw(&self, tokens: u64, rate: &Rate, now: u64) -> bool {
        // The products of 64-bit numbers cannot overflow. Adding the fill time makes a new bucket
        // full even when the clock is at 0.
        let now = u128::from(now) * u128::from(rate.tokens_per_second);
        let now = now.saturating_add(rate.fill_time);
        let cost = u128::from(tokens) * u128::from(rate.ticks_per_second);
        let take = |empty_at: u128| {
            let empty_at = empty_at.max(now - rate.fill_time);
            // Saturating, because another worker's clock may be slightly ahead. A packet that costs
            // more than the burst needs a full bucket, and takes the missing tokens in advance.
            let has_tokens = now.saturating_sub(empty_at) >= cost.min(rate.fill_time);
            has_tokens.then_some(empty_at.saturating_add(cost))
        };
        // Relaxed: no other data depends on this value.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// One worker's access to a limit.
#[derive(Debug)]
pub(super) struct Meter {
    rate: Rate,
    unit: Unit,
    bucket: Arc<Bucket>,
    /// Tokens taken from the bucket and not yet spent.
    credit: u64,
}

impl Meter {
    pub(super) fn new(rate: Rate, unit: Unit, bucket: Arc<Bucket>) -> Self {
        Self { rate, unit, bucket, credit: 0 }
    }

    /// Spends the tokens for `bytes` bytes at the time `now`. Returns false if there are too few.
    #[inline]
    pub(super) fn passes(&mut self, bytes: usize, now: u64) -> bool {
        let tokens = cost(self.unit, bytes);
        if self.credit >= tokens {
            self.credit -= tokens;
            return true;
        }
        let missing = tokens - self.credit;
        for draw in [missing + self.rate.advance_tokens, missing] {
            if self.bucket.draw(draw, &self.rate, now) {
                self.credit = self.credit + draw - tokens;
                return true;
            }
        }
        false
    }
}

#[inline]
fn cost(unit: Unit, bytes: usize) -> u64 {
    match unit {
        Unit::Packets => 1,
        Unit::Bits => bytes as u64 * 8,
    }
}

/// A bucket per source prefix, in a set-associative table of fixed size. A new prefix
/// takes a free slot of its set. If there is none, it takes the slot with the fullest bucket, and
/// continues with that bucket.
#[derive(Debug)]
pub(super) struct SourceBuckets {
    rate: Rate,
    unit: Unit,
    /// In bits.
    prefix_len: u8,
    /// Random, so that senders cannot find prefixes that share a set.
    seed: u64,
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the prefix; 0 if free.
    prefix_hash: AtomicU64,
    bucket: Bucket,
}

const SLOTS: usize = 1 << 16;
/// Slots per set.
const WAYS: usize = 8;

impl SourceBuckets {
    pub(super) fn new(limit: &Limit, prefix_len: u8, ticks: Ticks) -> Self {
        Self::with_seed(limit, prefix_len, ticks, RandomState::new().hash_one(0_u64))
    }

    /// Creates buckets for a dry run. They always replace the same prefixes, so that the same
    /// packets get the same verdicts each time.
    pub(super) fn for_dry_run(limit: &Limit, prefix_len: u8) -> Self {
        Self::with_seed(limit, prefix_len, Ticks::NANOSECONDS, 0)
    }

    fn with_seed(limit: &Limit, prefix_len: u8, ticks: Ticks, seed: u64) -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        // No tokens in advance: a worker takes the tokens for each packet from the shared bucket.
        Self { rate: Rate::new(limit, ticks), unit: limit.unit, prefix_len, seed, slots }
    }

    /// Spends the tokens for a packet of `bytes` bytes at the time `now`. Returns false if there
    /// are too few.
    pub(super) fn passes(
        &self,
        addresses: &xdpfwd_filter::Addresses,
        bytes: usize,
        now: u64,
    ) -> bool {
        let hash = self.prefix_hash(addresses);
        let set_start = (hash >> 32) as usize % (SLOTS / WAYS) * WAYS;
        let set = &self.slots[set_start..set_start + WAYS];
        let found = set.iter().find(|slot| slot.prefix_hash.load(Ordering::Relaxed) == hash);
        let slot = found.unwrap_or_else(|| {
            // The fullest bucket. If two workers replace its prefix at once, both new prefixes
            // share it for a while.
            let slot = set
                .iter()
                .min_by_key(|slot| slot.bucket.0.load(Ordering::Relaxed))
                .unwrap_or(&set[0]);
            // Keep the bucket: a sender must not get a full one because its prefix was replaced.
            slot.prefix_hash.store(hash, Ordering::Relaxed);
            slot
        });
        slot.bucket.draw(cost(self.unit, bytes), &self.rate, now)
    }

    /// Returns the source prefix's hash, never 0.
    #[inline]
    fn prefix_hash(&self, addresses: &xdpfwd_filter::Addresses) -> u64 {
        let (version, prefix) = match *addresses {
            xdpfwd_filter::Addresses::V4 { source, .. } => {
                let shift = 32 - u32::from(self.prefix_len.min(32));
                (4, u128::from(source.checked_shr(shift).unwrap_or(0)))
            }
            xdpfwd_filter::Addresses::V6 { source, .. } => {
                (6, source.checked_shr(128 - u32::from(self.prefix_len)).unwrap_or(0))
            }
        };
        // An IPv6 prefix can fill all 128 bits, so the IP version goes into the seed. The seed is
        // secret, so senders cannot choose an IPv6 prefix with the hash of an IPv4 prefix.
        let seed = mix(self.seed ^ version);
        mix(prefix as u64 ^ mix((prefix >> 64) as u64 ^ seed) ^ seed.rotate_left(32)) | 1
    }
}

fn mix(value: u64) -> u64 {
    let product = u128::from(value) * 0xa409_3822_299f_31d1;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
