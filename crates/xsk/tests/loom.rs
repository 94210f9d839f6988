//! Tests of the rings under loom: every interleaving of two threads, and every value that the
//! memory model allows each load to see. Compiled only with `--cfg loom`: `make loom`.
//!
//! The module [`sync`] uses loom's atomics and cells, so loom reports a concurrent access to an
//! entry. The tests named `…_is_detected` weaken one memory ordering each: loom must find the
//! error.

#![cfg(loom)]

use std::rc::Rc;

use loom::thread;
use ring::heap::HeapRing;
use ring::{Consumer, Producer};
use sync::Weaken;

#[path = "../src/ring.rs"]
#[allow(dead_code, reason = "the tests use only a part of the module")]
mod ring;

/// Replaces `crate::sync` of ring.rs. One ordering per thread can be weakened.
mod sync {
    use std::cell::Cell;
    use std::mem::MaybeUninit;

    pub(crate) use loom::sync::atomic::Ordering;

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Weaken {
        Nothing,
        Acquire,
        Release,
        Fence,
    }

    loom::thread_local! {
        static WEAKEN: Cell<Weaken> = Cell::new(Weaken::Nothing);
    }

    pub(crate) fn weaken(ordering: Weaken) {
        WEAKEN.with(|weaken| weaken.set(ordering));
    }

    fn is_weakened(ordering: Weaken) -> bool {
        WEAKEN.with(|weaken| weaken.get() == ordering)
    }

    pub(crate) struct AtomicU32(loom::sync::atomic::AtomicU32);

    impl AtomicU32 {
        pub(crate) fn new(value: u32) -> Self {
            Self(loom::sync::atomic::AtomicU32::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u32 {
            let weaker = order == Ordering::Acquire && is_weakened(Weaken::Acquire);
            self.0.load(if weaker { Ordering::Relaxed } else { order })
        }

        pub(crate) fn store(&self, value: u32, order: Ordering) {
            let weaker = order == Ordering::Release && is_weakened(Weaken::Release);
            self.0.store(value, if weaker { Ordering::Relaxed } else { order });
        }
    }

    pub(crate) fn fence(order: Ordering) {
        if !is_weakened(Weaken::Fence) {
            loom::sync::atomic::fence(order);
        }
    }

    pub(crate) struct Entry<T>(loom::cell::UnsafeCell<MaybeUninit<T>>);

    /// A safe trait, unlike that of `crate::sync`: loom reports a read that is not ordered after
    /// the write of the entry.
    pub(crate) trait Plain: Copy {}

    impl Plain for u64 {}

    impl<T: Plain> Entry<T> {
        pub(crate) fn unwritten() -> Self {
            Self(loom::cell::UnsafeCell::new(MaybeUninit::uninit()))
        }

        /// # Safety
        /// None needed: loom checks for exclusive access.
        pub(crate) unsafe fn write(&self, value: T) {
            // SAFETY: loom panics before a conflicting access. Needs `unsafe`: the pointer is raw.
            self.0.with_mut(|entry| unsafe { entry.write(MaybeUninit::new(value)) });
        }

        /// # Safety
        /// The entry was written. loom checks for concurrent writes.
        pub(crate) unsafe fn read(&self) -> T {
            // SAFETY: the caller guarantees that the entry was written. Needs `unsafe`: the pointer
            // is raw.
            self.0.with(|entry| unsafe { entry.read().assume_init() })
        }
    }
}

/// The counters wrap after the first entry.
const START: u32 = u32::MAX;

/// One end of a ring, with a handle that keeps the ring's memory alive.
struct End<E> {
    end: E,
    _ring: Rc<HeapRing<u64>>,
}

fn ring(size: u32) -> (End<Producer<u64>>, End<Consumer<u64>>) {
    let ring: Rc<HeapRing<u64>> = Rc::from(HeapRing::new(size, START));
    // SAFETY: each `End` has a handle of the ring; the ends are created once. Needs `unsafe`: the
    // ends hold raw pointers.
    let (producer, consumer) = unsafe { ring.ends() };
    (End { end: producer, _ring: Rc::clone(&ring) }, End { end: consumer, _ring: ring })
}

/// Publishes up to `wanted` numbers from `next` on, an odd first number with `push`, the others
/// with `extend`. Returns the number of published numbers.
fn produce(producer: &mut Producer<u64>, wanted: u32, next: u64) -> u64 {
    let mut reservation = producer.reserve(wanted);
    let mut values = next..next + u64::from(reservation.granted());
    if values.start % 2 == 1 {
        assert!(values.by_ref().take(1).all(|value| reservation.push(value)));
    }
    let values: Vec<u64> = values.collect();
    // SAFETY: a vector's iterator reports its exact length. Needs `unsafe`: other iterators may
    // report a wrong length.
    unsafe { reservation.extend(values.into_iter()) };
    u64::from(reservation.commit())
}

/// Consumes up to `wanted` entries, which must contain the numbers from `next` on. Returns the
/// number of consumed entries.
fn consume(consumer: &mut Consumer<u64>, wanted: u32, next: u64) -> u64 {
    let mut peek = consumer.peek(wanted);
    for (value, expected) in peek.by_ref().zip(next..) {
        assert_eq!(value, expected, "an entry is lost, duplicated or out of order");
    }
    u64::from(peek.release())
}

/// Sends batches of the sizes `produced` through a ring of `size` entries, and reads batches of the
/// sizes `consumed`, then the rest. `weak` contains the orderings to weaken in the producer and in
/// the consumer.
fn check_batches(
    size: u32,
    produced: &'static [u32],
    consumed: &'static [u32],
    weak: (Weaken, Weaken),
) {
    loom::model(move || {
        let (mut producer, mut consumer) = ring(size);
        let producing = thread::spawn(move || {
            sync::weaken(weak.0);
            let mut next = 0;
            for &wanted in produced {
                next += produce(&mut producer.end, wanted, next);
            }
            next
        });
        sync::weaken(weak.1);
        let mut next = 0;
        for &wanted in consumed {
            next += consume(&mut consumer.end, wanted, next);
        }
        let published = producing.join().unwrap();
        while next < published {
            let read = consume(&mut consumer.end, size, next);
            assert!(read > 0, "{published} entries published, only {next} readable");
            next += read;
        }
        assert_eq!(next, published);
    });
}

const NOT_WEAKENED: (Weaken, Weaken) = (Weaken::Nothing, Weaken::Nothing);

/// The ring is mostly full or empty, so each side often re-reads the other's counter, also after it
/// has wrapped.
#[test]
fn ring_of_one_entry_passes_entries_in_order() {
    check_batches(1, &[1, 1, 1], &[1, 1, 1], NOT_WEAKENED);
}

#[test]
fn ring_passes_batches_in_order() {
    check_batches(2, &[2, 2, 1], &[2, 1, 2], NOT_WEAKENED);
    check_batches(4, &[3, 4, 2], &[4, 4, 4], NOT_WEAKENED);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn publishing_entries_without_release_order_is_detected() {
    check_batches(1, &[1, 1], &[1, 1], (Weaken::Release, Weaken::Nothing));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn reading_entries_without_acquire_order_is_detected() {
    check_batches(1, &[1, 1], &[1, 1], (Weaken::Nothing, Weaken::Acquire));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn returning_entries_without_release_order_is_detected() {
    check_batches(1, &[1, 1], &[1, 1], (Weaken::Nothing, Weaken::Release));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn overwriting_entries_without_acquire_order_is_detected() {
    check_batches(1, &[1, 1], &[1, 1], (Weaken::Acquire, Weaken::Nothing));
}

/// The consumer never sees the entries of a dropped reservation. Entries that it only peeked at
/// stay in the ring.
#[test]
fn dropped_reservation_and_peek_change_nothing() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let producing = thread::spawn(move || {
            let mut next = produce(&mut producer.end, 1, 0);
            for _ in 0..2 {
                let mut cancelled = producer.end.reserve(2);
                cancelled.push(u64::MAX);
                drop(cancelled);
                next += produce(&mut producer.end, 2, next);
            }
            next
        });
        let mut next = 0;
        for _ in 0..2 {
            let seen: Vec<u64> = consumer.end.peek(2).collect();
            let read = consume(&mut consumer.end, 1, next);
            assert!(read >= seen.len().min(1) as u64, "a peeked entry disappeared");
            assert!(
                seen.iter().copied().eq(next..next + seen.len() as u64),
                "peeked at {seen:?}, but the next entry is {next}"
            );
            next += read;
        }
        let published = producing.join().unwrap();
        next += consume(&mut consumer.end, 2, next);
        assert_eq!(next, published);
    });
}

/// `available` and `pending` read counters without Acquire. The next peek or reservation still gets
/// all entries that they reported.
#[test]
fn relaxed_counter_reads_never_exceed_later_grants() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let producing = thread::spawn(move || {
            let published = produce(&mut producer.end, 2, 0);
            let pending = producer.end.pending();
            assert!(pending <= 2);
            assert!(producer.end.reserve(2).granted() >= 2 - pending);
            published
        });
        let available = consumer.end.available();
        let mut read = consume(&mut consumer.end, 2, 0);
        assert!(read >= u64::from(available));
        read += consume(&mut consumer.end, 2, read);
        let published = producing.join().unwrap();
        assert_eq!(read + u64::from(consumer.end.available()), published);
    });
}

/// User space publishes an entry, then reads the wake-up flag. The kernel sets the flag, then
/// checks the ring before it sleeps. At least one side must see the other's store. `weak` contains
/// the orderings to weaken in user space and in the kernel.
fn check_wake_up_is_not_lost(weak: (Weaken, Weaken)) {
    loom::model(move || {
        let (mut producer, mut consumer) = ring(1);
        let kernel = thread::spawn(move || {
            sync::weaken(weak.1);
            consumer.end.set_needs_wakeup(true);
            consumer.end.peek(1).count() == 0
        });
        sync::weaken(weak.0);
        assert_eq!(produce(&mut producer.end, 1, 0), 1);
        let woken = producer.end.needs_wakeup();
        let asleep = kernel.join().unwrap();
        assert!(woken || !asleep, "the wake-up is lost");
    });
}

#[test]
fn wake_up_is_not_lost_with_both_fences() {
    check_wake_up_is_not_lost(NOT_WEAKENED);
}

#[test]
#[should_panic(expected = "the wake-up is lost")]
fn missing_fence_in_user_space_is_detected() {
    check_wake_up_is_not_lost((Weaken::Fence, Weaken::Nothing));
}

#[test]
#[should_panic(expected = "the wake-up is lost")]
fn missing_fence_in_kernel_is_detected() {
    check_wake_up_is_not_lost((Weaken::Nothing, Weaken::Fence));
}

/// If user space does not wake the sleeping kernel, loom reports a deadlock.
fn check_sleeping_kernel_consumes_all(entries: u64, weak: Weaken) {
    loom::model(move || {
        let (mut producer, mut consumer) = ring(4);
        let wake_up = Rc::new((loom::sync::Mutex::new(false), loom::sync::Condvar::new()));
        let kernel_wake_up = Rc::clone(&wake_up);
        let kernel = thread::spawn(move || {
            let (flag, condvar) = &*kernel_wake_up;
            let mut next = 0;
            while next < entries {
                consumer.end.set_needs_wakeup(true);
                let read = consume(&mut consumer.end, 4, next);
                next += read;
                if read > 0 {
                    continue;
                }
                let mut woken = flag.lock().unwrap();
                while !*woken {
                    woken = condvar.wait(woken).unwrap();
                }
                *woken = false;
                drop(woken);
                consumer.end.set_needs_wakeup(false);
            }
        });
        sync::weaken(weak);
        for next in 0..entries {
            assert_eq!(produce(&mut producer.end, 1, next), 1);
            if producer.end.needs_wakeup() {
                *wake_up.0.lock().unwrap() = true;
                wake_up.1.notify_one();
            }
        }
        kernel.join().unwrap();
    });
}

#[test]
fn sleeping_kernel_is_woken_for_every_entry() {
    check_sleeping_kernel_consumes_all(2, Weaken::Nothing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn missing_wake_up_of_sleeping_kernel_is_detected() {
    check_sleeping_kernel_consumes_all(1, Weaken::Fence);
}
