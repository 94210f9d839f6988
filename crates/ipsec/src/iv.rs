//! Initialization vectors (IVs) that never repeat for a key, as section 3.1 of RFC 4106
//! requires.
//!
//! For one worker in one run, sequence numbers would suffice. Many workers and runs use the same
//! static key, so an IV has 64 bits:
//!
//! | bits | content |
//! |---|---|
//! | 63–32 | the epoch, which is later than the epochs of all earlier runs |
//! | 31–26 | the number of the worker |
//! | 25–0 | a counter of the worker's IVs in this epoch |
//!
//! A worker that has used all counter values cannot seal until a later epoch is stored.
//!
//! **Limitation**: IVs repeat if both the stored epoch and the clock go back, for example when a
//! snapshot of a virtual machine is restored.

use std::ops::Range;

/// The upper 32 bits of IVs: the time in seconds since 1970, or the last stored epoch plus one if
/// that is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u32);

/// Why there is no next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The clock is earlier than the stored epoch.
    #[error(
        "the system clock ({now} s since 1970) is {} s behind the last used epoch ({stored}); \
         set the clock, or use another key",
        .stored - .now
    )]
    ClockBehind {
        /// The clock, in seconds since 1970.
        now: u64,
        /// The last stored epoch.
        stored: u64,
    },
    /// The next epoch would exceed 32 bits. Contains the last stored epoch; 0 if there is none.
    #[error("no epoch is left after {0}; use another key")]
    Exhausted(u32),
}

impl Epoch {
    /// Returns the epoch for a new run. `stored` is the last stored epoch, `now` is in seconds
    /// since 1970. Store the new epoch before using it.
    pub fn next(stored: Option<Self>, now: u64) -> Result<Self, EpochError> {
        if let Some(Self(stored)) = stored
            && now < u64::from(stored)
        {
            return Err(EpochError::ClockBehind { now, stored: stored.into() });
        }
        let successor = stored.map_or(0, |Self(stored)| u64::from(stored) + 1);
        let last = stored.map_or(0, |Self(stored)| stored);
        u32::try_from(successor.max(now)).map(Self).map_err(|_| EpochError::Exhausted(last))
    }

    /// Creates the epoch whose [`Self::number`] is `number`.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Returns the epoch as a number, to store.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// The IVs of one worker under one key.
#[derive(Debug)]
pub struct Ivs {
    worker: u8,
    epoch: Epoch,
    next: u32,
}

const COUNTER_BITS: u32 = 26;
const WORKER_BITS: u32 = 6;

impl Ivs {
    /// Maximum number of workers.
    pub const WORKERS: u8 = 1 << WORKER_BITS;
    /// IVs per worker and epoch.
    pub const PER_EPOCH: u32 = 1 << COUNTER_BITS;

    /// Creates the IVs of a worker for an unused epoch; `None` if `worker` is not below
    /// [`Self::WORKERS`].
    pub fn new(worker: usize, epoch: Epoch) -> Option<Self> {
        let worker = u8::try_from(worker).ok().filter(|worker| *worker < Self::WORKERS)?;
        Some(Self { worker, epoch, next: 0 })
    }

    /// Reserves up to `count` consecutive IVs, as many as the epoch has left. Returns `None` if it
    /// has none left.
    #[inline]
    pub fn reserve(&mut self, count: u32) -> Option<Range<u64>> {
        let first = self.next;
        let end = first.saturating_add(count).min(Self::PER_EPOCH);
        if first == end {
            return None;
        }
        self.next = end;
        let base = u64::from(self.epoch.0) << 32 | u64::from(self.worker) << COUNTER_BITS;
        Some(base + u64::from(first)..base + u64::from(end))
    }

    /// Returns the current epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the number of IVs left in the epoch. Store a later epoch well before it is 0.
    pub fn left(&self) -> u32 {
        Self::PER_EPOCH - self.next
    }

    /// Moves the remaining IVs to the returned value. `self` then has none, and
    /// [`advance_to`](Self::advance_to) fails for every epoch.
    pub fn hand_over(&mut self) -> Self {
        let remaining = Self { worker: self.worker, epoch: self.epoch, next: self.next };
        (self.epoch, self.next) = (Epoch(u32::MAX), Self::PER_EPOCH);
        remaining
    }

    /// Starts a later epoch, which must already be stored. If `epoch` is not later, returns
    /// `false`.
    pub fn advance_to(&mut self, epoch: Epoch) -> bool {
        let is_later = epoch > self.epoch;
        if is_later {
            (self.epoch, self.next) = (epoch, 0);
        }
        is_later
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn next_epoch_is_clock_or_stored_epoch_plus_one() {
        assert_eq!(Epoch::next(None, 1_700_000_000), Ok(Epoch(1_700_000_000)));
        // Another run within the same second, and one an hour later.
        assert_eq!(
            Epoch::next(Some(Epoch(1_700_000_000)), 1_700_000_000),
            Ok(Epoch(1_700_000_001))
        );
        assert_eq!(
            Epoch::next(Some(Epoch(1_700_000_000)), 1_700_003_600),
            Ok(Epoch(1_700_003_600))
        );
        let behind = Epoch::next(Some(Epoch(1_700_000_000)), 1_699_999_990).unwrap_err();
        assert_eq!(behind, EpochError::ClockBehind { now: 1_699_999_990, stored: 1_700_000_000 });
        assert!(behind.to_string().contains("10 s behind"), "{behind}");
        assert_eq!(
            Epoch::next(Some(Epoch(u32::MAX)), u64::from(u32::MAX)),
            Err(EpochError::Exhausted(u32::MAX))
        );
        assert_eq!(Epoch::next(None, 1 << 32), Err(EpochError::Exhausted(0)));
    }

    #[test]
    fn exhausted_ivs_return_none_until_next_epoch() {
        let mut ivs = Ivs::new(63, Epoch(5)).unwrap();
        assert!(Ivs::new(64, Epoch(5)).is_none());
        assert_eq!(ivs.reserve(64), Some((5 << 32 | 63 << 26)..(5 << 32 | 63 << 26) + 64));
        let remaining = ivs.reserve(u32::MAX).unwrap();
        assert_eq!(
            (remaining.end - 1, ivs.left()),
            (5 << 32 | 0xffff_ffff, 0),
            "the last IV of worker 63 is not the last IV of the epoch, or IVs are left"
        );
        assert_eq!(ivs.reserve(1), None);
        assert!(!ivs.advance_to(Epoch(5)) && !ivs.advance_to(Epoch(4)));
        assert_eq!(ivs.reserve(1), None);
        assert!(ivs.advance_to(Epoch(6)));
        assert_eq!(ivs.reserve(1), Some((6 << 32 | 63 << 26)..(6 << 32 | 63 << 26) + 1));
        assert_eq!(ivs.reserve(0), None);
    }

    #[test]
    fn hand_over_moves_remaining_ivs_to_new_owner() {
        let mut ivs = Ivs::new(3, Epoch(5)).unwrap();
        let before = ivs.reserve(7).unwrap();
        let mut other = ivs.hand_over();
        assert_eq!((ivs.reserve(1), ivs.advance_to(Epoch(u32::MAX))), (None, false));
        assert_eq!(other.reserve(2), Some(before.end..before.end + 2));
        assert_eq!(other.epoch(), Epoch(5));
    }

    proptest! {
        /// Simulates consecutive runs of four workers. Between runs, the clock stops or advances.
        #[test]
        fn ivs_never_repeat_across_workers_and_epochs(runs in prop::collection::vec((0_u64..3, prop::collection::vec((0_usize..4, 1_u32..100, any::<bool>()), 0..20)), 1..10)) {
            let (mut stored, mut now, mut seen) = (None, 1_700_000_000, std::collections::HashSet::new());
            for (elapsed, batches) in runs {
                now += elapsed;
                // `Epoch::next` fails if the clock is behind the stored epoch.
                now = now.max(stored.map_or(0, |Epoch(stored)| u64::from(stored)));
                let epoch = Epoch::next(stored, now).unwrap();
                stored = Some(epoch);
                let mut workers: Vec<Ivs> = (0..4).map(|worker| Ivs::new(worker, epoch).unwrap()).collect();
                for (worker, count, advance) in batches {
                    if advance {
                        let later = Epoch(stored.unwrap().0 + 1);
                        stored = Some(later);
                        prop_assert!(workers[worker].advance_to(later));
                    }
                    for iv in workers[worker].reserve(count).unwrap() {
                        prop_assert!(seen.insert(iv), "{iv:x}");
                    }
                }
            }
        }
    }
}
