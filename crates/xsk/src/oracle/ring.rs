//! The model of a ring: a bounded queue.

use std::collections::VecDeque;

use super::StepBytes;
use crate::ring::heap::HeapRing;

/// A step at the producing or the consuming end.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Reserves entries, writes to them, and publishes or cancels them.
    Produce {
        /// Number of entries to reserve.
        reserve: u32,
        /// Number of granted entries to write.
        write: u32,
        /// Whether to write with `extend` instead of `push`.
        extend: bool,
        /// Whether to publish the entries instead of cancelling them.
        commit: bool,
    },
    /// Peeks at entries, reads some of them, and releases the read entries or none.
    Consume {
        /// Number of entries to peek at.
        peek: u32,
        /// Number of those entries to read.
        read: u32,
        /// Whether to release the read entries.
        release: bool,
    },
}

impl Step {
    /// Decodes a step from bytes.
    pub fn decode([kind, requested, used, method]: StepBytes) -> Self {
        let (requested, used) = (u32::from(requested % 80), u32::from(used % 80));
        // Commit or release in four out of five steps.
        let complete = kind % 10 < 8;
        if kind % 2 == 0 {
            Self::Produce {
                reserve: requested,
                write: used,
                extend: method % 2 == 1,
                commit: complete,
            }
        } else {
            Self::Consume { peek: requested, read: used, release: complete }
        }
    }
}

/// Executes the steps on a ring, whose counters start at `start`, and on a queue.
///
/// # Panics
/// If the ring and the queue differ.
pub fn check(size: u32, start: u32, steps: impl IntoIterator<Item = Step>) {
    let ring = HeapRing::new(size, start);
    // SAFETY: the ring outlives both ends, and the ends are created once. Needs `unsafe`: the ends
    // hold raw pointers.
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
                    // First `push` one value: `extend` must continue after it.
                    values
                        .first()
                        .into_iter()
                        .for_each(|&value| assert!(reservation.push(value), "{step:?}"));
                    // SAFETY: a slice's iterator reports its exact length. Needs `unsafe`: other
                    // iterators may report a wrong length.
                    unsafe { reservation.extend(values.iter().copied().skip(1)) };
                } else {
                    values.iter().for_each(|&value| assert!(reservation.push(value), "{step:?}"));
                }
                if write >= reservation.granted() {
                    assert!(
                        !reservation.push(u64::MAX),
                        "{step:?}: `push` accepted more entries than granted"
                    );
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

/// Decodes the steps and checks them. The first step's bytes select the ring's size and initial
/// counters.
pub fn run(steps: impl IntoIterator<Item = StepBytes>) {
    let mut steps = steps.into_iter();
    let [size_exponent, before_wrap, ..] = steps.next().unwrap_or_default();
    check(
        1 << (size_exponent % 7),
        0u32.wrapping_sub(u32::from(before_wrap)),
        steps.map(Step::decode),
    );
}
