//! Sequence numbers of an outbound SA (RFC 4303, 2.2), which its workers share.
//!
//! Numbers are reserved a batch at a time, so an SA costs its workers one atomic operation for a
//! batch. None is given out beyond what has been written down: after a crash the next run begins
//! behind that, and the peer's window takes what it sends.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of an SA.
#[derive(Debug)]
pub struct Numbers {
    /// The next that is free.
    next: AtomicU64,
    /// The first that is not written down yet.
    written: AtomicU64,
    /// The first that must not be used: of 32 bits, or of a limit in packets.
    end: AtomicU64,
}

/// Why there are no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Those that there are were used: it takes another key.
    #[error("all sequence numbers of the SA were used")]
    Limit,
    /// More have to be written down first.
    #[error("no more sequence numbers have been written down")]
    NotWritten,
}

impl Numbers {
    /// From `first` on, which is at least 1; with 64 bits if they are `extended`, and never more
    /// than `limit` in all.
    pub fn new(first: u64, extended: bool, limit: Option<u64>) -> Self {
        let (first, end) = (first.max(1), end(extended, limit));
        Self {
            next: AtomicU64::new(first),
            written: AtomicU64::new(first),
            end: AtomicU64::new(end),
        }
    }

    /// From now on with 64 bits if they are `extended`, and never more than `limit` in all. What is
    /// being reserved at this moment may still be by what was said before.
    pub fn limit(&self, extended: bool, limit: Option<u64>) {
        self.end.store(end(extended, limit), Ordering::Relaxed);
    }

    /// Reserves up to so many, as many as there are.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<Range<u64>, Exhausted> {
        // Who writes down has done so before it says so: what is given out is on disk.
        let written = self.written.load(Ordering::Acquire);
        let last = self.end.load(Ordering::Relaxed);
        let end = written.min(last);
        let take = |next: u64| (next < end).then(|| next.saturating_add(count).min(end));
        match self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(first) => Ok(first..first.saturating_add(count).min(end)),
            Err(next) if next >= last => Err(Exhausted::Limit),
            Err(_) => Err(Exhausted::NotWritten),
        }
    }

    /// Whether fewer than `margin` are left before what is written down, and writing down more
    /// would help.
    #[inline]
    pub fn is_short(&self, margin: u64) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        written < self.end.load(Ordering::Relaxed) && written.saturating_sub(self.next()) < margin
    }

    /// Up to where it would help to write down so many from the next on: not beyond the last that
    /// may be used, nor before what is written down.
    pub fn to_write(&self, count: u64) -> u64 {
        let end = self.end.load(Ordering::Relaxed);
        self.next().saturating_add(count).min(end).max(self.written.load(Ordering::Relaxed))
    }

    /// Ends them: none is given out from here on. Returns the first that was not. The second time
    /// it returns [`u64::MAX`].
    pub fn close(&self) -> u64 {
        self.next.swap(u64::MAX, Ordering::Relaxed)
    }

    /// The next that is free.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Says that all below this one are written down, where they outlast a crash.
    pub fn allow_below(&self, written: u64) {
        self.written.fetch_max(written, Ordering::Release);
    }
}

/// The first that must not be used. None wraps: the last of 32 bits may be used, the one behind it
/// not.
fn end(extended: bool, limit: Option<u64>) -> u64 {
    let bits = if extended { u64::MAX } else { 1 << 32 };
    limit.map_or(bits, |limit| bits.min(limit.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_given_out_that_is_not_written_down() {
        let numbers = Numbers::new(0, true, None);
        assert_eq!(numbers.reserve(64), Err(Exhausted::NotWritten));
        numbers.allow_below(100);
        assert_eq!(numbers.reserve(64), Ok(1..65));
        assert_eq!(numbers.reserve(64), Ok(65..100), "as many as there are");
        assert_eq!(numbers.reserve(1), Err(Exhausted::NotWritten));
        // It never goes back.
        numbers.allow_below(50);
        numbers.allow_below(101);
        assert_eq!(numbers.reserve(64), Ok(100..101));
        assert_eq!(numbers.next(), 101);
    }

    #[test]
    fn nothing_wraps() {
        for (extended, limit, end) in [
            (false, None, 1_u64 << 32),
            (true, None, u64::MAX),
            (true, Some(7), 8),
            (false, Some(7), 8),
        ] {
            let numbers = Numbers::new(end - 2, extended, limit);
            numbers.allow_below(u64::MAX);
            assert_eq!(numbers.reserve(64), Ok(end - 2..end));
            assert_eq!(numbers.reserve(1), Err(Exhausted::Limit));
            assert_eq!(numbers.reserve(u64::MAX), Err(Exhausted::Limit));
        }
    }

    #[test]
    fn limits_can_be_changed() {
        let numbers = Numbers::new(1, true, Some(10));
        numbers.allow_below(1000);
        assert_eq!(numbers.reserve(64), Ok(1..11));
        assert_eq!(numbers.reserve(1), Err(Exhausted::Limit));
        numbers.limit(true, Some(12));
        assert_eq!(numbers.reserve(64), Ok(11..13));
        numbers.limit(true, Some(5));
        assert_eq!(numbers.reserve(1), Err(Exhausted::Limit), "it is below what was used");
        numbers.limit(true, None);
        assert_eq!(numbers.reserve(1), Ok(13..14));
    }

    #[test]
    fn what_is_short_says_up_to_where_to_write() {
        let numbers = Numbers::new(1, true, Some(2000));
        assert!(numbers.is_short(500));
        assert_eq!(numbers.to_write(1000), 1001);
        numbers.allow_below(1001);
        assert!(!numbers.is_short(500));
        numbers.reserve(501).unwrap();
        assert!(numbers.is_short(500));
        assert_eq!(numbers.to_write(2000), 2001, "the limit's");
        numbers.allow_below(2001);
        numbers.reserve(1400).unwrap();
        assert!(!numbers.is_short(500), "there are no more to write down");
        numbers.limit(true, Some(10));
        assert_eq!(numbers.to_write(1), 2001, "it never goes back");
    }

    #[test]
    fn closed_means_closed() {
        for extended in [false, true] {
            let numbers = Numbers::new(1, extended, None);
            numbers.allow_below(100);
            numbers.reserve(7).unwrap();
            assert_eq!(numbers.close(), 8);
            numbers.allow_below(u64::MAX);
            assert_eq!(numbers.reserve(1), Err(Exhausted::Limit));
            assert!(!numbers.is_short(5));
        }
    }

    #[test]
    fn workers_never_get_the_same() {
        let numbers = Numbers::new(1, true, Some(100_000));
        let all: Vec<u64> = thread::scope(|scope| {
            scope.spawn(|| {
                for written in (0..=100_001).step_by(977).chain([100_001]) {
                    numbers.allow_below(written);
                    thread::yield_now();
                }
            });
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut own = Vec::new();
                        loop {
                            match numbers.reserve(64) {
                                Ok(range) => own.extend(range),
                                Err(Exhausted::Limit) => return own,
                                Err(Exhausted::NotWritten) => thread::yield_now(),
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
