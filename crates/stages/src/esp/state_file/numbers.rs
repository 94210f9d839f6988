//! Sequence numbers of outbound SAs, and the progress of inbound SAs.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

use xdpfwd_ipsec::{Exhausted, SequenceNumbers};

use crate::esp::state::State;

/// Sequence numbers that one write reserves.
pub(super) const STEP: u64 = 1 << 20;
/// More numbers are reserved when fewer than this are left.
const LOW_WATER: u64 = STEP / 2;

/// The sequence numbers of an outbound SA, which its workers share.
///
/// Every number that it gives out is below the number in the state file. Methods of the data path
/// use atomics alone and never wait.
#[derive(Debug)]
pub struct OutboundNumbers {
    numbers: SequenceNumbers,
    bytes: AtomicU64,
    /// Whether the writer was asked to reserve more numbers.
    has_requested: AtomicBool,
    writer: Thread,
}

impl OutboundNumbers {
    /// Creates the numbers of an SA from its entry in the state file. SequenceNumbers can be used
    /// only once they are written.
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

    /// Sets the largest number that may be used from now on: with 64 bits if `extended`, and at
    /// most `limit`.
    pub fn limit(&self, extended: bool, limit: Option<u64>) {
        self.numbers.limit(extended, Some(storable(limit)));
    }

    /// Reserves up to `count` consecutive sequence numbers, as many as are available.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<Range<u64>, Exhausted> {
        let reserved = self.numbers.reserve(count);
        if self.numbers.is_short(LOW_WATER)
            && !self.has_requested.load(Ordering::Relaxed)
            && !self.has_requested.swap(true, Ordering::AcqRel)
        {
            // Does not wait: sets the thread's token and wakes it, once per `STEP` numbers.
            self.writer.unpark();
        }
        reserved
    }

    /// Adds bytes of inner packets. Returns the total, over restarts.
    #[inline]
    pub fn add_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Subtracts the bytes of a packet that was not encapsulated. Returns the total.
    #[inline]
    pub fn subtract_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes)
    }

    /// Returns the bytes of inner packets, over restarts.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the next free sequence number.
    pub fn next(&self) -> u64 {
        self.numbers.next()
    }

    /// Returns whether no number is available, although some are left.
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_short(1)
    }

    /// Returns whether more numbers must be reserved.
    pub(super) fn is_low(&self) -> bool {
        self.numbers.is_short(LOW_WATER)
    }

    /// Returns the number to write: all below it are reserved once the file has it. `more` reserves
    /// [`STEP`] further ones.
    pub(super) fn bound_to_store(&self, more: bool) -> u64 {
        let number = self.numbers.bound_to_store(if more { STEP } else { 0 });
        if !more {
            // The worker asked while a write was under way that satisfied it.
            self.has_requested.store(false, Ordering::Release);
        }
        number
    }

    /// Ends the numbers, and returns the first unused one.
    pub(super) fn close(&self) -> u64 {
        let next = self.numbers.close();
        self.has_requested.store(false, Ordering::Release);
        next
    }

    /// Allows the numbers below this one, which is now in the state file.
    pub(super) fn allow_below(&self, number: u64) {
        self.numbers.allow_below(number);
        // A worker that is short again asks again.
        self.has_requested.store(false, Ordering::Release);
    }
}

/// Returns the limit, capped at the largest number of the state file.
fn storable(limit: Option<u64>) -> u64 {
    limit.unwrap_or(u64::MAX).min(State::MAX_NUMBER - 1)
}

/// The highest sequence number that an inbound SA has received.
#[derive(Debug)]
pub struct InboundProgress {
    highest: AtomicU64,
    /// The value in the state file; `u64::MAX` if the file does not have the SA yet.
    written: AtomicU64,
}

impl InboundProgress {
    /// Creates the progress of an SA: as the state file has it, or that of a new one.
    pub(super) fn new(stored: Option<u64>) -> Self {
        Self {
            highest: AtomicU64::new(stored.unwrap_or(0)),
            written: AtomicU64::new(stored.unwrap_or(u64::MAX)),
        }
    }

    /// Sets the highest number. Only the worker that owns the SA calls it.
    #[inline]
    pub fn set_highest(&self, number: u64) {
        self.highest.store(number, Ordering::Relaxed);
    }

    /// Returns the highest number received. After a restart all numbers up to it count as received.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    /// Returns whether the state file has another value.
    pub(super) fn is_ahead_of_file(&self, highest: u64) -> bool {
        highest != self.written.load(Ordering::Relaxed)
    }

    /// Records the value that the state file has now.
    pub(super) fn set_written(&self, highest: u64) {
        self.written.store(highest, Ordering::Relaxed);
    }
}
