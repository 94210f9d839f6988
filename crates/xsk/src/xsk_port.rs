//! The AF_XDP port: four rings and the frames that are in them.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::abi::Descriptor;
use crate::batch::Batch;
use crate::frame::Frame;
use crate::owner::{Owner, Slot};
use crate::pool::Pool;
use crate::port::{Census, Counters, KernelCounters, Port};
use crate::prefetch::prefetch_for_write;
use crate::queue::EgressQueue;
use crate::ring::{Consumer, Producer};
use crate::umem::Umem;

/// What a port asks of the kernel besides its rings. [`Socket`](crate::socket::Socket) is the real one.
pub(crate) trait Kernel {
    /// Makes the kernel look at the TX ring.
    fn wake_tx(&mut self) -> io::Result<()>;
    /// Makes the kernel look at the fill ring.
    fn wake_rx(&mut self) -> io::Result<()>;
    /// A descriptor to wait on.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
    /// `XDP_STATISTICS`.
    fn statistics(&self) -> KernelCounters;
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
    // Before the rings: the socket is closed while their memory is still mapped.
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
    /// The kernel put off a transmission: remind it.
    remind: bool,
    /// Ask the kernel to poll the device at every receive, instead of only when it wants to be woken.
    busy_poll: bool,
    /// A device may write to frames after the socket is closed (zero-copy): do not reuse those then.
    quarantine: bool,
    closed: bool,
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
            remind: false,
            busy_poll,
            quarantine: false,
            closed: false,
            counters: Counters::default(),
        }
    }

    /// Says that the device itself reads and writes the frames.
    pub(crate) fn set_zero_copy(&mut self) {
        self.quarantine = true;
    }

    /// Posts free frames for reception until as many are posted as should be, or none is free.
    #[inline]
    pub(crate) fn refill(&mut self, pool: &mut Pool) {
        let missing = self.fill_target.saturating_sub(self.filled).min(pool.len() as u32);
        if missing == 0 {
            return;
        }
        let mut reservation = self.rings.fill.reserve(missing);
        for _ in 0..reservation.granted() {
            let Some(chunk) = pool.take_for_fill(self.slot) else { break };
            reservation.push(self.umem.region().join(chunk, 0));
        }
        self.filled += reservation.commit();
    }

    /// The frame that an RX descriptor stands for, if the kernel had it to give.
    #[inline]
    fn accept(umem: &Umem, slot: Slot, descriptor: Descriptor) -> Option<Frame> {
        let region = umem.region();
        let (chunk, offset) = region.split(descriptor.addr);
        if offset + descriptor.len.min(1 << 16) > region.frame_size() {
            return None;
        }
        region.owners.hand_over(chunk, Owner::fill(slot), Owner::HELD).ok()?;
        // SAFETY: `hand_over` found the chunk to exist and to have been in our fill ring, so no frame stands for it; offset
        // and length are within the chunk. Unsafe because it makes the token that stands for the bytes.
        Some(unsafe { Frame::new(region.into(), chunk, offset as u16, descriptor.len as u16) })
    }

    /// The chunk that a completion stands for, if the kernel had it to give. The address is that of the descriptor: the
    /// packet may have started anywhere in its chunk.
    #[inline]
    fn completed(umem: &Umem, slot: Slot, address: u64) -> Option<u32> {
        let region = umem.region();
        let (chunk, _) = region.split(address);
        region.owners.hand_over(chunk, Owner::tx(slot), Owner::POOL).ok()?;
        Some(chunk)
    }

    fn wake_tx(&mut self) {
        self.counters.syscalls += 1;
        match self.kernel.wake_tx() {
            Ok(()) => self.remind = false,
            // EAGAIN: more than the budget, or the send buffer is full. EBUSY: the driver dropped or is busy. ENOBUFS: no
            // memory for the moment. ENETDOWN: the link is down. ENXIO: the device is gone, and so will be the port.
            // None loses the descriptors that are still in the ring; the next turn tries again.
            Err(_) => {
                self.remind = true;
                self.counters.tx_retries += 1;
            }
        }
    }
}

impl Port for XskPort {
    fn receive(&mut self, into: &mut Batch, pool: &mut Pool) -> usize {
        let mut came = 0;
        let mut entries = 0;
        let mut bytes = 0;
        let mut peek = self.rings.rx.peek(into.room() as u32);
        for descriptor in peek.by_ref() {
            entries += 1;
            let Some(frame) = Self::accept(&self.umem, self.slot, descriptor) else { continue };
            prefetch_for_write(&frame);
            bytes += frame.len() as u64;
            came += 1;
            // There is room: no more were peeked.
            if into.push(frame).is_err() {
                break;
            }
        }
        peek.release();
        if entries > 0 {
            // A descriptor that was refused names no frame of ours, so it takes none out of the fill ring.
            self.filled -= came;
            self.counters.rx_packets += u64::from(came);
            self.counters.rx_bytes += bytes;
            self.counters.invalid_descriptors += u64::from(entries - came);
        }
        self.refill(pool);
        if entries == 0 && (self.busy_poll || self.rings.fill.needs_wakeup()) {
            self.counters.syscalls += 1;
            // Whatever it answers, the next turn asks again if the flag is still up.
            let _ = self.kernel.wake_rx();
        }
        came as usize
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        let mut sent = 0;
        if !queue.is_empty() {
            let mut bytes = 0;
            let mut reservation = self.rings.tx.reserve(queue.len() as u32);
            let region = self.umem.region();
            for frame in queue.drain(reservation.granted() as usize) {
                bytes += frame.len() as u64;
                let descriptor = Descriptor { addr: frame.address(), len: frame.len() as u32, options: 0 };
                debug_assert!(frame.region() == region.into(), "the queue admits frames of this UMEM only");
                frame.give_up(Owner::tx(self.slot));
                reservation.push(descriptor);
            }
            sent = reservation.commit();
            self.sending += sent;
            self.counters.tx_packets += u64::from(sent);
            self.counters.tx_bytes += bytes;
        }
        // A queue that finds the ring full waits for the kernel, so the kernel had better be awake.
        if (sent > 0 || self.remind || !queue.is_empty()) && self.rings.tx.needs_wakeup() {
            self.wake_tx();
        }
        sent as usize
    }

    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        if self.sending == 0 {
            return 0;
        }
        let mut back = 0;
        let mut entries = 0;
        let mut peek = self.rings.completion.peek(self.sending);
        for address in peek.by_ref() {
            entries += 1;
            if let Some(chunk) = Self::completed(&self.umem, self.slot, address) {
                pool.push(chunk);
                back += 1;
            }
        }
        if entries > 0 {
            peek.release();
            self.sending -= back;
            self.counters.invalid_descriptors += u64::from(entries - back);
        }
        back as usize
    }

    fn unsent(&self) -> bool {
        self.remind
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
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
        self.closed = true;
        let Self { umem, slot, quarantine, .. } = &*self;
        let (umem, slot, quarantine) = (umem.clone(), *slot, *quarantine);
        // The socket first: only then is the kernel done with the frames.
        drop(self);
        let mut left = 0;
        umem.region().owners.close(slot, |chunk| {
            if quarantine {
                left += 1;
            } else {
                umem.region().owners.set(chunk, Owner::POOL);
                pool.push(chunk);
            }
        });
        left
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
        if !self.closed {
            self.umem.region().owners.close(self.slot, |_| ());
        }
    }
}
