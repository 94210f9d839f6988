//! The sequence numbers of an outbound SA (RFC 4303, section 2.2), shared by several workers.
//!
//! Workers reserve numbers with one atomic operation per batch. Before that, the caller must store
//! a bound above them, for example in a file. After a crash, the next run starts at the stored
//! bound, so it uses no number again.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sequence numbers of an outbound SA.
#[derive(Debug)]
pub struct SequenceNumbers {
    next: AtomicU64,
    /// Only numbers below this stored bound can be reserved.
    stored: AtomicU64,
    /// The end (exclusive) of the SA's numbers: that of 32-bit or 64-bit numbers, or a lower limit.
    end: AtomicU64,
}

/// Why no number is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All numbers are used, and the SA needs another key; or [`SequenceNumbers::close`] was
    /// called.
    #[error("all sequence numbers of the SA are used; use another key")]
    Limit,
    /// All numbers below the stored bound are used: store a higher one first.
    #[error("no sequence number is left below the stored bound; store a higher bound first")]
    NotStored,
}

impl SequenceNumbers {
    /// Creates the numbers from `first` (at least 1) up to and including `limit`. Numbers have 64
    /// bits if `extended`, otherwise 32. None can be reserved before [`Self::allow_below`].
    pub fn new(first: u64, extended: bool, limit: Option<u64>) -> Self {
        let (first, end) = (first.max(1), end(extended, limit));
        Self {
            next: AtomicU64::new(first),
            stored: AtomicU64::new(first),
            end: AtomicU64::new(end),
        }
    }

    /// Changes the width (64 bits if `extended`, otherwise 32) and the limit (inclusive).
    /// Concurrent reservations may still use the old values.
    pub fn limit(&self, extended: bool, limit: Option<u64>) {
        self.end.store(end(extended, limit), Ordering::Relaxed);
    }

    /// Reserves `count` consecutive numbers, or as many as are available.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<Range<u64>, Exhausted> {
        // Acquire pairs with Release in `allow_below`: the bound was stored before.
        let stored = self.stored.load(Ordering::Acquire);
        let limit_end = self.end.load(Ordering::Relaxed);
        let end = stored.min(limit_end);
        let advance = |next: u64| (next < end).then(|| next.saturating_add(count).min(end));
        match self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance) {
            Ok(first) => Ok(first..first.saturating_add(count).min(end)),
            Err(next) if next >= limit_end => Err(Exhausted::Limit),
            Err(_) => Err(Exhausted::NotStored),
        }
    }

    /// Returns whether to store a higher bound: fewer than `margin` numbers are left below the
    /// stored bound, and the limit allows a higher one.
    #[inline]
    pub fn is_short(&self, margin: u64) -> bool {
        let stored = self.stored.load(Ordering::Relaxed);
        stored < self.end.load(Ordering::Relaxed) && stored.saturating_sub(self.next()) < margin
    }

    /// Returns the bound (exclusive) to store so that `count` more numbers can be reserved, or as
    /// many as the limit allows. Never below the stored bound.
    pub fn bound_to_store(&self, count: u64) -> u64 {
        let end = self.end.load(Ordering::Relaxed);
        self.next().saturating_add(count).min(end).max(self.stored.load(Ordering::Relaxed))
    }

    /// Prevents further reservations. Returns the first unused number, or [`u64::MAX`] if called
    /// before.
    pub fn close(&self) -> u64 {
        self.next.swap(u64::MAX, Ordering::Relaxed)
    }

    /// Returns the next free number; [`u64::MAX`] after [`Self::close`].
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Allows reservations below `stored`, which the caller must have stored durably. Does nothing
    /// if an earlier bound is higher.
    pub fn allow_below(&self, stored: u64) {
        self.stored.fetch_max(stored, Ordering::Release);
    }
}

/// Returns the end (exclusive); numbers do not wrap around. The last one is 2^32-1, or 2^64-2 if
/// `extended`, or a lower `limit`.
fn end(extended: bool, limit: Option<u64>) -> u64 {
    let width_end = if extended { u64::MAX } else { 1 << 32 };
    limit.map_or(width_end, |limit| width_end.min(limit.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const EXTENDED: bool = true;

    #[test]
    fn reserve_stops_at_stored_bound() {
        let numbers = SequenceNumbers::new(0, EXTENDED, None);
        assert_eq!(numbers.reserve(64), Err(Exhausted::NotStored));
        numbers.allow_below(100);
        assert_eq!(numbers.reserve(64), Ok(1..65));
        assert_eq!(
            numbers.reserve(64),
            Ok(65..100),
            "`reserve` must return the 35 numbers that are left"
        );
        assert_eq!(numbers.reserve(1), Err(Exhausted::NotStored));
        // The bound never decreases.
        numbers.allow_below(50);
        numbers.allow_below(101);
        assert_eq!(numbers.reserve(64), Ok(100..101));
        assert_eq!(numbers.next(), 101);
    }

    #[test]
    fn reserve_stops_at_limit_or_last_number_of_width() {
        for (extended, limit, end) in [
            (false, None, 1_u64 << 32),
            (true, None, u64::MAX),
            (true, Some(7), 8),
            (false, Some(7), 8),
        ] {
            let numbers = SequenceNumbers::new(end - 2, extended, limit);
            numbers.allow_below(u64::MAX);
            assert_eq!(numbers.reserve(64), Ok(end - 2..end));
            assert_eq!(numbers.reserve(1), Err(Exhausted::Limit));
            assert_eq!(numbers.reserve(u64::MAX), Err(Exhausted::Limit));
        }
    }

    #[test]
    fn changed_limit_applies_to_next_reserve() {
        let numbers = SequenceNumbers::new(1, EXTENDED, Some(10));
        numbers.allow_below(1000);
        assert_eq!(numbers.reserve(64), Ok(1..11));
        assert_eq!(numbers.reserve(1), Err(Exhausted::Limit));
        numbers.limit(EXTENDED, Some(12));
        assert_eq!(numbers.reserve(64), Ok(11..13));
        numbers.limit(EXTENDED, Some(5));
        assert_eq!(
            numbers.reserve(1),
            Err(Exhausted::Limit),
            "a limit below the next number must end the reservations"
        );
        numbers.limit(EXTENDED, None);
        assert_eq!(numbers.reserve(1), Ok(13..14));
    }

    #[test]
    fn is_short_until_higher_bound_is_stored() {
        let numbers = SequenceNumbers::new(1, EXTENDED, Some(2000));
        assert!(numbers.is_short(500));
        assert_eq!(numbers.bound_to_store(1000), 1001);
        numbers.allow_below(1001);
        assert!(!numbers.is_short(500));
        numbers.reserve(501).unwrap();
        assert!(numbers.is_short(500));
        assert_eq!(numbers.bound_to_store(2000), 2001, "the bound must not exceed the limit");
        numbers.allow_below(2001);
        numbers.reserve(1400).unwrap();
        assert!(!numbers.is_short(500), "the limit allows no higher bound");
        numbers.limit(EXTENDED, Some(10));
        assert_eq!(numbers.bound_to_store(1), 2001, "the stored bound must not decrease");
    }

    #[test]
    fn reserve_after_close_fails() {
        for extended in [false, true] {
            let numbers = SequenceNumbers::new(1, extended, None);
            numbers.allow_below(100);
            numbers.reserve(7).unwrap();
            assert_eq!(numbers.close(), 8);
            numbers.allow_below(u64::MAX);
            assert_eq!(numbers.reserve(1), Err(Exhausted::Limit));
            assert!(!numbers.is_short(5));
        }
    }

    #[test]
    fn concurrent_workers_reserve_distinct_numbers() {
        let numbers = SequenceNumbers::new(1, EXTENDED, Some(100_000));
        let all: Vec<u64> = thread::scope(|scope| {
            scope.spawn(|| {
                for stored in (0..=100_001).step_by(977).chain([100_001]) {
                    numbers.allow_below(stored);
                    thread::yield_now();
                }
            });
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reserved = Vec::new();
                        loop {
                            match numbers.reserve(64) {
                                Ok(range) => reserved.extend(range),
                                Err(Exhausted::Limit) => return reserved,
                                Err(Exhausted::NotStored) => thread::yield_now(),
                            }
                        }
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=100_000).collect::<Vec<_>>());
    }
}
