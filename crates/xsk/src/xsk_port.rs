//! The AF_XDP port: four rings and the frames that are in them.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::RawFd;

use crate::abi::Descriptor;
use crate::batch::Batch;
use crate::clock;
use crate::frame::Frame;
use crate::owner::{Owner, Slot};
use crate::pace::Pace;
use crate::pool::Pool;
use crate::port::{Census, Counters, KernelCounters, Port};
use crate::prefetch::prefetch_for_write;
use crate::queue::EgressQueue;
use crate::region::Chunks;
use crate::ring::{Consumer, Producer};
use crate::umem::Umem;

/// What a port asks of the kernel besides its rings. [`Socket`](crate::socket::Socket) is the real
/// one.
pub(crate) trait Kernel {
    /// Makes the kernel look at the TX ring.
    fn wake_tx(&mut self) -> io::Result<()>;
    /// Makes the kernel look at the fill ring.
    fn wake_rx(&mut self) -> io::Result<()>;
    /// A descriptor to wait on.
    fn fd(&self) -> Option<RawFd>;
    /// `XDP_STATISTICS`.
    fn statistics(&self) -> KernelCounters;
    /// Whether nobody writes to what was posted for reception once this is dropped. A socket cannot
    /// promise it: somebody who waits on it (`poll`), or a process that is being forked, has the
    /// kernel's file too, and it stays bound until that goes.
    fn ends_when_dropped(&self) -> bool;
}

/// The user-space ends of a port's four rings.
pub(crate) struct Rings {
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) rx: Consumer<Descriptor>,
    pub(crate) tx: Producer<Descriptor>,
    /// The memory that the rings lie in, kept for as long as they are. Declared last: dropped last.
    pub(crate) _memory: Box<dyn Any>,
}

/// One (interface, queue) over AF_XDP. Made by a [`Builder`](crate::Builder), or by a
/// [`FakeKernel`](crate::fake_kernel::FakeKernel) without an interface.
pub struct XskPort {
    // With the rings' memory, which holds the socket's file too: the kernel lets go of the queue
    // when the last goes.
    kernel: Box<dyn Kernel>,
    rings: Rings,
    umem: Umem,
    slot: Slot,
    /// Frames to keep posted for reception.
    fill_target: u32,
    /// Frames posted for reception and not received.
    filled: u32,
    /// Frames posted for transmission and not reclaimed.
    sending: u32,
    /// Ask the kernel to poll the device at every receive, instead of only when it wants to be
    /// woken.
    busy_poll: bool,
    /// The device itself reads and writes the frames.
    zero_copy: bool,
    closed: bool,
    /// Frames were posted for reception since the last look, after a fence, whether the kernel
    /// wants to be woken for that.
    unannounced: bool,
    /// Wake-ups for transmission, and for reception, that changed nothing.
    tx_pace: Pace,
    rx_pace: Pace,
    counters: Counters,
}

impl XskPort {
    pub(crate) fn new(
        umem: &Umem,
        slot: Slot,
        kernel: Box<dyn Kernel>,
        rings: Rings,
        fill_target: u32,
        busy_poll: bool,
    ) -> Self {
        Self {
            kernel,
            rings,
            umem: umem.clone(),
            slot,
            fill_target,
            filled: 0,
            sending: 0,
            busy_poll,
            zero_copy: false,
            closed: false,
            unannounced: false,
            tx_pace: Pace::default(),
            rx_pace: Pace::default(),
            counters: Counters::default(),
        }
    }

    /// Says that the device itself reads and writes the frames.
    pub(crate) fn set_zero_copy(&mut self) {
        self.zero_copy = true;
    }

    /// Posts free frames for reception until as many are posted as should be, or none is free.
    /// Whether it posted any.
    #[inline]
    pub(crate) fn refill(&mut self, pool: &mut Pool) -> bool {
        let missing = self.fill_target.saturating_sub(self.filled).min(pool.len() as u32);
        if missing == 0 {
            return false;
        }
        let mut reservation = self.rings.fill.reserve(missing);
        // SAFETY: the pool's iterator is that of a slice, which knows how long it is. Unsafe:
        // others may not.
        unsafe { reservation.extend(pool.take_for_fill(self.slot, reservation.granted())) };
        let posted = reservation.commit();
        self.filled += posted;
        posted > 0
    }

    /// The frame that an RX descriptor stands for, if the kernel had it to give.
    #[inline]
    pub(crate) fn accept(chunks: Chunks<'_>, slot: Slot, descriptor: Descriptor) -> Option<Frame> {
        let (chunk, offset) = chunks.split(descriptor.addr);
        // Neither sum nor length can wrap: the one is of 64 bits, the other is within the chunk
        // then.
        if u64::from(offset) + u64::from(descriptor.len) > u64::from(chunks.frame_size()) {
            return None;
        }
        if !chunks.hand_over(chunk, Owner::fill(slot), Owner::HELD) {
            return None;
        }
        // SAFETY: `hand_over` found the chunk to exist and to have been in our fill ring, so no
        // frame stands for it; `split` has the address lie in it, at the offset, and offset and
        // length are within the chunk. Unsafe because it makes the token that stands for the bytes.
        Some(unsafe {
            chunks.frame(descriptor.addr, chunk as u32, offset as u16, descriptor.len as u16)
        })
    }

    /// The chunk that a completion stands for, if the kernel had it to give. The address is that of
    /// the descriptor: the packet may have started anywhere in its chunk.
    #[inline]
    pub(crate) fn completed(chunks: Chunks<'_>, slot: Slot, address: u64) -> Option<u32> {
        let (chunk, _) = chunks.split(address);
        chunks.hand_over(chunk, Owner::tx(slot), Owner::POOL).then_some(chunk as u32)
    }

    /// What there is to see of the kernel's progress: unsent descriptors and completions. Both,
    /// because before Linux 6.17 the ring did not show what a call in copy mode had sent until it
    /// was empty or a later call came.
    fn seen_of_tx(&self) -> (u32, u32) {
        (self.rings.tx.pending(), self.rings.completion.available())
    }

    /// Makes the kernel send what is in the TX ring.
    fn wake_tx(&mut self) {
        let start = clock::cycles();
        self.wake_tx_until_done();
        self.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
    }

    fn wake_tx_until_done(&mut self) {
        let at_first = self.seen_of_tx();
        let mut thrown_away = false;
        // Each packet that the interface throws away ends the kernel's work, and so does its
        // budget; there are only so many.
        for _ in 0..=self.sending {
            self.counters.syscalls += 1;
            self.counters.tx_wakes += 1;
            let before = self.seen_of_tx();
            let Err(error) = self.kernel.wake_tx() else { break };
            match error.raw_os_error() {
                // In copy mode this is `NET_XMIT_DROP`: one packet was completed without being sent
                // (`__xsk_generic_xmit`). The ring need not show it yet: if it was the call's
                // first, the kernel's counter is stored by a later call.
                Some(libc::EBUSY) if !self.zero_copy => {
                    self.counters.tx_dropped += 1;
                    thrown_away = true;
                }
                // The budget of one call is used up: 32 before Linux 6.17.
                Some(libc::EAGAIN) if self.seen_of_tx() != before => {}
                // EAGAIN: the send buffer or the completion ring is full. ENOBUFS: no memory for
                // the moment. ENETDOWN: the link is down. ENXIO: the device is gone. None loses the
                // descriptors that are still in the ring; a later turn tries again.
                _ => {
                    self.counters.tx_retries += 1;
                    break;
                }
            }
            if self.rings.tx.pending() == 0 {
                break;
            }
        }
        if thrown_away || self.seen_of_tx() != at_first {
            self.tx_pace.reset();
        } else {
            self.tx_pace.was_in_vain();
        }
    }

    /// Panics if the pool is that of another UMEM: its chunk numbers would be taken for ours.
    #[inline]
    fn check_pool(&self, pool: &Pool) {
        assert!(self.umem.is_same(pool.umem()), "the pool is of another UMEM than the port");
    }
}

impl Port for XskPort {
    fn umem(&self) -> Option<&Umem> {
        Some(&self.umem)
    }

    fn receive(&mut self, into: &mut Batch, pool: &mut Pool) -> usize {
        self.check_pool(pool);
        let (chunks, slot) = (self.umem.region().chunks(), self.slot);
        let before = into.len();
        let mut peek = self.rings.rx.peek(into.room() as u32);
        let came = into.push_all(peek.by_ref().filter_map(|descriptor| {
            let frame = Self::accept(chunks, slot, descriptor)?;
            prefetch_for_write(&frame);
            Some(frame)
        })) as u32;
        let entries = peek.read();
        peek.release();
        if entries > 0 {
            // A descriptor that was refused names no frame of ours, so it takes none out of the
            // fill ring.
            self.filled -= came;
            self.counters.rx_packets += u64::from(came);
            self.counters.rx_bytes += into.places()[before..]
                .iter()
                .flatten()
                .map(|frame| frame.len() as u64)
                .sum::<u64>();
            self.counters.invalid_descriptors += u64::from(entries - came);
        }
        self.unannounced |= self.refill(pool);
        if entries > 0 {
            self.rx_pace.reset();
            return came as usize;
        }
        let posted = mem::take(&mut self.unannounced);
        let fill = &self.rings.fill;
        let asked = if posted { fill.needs_wakeup() } else { fill.asks_for_wakeup() };
        if !asked {
            self.rx_pace.reset();
        }
        if self.busy_poll || asked && (posted || self.rx_pace.allows()) {
            self.counters.syscalls += 1;
            // Whatever it answers, a later turn asks again if the flag is still up.
            let _ = self.kernel.wake_rx();
            if asked {
                self.rx_pace.was_in_vain();
            }
        }
        came as usize
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        assert!(self.umem.is_same(queue.umem()), "the queue is of another UMEM than the port");
        let mut sent = 0;
        if !queue.is_empty() {
            let mut bytes = 0;
            let chunks = self.umem.region().chunks();
            let mut reservation = self.rings.tx.reserve(queue.len() as u32);
            let owner = Owner::tx(self.slot);
            let descriptors = queue.drain(reservation.granted() as usize).map(|frame| {
                bytes += frame.len() as u64;
                let addr = chunks.join(frame.chunk(), frame.headroom() as u32);
                let descriptor = Descriptor { addr, len: frame.len() as u32, options: 0 };
                frame.give_up_in(chunks, owner);
                descriptor
            });
            // SAFETY: the queue's iterator ends where its length says (`Drain`). Unsafe: others may
            // not.
            unsafe { reservation.extend(descriptors) };
            sent = reservation.commit();
            self.sending += sent;
            self.counters.tx_packets += u64::from(sent);
            self.counters.tx_bytes += bytes;
        }
        if self.unsent() {
            if !self.rings.tx.needs_wakeup() {
                // It is at work, or will ask anew.
                self.tx_pace.reset();
            } else if sent > 0 || self.tx_pace.allows() {
                self.wake_tx();
            }
        }
        sent as usize
    }

    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        self.check_pool(pool);
        if self.sending == 0 {
            return 0;
        }
        let (chunks, slot) = (self.umem.region().chunks(), self.slot);
        let mut peek = self.rings.completion.peek(self.sending);
        let back = pool
            .push_all(peek.by_ref().filter_map(|address| Self::completed(chunks, slot, address)));
        let entries = peek.read();
        if entries > 0 {
            peek.release();
            self.sending -= back;
            // What was in the way of the rest may be out of it: send buffer, or room in the
            // completion ring.
            self.tx_pace.reset();
            self.counters.invalid_descriptors += u64::from(entries - back);
        }
        back as usize
    }

    fn unsent(&self) -> bool {
        // By the ring, not by what the last wake-up returned: in zero-copy the driver takes its
        // time, and stops when the completion ring is full.
        self.sending > 0 && self.rings.tx.pending() > 0
    }

    fn fd(&self) -> Option<RawFd> {
        self.kernel.fd()
    }

    fn census(&self) -> Census {
        let rx = self.rings.rx.available().min(self.filled);
        let completion = self.rings.completion.available().min(self.sending);
        Census {
            fill: u64::from(self.filled - rx),
            rx: u64::from(rx),
            tx: u64::from(self.sending - completion),
            completion: u64::from(completion),
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn kernel_counters(&self) -> KernelCounters {
        self.kernel.statistics()
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> usize {
        // What is completed already is nobody's but ours.
        self.reclaim(pool);
        let (umem, slot) = (self.umem.clone(), self.slot);
        let reuse = self.kernel.ends_when_dropped() && !self.zero_copy;
        self.closed = true;
        // The kernel goes first: at best it is done then with what was posted for reception. What
        // was posted for transmission may still hang in a device's queue, by reference, in copy
        // mode too (`xsk_build_skb_zerocopy`).
        drop(self);
        let owners = &umem.region().owners;
        let mut back = 0;
        let all = owners.close(slot, |chunk| {
            if reuse {
                owners.set(chunk, Owner::POOL);
                pool.push(chunk);
                back += 1;
            }
        });
        all - back
    }
}

impl fmt::Debug for XskPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, counters, .. } = self;
        f.debug_struct("XskPort")
            .field("slot", slot)
            .field("census", &self.census())
            .field("counters", counters)
            .finish()
    }
}

impl Drop for XskPort {
    fn drop(&mut self) {
        let region = self.umem.region();
        if !self.closed {
            region.owners.close(self.slot, |_| ());
        }
        region.release(self.slot);
    }
}
