//! Rate limits: token buckets that all workers share.
//!
//! A bucket stores one number: the time at which it would have been empty. It holds the tokens
//! earned since, up to the burst. Taking tokens advances that time (the inverse of the generic cell
//! rate algorithm, ITU-T I.371). A worker takes tokens for several packets at once and spends them
//! locally, so workers contend for a bucket a few thousand times per second, not per packet.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xdpfwd_filter::{Limit, Unit};
use xdpfwd_xsk::clock;

/// Time steps per clock cycle: at 1 Tbit/s, one bit takes a fraction of a cycle.
const STEPS: u64 = 16;

/// The fill rate and capacity of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Steps per second.
    second: u64,
    /// Tokens per second.
    rate: u64,
    /// Steps to fill the bucket.
    full: u64,
    /// Minimum tokens that a worker takes at once; a fraction of the burst, so that all workers get
    /// some.
    draw: u64,
}

impl Rate {
    pub(super) fn new(limit: &Limit, workers: usize) -> Self {
        let second = clock::cycles_per_second() as u64 * STEPS;
        let rate = Self {
            second,
            rate: limit.rate,
            full: 0,
            draw: limit.burst / (8 * workers.max(1) as u64),
        };
        let full = rate.time(limit.burst);
        // At most one millisecond's worth: tokens of an idle worker are lost to the others.
        Self { full, draw: rate.draw.min(limit.rate / 1000), ..rate }
    }

    /// Returns the steps in which this many tokens are earned.
    fn time(&self, tokens: u64) -> u64 {
        u64::try_from(u128::from(tokens) * u128::from(self.second) / u128::from(self.rate))
            .unwrap_or(u64::MAX)
    }
}

/// A token bucket, initially full.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes tokens at a time in cycles. Returns `false` and takes nothing if there are too few.
    fn draw(&self, tokens: u64, rate: &Rate, now: u64) -> bool {
        // The offset makes a new bucket full even when the clock is at 0.
        let now = now.saturating_mul(STEPS).saturating_add(rate.full);
        let cost = rate.time(tokens);
        let empty_since = |empty: u64| {
            let from = empty.max(now - rate.full);
            // Saturating: another worker's clock may be slightly ahead. A packet larger than the
            // bucket needs a full bucket and borrows the rest from future tokens.
            (now.saturating_sub(from) >= cost.min(rate.full)).then_some(from.saturating_add(cost))
        };
        // Relaxed: no other data depends on this value.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, empty_since).is_ok()
    }
}

/// A worker's share of a limit.
#[derive(Debug)]
pub(super) struct Meter {
    rate: Rate,
    unit: Unit,
    bucket: Arc<Bucket>,
    /// Tokens taken and not spent.
    credit: u64,
}

impl Meter {
    pub(super) fn new(limit: &Limit, bucket: Arc<Bucket>, workers: usize) -> Self {
        Self { rate: Rate::new(limit, workers), unit: limit.unit, bucket, credit: 0 }
    }

    /// Returns whether a packet of this many bytes may pass.
    #[inline]
    pub(super) fn passes(&mut self, bytes: usize, now: u64) -> bool {
        let tokens = cost(self.unit, bytes);
        if self.credit >= tokens {
            self.credit -= tokens;
            return true;
        }
        let missing = tokens - self.credit;
        for draw in [missing + self.rate.draw, missing] {
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

/// A bucket per source prefix, in a set-associative table of fixed size. A new prefix without a
/// free slot replaces the prefix with the fullest bucket, and inherits that bucket.
#[derive(Debug)]
pub(super) struct Sources {
    rate: Rate,
    unit: Unit,
    length: u8,
    /// Random, so that senders cannot choose prefixes that share a slot.
    seed: u64,
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the prefix; 0 if free.
    of: AtomicU64,
    bucket: Bucket,
}

/// Number of slots.
const SLOTS: usize = 1 << 16;
/// Slots per set.
const WAYS: usize = 8;

impl Sources {
    pub(super) fn new(limit: &Limit, length: u8) -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        let seed = RandomState::new().hash_one(0_u64);
        Self {
            rate: Rate { draw: 0, ..Rate::new(limit, 1) },
            unit: limit.unit,
            length,
            seed,
            slots,
        }
    }

    /// Returns whether a packet of this many bytes from an address may pass.
    pub(super) fn passes(&self, source: &xdpfwd_filter::Addresses, bytes: usize, now: u64) -> bool {
        let prefix = match *source {
            xdpfwd_filter::Addresses::V4 { source, .. } => {
                u128::from(source.checked_shr(32 - u32::from(self.length.min(32))).unwrap_or(0))
                    << 8
                    | 4
            }
            xdpfwd_filter::Addresses::V6 { source, .. } => {
                source.checked_shr(128 - u32::from(self.length)).unwrap_or(0) ^ 6 << 120
            }
        };
        let hash =
            mix(prefix as u64 ^ mix((prefix >> 64) as u64 ^ self.seed) ^ self.seed.rotate_left(32))
                | 1;
        let set = (hash >> 32) as usize % (SLOTS / WAYS) * WAYS;
        let set = &self.slots[set..set + WAYS];
        let found = set.iter().find(|slot| slot.of.load(Ordering::Relaxed) == hash);
        let slot = found.unwrap_or_else(|| {
            // Two workers may claim a slot at once; then two prefixes share its bucket for a while.
            let slot = set
                .iter()
                .min_by_key(|slot| slot.bucket.0.load(Ordering::Relaxed))
                .unwrap_or(&set[0]);
            // Inherits the bucket: evicting and re-adding a prefix must not refill it.
            slot.of.store(hash, Ordering::Relaxed);
            slot
        });
        slot.bucket.draw(cost(self.unit, bytes), &self.rate, now)
    }
}

fn mix(value: u64) -> u64 {
    let product = u128::from(value) * 0xa409_3822_299f_31d1;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdpfwd_filter::Per;

    fn limit(rate: u64, unit: Unit, burst: u64) -> Limit {
        Limit { rate, unit, burst, per: Per::Rule }
    }

    /// Returns a time in cycles, after a start that is later than any burst takes to fill.
    fn at(seconds: f64) -> u64 {
        (clock::cycles_per_second() * (100.0 + seconds)) as u64
    }

    fn passed(meter: &mut Meter, packets: usize, bytes: usize, now: u64) -> usize {
        (0..packets).filter(|_| meter.passes(bytes, now)).count()
    }

    #[test]
    fn meter_passes_burst_then_rate() {
        let limit = limit(1000, Unit::Packets, 50);
        let mut meter = Meter::new(&limit, Arc::default(), 1);
        assert_eq!(passed(&mut meter, 200, 60, at(0.0)), 50);
        assert_eq!(passed(&mut meter, 200, 60, at(0.0101)), 10);
        assert_eq!(passed(&mut meter, 200, 60, at(0.0106)), 0);
        // An idle period of any length earns at most the burst.
        assert_eq!(passed(&mut meter, 200, 60, at(90.0)), 50);
    }

    #[test]
    fn meter_limits_bits_per_second() {
        // Ten frames of 1250 bytes per second.
        let limit = limit(100_000, Unit::Bits, 20_000);
        let mut meter = Meter::new(&limit, Arc::default(), 1);
        let passed: usize =
            (0..100).map(|tenth| passed(&mut meter, 10, 1250, at(f64::from(tenth) / 10.0))).sum();
        // The first two frames come from the burst.
        assert!((99..=102).contains(&passed), "{passed}");
    }

    /// A frame longer than the burst still passes at the rate.
    #[test]
    fn frame_larger_than_burst_passes_at_rate() {
        let limit = limit(121_120, Unit::Bits, 100);
        let mut meter = Meter::new(&limit, Arc::default(), 1);
        // Ten frames of 1514 bytes per second, also within the first second after boot.
        let early = |millisecond: u32| {
            (clock::cycles_per_second() * f64::from(millisecond) / 1000.0) as u64
        };
        let passed: usize =
            (0..10_000).map(|millisecond| passed(&mut meter, 1, 1514, early(millisecond))).sum();
        assert!((98..=102).contains(&passed), "{passed}");
    }

    #[test]
    fn new_bucket_is_full_right_after_boot() {
        let limit = limit(1, Unit::Packets, 1000);
        assert_eq!(passed(&mut Meter::new(&limit, Arc::default(), 1), 2000, 60, 5), 1000);
    }

    #[test]
    fn workers_share_one_bucket() {
        let limit = limit(100_000, Unit::Packets, 1000);
        let bucket = Arc::new(Bucket::default());
        let mut workers: Vec<_> =
            (0..4).map(|_| Meter::new(&limit, Arc::clone(&bucket), 4)).collect();
        let mut total = 0;
        for step in 0..1000 {
            for meter in &mut workers {
                total += passed(meter, 60, 60, at(f64::from(step) / 1000.0));
            }
        }
        // One second's worth and the burst; workers hold back a fraction of it.
        assert!((100_500..=101_000).contains(&total), "{total}");
    }

    #[test]
    fn idle_worker_holds_back_few_tokens() {
        let limit = limit(1000, Unit::Packets, 8);
        let bucket = Arc::new(Bucket::default());
        let mut idle = Meter::new(&limit, Arc::clone(&bucket), 2);
        let mut busy = Meter::new(&limit, Arc::clone(&bucket), 2);
        assert!(idle.passes(60, at(0.0)));
        assert!(passed(&mut busy, 20, 60, at(0.0)) >= 6);
    }

    #[test]
    fn each_source_prefix_has_own_bucket() {
        let limit = limit(10, Unit::Packets, 5);
        let sources = Sources::new(&limit, 24);
        let from = |source: u32| xdpfwd_filter::Addresses::V4 { source, destination: 1 };
        let passed =
            |source: u32| (0..20).filter(|_| sources.passes(&from(source), 60, at(0.0))).count();
        assert_eq!(passed(0x0a00_0001), 5);
        assert_eq!(passed(0x0a00_0002), 0, "the same /24");
        assert_eq!(passed(0x0a00_0101), 5);
        let v6 = |source: u128| xdpfwd_filter::Addresses::V6 { source, destination: 1 };
        assert_eq!((0..20).filter(|_| sources.passes(&v6(1 << 110), 60, at(0.0))).count(), 5);
    }
}
