//! The rings: single producer, single consumer, in memory shared with the kernel.
//!
//! Each ring has a power-of-two array, a producer and a consumer counter that wrap at 2³², and a
//! flags word. User space produces into the fill and the TX ring and consumes from the RX and the
//! completion ring.
//!
//! Each side writes its own counter once per batch, and keeps a copy of the other side's counter,
//! which it re-reads only when the copy shows too few free (or readable) entries. Memory ordering
//! follows the comment in the kernel's `net/xdp/xsk_queue.h`.

use std::ptr::NonNull;

use crate::sync::{AtomicU32, Entry, Ordering, Plain, fence};

/// The addresses of a ring. The creator of a [`Producer`] or [`Consumer`] keeps the memory valid as
/// long as either exists.
#[derive(Clone, Copy)]
pub(crate) struct RingLayout<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<Entry<T>>,
    /// A power of two.
    pub(crate) size: u32,
}

impl<T> RingLayout<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: the caller of the ring's constructor guarantees that the memory outlives the
        // ring; an AtomicU32 may be shared with the kernel. Needs `unsafe`: the pointer comes from
        // mmap.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }
    }
}

/// An iterator over the slots for a range of counter values. Copies the ring's address and size:
/// with a reference, the compiler would assume that each written entry changes them, and reload
/// both.
struct Cursor<T> {
    entries: NonNull<Entry<T>>,
    mask: u32,
    position: u32,
    end: u32,
}

impl<T> Cursor<T> {
    #[inline]
    fn new(ring: &RingLayout<T>, start: u32, slots: u32) -> Self {
        Self {
            entries: ring.entries,
            mask: ring.size - 1,
            position: start,
            end: start.wrapping_add(slots),
        }
    }

    /// Returns the next slot. Only the side of the ring that owns the slot may access it.
    #[inline]
    fn next(&mut self) -> Option<NonNull<Entry<T>>> {
        if self.position == self.end {
            return None;
        }
        let index = (self.position & self.mask) as usize;
        self.position = self.position.wrapping_add(1);
        // SAFETY: index < size, and `entries` has `size` elements. Needs `unsafe`: the pointer
        // comes from mmap.
        Some(unsafe { self.entries.add(index) })
    }
}

pub(crate) struct Producer<T> {
    ring: RingLayout<T>,
    /// A copy of the producer's shared counter, which only this side writes, so never re-reads.
    produced: u32,
    /// The consumer's counter when last read; it can only have advanced since then.
    consumed: u32,
}

impl<T: Plain> Producer<T> {
    /// # Safety
    /// The layout's addresses are valid as long as this producer exists; `size` is a power of two;
    /// the ring has no other producer.
    pub(crate) unsafe fn new(ring: RingLayout<T>) -> Self {
        debug_assert!(ring.size.is_power_of_two());
        let produced = ring.producer().load(Ordering::Relaxed);
        // Start as if the ring were full, so that the first reservation reads the consumer's
        // counter.
        Self { produced, consumed: produced.wrapping_sub(ring.size), ring }
    }

    /// Reserves up to `wanted` entries.
    #[inline]
    pub(crate) fn reserve(&mut self, wanted: u32) -> Reservation<'_, T> {
        let mut free = self.free_cached();
        if free < wanted {
            // Acquire pairs with the consumer's Release: overwritten entries have been read.
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
            free = self.free_cached();
        }
        let granted = wanted.min(free);
        Reservation { cursor: Cursor::new(&self.ring, self.produced, granted), granted, ring: self }
    }

    /// Returns the number of free entries, according to the copy of the consumer's counter.
    #[inline]
    fn free_cached(&self) -> u32 {
        // The wrapping difference is the number of used entries. It exceeds the size only if the
        // consumer's counter is invalid; the result is then 0 instead of an out-of-bounds
        // reservation.
        self.ring.size.saturating_sub(self.produced.wrapping_sub(self.consumed))
    }

    /// Returns the number of entries published and not consumed. Re-reads the consumer's counter.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        self.produced.wrapping_sub(self.ring.consumer().load(Ordering::Relaxed)).min(self.ring.size)
    }

    /// Returns whether the kernel must be woken to read the entries published before this call.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        // User space publishes entries, then reads the flag; the kernel sets the flag, then checks
        // the ring once more. Without a full fence between store and load, each side could miss the
        // other's store (store buffering), and both would sleep. Release and Acquire do not order a
        // store before a later load.
        fence(Ordering::SeqCst);
        self.needs_wakeup_unfenced()
    }

    /// Like `needs_wakeup`, without the fence: for use if nothing was published since the last
    /// check. If this check misses a flag that was just set, the next check sees it.
    #[inline]
    pub(crate) fn needs_wakeup_unfenced(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Writable entries of a ring. [`commit`](Self::commit) publishes the written entries. Dropping the
/// reservation cancels it, and they are free again.
#[must_use = "dropping a reservation cancels it"]
pub(crate) struct Reservation<'a, T> {
    ring: &'a mut Producer<T>,
    cursor: Cursor<T>,
    granted: u32,
}

impl<T: Plain> Reservation<'_, T> {
    #[inline]
    pub(crate) fn granted(&self) -> u32 {
        self.granted
    }

    /// Writes an entry. Returns `false`, without writing, once all reserved entries are used.
    #[cfg(any(test, feature = "fake-kernel"))]
    #[inline]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        let Some(slot) = self.cursor.next() else { return false };
        // SAFETY: the slot is one of the ring's, which outlives the reservation; it lies between
        // producer and consumer + size, so this side owns it until published. Needs `unsafe`:
        // memory shared with the kernel.
        unsafe { slot.as_ref().write(entry) };
        true
    }

    /// Writes several entries. Checks their number once, not for every entry.
    ///
    /// # Safety
    /// The iterator does not yield more entries than its `len()`. (An excess entry could overwrite
    /// one that the other side is reading.)
    ///
    /// # Panics
    /// If the iterator's length exceeds the reserved entries.
    #[inline]
    pub(crate) unsafe fn extend(&mut self, entries: impl ExactSizeIterator<Item = T>) {
        let remaining = self.cursor.end.wrapping_sub(self.cursor.position) as usize;
        assert!(entries.len() <= remaining, "more entries than reserved");
        let Cursor { entries: slots, mask, mut position, end } = self.cursor;
        entries.for_each(|entry| {
            debug_assert!(position != end, "the iterator yields more entries than its length");
            // SAFETY: the mask keeps the slot within the ring, and this side owns it: the iterator
            // yields at most its length, which is at most the reserved entries. Needs `unsafe`:
            // memory shared with the kernel.
            unsafe { slots.add((position & mask) as usize).as_ref().write(entry) };
            position = position.wrapping_add(1);
        });
        self.cursor.position = position;
    }

    /// Publishes the written entries and returns their number.
    #[inline]
    pub(crate) fn commit(self) -> u32 {
        let ring = self.ring;
        let written = self.cursor.position.wrapping_sub(ring.produced);
        if written == 0 {
            return 0; // do not write to the shared cache line
        }
        ring.produced = self.cursor.position;
        // Release: entries are written before the counter that publishes them.
        ring.ring.producer().store(ring.produced, Ordering::Release);
        written
    }
}

pub(crate) struct Consumer<T> {
    ring: RingLayout<T>,
    /// The producer's counter when last read.
    produced: u32,
    /// A copy of the consumer's counter, which only this side writes.
    consumed: u32,
}

impl<T: Plain> Consumer<T> {
    /// # Safety
    /// As for [`Producer::new`], but the ring has no other consumer, and entries that were never
    /// written are zero.
    pub(crate) unsafe fn new(ring: RingLayout<T>) -> Self {
        debug_assert!(ring.size.is_power_of_two());
        let consumed = ring.consumer().load(Ordering::Relaxed);
        // Start as if the ring were empty, so that the first peek reads the producer's counter.
        Self { produced: consumed, consumed, ring }
    }

    #[inline]
    pub(crate) fn peek(&mut self, wanted: u32) -> Peek<'_, T> {
        let mut available = self.available_cached();
        if available < wanted {
            // Acquire pairs with the producer's Release: the published entries are written.
            self.produced = self.ring.producer().load(Ordering::Acquire);
            available = self.available_cached();
        }
        Peek { cursor: Cursor::new(&self.ring, self.consumed, wanted.min(available)), ring: self }
    }

    /// Returns the number of readable entries, according to the copy of the producer's counter.
    #[inline]
    fn available_cached(&self) -> u32 {
        // The producer's counter is invalid if it claims more entries than the ring has.
        self.produced.wrapping_sub(self.consumed).min(self.ring.size)
    }

    /// Returns the number of readable entries. Re-reads the producer's counter.
    pub(crate) fn available(&self) -> u32 {
        self.ring.producer().load(Ordering::Relaxed).wrapping_sub(self.consumed).min(self.ring.size)
    }

    /// Sets or clears the flag that asks for wake-ups. Only the kernel's end of a ring may call
    /// this.
    #[cfg(feature = "fake-kernel")]
    pub(crate) fn set_needs_wakeup(&self, on: bool) {
        let flags = if on { libc::XDP_RING_NEED_WAKEUP } else { 0 };
        self.ring.flags().store(flags, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// Entries being read. [`release`](Self::release) returns those read so far to the producer.
/// Without this call, the next peek yields the same entries again.
#[must_use = "dropping a peek without release leaves its entries in the ring"]
pub(crate) struct Peek<'a, T> {
    ring: &'a mut Consumer<T>,
    cursor: Cursor<T>,
}

impl<T: Plain> Iterator for Peek<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        let slot = self.cursor.next()?;
        // SAFETY: the slot is one of the ring's, which outlives the peek; it lies between consumer
        // and producer, so it was written (Acquire in `peek`) and will not be overwritten before
        // its release. If the producer's counter is wrong, the slot may contain the allocation's
        // zeros, also valid for a plain type. Needs `unsafe`: memory shared with the kernel.
        Some(unsafe { slot.as_ref().read() })
    }
}

impl<T: Plain> Peek<'_, T> {
    #[inline]
    pub(crate) fn read_count(&self) -> u32 {
        self.cursor.position.wrapping_sub(self.ring.consumed)
    }

    /// Releases the entries read so far and returns their number.
    #[inline]
    pub(crate) fn release(self) -> u32 {
        let read = self.read_count();
        let ring = self.ring;
        if read == 0 {
            return 0; // do not write to the shared cache line
        }
        ring.consumed = self.cursor.position;
        // Release: entries are read before the producer may overwrite them.
        ring.ring.consumer().store(ring.consumed, Ordering::Release);
        read
    }
}

/// A ring in ordinary memory, for the fake kernel and for tests.
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) mod heap {
    use std::ptr::NonNull;

    use super::{Consumer, Producer, RingLayout};
    #[cfg(feature = "fake-kernel")]
    use crate::sync::Ordering;
    use crate::sync::{AtomicU32, Entry, Plain};

    /// The memory of a ring, which must outlive the ring's producer and consumer.
    pub(crate) struct HeapRing<T> {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: Box<[Entry<T>]>,
    }

    impl<T: Plain> HeapRing<T> {
        /// Creates an empty ring whose counters have the value `start`. A value near 2³² tests
        /// wrapping.
        pub(crate) fn new(size: u32, start: u32) -> Box<Self> {
            assert!(size.is_power_of_two(), "ring size {size} is not a power of two");
            Box::new(Self {
                producer: AtomicU32::new(start),
                consumer: AtomicU32::new(start),
                flags: AtomicU32::new(0),
                entries: (0..size).map(|_| Entry::unwritten()).collect(),
            })
        }

        /// Advances the producer's counter, without writing entries.
        #[cfg(feature = "fake-kernel")]
        pub(crate) fn pretend_produced(&self, n: u32) {
            self.producer
                .store(self.producer.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
        }

        /// Advances the consumer's counter past all entries, without reading them.
        #[cfg(feature = "fake-kernel")]
        pub(crate) fn pretend_consumed(&self) {
            self.consumer.store(self.producer.load(Ordering::Relaxed), Ordering::Release);
        }

        fn layout(&self) -> RingLayout<T> {
            RingLayout {
                producer: NonNull::from(&self.producer),
                consumer: NonNull::from(&self.consumer),
                flags: NonNull::from(&self.flags),
                entries: NonNull::from(&*self.entries).cast(),
                size: self.entries.len() as u32,
            }
        }

        /// Creates the producer and the consumer.
        ///
        /// # Safety
        /// `self` outlives both ends, and this function is called once.
        pub(crate) unsafe fn ends(&self) -> (Producer<T>, Consumer<T>) {
            // SAFETY: the caller keeps the memory alive and creates the ends once; `new` checked
            // the size.
            unsafe { (Producer::new(self.layout()), Consumer::new(self.layout())) }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::heap::HeapRing;
    use crate::oracle::ring::{self, Step};

    const SIZE: u32 = 4;

    /// Writes even numbers of entries with `extend`, odd numbers with `push`.
    fn produce(n: u32) -> Step {
        Step::Produce { reserve: n, write: n, extend: n.is_multiple_of(2), commit: true }
    }

    fn consume(n: u32) -> Step {
        Step::Consume { peek: n, read: n, release: true }
    }

    #[test]
    fn dropped_reservation_publishes_nothing() {
        let cancelled = Step::Produce { reserve: 2, write: 1, extend: false, commit: false };
        let steps = [cancelled, consume(4), produce(1), cancelled, produce(4), consume(4)];
        ring::check(SIZE, 0, steps);
    }

    #[test]
    fn partly_written_reservation_leaves_other_entries_free() {
        let partly_written = Step::Produce { reserve: 4, write: 1, extend: true, commit: true };
        ring::check(SIZE, 0, [partly_written, produce(4), consume(4), produce(4)]);
    }

    #[test]
    fn peek_without_release_leaves_entries_in_ring() {
        let peek_only = Step::Consume { peek: 4, read: 4, release: false };
        let partial = Step::Consume { peek: 4, read: 1, release: true };
        ring::check(SIZE, 0, [produce(2), peek_only, partial, peek_only, consume(4), peek_only]);
    }

    #[test]
    fn reserve_grants_only_free_entries() {
        for before_wrap in 0..8 {
            let steps = [
                produce(3),
                produce(3),
                produce(1),
                consume(8),
                produce(9),
                consume(1),
                produce(2),
                consume(8),
            ];
            ring::check(SIZE, 0u32.wrapping_sub(before_wrap), steps);
        }
    }

    #[test]
    #[should_panic(expected = "more entries than reserved")]
    fn extend_beyond_granted_entries_panics() {
        let ring = HeapRing::<u64>::new(4, 0);
        // SAFETY: the ring outlives both ends, which are created once. Needs `unsafe`: the ends
        // hold raw pointers.
        let (mut producer, _consumer) = unsafe { ring.ends() };
        let mut reservation = producer.reserve(9);
        // SAFETY: a slice's iterator reports its exact length. Needs `unsafe`: other iterators may
        // report a wrong length.
        unsafe { reservation.extend([0; 5].into_iter()) };
    }

    struct SendEnd<E>(E);

    // SAFETY: each end is used by one thread at a time, as a ring requires. Needs `unsafe`: the
    // ends hold raw pointers.
    unsafe impl<E> Send for SendEnd<E> {}

    /// Uses real threads, unlike the tests under loom. `make sanitize` runs this test under
    /// ThreadSanitizer.
    #[test]
    fn ring_passes_entries_between_threads_in_order() {
        const ENTRIES: u64 = 100_000;
        let ring = HeapRing::new(64, 0u32.wrapping_sub(1000));
        // SAFETY: the ring outlives both ends, because it also outlives the scope. Needs `unsafe`:
        // the ends hold raw pointers.
        let (producer, mut consumer) = unsafe { ring.ends() };
        let producer = SendEnd(producer);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The braces move the whole `SendEnd`. Without them, the closure would capture only
                // its field, which is not `Send`.
                let SendEnd(mut producer) = { producer };
                let mut next = 0;
                while next < ENTRIES {
                    let mut reservation = producer.reserve(1 + (next % 40) as u32);
                    // Batches whose first number is a multiple of 3 are written with `extend`.
                    if next % 3 == 0 {
                        let values: Vec<u64> =
                            (next..next + u64::from(reservation.granted())).collect();
                        next += values.len() as u64;
                        // SAFETY: a vector's iterator reports its exact length. Needs `unsafe`:
                        // other iterators may report a wrong length.
                        unsafe { reservation.extend(values.into_iter()) };
                    }
                    while reservation.push(next) {
                        next += 1;
                    }
                    if reservation.commit() == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < ENTRIES {
                let mut peek = consumer.peek(1 + (next % 50) as u32);
                for value in peek.by_ref() {
                    assert_eq!(value, next);
                    next += 1;
                }
                if peek.release() == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }

    proptest! {
        /// Compares the ring with a bounded queue, for random steps at both ends and counters that
        /// wrap.
        #[test]
        fn ring_matches_a_bounded_queue(steps in prop::collection::vec(any::<[u8; 4]>(), 1..200)) {
            ring::run(steps);
        }
    }
}
