//! Rate limits: token buckets that all workers share.
//!
//! A bucket is a single time, `empty_at`. The bucket holds the tokens earned since then, but at
//! most the burst. Taking tokens advances `empty_at` by the time to earn them (the inverse of the
//! generic cell rate algorithm, ITU-T I.371).
//!
//! A worker takes tokens for several packets at once and spends them locally. So workers contend
//! for a bucket a few thousand times per second instead of once per packet.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xdpfwd_filter::{Limit, Unit};
use xdpfwd_xsk::clock;

/// Time steps per clock cycle: at 1 Tbit/s, one bit takes a fraction of a cycle.
const STEPS: u64 = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    steps_per_second: u64,
    tokens_per_second: u64,
    /// Steps in which an empty bucket fills up.
    fill_time: u64,
    /// Tokens for later packets that a worker takes along; only a fraction of the burst, so that
    /// other workers find some.
    extra_draw: u64,
}

impl Rate {
    pub(super) fn new(limit: &Limit, workers: usize) -> Self {
        let steps_per_second = clock::cycles_per_second() as u64 * STEPS;
        let rate = Self {
            steps_per_second,
            tokens_per_second: limit.rate,
            fill_time: 0,
            extra_draw: limit.burst / (8 * workers.max(1) as u64),
        };
        let fill_time = rate.time(limit.burst);
        // Draw at most the tokens of one millisecond in advance: if this worker becomes idle,
        // others cannot use them.
        Self { fill_time, extra_draw: rate.extra_draw.min(limit.rate / 1000), ..rate }
    }

    /// Steps in which `tokens` tokens are earned.
    fn time(&self, tokens: u64) -> u64 {
        u64::try_from(
            u128::from(tokens) * u128::from(self.steps_per_second)
                / u128::from(self.tokens_per_second),
        )
        .unwrap_or(u64::MAX)
    }
}

/// The time `empty_at` in steps. A new bucket is full.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes `tokens` tokens at the time `now`, in clock cycles. If there are too few, takes none
    /// and returns false.
    fn draw(&self, tokens: u64, rate: &Rate, now: u64) -> bool {
        // With the fill time, a new bucket is full even when the clock is at 0.
        let now = now.saturating_mul(STEPS).saturating_add(rate.fill_time);
        let cost = rate.time(tokens);
        let take = |empty_at: u64| {
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
    pub(super) fn new(limit: &Limit, bucket: Arc<Bucket>, workers: usize) -> Self {
        Self { rate: Rate::new(limit, workers), unit: limit.unit, bucket, credit: 0 }
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
        for draw in [missing + self.rate.extra_draw, missing] {
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
/// free slot in its set replaces the prefix with the fullest bucket, and inherits the bucket.
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
    pub(super) fn new(limit: &Limit, prefix_len: u8) -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        let seed = RandomState::new().hash_one(0_u64);
        Self {
            // Without extra draws, the number of workers does not matter.
            rate: Rate { extra_draw: 0, ..Rate::new(limit, 1) },
            unit: limit.unit,
            prefix_len,
            seed,
            slots,
        }
    }

    /// Spends the tokens for a packet of `bytes` bytes at the time `now`. Returns false if there
    /// are too few.
    pub(super) fn passes(
        &self,
        addresses: &xdpfwd_filter::Addresses,
        bytes: usize,
        now: u64,
    ) -> bool {
        // 4 and 6 make prefixes of different IP versions differ.
        let prefix = match *addresses {
            xdpfwd_filter::Addresses::V4 { source, .. } => {
                u128::from(source.checked_shr(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0))
                    << 8
                    | 4
            }
            xdpfwd_filter::Addresses::V6 { source, .. } => {
                source.checked_shr(128 - u32::from(self.prefix_len)).unwrap_or(0) ^ 6 << 120
            }
        };
        let hash =
            mix(prefix as u64 ^ mix((prefix >> 64) as u64 ^ self.seed) ^ self.seed.rotate_left(32))
                | 1;
        let set_start = (hash >> 32) as usize % (SLOTS / WAYS) * WAYS;
        let set = &self.slots[set_start..set_start + WAYS];
        let found = set.iter().find(|slot| slot.prefix_hash.load(Ordering::Relaxed) == hash);
        let slot = found.unwrap_or_else(|| {
            // If two workers replace a slot at once, two prefixes share it for a while.
            let slot = set
                .iter()
                .min_by_key(|slot| slot.bucket.0.load(Ordering::Relaxed))
                .unwrap_or(&set[0]);
            // A sender must not get a full bucket by having its prefix replaced.
            slot.prefix_hash.store(hash, Ordering::Relaxed);
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

    /// Returns a time in clock cycles, `seconds` after a start time; until then, every bucket has
    /// had time to fill.
    fn at(seconds: f64) -> u64 {
        (clock::cycles_per_second() * (100.0 + seconds)) as u64
    }

    const ONE_WORKER: usize = 1;

    /// Returns how many of `packets` packets of `bytes` bytes pass.
    fn passed(meter: &mut Meter, packets: usize, bytes: usize, now: u64) -> usize {
        (0..packets).filter(|_| meter.passes(bytes, now)).count()
    }

    #[test]
    fn meter_passes_burst_then_rate() {
        let limit = limit(1000, Unit::Packets, 50);
        let mut meter = Meter::new(&limit, Arc::default(), ONE_WORKER);
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
        let mut meter = Meter::new(&limit, Arc::default(), ONE_WORKER);
        let passed: usize =
            (0..100).map(|tenth| passed(&mut meter, 10, 1250, at(f64::from(tenth) / 10.0))).sum();
        // The first two frames come from the burst.
        assert!((99..=102).contains(&passed), "{passed}");
    }

    #[test]
    fn frame_larger_than_burst_passes_at_rate() {
        let limit = limit(121_120, Unit::Bits, 100);
        let mut meter = Meter::new(&limit, Arc::default(), ONE_WORKER);
        // Ten frames of 1514 bytes per second. The clock starts at 0, as at boot.
        let at_millisecond = |millisecond: u32| {
            (clock::cycles_per_second() * f64::from(millisecond) / 1000.0) as u64
        };
        let passed: usize = (0..10_000)
            .map(|millisecond| passed(&mut meter, 1, 1514, at_millisecond(millisecond)))
            .sum();
        assert!((98..=102).contains(&passed), "{passed}");
    }

    #[test]
    fn new_bucket_is_full_right_after_boot() {
        let limit = limit(1, Unit::Packets, 1000);
        let cycles_since_boot = 5;
        let mut meter = Meter::new(&limit, Arc::default(), ONE_WORKER);
        assert_eq!(passed(&mut meter, 2000, 60, cycles_since_boot), 1000);
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
        // One second's tokens plus the burst, minus those that workers have not spent.
        assert!((100_500..=101_000).contains(&total), "{total}");
    }

    #[test]
    fn idle_worker_takes_few_tokens_from_others() {
        let limit = limit(1000, Unit::Packets, 8);
        let bucket = Arc::new(Bucket::default());
        let mut idle = Meter::new(&limit, Arc::clone(&bucket), 2);
        let mut busy = Meter::new(&limit, Arc::clone(&bucket), 2);
        assert!(idle.passes(60, at(0.0)));
        assert!(passed(&mut busy, 20, 60, at(0.0)) >= 6);
    }

    #[test]
    fn source_prefixes_have_separate_buckets() {
        let limit = limit(10, Unit::Packets, 5);
        let sources = SourceBuckets::new(&limit, 24);
        let from = |source: u32| xdpfwd_filter::Addresses::V4 { source, destination: 1 };
        let passed =
            |source: u32| (0..20).filter(|_| sources.passes(&from(source), 60, at(0.0))).count();
        assert_eq!(passed(0x0a00_0001), 5);
        assert_eq!(passed(0x0a00_0002), 0, "expected two addresses of a /24 to share its bucket");
        assert_eq!(passed(0x0a00_0101), 5);
        let v6 = |source: u128| xdpfwd_filter::Addresses::V6 { source, destination: 1 };
        assert_eq!((0..20).filter(|_| sources.passes(&v6(1 << 110), 60, at(0.0))).count(), 5);
    }
}
