//! The rings: single producer, single consumer, in memory shared with the kernel.
//!
//! All four AF_XDP rings have the same shape: a power-of-two array, a producer and a consumer
//! counter that wrap at 2³², and a word of flags. User space produces into the fill and the TX ring
//! and consumes from the RX and the completion ring; the kernel (or
//! [`fake_kernel`](crate::fake_kernel)) stands at the other end of each.
//!
//! Each side owns one counter and caches the other's: the shared cache line is read only when the
//! cached value says that the ring may be full (or empty), and written once per batch. Kernel side:
//! `net/xdp/xsk_queue.h`, whose comment on memory ordering these follow.

use std::ptr::NonNull;

use crate::sync::{AtomicU32, Entry, Ordering, Plain, fence};

/// Where a ring lies. Plain addresses: whoever builds a ring keeps the memory alive for as long as
/// the ring exists.
#[derive(Clone, Copy)]
pub(crate) struct RingLayout<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<Entry<T>>,
    /// Entries in the ring, a power of two.
    pub(crate) size: u32,
}

impl<T> RingLayout<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: the constructor of the ring promised that the memory lives as long as the ring;
        // an AtomicU32 may be shared with the kernel. Unsafe because the address comes from mmap.
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

/// A walk over the slots of a range of counter values. It has copies of what it needs of the ring:
/// through a reference to the ring, every entry that is written could be a change of the ring
/// itself, for all the compiler knows, and would have it read size and address anew.
struct Cursor<T> {
    entries: NonNull<Entry<T>>,
    mask: u32,
    at: u32,
    end: u32,
}

impl<T> Cursor<T> {
    #[inline]
    fn new(ring: &RingLayout<T>, from: u32, slots: u32) -> Self {
        Self { entries: ring.entries, mask: ring.size - 1, at: from, end: from.wrapping_add(slots) }
    }

    /// The next slot. Unsafe to dereference without owning that slot.
    #[inline]
    fn next(&mut self) -> Option<NonNull<Entry<T>>> {
        if self.at == self.end {
            return None;
        }
        let index = (self.at & self.mask) as usize;
        self.at = self.at.wrapping_add(1);
        // SAFETY: index < size, and `entries` has `size` elements. Unsafe because the address comes
        // from mmap.
        Some(unsafe { self.entries.add(index) })
    }
}

/// The producing end of a ring.
pub(crate) struct Producer<T> {
    ring: RingLayout<T>,
    /// Our own counter. Only we write it, so the shared copy need never be read back.
    produced: u32,
    /// The consumer's counter when we last looked; it can only have advanced since.
    consumed: u32,
}

impl<T: Plain> Producer<T> {
    /// # Safety
    /// The layout's addresses are valid, and stay so while this exists; `size` is a power of two;
    /// nobody else produces into this ring.
    pub(crate) unsafe fn new(ring: RingLayout<T>) -> Self {
        debug_assert!(ring.size.is_power_of_two());
        let produced = ring.producer().load(Ordering::Relaxed);
        // As if the ring were full: the first reservation looks.
        Self { produced, consumed: produced.wrapping_sub(ring.size), ring }
    }

    /// Reserves up to `wanted` entries: as many as are free, perhaps none.
    #[inline]
    pub(crate) fn reserve(&mut self, wanted: u32) -> Reservation<'_, T> {
        let mut free = self.free_cached();
        if free < wanted {
            // Acquire pairs with the consumer's Release: it has read the entries that we are going
            // to overwrite.
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
            free = self.free_cached();
        }
        let granted = wanted.min(free);
        Reservation { cursor: Cursor::new(&self.ring, self.produced, granted), granted, ring: self }
    }

    #[inline]
    fn free_cached(&self) -> u32 {
        // Both counters wrap; their difference does not, and never exceeds the size while the
        // consumer is honest. A consumer that claims more than was produced yields nothing rather
        // than an out-of-bounds reservation.
        self.ring.size.saturating_sub(self.produced.wrapping_sub(self.consumed))
    }

    /// Entries published and not yet consumed, by a fresh look at the consumer.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        self.produced.wrapping_sub(self.ring.consumer().load(Ordering::Relaxed)).min(self.ring.size)
    }

    /// Whether the other side asks to be woken, given all that was published before this call.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        // Publish, then read the flag; the kernel sets the flag, then looks at the ring once more.
        // Without a full fence between the store and the load each side could miss the other's
        // store (store buffering), and both would sleep: Release/Acquire do not order a store
        // before a later load.
        fence(Ordering::SeqCst);
        self.asks_for_wakeup()
    }

    /// The same without the fence: for when nothing was published since the last look. A flag that
    /// is seen late is seen at the next one.
    #[inline]
    pub(crate) fn asks_for_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Entries of a ring that are ours to write. Publish them with [`commit`](Self::commit); dropping
/// cancels: what was written is not seen by the other side, and the entries are free again.
#[must_use = "dropping a reservation cancels it"]
pub(crate) struct Reservation<'a, T> {
    ring: &'a mut Producer<T>,
    cursor: Cursor<T>,
    granted: u32,
}

impl<T: Plain> Reservation<'_, T> {
    /// How many entries were granted.
    #[inline]
    pub(crate) fn granted(&self) -> u32 {
        self.granted
    }

    /// Writes the next entry; `false` (and nothing written) once all that was granted is used.
    #[cfg(any(test, feature = "fake-kernel"))]
    #[inline]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        let Some(slot) = self.cursor.next() else { return false };
        // SAFETY: the slot is one of the ring's, which outlives the reservation; it lies between
        // producer and consumer + size, so it is ours until published. Unsafe because it lies in
        // memory shared with the kernel.
        unsafe { slot.as_ref().write(entry) };
        true
    }

    /// Writes these entries. With one look at how many there are, instead of one for each.
    ///
    /// # Safety
    /// The iterator yields no more than it says that it will. (Whatever it says, nothing outside
    /// the ring is written; but a further entry may be one that the other side is reading.)
    ///
    /// # Panics
    /// If it says that there are more than were granted.
    #[inline]
    pub(crate) unsafe fn extend(&mut self, entries: impl ExactSizeIterator<Item = T>) {
        let left = self.cursor.end.wrapping_sub(self.cursor.at) as usize;
        assert!(entries.len() <= left, "more entries than were granted");
        let Cursor { entries: slots, mask, mut at, end } = self.cursor;
        entries.for_each(|entry| {
            debug_assert!(at != end, "more entries than the iterator said");
            // SAFETY: within the ring by the mask, and ours: no more entries come than were said,
            // nor were more said than were granted. Unsafe because it lies in memory shared with
            // the kernel.
            unsafe { slots.add((at & mask) as usize).as_ref().write(entry) };
            at = at.wrapping_add(1);
        });
        self.cursor.at = at;
    }

    /// Publishes what was written, and says how much that was.
    #[inline]
    pub(crate) fn commit(self) -> u32 {
        let ring = self.ring;
        let written = self.cursor.at.wrapping_sub(ring.produced);
        if written == 0 {
            return 0; // and the line that both sides share stays clean
        }
        ring.produced = self.cursor.at;
        // Release: the entries are written before the counter that shows them.
        ring.ring.producer().store(ring.produced, Ordering::Release);
        written
    }
}

/// The consuming end of a ring.
pub(crate) struct Consumer<T> {
    ring: RingLayout<T>,
    /// The producer's counter when we last looked.
    produced: u32,
    /// Our own counter.
    consumed: u32,
}

impl<T: Plain> Consumer<T> {
    /// # Safety
    /// As for [`Producer::new`], with nobody else consuming from this ring; what nobody has written
    /// is zero.
    pub(crate) unsafe fn new(ring: RingLayout<T>) -> Self {
        debug_assert!(ring.size.is_power_of_two());
        let consumed = ring.consumer().load(Ordering::Relaxed);
        // As if the ring were empty: the first peek looks.
        Self { produced: consumed, consumed, ring }
    }

    /// Up to `wanted` entries that are there to be read.
    #[inline]
    pub(crate) fn peek(&mut self, wanted: u32) -> Peek<'_, T> {
        let mut there = self.available_cached();
        if there < wanted {
            // Acquire pairs with the producer's Release: the entries it shows are written.
            self.produced = self.ring.producer().load(Ordering::Acquire);
            there = self.available_cached();
        }
        Peek { cursor: Cursor::new(&self.ring, self.consumed, wanted.min(there)), ring: self }
    }

    #[inline]
    fn available_cached(&self) -> u32 {
        // A producer that claims more than the ring holds is not believed beyond the ring.
        self.produced.wrapping_sub(self.consumed).min(self.ring.size)
    }

    /// Entries that are there to be read, by a fresh look at the producer.
    pub(crate) fn available(&self) -> u32 {
        self.ring.producer().load(Ordering::Relaxed).wrapping_sub(self.consumed).min(self.ring.size)
    }

    /// Asks the producer to wake us (or takes the request back). The kernel does this, so only the
    /// fake one needs it.
    #[cfg(feature = "fake-kernel")]
    pub(crate) fn set_needs_wakeup(&self, on: bool) {
        let flags = if on { libc::XDP_RING_NEED_WAKEUP } else { 0 };
        self.ring.flags().store(flags, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// Entries being read. [`release`](Self::release) hands those that were read back to the producer;
/// dropping hands back none: they will be there again at the next peek.
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
        // and producer, so it was written (Acquire in `peek`) and will not be overwritten before we
        // release it. If the producer's counter lies, it may be as the ring's memory was made:
        // zeroed, which is a value of a plain type too. Unsafe because it lies in memory shared
        // with the kernel.
        Some(unsafe { slot.as_ref().read() })
    }
}

impl<T: Plain> Peek<'_, T> {
    /// How many were read.
    #[inline]
    pub(crate) fn read(&self) -> u32 {
        self.cursor.at.wrapping_sub(self.ring.consumed)
    }

    /// Hands the entries that were read back to the producer, and says how many.
    #[inline]
    pub(crate) fn release(self) -> u32 {
        let read = self.read();
        let ring = self.ring;
        if read == 0 {
            return 0; // as in `commit`: who only looks leaves the shared line clean
        }
        ring.consumed = self.cursor.at;
        // Release: our reads of the entries are done before the producer may overwrite them.
        ring.ring.consumer().store(ring.consumed, Ordering::Release);
        read
    }
}

/// A ring in ordinary memory: what the kernel would map, for the fake kernel and for tests of the
/// rings alone.
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) mod heap {
    use std::ptr::NonNull;

    use super::{Consumer, Producer, RingLayout};
    #[cfg(feature = "fake-kernel")]
    use crate::sync::Ordering;
    use crate::sync::{AtomicU32, Entry, Plain};

    /// The memory of one ring. Whoever takes the ends keeps this alive as long as they live.
    pub(crate) struct HeapRing<T> {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: Box<[Entry<T>]>,
    }

    impl<T: Plain> HeapRing<T> {
        /// A ring of `size` entries whose counters start at `start`: close to 2³² to see them wrap.
        pub(crate) fn new(size: u32, start: u32) -> Box<Self> {
            assert!(size.is_power_of_two(), "ring size {size} is not a power of two");
            Box::new(Self {
                producer: AtomicU32::new(start),
                consumer: AtomicU32::new(start),
                flags: AtomicU32::new(0),
                entries: (0..size).map(|_| Entry::unwritten()).collect(),
            })
        }

        /// Moves the counter as a user would who puts `n` entries in, and writes none.
        #[cfg(feature = "fake-kernel")]
        pub(crate) fn pretend_produced(&self, n: u32) {
            self.producer
                .store(self.producer.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
        }

        /// Moves the counter as a user would who takes all entries out, and reads none.
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

        /// # Safety
        /// `self` outlives both ends, and this is called once.
        pub(crate) unsafe fn ends(&self) -> (Producer<T>, Consumer<T>) {
            // SAFETY: the caller keeps the memory alive and takes each end once; `new` checked the
            // size.
            unsafe { (Producer::new(self.layout()), Consumer::new(self.layout())) }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::heap::HeapRing;
    use crate::oracle::ring::{self, Step};

    fn produce(n: u32) -> Step {
        Step::Produce { reserve: n, write: n, extend: n.is_multiple_of(2), commit: true }
    }

    fn consume(n: u32) -> Step {
        Step::Consume { peek: n, read: n, release: true }
    }

    #[test]
    fn a_dropped_reservation_publishes_nothing() {
        let cancelled = Step::Produce { reserve: 2, write: 1, extend: false, commit: false };
        ring::check(4, 0, [cancelled, consume(4), produce(1), cancelled, produce(4), consume(4)]);
    }

    #[test]
    fn a_reservation_that_is_used_in_part_leaves_the_rest_free() {
        ring::check(
            4,
            0,
            [
                Step::Produce { reserve: 4, write: 1, extend: true, commit: true },
                produce(4),
                consume(4),
                produce(4),
            ],
        );
    }

    #[test]
    fn a_peek_without_release_leaves_the_entries() {
        let looked = Step::Consume { peek: 4, read: 4, release: false };
        let in_part = Step::Consume { peek: 4, read: 1, release: true };
        ring::check(4, 0, [produce(2), looked, in_part, looked, consume(4), looked]);
    }

    #[test]
    fn a_full_ring_grants_what_is_free() {
        for back in 0..8 {
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
            ring::check(4, 0u32.wrapping_sub(back), steps);
        }
    }

    #[test]
    #[should_panic(expected = "more entries than were granted")]
    fn more_than_was_granted_is_not_written() {
        let ring = HeapRing::<u64>::new(4, 0);
        // SAFETY: the ring outlives both ends, which are taken once. Unsafe because the ends hold
        // addresses.
        let (mut producer, _consumer) = unsafe { ring.ends() };
        let mut reservation = producer.reserve(9);
        // SAFETY: a slice's iterator knows how long it is. Unsafe: others may not.
        unsafe { reservation.extend([0; 5].into_iter()) };
    }

    /// An end that goes to another thread, as the kernel's ends are on other cores.
    struct There<E>(E);

    // SAFETY: an end is used by one thread at a time, and the other end by another: that is what a
    // ring is for. Unsafe because ends hold addresses.
    unsafe impl<E> Send for There<E> {}

    /// On real cores, without a model; ThreadSanitizer looks at this one (`make sanitize`).
    #[test]
    fn two_threads_pass_entries_in_order() {
        const ENTRIES: u64 = 100_000;
        let ring = HeapRing::new(64, 0u32.wrapping_sub(1000));
        // SAFETY: the ring outlives both ends, as the scope does. Unsafe because the ends hold
        // addresses.
        let (producer, mut consumer) = unsafe { ring.ends() };
        let producer = There(producer);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let There(mut producer) = { producer };
                let mut next = 0;
                while next < ENTRIES {
                    let mut reservation = producer.reserve(1 + (next % 40) as u32);
                    if next % 3 == 0 {
                        let values: Vec<u64> =
                            (next..next + u64::from(reservation.granted())).collect();
                        next += values.len() as u64;
                        // SAFETY: a vector's iterator knows how long it is. Unsafe: others may not.
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
        /// Any interleaving of the two ends behaves as a bounded queue, across the wrap at 2³².
        #[test]
        fn behaves_as_a_bounded_queue(steps in prop::collection::vec(any::<[u8; 4]>(), 1..200)) {
            ring::run(steps);
        }
    }
}
