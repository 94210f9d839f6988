//! An AF_XDP port with the crate `xsk-rs` and libxdp, for comparison with the built-in rings.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem as XskRsUmem};

use crate::abi::{Descriptor, XDP_PACKET_HEADROOM};
use crate::batch::Batch;
use crate::clock;
use crate::counters::{Counters, KernelCounters, PortFrameCounts};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::lease::SlotLease;
use crate::owner::{Owner, PortSlot};
use crate::pool::Pool;
use crate::port::Port;
use crate::prefetch::prefetch_for_write;
use crate::quarantine::Quarantine;
use crate::queue::EgressQueue;
use crate::socket::{RingSizes, Socket};
use crate::sync::{Ordering, fence};
use crate::umem::Umem;
use crate::xsk_port::XskPort;

/// One queue of one interface, opened with `xsk-rs`. Created by
/// [`Builder::open_by_xsk_rs`](crate::Builder::open_by_xsk_rs).
///
/// `xsk-rs` sends a packet only if it starts 256 bytes after the chunk's start, as received packets
/// do. The port moves other packets there and counts them as [`Counters::tx_copied`], or, if they
/// do not fit, drops them and counts them as [`Counters::tx_dropped`].
pub struct XskRsPort {
    /// A second handle of the socket, for wake-up errors and statistics, which `xsk-rs` does not
    /// expose.
    socket: Socket,
    // `frame_counts` has only `&self`, but counting entries with `xsk-rs` requires `&mut`.
    tx: RefCell<TxQueue>,
    rx: RefCell<RxQueue>,
    completion: RefCell<CompQueue>,
    fill: FillQueue,
    xsk_rs_umem: XskRsUmem,
    umem: Umem,
    slot: PortSlot,
    /// The descriptor of each chunk, by chunk number.
    descriptors: Rc<[FrameDesc]>,
    /// A buffer for the descriptors of one batch.
    scratch: Box<[FrameDesc; Batch::CAPACITY]>,
    /// Dropped packets, recorded as owned by this port until `reclaim` returns them to the pool.
    dropped: Vec<u32>,
    sizes: RingSizes,
    /// Frames posted for reception and not yet received.
    filled: u32,
    /// Frames posted for transmission and not yet reclaimed.
    sending: u32,
    zero_copy: bool,
    counters: Counters,
    /// Dropped after the socket and the rings.
    lease: SlotLease,
}

pub(crate) struct Queues {
    pub(crate) tx: TxQueue,
    pub(crate) rx: RxQueue,
    pub(crate) fill: FillQueue,
    pub(crate) completion: CompQueue,
    pub(crate) umem: XskRsUmem,
}

impl XskRsPort {
    pub(crate) fn new(
        lease: SlotLease,
        socket: Socket,
        queues: Queues,
        descriptors: Rc<[FrameDesc]>,
        sizes: RingSizes,
        zero_copy: bool,
    ) -> Self {
        let Queues { tx, rx, fill, completion, umem: xsk_rs_umem } = queues;
        Self {
            socket,
            tx: RefCell::new(tx),
            rx: RefCell::new(rx),
            completion: RefCell::new(completion),
            fill,
            xsk_rs_umem,
            umem: lease.umem().clone(),
            slot: lease.slot(),
            descriptors,
            scratch: Box::new([FrameDesc::default(); Batch::CAPACITY]),
            dropped: Vec::with_capacity(Batch::CAPACITY),
            sizes,
            filled: 0,
            sending: 0,
            zero_copy,
            counters: Counters::default(),
            lease,
        }
    }

    /// Posts free frames for reception, up to `sizes.fill`. Returns whether it posted a frame.
    pub(crate) fn refill(&mut self, pool: &mut Pool) -> bool {
        let before = self.filled;
        loop {
            let wanted = self.sizes.fill.saturating_sub(self.filled).min(pool.len() as u32);
            let wanted = wanted.min(self.scratch.len() as u32);
            // `produce` accepts all descriptors or none.
            let count = wanted.min(self.fill.nb_free(wanted));
            if count == 0 {
                return self.filled > before;
            }
            let chunks = self.umem.region().chunks();
            for (descriptor, address) in
                self.scratch.iter_mut().zip(pool.take_for_fill(self.slot, count))
            {
                *descriptor = self.descriptors[chunks.split(address).0 as usize];
            }
            // SAFETY: each descriptor belongs to a chunk of this UMEM just taken out of the pool,
            // so it has no other owner. Needs `unsafe`: the kernel writes to the chunk from now on.
            let posted = unsafe { self.fill.produce(&self.scratch[..count as usize]) };
            debug_assert_eq!(
                posted, count as usize,
                "`produce` accepted fewer descriptors than the ring had free entries"
            );
            self.filled += count;
        }
    }

    /// Moves the packet to the offset at which `xsk-rs` sends it. Returns whether it fits there.
    fn move_to_tx_offset(frame: &mut Frame) -> bool {
        const TX_OFFSET: usize = XDP_PACKET_HEADROOM as usize;
        let len = frame.len();
        if let Some(distance) = TX_OFFSET.checked_sub(frame.headroom()) {
            if frame.append(distance).is_err() {
                return false;
            }
            frame.copy_within(..len, distance);
            frame.trim_front(distance);
        } else {
            let distance = frame.headroom() - TX_OFFSET;
            // Cannot fail: the headroom exceeds the distance.
            if frame.prepend(distance).is_err() {
                return false;
            }
            frame.copy_within(distance.., 0);
            frame.truncate(len);
        }
        true
    }

    /// Posts at most one batch. Returns the number of frames taken from the queue, including
    /// dropped frames.
    fn post(&mut self, queue: &mut EgressQueue) -> usize {
        let room = self.scratch.len().min(self.dropped.capacity() - self.dropped.len());
        let wanted = queue.len().min(room);
        let wanted = wanted.min(self.tx.get_mut().nb_free(wanted as u32) as usize);
        let mut count = 0;
        for mut frame in queue.drain(wanted) {
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += frame.len() as u64;
            if frame.headroom() != XDP_PACKET_HEADROOM as usize {
                if !Self::move_to_tx_offset(&mut frame) {
                    self.counters.tx_dropped += 1;
                    self.dropped.push(frame.give_up(Owner::tx(self.slot)));
                    continue;
                }
                self.counters.tx_copied += 1;
            }
            let descriptor = &mut self.scratch[count];
            *descriptor = self.descriptors[frame.chunk() as usize];
            // SAFETY: the descriptor refers to the chunk of `frame`, which this port owns. No other
            // reference into the chunk exists. Needs `unsafe`: `data_mut` creates a reference to
            // the chunk's bytes, which is used only to set the packet length.
            unsafe { self.xsk_rs_umem.data_mut(descriptor) }.cursor().set_pos(frame.len());
            frame.give_up(Owner::tx(self.slot));
            count += 1;
        }
        // SAFETY: each descriptor belongs to a chunk of this UMEM whose frame was just given up for
        // transmission. Needs `unsafe`: the kernel reads the chunk from now on.
        let posted = unsafe { self.tx.get_mut().produce(&self.scratch[..count]) };
        debug_assert_eq!(
            posted, count,
            "`produce` accepted fewer descriptors than the ring had free entries"
        );
        self.sending += count as u32;
        wanted
    }

    /// Returns the number of descriptors that the kernel has not taken from the TX ring.
    fn pending(&self) -> u32 {
        self.sizes.tx.saturating_sub(self.tx.borrow_mut().nb_free_exact())
    }

    /// Wakes the kernel. Unlike `XskPort`, does not pause after a wake-up that had no effect.
    /// `XskPort::wake_tx_until_done` explains the errors. The wake-up of `xsk-rs` makes the same
    /// system call but does not distinguish errors.
    fn wake_tx(&mut self) {
        for _ in 0..=self.sending {
            self.counters.syscalls += 1;
            self.counters.tx_wakes += 1;
            let before = self.pending();
            let start = clock::cycles();
            let result = self.socket.wake_tx();
            self.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
            let Err(error) = result else { return };
            match error.raw_os_error() {
                Some(libc::EBUSY) if !self.zero_copy => self.counters.tx_dropped += 1,
                Some(libc::EAGAIN) if self.pending() < before => {}
                _ => {
                    self.counters.tx_retries += 1;
                    return;
                }
            }
        }
    }

    #[inline]
    fn check_pool(&self, pool: &Pool) {
        assert!(self.umem.is_same(pool.umem()), "the pool and the port belong to different UMEMs");
    }
}

impl Port for XskRsPort {
    fn umem(&self) -> Option<&Umem> {
        Some(&self.umem)
    }

    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool) -> usize {
        self.check_pool(pool);
        let room = batch.room();
        // SAFETY: the ring belongs to this UMEM, so it yields only descriptors of this UMEM. Needs
        // `unsafe`: xsk-rs does not check that.
        let entries = unsafe { self.rx.get_mut().consume(&mut self.scratch[..room]) };
        let mut received = 0;
        let mut bytes = 0;
        for descriptor in &self.scratch[..entries] {
            let len = descriptor.lengths().data() as u32;
            let descriptor = Descriptor { addr: descriptor.addr() as u64, len, options: 0 };
            let Some(frame) = XskPort::accept(self.umem.region().chunks(), self.slot, descriptor)
            else {
                continue;
            };
            prefetch_for_write(&frame);
            bytes += frame.len() as u64;
            received += 1;
            // `consume` returned at most `room` descriptors.
            if batch.push(frame).is_err() {
                break;
            }
        }
        self.filled -= received;
        self.counters.rx_packets += u64::from(received);
        self.counters.rx_bytes += bytes;
        self.counters.invalid_descriptors += entries as u64 - u64::from(received);
        if self.refill(pool) {
            // libxdp has no fence here; `Producer::needs_wakeup` explains why one is necessary.
            fence(Ordering::SeqCst);
        }
        if entries == 0 && self.fill.needs_wakeup() {
            self.counters.syscalls += 1;
            // The next `receive` retries if the wake-up flag is still set.
            let _ = self.fill.wakeup(self.rx.get_mut().fd_mut(), 0);
        }
        received as usize
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        assert!(
            self.umem.is_same(queue.umem()),
            "the queue and the port belong to different UMEMs"
        );
        let before = queue.len();
        while !queue.is_empty() && self.post(queue) > 0 {}
        if self.has_unsent() {
            // The fence must precede the read of the wake-up flag, as in `receive`.
            fence(Ordering::SeqCst);
            if self.tx.get_mut().needs_wakeup() {
                self.wake_tx();
            }
        }
        before - queue.len()
    }

    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        self.check_pool(pool);
        let mut reclaimed = self.dropped.len();
        for chunk in self.dropped.drain(..) {
            self.umem.region().owners.set(chunk, Owner::POOL);
            pool.push(chunk);
        }
        while self.sending > 0 {
            let max = self.scratch.len().min(self.sending as usize);
            // SAFETY: the ring belongs to this UMEM, so it yields only descriptors of this UMEM.
            // Needs `unsafe`: xsk-rs does not check that.
            let entries = unsafe { self.completion.get_mut().consume(&mut self.scratch[..max]) };
            let mut completed = 0;
            for descriptor in &self.scratch[..entries] {
                let chunks = self.umem.region().chunks();
                if let Some(chunk) = XskPort::completed(chunks, self.slot, descriptor.addr() as u64)
                {
                    pool.push(chunk);
                    completed += 1;
                }
            }
            self.sending -= completed;
            self.counters.invalid_descriptors += entries as u64 - u64::from(completed);
            reclaimed += completed as usize;
            if entries < max {
                break;
            }
        }
        reclaimed
    }

    fn has_unsent(&self) -> bool {
        self.sending > 0 && self.pending() > 0
    }

    fn fd(&self) -> Option<RawFd> {
        self.socket.fd()
    }

    fn frame_counts(&self) -> PortFrameCounts {
        let rx = self.rx.borrow_mut().nb_avail_exact().min(self.filled);
        let completion = self.completion.borrow_mut().nb_avail_exact().min(self.sending);
        PortFrameCounts {
            fill: u64::from(self.filled - rx),
            rx: u64::from(rx),
            tx: u64::from(self.sending - completion),
            completion: u64::from(completion) + self.dropped.len() as u64,
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn kernel_counters(&self) -> KernelCounters {
        self.socket.statistics()
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> Quarantine {
        self.reclaim(pool);
        // No frame is reused: the kernel may still write to posted frames, because libxdp's UMEM
        // keeps the first socket's file open for as long as our UMEM exists.
        Quarantine::without_end(&self.lease)
    }
}

impl fmt::Debug for XskRsPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, counters, .. } = self;
        f.debug_struct("XskRsPort")
            .field("slot", slot)
            .field("frame_counts", &self.frame_counts())
            .field("counters", counters)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HugePages, UmemConfig};

    #[test]
    fn packet_is_moved_to_tx_offset_unchanged_if_it_fits() {
        const TX_OFFSET: usize = XDP_PACKET_HEADROOM as usize;
        const LONGEST: usize = 2048 - TX_OFFSET;
        let config =
            UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
        let (_umem, mut pool) = Umem::new(&config).unwrap();
        for len in [14, 60, 1514, LONGEST] {
            for headroom in [0, 1, 200, 255, 256, 257, 300, 2048 - len] {
                if headroom + len > 2048 {
                    continue;
                }
                let mut frame = pool.alloc().unwrap();
                match headroom.checked_sub(TX_OFFSET) {
                    Some(excess) => {
                        frame.append(excess).unwrap();
                        frame.trim_front(excess);
                    }
                    None => {
                        frame.prepend(TX_OFFSET - headroom).unwrap();
                    }
                }
                frame.truncate(0);
                let packet: Vec<u8> = (0..len).map(|at| (at * 31 + headroom) as u8).collect();
                frame.append(len).unwrap().copy_from_slice(&packet);
                assert_eq!(frame.headroom(), headroom);
                assert!(XskRsPort::move_to_tx_offset(&mut frame));
                assert_eq!(
                    (frame.headroom(), &frame[..]),
                    (TX_OFFSET, &packet[..]),
                    "packet of {len} bytes with headroom {headroom}"
                );
                pool.free(frame).unwrap();
            }
        }
        let mut frame = pool.alloc().unwrap();
        frame.append(LONGEST).unwrap();
        frame.prepend(1).unwrap();
        assert!(
            !XskRsPort::move_to_tx_offset(&mut frame),
            "a packet that is too long for the TX offset was moved"
        );
        assert_eq!((frame.headroom(), frame.len()), (TX_OFFSET - 1, LONGEST + 1));
        pool.free(frame).unwrap();
    }
}
