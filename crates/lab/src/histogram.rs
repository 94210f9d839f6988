//! A histogram of durations.

use std::{fmt, time::Duration};

/// `SUB_BITS` of bpf/sink.bpf.c: 32 buckets for each power of two.
const SUB_BITS: u32 = 5;
/// `LATENCY_BITS` of bpf/sink.bpf.c: 2^36 ns are 68.7 s.
const BITS: u32 = 36;
/// `LATENCY_BUCKETS` of bpf/sink.bpf.c.
const BUCKETS: usize = 1024;

/// A histogram of durations in nanoseconds; those above 68.7 s count as 68.7 s. The width of a
/// bucket is at most 1/32 (3.1 %) of its lower end, or 1 ns if that is larger.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram(Box<[u64; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Histogram {
    /// Returns the number of recorded times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the quantile `q` (0–1), 0 to 3.1 % too high: the upper end of its bucket. Returns
    /// `None` if the histogram is empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        // The rank counts from 1.
        let rank = ((total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        self.0.iter().position(reached).map(|bucket| Duration::from_nanos(upper_end(bucket)))
    }

    /// Returns the upper end and the count of each non-empty bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let non_empty = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        non_empty.map(|(bucket, &count)| (Duration::from_nanos(upper_end(bucket)), count))
    }

    /// Returns the times recorded since the older reading `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (count, before) in difference.0.iter_mut().zip(earlier.0.iter()) {
            *count = count.saturating_sub(*before);
        }
        difference
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0.iter()) {
            *count += more;
        }
    }

    /// Records a time.
    pub fn record(&mut self, time: Duration) {
        self.0[bucket(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))] += 1;
    }

    pub(crate) fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.0.iter_mut()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [0.5, 0.99].map(|q| self.quantile(q));
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &p50)
            .field("p99", &p99)
            .finish()
    }
}

/// Computes the bucket as bpf/sink.bpf.c does.
fn bucket(nanoseconds: u64) -> usize {
    let time = nanoseconds.min((1 << BITS) - 1);
    let shift = (time.max(1).ilog2()).saturating_sub(SUB_BITS);
    ((shift << SUB_BITS) as usize) + (time >> shift) as usize
}

/// Returns the upper end of a bucket in nanoseconds.
fn upper_end(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let first = (bucket - (shift << SUB_BITS)) as u64;
    ((first + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_buckets_are_contiguous() {
        let mut from = 0;
        for b in 0..BUCKETS {
            let to = upper_end(b);
            assert!(to >= from, "bucket {b}");
            assert_eq!((bucket(from), bucket(to)), (b, b));
            assert!(to - from <= from / 32, "bucket {b} is too wide: {from}-{to}");
            from = to + 1;
        }
        assert_eq!(from, 1 << BITS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn histogram_quantile_matches_sorted_list() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        let times: Vec<u64> = (1..=1000u64).map(|n| n * n * 37).collect();
        times.iter().for_each(|&time| histogram.record(Duration::from_nanos(time)));
        for (q, exact) in [
            (0.0, times[0]),
            (0.5, times[499]),
            (0.99, times[989]),
            (0.999, times[998]),
            (1.0, times[999]),
        ] {
            let found = histogram.quantile(q).unwrap().as_nanos() as u64;
            assert!(found >= exact && found <= exact + exact / 31, "{q}: {found} for {exact}");
        }
        let before = histogram.clone();
        histogram.record(Duration::from_secs(3));
        let new = histogram.since(&before);
        assert_eq!((new.count(), new.buckets().count()), (1, 1));
        histogram.add(&new);
        assert_eq!(histogram.count(), 1002);
    }
}
