//! The AF_XDP port: four rings and the frames in them.

use std::fmt;
use std::mem;
use std::os::fd::{BorrowedFd, RawFd};

use crate::abi::Descriptor;
use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::clock;
use crate::counters::{Counters, KernelCounters, PortFrameCounts};
use crate::frame::Frame;
use crate::kernel::{Kernel, Rings};
use crate::lease::SlotLease;
use crate::owner::{Owner, PortSlot};
use crate::pool::Pool;
use crate::port::Port;
use crate::prefetch::prefetch_for_write;
use crate::quarantine::Quarantine;
use crate::queue::EgressQueue;
use crate::queue_id::QueueId;
use crate::region::Chunks;
use crate::umem::Umem;

/// An AF_XDP port: one queue of one interface. Created by a [`Builder`](crate::Builder) or a
/// [`FakeKernel`](crate::fake_kernel::FakeKernel).
pub struct XskPort {
    // The mapped rings also refer to the socket's file: the kernel releases the queue only after
    // both `kernel` and `rings` are dropped.
    kernel: Box<dyn Kernel>,
    rings: Rings,
    umem: Umem,
    slot: PortSlot,
    /// The queue to which the socket is, or will be, bound.
    queue: QueueId,
    /// Frames to keep posted for reception.
    fill_target: u32,
    /// Frames posted for reception and not yet received.
    filled: u32,
    /// Frames posted for transmission and not yet reclaimed.
    sending: u32,
    /// Whether every `receive` that finds no packet wakes the kernel to poll the device, even if
    /// the kernel did not request a wake-up.
    busy_poll: bool,
    /// Whether the device accesses the frames directly.
    zero_copy: bool,
    /// Whether frames were posted for reception since the last `needs_wakeup` on the fill ring (the
    /// check of the wake-up flag that has a fence).
    unannounced: bool,
    tx_backoff: Backoff,
    rx_backoff: Backoff,
    counters: Counters,
    /// Dropped after `kernel` and `rings`.
    lease: SlotLease,
}

impl XskPort {
    pub(crate) fn new(
        lease: SlotLease,
        queue: QueueId,
        kernel: Box<dyn Kernel>,
        rings: Rings,
        fill_target: u32,
        busy_poll: bool,
    ) -> Self {
        Self {
            kernel,
            rings,
            umem: lease.umem().clone(),
            slot: lease.slot(),
            queue,
            fill_target,
            filled: 0,
            sending: 0,
            busy_poll,
            zero_copy: false,
            unannounced: false,
            tx_backoff: Backoff::default(),
            rx_backoff: Backoff::default(),
            counters: Counters::default(),
            lease,
        }
    }

    pub(crate) fn set_zero_copy(&mut self) {
        self.zero_copy = true;
    }

    /// Posts free frames for reception, up to `fill_target`. Returns whether it posted a frame.
    #[inline]
    pub(crate) fn refill(&mut self, pool: &mut Pool) -> bool {
        let wanted = self.fill_target.saturating_sub(self.filled).min(pool.len() as u32);
        if wanted == 0 {
            return false;
        }
        let mut reservation = self.rings.fill.reserve(wanted);
        // SAFETY: the pool returns a slice's iterator, which reports its exact length. Needs
        // `unsafe`: other iterators may report a wrong length.
        unsafe { reservation.extend(pool.take_for_fill(self.slot, reservation.granted())) };
        let posted = reservation.commit();
        self.filled += posted;
        posted > 0
    }

    /// Returns the received frame; `None` if the descriptor's range exceeds its chunk, or the
    /// kernel did not own the chunk.
    #[inline]
    pub(crate) fn accept(
        chunks: Chunks<'_>,
        slot: PortSlot,
        descriptor: Descriptor,
    ) -> Option<Frame> {
        let (chunk, offset) = chunks.split(descriptor.addr);
        // The 64-bit sum of two 32-bit numbers cannot overflow.
        if u64::from(offset) + u64::from(descriptor.len) > u64::from(chunks.frame_size()) {
            return None;
        }
        if !chunks.hand_over(chunk, Owner::fill(slot), Owner::HELD) {
            return None;
        }
        // SAFETY: `hand_over` checked that the chunk exists and was in our fill ring, so no frame
        // owns it; `split` returned the address's chunk and offset, and the range is within the
        // chunk. Needs `unsafe`: the new frame is the token that owns the bytes.
        Some(unsafe {
            chunks.frame(descriptor.addr, chunk as u32, offset as u16, descriptor.len as u16)
        })
    }

    /// Records a completed chunk as free and returns its number; `None` if the kernel did not own
    /// it. `address` is that of the TX descriptor, anywhere in the chunk.
    #[inline]
    pub(crate) fn completed(chunks: Chunks<'_>, slot: PortSlot, address: u64) -> Option<u32> {
        let (chunk, _) = chunks.split(address);
        chunks.hand_over(chunk, Owner::tx(slot), Owner::POOL).then_some(chunk as u32)
    }

    /// Returns the numbers of unsent descriptors and of completions. If either changes, the kernel
    /// has made progress. In copy mode before Linux 6.17, the TX ring showed sent descriptors only
    /// after a later wake-up, or when the ring was empty.
    fn tx_progress(&self) -> (u32, u32) {
        (self.rings.tx.pending(), self.rings.completion.available())
    }

    fn wake_tx(&mut self) {
        let start = clock::cycles();
        self.wake_tx_until_done();
        self.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
    }

    /// Repeats the wake-up as long as the kernel stops early but makes progress.
    fn wake_tx_until_done(&mut self) {
        let start_progress = self.tx_progress();
        let mut dropped = false;
        // A wake-up returns early if the interface drops a packet or the budget is used up.
        // `sending` limits the number of wake-ups.
        for _ in 0..=self.sending {
            self.counters.syscalls += 1;
            self.counters.tx_wakes += 1;
            let before = self.tx_progress();
            let Err(error) = self.kernel.wake_tx() else { break };
            match error.raw_os_error() {
                // In copy mode EBUSY is `NET_XMIT_DROP`: one packet was completed without being
                // sent (`__xsk_generic_xmit`). If it was the first packet of the wake-up, the TX
                // ring shows this only after a later wake-up.
                Some(libc::EBUSY) if !self.zero_copy => {
                    self.counters.tx_dropped += 1;
                    dropped = true;
                }
                // The budget of one wake-up is used up: 32 packets before Linux 6.17.
                Some(libc::EAGAIN) if self.tx_progress() != before => {}
                // EAGAIN: the send buffer or the completion ring is full. ENOBUFS: temporarily no
                // memory. ENETDOWN: the link is down. ENXIO: the device is gone. The descriptors
                // stay in the ring; a later `transmit` retries.
                _ => {
                    self.counters.tx_retries += 1;
                    break;
                }
            }
            if self.rings.tx.pending() == 0 {
                break;
            }
        }
        if dropped || self.tx_progress() != start_progress {
            self.tx_backoff.reset();
        } else {
            self.tx_backoff.extend();
        }
    }

    /// Ends the port, and takes its frames out of use for ever.
    pub(crate) fn give_up(self) -> Quarantine {
        Quarantine::without_end(&self.lease)
    }

    /// Ends the port. If `stops_writing`, no device or kernel code writes to the frames posted for
    /// reception once the socket is closed: then closes it, and returns these frames to the pool.
    pub(crate) fn close_with(self, stops_writing: bool, pool: &mut Pool) -> Quarantine {
        let Self { lease, queue, kernel, rings, .. } = self;
        let mut quarantine = Quarantine::of_port(lease, queue, kernel, rings);
        if stops_writing {
            quarantine.close_and_take_back_fill_frames(pool);
        }
        quarantine
    }

    /// Panics for a pool of another UMEM, whose chunk numbers mean other bytes.
    #[inline]
    fn check_pool(&self, pool: &Pool) {
        assert!(self.umem.is_same(pool.umem()), "the pool and the port belong to different UMEMs");
    }
}

impl Port for XskPort {
    fn umem(&self) -> Option<&Umem> {
        Some(&self.umem)
    }

    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool) -> usize {
        self.check_pool(pool);
        let (chunks, slot) = (self.umem.region().chunks(), self.slot);
        let before = batch.len();
        let mut peek = self.rings.rx.peek(batch.room() as u32);
        let received = batch.push_all(peek.by_ref().filter_map(|descriptor| {
            let frame = Self::accept(chunks, slot, descriptor)?;
            prefetch_for_write(&frame);
            Some(frame)
        })) as u32;
        let entries = peek.read_count();
        peek.release();
        if entries > 0 {
            // Do not subtract `entries`: a rejected descriptor corresponds to no posted frame.
            self.filled -= received;
            self.counters.rx_packets += u64::from(received);
            self.counters.rx_bytes += batch.slots()[before..]
                .iter()
                .flatten()
                .map(|frame| frame.len() as u64)
                .sum::<u64>();
            self.counters.invalid_descriptors += u64::from(entries - received);
        }
        self.unannounced |= self.refill(pool);
        if entries > 0 {
            self.rx_backoff.reset();
            return received as usize;
        }
        let posted = mem::take(&mut self.unannounced);
        let fill = &self.rings.fill;
        let requested = if posted { fill.needs_wakeup() } else { fill.needs_wakeup_unfenced() };
        if !requested {
            self.rx_backoff.reset();
        }
        if self.busy_poll || requested && (posted || self.rx_backoff.is_over()) {
            self.counters.syscalls += 1;
            // A later `receive` retries if the wake-up flag is still set.
            let _ = self.kernel.wake_rx();
            if requested {
                self.rx_backoff.extend();
            }
        }
        received as usize
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        assert!(
            self.umem.is_same(queue.umem()),
            "the queue and the port belong to different UMEMs"
        );
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
            // SAFETY: `Drain` yields exactly its length. Needs `unsafe`: other iterators may report
            // a wrong length.
            unsafe { reservation.extend(descriptors) };
            sent = reservation.commit();
            self.sending += sent;
            self.counters.tx_packets += u64::from(sent);
            self.counters.tx_bytes += bytes;
        }
        if self.has_unsent() {
            if !self.rings.tx.needs_wakeup() {
                // The kernel is transmitting, or will request a wake-up.
                self.tx_backoff.reset();
            } else if sent > 0 || self.tx_backoff.is_over() {
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
        let returned = pool
            .push_all(peek.by_ref().filter_map(|address| Self::completed(chunks, slot, address)));
        let entries = peek.read_count();
        if entries > 0 {
            peek.release();
            self.sending -= returned;
            // Completions make room in the send buffer and the completion ring, for which unsent
            // frames may have waited.
            self.tx_backoff.reset();
            self.counters.invalid_descriptors += u64::from(entries - returned);
        }
        returned as usize
    }

    fn has_unsent(&self) -> bool {
        // Check the ring, not the last wake-up: a zero-copy driver sends asynchronously, and can
        // stop later because the completion ring is full.
        self.sending > 0 && self.rings.tx.pending() > 0
    }

    fn fd(&self) -> Option<RawFd> {
        self.kernel.fd()
    }

    fn umem_socket(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.umem_socket()
    }

    fn frame_counts(&self) -> PortFrameCounts {
        // `min` excludes invalid entries, which are not frames of this port.
        let rx = self.rings.rx.available().min(self.filled);
        let completion = self.rings.completion.available().min(self.sending);
        PortFrameCounts {
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

    fn stop_posting(&mut self) {
        self.fill_target = 0;
    }

    fn is_bound(&self) -> bool {
        self.kernel.is_bound()
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> Quarantine {
        // Completed frames belong to user space again.
        self.reclaim(pool);
        let stops_writing = self.kernel.stops_writing_on_drop() && !self.zero_copy;
        self.close_with(stops_writing, pool)
    }
}

impl fmt::Debug for XskPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, counters, .. } = self;
        f.debug_struct("XskPort")
            .field("slot", slot)
            .field("frame_counts", &self.frame_counts())
            .field("counters", counters)
            .finish()
    }
}
