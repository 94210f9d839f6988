//! Sequence numbers of outbound SAs, and the progress of inbound SAs.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use xdpfwd_ipsec::{Exhausted, SequenceNumbers};
use xdpfwd_xsk::clock;

use crate::esp::state::State;

/// Number of unused sequence numbers that a write reserves.
pub(super) const STEP: u64 = 1 << 20;
/// A write is requested when fewer reserved numbers than this are left.
const LOW_WATER: u64 = STEP / 2;

/// The sequence numbers of an outbound SA, shared by all workers.
///
/// Every number given out is below the SA's `next` in the state file. Methods for workers use only
/// atomics, and never wait.
#[derive(Debug)]
pub struct OutboundNumbers {
    numbers: SequenceNumbers,
    /// Bytes of inner packets, including earlier runs.
    bytes: AtomicU64,
    /// Whether a write of more numbers was requested.
    has_requested: AtomicBool,
    writer: Thread,
}

impl OutboundNumbers {
    /// No number is available until a write has reserved it.
    pub(super) fn new(
        next: u64,
        bytes: u64,
        extended: bool,
        limit: Option<u64>,
        writer: Thread,
    ) -> Self {
        Self {
            numbers: SequenceNumbers::new(next, extended, Some(storable(limit))),
            bytes: AtomicU64::new(bytes),
            has_requested: AtomicBool::new(false),
            writer,
        }
    }

    /// Sets the largest usable number: `limit`, but at most 2³² - 1 or, if `extended`, 2⁶³ - 2
    /// (which the file can store).
    pub fn limit(&self, extended: bool, limit: Option<u64>) {
        self.numbers.limit(extended, Some(storable(limit)));
    }

    /// Takes up to `count` consecutive sequence numbers, as many as are available.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<Range<u64>, Exhausted> {
        let reserved = self.numbers.reserve(count);
        if self.numbers.is_short(LOW_WATER)
            && !self.has_requested.load(Ordering::Relaxed)
            && !self.has_requested.swap(true, Ordering::AcqRel)
        {
            // `unpark` does not wait, and runs about once per `STEP` numbers.
            self.writer.unpark();
        }
        reserved
    }

    /// Adds inner bytes. Returns the total, including earlier runs.
    #[inline]
    pub fn add_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Subtracts the bytes of a packet that was not encapsulated after all. Returns the total.
    #[inline]
    pub fn subtract_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes)
    }

    /// Returns the inner bytes, including earlier runs.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the next unused sequence number.
    pub fn next(&self) -> u64 {
        self.numbers.next()
    }

    /// Whether no number is available, although the SA has not used all.
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_short(1)
    }

    /// Whether a write must reserve more numbers.
    pub(super) fn is_low(&self) -> bool {
        self.numbers.is_short(LOW_WATER)
    }

    /// Returns the `next` to write, which reserves all numbers below; with `reserve_more`, these
    /// include up to [`STEP`] unused ones.
    pub(super) fn next_to_write(&self, reserve_more: bool) -> u64 {
        let next = self.numbers.bound_to_store(if reserve_more { STEP } else { 0 });
        if !reserve_more {
            // Enough numbers are left: a previous write has satisfied the request.
            self.has_requested.store(false, Ordering::Release);
        }
        next
    }

    /// Stops giving out numbers. Returns the next unused number.
    pub(super) fn close(&self) -> u64 {
        let next = self.numbers.close();
        self.has_requested.store(false, Ordering::Release);
        next
    }

    /// Allows the use of the numbers below `next`, which is now in the state file.
    pub(super) fn allow_below(&self, next: u64) {
        self.numbers.allow_below(next);
        self.has_requested.store(false, Ordering::Release);
    }
}

/// Returns the limit, but at most the largest that the state file can store.
fn storable(limit: Option<u64>) -> u64 {
    limit.unwrap_or(u64::MAX).min(State::MAX_NUMBER - 1)
}

/// The highest sequence number that an inbound SA has received.
///
/// After a crash, packets above the number in the file could be accepted again. So the SA must
/// refuse packets once the file lacks a number received over a second ago.
#[derive(Debug)]
pub struct InboundProgress {
    highest: AtomicU64,
    /// The highest number in the file; `u64::MAX` if the SA is not in the file yet.
    written: AtomicU64,
    /// When `highest` was read for the last completed write. All times are in clock cycles.
    written_at: AtomicU64,
    /// The time at which `highest` last became higher than `written`.
    unwritten_since: AtomicU64,
    /// [`MAX_UNWRITTEN`] in clock cycles.
    max_unwritten: u64,
}

/// Maximum age of received numbers that are not in the file.
pub(super) const MAX_UNWRITTEN: Duration = Duration::from_secs(1);

impl InboundProgress {
    /// `stored` is `highest` in the file; `None` for a new SA.
    pub(super) fn new(stored: Option<u64>) -> Self {
        let now = clock::cycles();
        Self {
            highest: AtomicU64::new(stored.unwrap_or(0)),
            written: AtomicU64::new(stored.unwrap_or(u64::MAX)),
            written_at: AtomicU64::new(now),
            unwritten_since: AtomicU64::new(now),
            max_unwritten: (clock::cycles_per_second() * MAX_UNWRITTEN.as_secs_f64()) as u64,
        }
    }

    /// Sets the highest number, received at the time `now` in clock cycles. Only for the worker
    /// that owns the SA.
    #[inline]
    pub fn set_highest(&self, number: u64, now: u64) {
        let highest = self.highest.load(Ordering::Relaxed);
        if number == highest {
            return;
        }
        if !self.differs_from_file(highest) {
            self.unwritten_since.store(now, Ordering::Relaxed);
        }
        self.highest.store(number, Ordering::Relaxed);
    }

    /// Returns whether the file has lacked a received number for too long at the time `now`, in
    /// clock cycles. Relies only on completed writes, so it also detects a write that hangs.
    #[inline]
    pub fn is_overdue(&self, now: u64) -> bool {
        if !self.differs_from_file(self.highest.load(Ordering::Relaxed)) {
            return false;
        }
        // The file has all numbers received before the later of these two times.
        let written_at = self.written_at.load(Ordering::Acquire);
        let since = self.unwritten_since.load(Ordering::Relaxed).max(written_at);
        now.saturating_sub(since) > self.max_unwritten
    }

    /// Returns the highest number. After a restart, all numbers up to it count as received.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    pub(super) fn differs_from_file(&self, highest: u64) -> bool {
        highest != self.written.load(Ordering::Relaxed)
    }

    /// Records that the file has `highest`, read at the time `at`.
    pub(super) fn set_written(&self, highest: u64, at: u64) {
        self.written.store(highest, Ordering::Relaxed);
        self.written_at.store(at, Ordering::Release);
    }
}
