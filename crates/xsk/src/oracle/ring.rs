//! The oracle of a ring: a bounded queue.

use std::collections::VecDeque;

use super::StepBytes;
use crate::ring::heap::HeapRing;

/// A step at one of the two ends.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Reserves entries, writes some, publishes or cancels.
    Produce {
        /// Entries requested.
        reserve: u32,
        /// Entries written, of those granted.
        write: u32,
        /// Whether to write by an iterator instead of one by one.
        extend: bool,
        /// Whether to publish.
        commit: bool,
    },
    /// Peeks at entries, reads some, and releases them or not.
    Consume {
        /// Entries requested.
        peek: u32,
        /// Entries read.
        read: u32,
        /// Whether to release them.
        release: bool,
    },
}

impl Step {
    /// Decodes a step from bytes.
    pub fn decode([kind, first, second, how]: StepBytes) -> Self {
        let (first, second) = (u32::from(first % 80), u32::from(second % 80));
        // Four out of five are committed or released.
        let done = kind % 10 < 8;
        if kind % 2 == 0 {
            Self::Produce { reserve: first, write: second, extend: how % 2 == 1, commit: done }
        } else {
            Self::Consume { peek: first, read: second, release: done }
        }
    }
}

/// Executes the steps on a ring of `size` entries whose counters start at `start`, and on a queue.
///
/// # Panics
/// If the two differ.
pub fn check(size: u32, start: u32, steps: impl IntoIterator<Item = Step>) {
    let ring = HeapRing::new(size, start);
    // SAFETY: the ring outlives both ends, and they are taken once. Unsafe because the ends hold
    // addresses.
    let (mut producer, mut consumer) = unsafe { ring.ends() };
    let mut queue = VecDeque::new();
    let mut next = 0u64;
    for step in steps {
        match step {
            Step::Produce { reserve, write, extend, commit } => {
                let free = size - queue.len() as u32;
                let mut reservation = producer.reserve(reserve);
                assert_eq!(reservation.granted(), reserve.min(free), "{step:?}: granted");
                let values: Vec<u64> =
                    (next..).take(write.min(reserve).min(free) as usize).collect();
                if extend {
                    // Push the first; `extend` must continue after it.
                    values
                        .first()
                        .into_iter()
                        .for_each(|&value| assert!(reservation.push(value), "{step:?}"));
                    // SAFETY: a slice's iterator has an exact length. Unsafe: others may not.
                    unsafe { reservation.extend(values.iter().copied().skip(1)) };
                } else {
                    values.iter().for_each(|&value| assert!(reservation.push(value), "{step:?}"));
                }
                if write >= reservation.granted() {
                    assert!(!reservation.push(u64::MAX), "{step:?}: more than was granted");
                }
                if commit {
                    assert_eq!(reservation.commit(), values.len() as u32, "{step:?}: published");
                    next += values.len() as u64;
                    queue.extend(values);
                }
            }
            Step::Consume { peek, read, release } => {
                let expected: Vec<u64> =
                    queue.iter().copied().take(peek.min(read) as usize).collect();
                let mut entries = consumer.peek(peek);
                let got: Vec<u64> = entries.by_ref().take(read as usize).collect();
                assert_eq!(got, expected, "{step:?}");
                if release {
                    assert_eq!(entries.release(), got.len() as u32, "{step:?}: released");
                    queue.drain(..got.len());
                }
            }
        }
        assert_eq!(producer.pending() as usize, queue.len(), "{step:?}: pending");
        assert_eq!(consumer.available() as usize, queue.len(), "{step:?}: available");
    }
}

/// Runs a check from arbitrary bytes: the first step selects the ring.
pub fn run(steps: impl IntoIterator<Item = StepBytes>) {
    let mut steps = steps.into_iter();
    let [order, back, ..] = steps.next().unwrap_or_default();
    check(1 << (order % 7), 0u32.wrapping_sub(u32::from(back)), steps.map(Step::decode));
}
