//! A fake kernel for tests: the kernel's side of a port's four rings, in this process.
//!
//! It needs no interface and no privileges. Enable the feature `fake-kernel` in dev-dependencies
//! only.
//!
//! ```
//! use xdpfwd_xsk::fake_kernel::FakeKernel;
//! use xdpfwd_xsk::{Batch, EgressQueue, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let port_index = 0; // a different number for each port of the UMEM
//! let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, port_index);
//!
//! kernel.deliver(b"a frame of 20 bytes.").unwrap();
//! let mut batch = Batch::new();
//! assert_eq!(port.receive(&mut batch, &mut pool), 1);
//!
//! let mut queue = EgressQueue::new(&umem, 64);
//! for slot in batch.slots_mut() {
//!     queue.push(slot.take().unwrap()).unwrap();
//! }
//! port.transmit(&mut queue);
//! assert_eq!(kernel.take_sent(), [b"a frame of 20 bytes."]);
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//!
//! # Simulating kernel faults
//!
//! A [`FakeKernelConfig`] makes the fake kernel refuse, delay or lose work.
//!
//! | fault | setting |
//! |---|---|
//! | leaves all descriptors in the TX ring (stalled) | `budget: 0` |
//! | sends at most 32 descriptors per wake-up, as in copy mode | `budget: 32` |
//! | loses the next wake-up, or every one | `ignored_wakeups: 1`, or `u32::MAX` |
//! | fails the next two wake-ups | `errors: [libc::EAGAIN, libc::ENOBUFS].into()` |
//! | drops the next packet, as without a carrier | `errors: [libc::EBUSY].into()` |
//! | fails every wake-up with one error | `persistent_error: Some(libc::ENETDOWN)` |
//! | reports completions three wake-ups late, or never | `completion_delay: Some(3)`, or `None` |
//! | removes the interface after five packets | `vanishes_after: Some(5)` |
//!
//! [`FakeKernel::vanish`] removes the interface. [`FakeKernel::deliver_descriptor`] and
//! [`FakeKernel::complete_address`] write any ring entry, such as an address outside the UMEM. If
//! the fill ring is empty or the RX ring is full, [`FakeKernel::deliver`] loses the packet.
//!
//! ```
//! use xdpfwd_xsk::fake_kernel::{FakeKernelConfig, FakeKernel};
//! use xdpfwd_xsk::{EgressQueue, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
//! let mut queue = EgressQueue::new(&umem, 64);
//! let mut frame = pool.alloc().unwrap();
//! frame.append(60).unwrap().fill(1);
//! queue.push(frame).unwrap();
//!
//! kernel.set(FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() });
//! port.transmit(&mut queue);
//! assert_eq!((kernel.unsent(), kernel.take_sent().len()), (1, 0)); // stalled
//!
//! kernel.set(FakeKernelConfig::default());
//! kernel.run();
//! assert_eq!((kernel.unsent(), kernel.take_sent().len()), (0, 1)); // recovered
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Instant;

use crate::abi::{Descriptor, XDP_PACKET_HEADROOM};
use crate::counters::KernelCounters;
use crate::kernel::{Kernel, Rings};
use crate::lease::SlotLease;
use crate::owner::{Owner, PortSlot};
use crate::pool::Pool;
use crate::quarantine::Released;
use crate::queue_id::QueueId;
use crate::ring::heap::HeapRing;
use crate::ring::{Consumer, Producer};
use crate::umem::Umem;
use crate::xsk_port::XskPort;

/// The behaviour of a fake kernel. By default, each transmit wake-up (a port's request to transmit)
/// sends and completes all packets.
#[derive(Clone, Debug)]
pub struct FakeKernelConfig {
    /// Maximum number of descriptors sent per wake-up, as in copy mode.
    pub budget: u32,
    /// Number of wake-ups by which completions are delayed; `None` means forever.
    pub completion_delay: Option<u32>,
    /// Maximum number of completions reported per wake-up.
    pub completions_per_wakeup: u32,
    /// Errors (errno values) of the next transmit wake-ups, which send nothing. `EBUSY` completes
    /// the next packet without sending it.
    pub errors: VecDeque<i32>,
    /// Error (errno value) of every transmit wake-up once `errors` is empty.
    pub persistent_error: Option<i32>,
    /// Number of transmit wake-ups that return success and do nothing; `u32::MAX` means all.
    pub ignored_wakeups: u32,
    /// Number of sent descriptors after which the interface disappears, possibly in the middle of a
    /// batch.
    pub vanishes_after: Option<u32>,
    /// Whether the kernel requests transmit wake-ups. If not, only [`FakeKernel::run`] transmits.
    pub wants_tx_wakeup: bool,
    /// Whether the kernel requests receive wake-ups.
    pub wants_rx_wakeup: bool,
}

impl Default for FakeKernelConfig {
    fn default() -> Self {
        Self {
            budget: u32::MAX,
            completion_delay: Some(0),
            completions_per_wakeup: u32::MAX,
            errors: VecDeque::new(),
            persistent_error: None,
            ignored_wakeups: 0,
            vanishes_after: None,
            wants_tx_wakeup: true,
            wants_rx_wakeup: false,
        }
    }
}

/// The sizes of the fake rings.
#[derive(Clone, Copy, Debug)]
pub struct FakeRingSizes {
    /// Entries of the fill ring, which the port keeps full.
    pub fill: u32,
    /// Entries of the RX ring.
    pub rx: u32,
    /// Entries of the TX ring.
    pub tx: u32,
    /// Entries of the completion ring.
    pub completion: u32,
    /// Initial value of the ring counters. A value near 2³² tests wrapping.
    pub start: u32,
}

impl Default for FakeRingSizes {
    fn default() -> Self {
        Self { fill: 128, rx: 128, tx: 128, completion: 128, start: 0 }
    }
}

/// The reason why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryError {
    /// The fill ring was empty, or the kernel did not own the posted chunk.
    FillRingEmpty,
    /// The RX ring was full.
    RxRingFull,
    /// The packet does not fit into a frame.
    TooLong,
    /// The interface has disappeared.
    NoInterface,
}

/// A handle of a fake kernel.
#[derive(Clone)]
pub struct FakeKernel(Rc<RefCell<KernelState>>);

struct KernelState {
    umem: Umem,
    slot: PortSlot,
    // The kernel's ends of the rings; dropped before the rings' memory.
    fill: Consumer<u64>,
    completion: Producer<u64>,
    rx: Producer<Descriptor>,
    tx: Consumer<Descriptor>,
    memory: Rc<RingMemory>,
    config: FakeKernelConfig,
    /// Sent packets, each with its chunk number; `None` if recording is off.
    sent: Option<Vec<(u32, Vec<u8>)>>,
    /// Packets dropped because of `EBUSY`.
    discarded: Vec<Vec<u8>>,
    /// Whether the interface has disappeared.
    gone: bool,
    /// Addresses to report as completed, each with the value of `wakeups` when the packet was sent
    /// or dropped.
    completing: VecDeque<(u64, u32)>,
    /// Number of wake-ups; wraps.
    wakeups: u32,
    counters: KernelCounters,
}

struct RingMemory {
    fill: Box<HeapRing<u64>>,
    completion: Box<HeapRing<u64>>,
    rx: Box<HeapRing<Descriptor>>,
    tx: Box<HeapRing<Descriptor>>,
}

impl FakeKernel {
    /// Creates a port and its fake kernel. Each port of a UMEM needs a different `index`.
    ///
    /// # Panics
    /// If `index` is 126 or more, another port of the UMEM has this index, or the pool belongs to
    /// another UMEM.
    pub fn port(umem: &Umem, pool: &mut Pool, index: u32) -> (XskPort, Self) {
        Self::port_with(umem, pool, index, FakeRingSizes::default(), FakeKernelConfig::default())
    }

    /// Like [`port`](Self::port), with ring sizes and configuration.
    ///
    /// # Panics
    /// As for [`port`](Self::port), or if a size is not a power of two.
    pub fn port_with(
        umem: &Umem,
        pool: &mut Pool,
        index: u32,
        sizes: FakeRingSizes,
        config: FakeKernelConfig,
    ) -> (XskPort, Self) {
        assert!(umem.is_same(pool.umem()), "the pool and the port belong to different UMEMs");
        let slot = PortSlot::new(index).expect("the index of a port must be below 126");
        let lease = SlotLease::claim(umem, slot);
        let lease = lease.unwrap_or_else(|| panic!("another port of this UMEM has index {index}"));
        let (rings, kernel) = Self::rings(umem, slot, sizes);
        kernel.set(config);
        let (queue, busy_poll) = (queue_of(index), false);
        let mut port =
            XskPort::new(lease, queue, Box::new(kernel.clone()), rings, sizes.fill, busy_poll);
        port.refill(pool);
        (port, kernel)
    }

    /// Acts as a kernel that releases the frames of closed ports with this index: returns the proof
    /// that they can be used again.
    pub fn release(index: u32) -> Released {
        Released::by_bind(queue_of(index), Instant::now())
    }

    /// Returns the user-space ends of new rings, and the fake kernel, which has the kernel's ends.
    pub(crate) fn rings(umem: &Umem, slot: PortSlot, sizes: FakeRingSizes) -> (Rings, Self) {
        let memory = Rc::new(RingMemory {
            fill: HeapRing::new(sizes.fill, sizes.start),
            completion: HeapRing::new(sizes.completion, sizes.start),
            rx: HeapRing::new(sizes.rx, sizes.start),
            tx: HeapRing::new(sizes.tx, sizes.start),
        });
        // SAFETY: `Rings` and `KernelState` keep `memory` in a field that is dropped after the
        // ends; the ends of each ring are created once. Needs `unsafe`: the ends hold raw pointers.
        let (fill_ends, completion_ends, rx_ends, tx_ends) = unsafe {
            (memory.fill.ends(), memory.completion.ends(), memory.rx.ends(), memory.tx.ends())
        };
        let ((user_fill, fill), (user_tx, tx)) = (fill_ends, tx_ends);
        let ((rx, user_rx), (completion, user_completion)) = (rx_ends, completion_ends);
        let rings = Rings {
            fill: user_fill,
            completion: user_completion,
            rx: user_rx,
            tx: user_tx,
            _memory: Box::new(Rc::clone(&memory)),
        };
        let kernel = Self(Rc::new(RefCell::new(KernelState {
            umem: umem.clone(),
            slot,
            fill,
            completion,
            rx,
            tx,
            memory,
            config: FakeKernelConfig::default(),
            sent: Some(Vec::new()),
            discarded: Vec::new(),
            gone: false,
            // Has room for all frames of the UMEM, so that a wake-up allocates nothing.
            completing: VecDeque::with_capacity(umem.frames() as usize),
            wakeups: 0,
            counters: KernelCounters::default(),
        })));
        (rings, kernel)
    }

    /// Sets the configuration.
    pub fn set(&self, config: FakeKernelConfig) {
        let mut state = self.0.borrow_mut();
        state.tx.set_needs_wakeup(config.wants_tx_wakeup);
        state.fill.set_needs_wakeup(config.wants_rx_wakeup);
        state.config = config;
    }

    /// Delivers a packet to the RX ring. An undelivered packet is counted in the port's
    /// [`KernelCounters`], as by the real kernel.
    pub fn deliver(&self, packet: &[u8]) -> Result<(), DeliveryError> {
        self.deliver_in_chunk(packet).map(drop)
    }

    /// Like [`deliver`](Self::deliver), but returns the received frame's
    /// [`Frame::chunk`](crate::Frame::chunk).
    pub fn deliver_in_chunk(&self, packet: &[u8]) -> Result<u32, DeliveryError> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        if state.gone {
            return Err(DeliveryError::NoInterface);
        }
        let offset = XDP_PACKET_HEADROOM;
        let Ok(len) = u16::try_from(packet.len()) else {
            return Err(state.count(DeliveryError::TooLong));
        };
        if u32::from(len) + offset > state.umem.frame_size() {
            return Err(state.count(DeliveryError::TooLong));
        }
        let mut reservation = state.rx.reserve(1);
        if reservation.granted() == 0 {
            drop(reservation);
            return Err(state.count(DeliveryError::RxRingFull));
        }
        let mut posted = state.fill.peek(1);
        let Some(address) = posted.next() else {
            drop(posted);
            drop(reservation);
            return Err(state.count(DeliveryError::FillRingEmpty));
        };
        posted.release();
        // The port may have been closed since it posted the chunk, which then has another owner.
        let (chunk, _) = state.umem.region().split(address);
        if !state.umem.region().owners.has_owner(chunk, Owner::fill(state.slot)) {
            drop(reservation);
            state.counters.rx_invalid += 1;
            return Err(state.count(DeliveryError::FillRingEmpty));
        }
        let address = address + u64::from(offset);
        write(&state.umem, address, packet);
        reservation.push(Descriptor { addr: address, len: u32::from(len), options: 0 });
        reservation.commit();
        Ok(chunk)
    }

    /// Returns the length in bytes of the longest packet that fits.
    pub fn longest_packet(&self) -> usize {
        (self.0.borrow().umem.frame_size() - XDP_PACKET_HEADROOM) as usize
    }

    /// Writes an RX descriptor, even an invalid one. Returns whether the RX ring had room.
    pub fn deliver_descriptor(&self, address: u64, len: u32) -> bool {
        let mut state = self.0.borrow_mut();
        let mut reservation = state.rx.reserve(1);
        let pushed = reservation.push(Descriptor { addr: address, len, options: 0 });
        reservation.commit();
        pushed
    }

    /// Reports a completion, even an invalid one. Returns whether the ring had room.
    pub fn complete_address(&self, address: u64) -> bool {
        let mut state = self.0.borrow_mut();
        let mut reservation = state.completion.reserve(1);
        let pushed = reservation.push(address);
        reservation.commit();
        pushed
    }

    /// Sends and completes packets without a wake-up, as a driver does; does not count for
    /// `completion_delay`.
    pub fn run(&self) {
        self.0.borrow_mut().send();
    }

    /// Delivers up to `n` packets of `len` bytes without writing their bytes, for benchmarks.
    /// Returns the number delivered.
    pub fn deliver_unwritten(&self, n: u32, len: u32) -> u32 {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        let mut reservation = state.rx.reserve(n);
        let mut posted = state.fill.peek(reservation.granted());
        for address in posted.by_ref() {
            reservation.push(Descriptor {
                addr: address + u64::from(XDP_PACKET_HEADROOM),
                len,
                options: 0,
            });
        }
        posted.release();
        reservation.commit()
    }

    /// Completes all frames posted for transmission without reading their bytes, for benchmarks.
    /// Returns their number.
    pub fn complete_all(&self) -> u32 {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        let mut reservation = state.completion.reserve(state.tx.available());
        let mut sending = state.tx.peek(reservation.granted());
        for descriptor in sending.by_ref() {
            reservation.push(descriptor.addr);
        }
        sending.release();
        reservation.commit()
    }

    /// Advances user space's ring counters as if user space received all packets, posted `n` frames
    /// for reception and `n` for transmission, and reclaimed all completed frames. Benchmarks thus
    /// measure [`deliver_unwritten`](Self::deliver_unwritten) and
    /// [`complete_all`](Self::complete_all) alone. The port is unusable afterwards.
    pub fn pretend_user(&self, n: u32) {
        let state = self.0.borrow();
        let RingMemory { fill, completion, rx, tx } = &*state.memory;
        rx.pretend_consumed();
        fill.pretend_produced(n);
        tx.pretend_produced(n);
        completion.pretend_consumed();
    }

    /// Returns the packets sent since the previous call, in order.
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        self.take_sent_chunks().into_iter().map(|(_, packet)| packet).collect()
    }

    /// Like [`take_sent`](Self::take_sent), with each packet's chunk number.
    pub fn take_sent_chunks(&self) -> Vec<(u32, Vec<u8>)> {
        self.0.borrow_mut().sent.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns the packets dropped because of `EBUSY` since the previous call.
    pub fn take_discarded(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.borrow_mut().discarded)
    }

    /// Removes the interface: nothing is received, sent or completed any more, and every wake-up
    /// fails with ENXIO, as after `xsk_unbind_dev`.
    pub fn vanish(&self) {
        self.0.borrow_mut().gone = true;
    }

    /// Sets whether to copy sent and dropped packets (default: `true`). Discards earlier copies of
    /// sent packets.
    pub fn set_recording(&self, on: bool) {
        self.0.borrow_mut().sent = on.then(Vec::new);
    }

    /// Returns the number of descriptors in the TX ring that the kernel has not taken.
    pub fn unsent(&self) -> u32 {
        self.0.borrow().tx.available()
    }

    /// Returns the number of wake-ups so far.
    pub fn wakeups(&self) -> u32 {
        self.0.borrow().wakeups
    }

    /// Returns the number of frames posted for reception and not taken by the kernel.
    pub fn posted(&self) -> u32 {
        self.0.borrow().fill.available()
    }
}

impl Kernel for FakeKernel {
    fn stops_writing_on_drop(&self) -> bool {
        true
    }

    fn is_bound(&self) -> bool {
        !self.0.borrow().gone
    }

    fn umem_socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn has_socket_buffers(&self) -> bool {
        false
    }

    fn duplicate_descriptor(&self) -> Option<OwnedFd> {
        None
    }

    fn wake_tx(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.wakeups = state.wakeups.wrapping_add(1);
        state.check_bound()?;
        if state.config.ignored_wakeups > 0 {
            if state.config.ignored_wakeups != u32::MAX {
                state.config.ignored_wakeups -= 1;
            }
            return Ok(());
        }
        let errno = state.config.errors.pop_front().or(state.config.persistent_error);
        if let Some(errno) = errno {
            if errno == libc::EBUSY && !state.drop_next() {
                return Ok(());
            }
            return Err(io::Error::from_raw_os_error(errno));
        }
        state.send();
        state.check_bound()?;
        if state.tx.available() > 0 {
            // As the kernel's `__xsk_generic_xmit` does when the budget is used up.
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(())
    }

    fn wake_rx(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.wakeups = state.wakeups.wrapping_add(1);
        state.check_bound()
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn statistics(&self) -> KernelCounters {
        self.0.borrow().counters
    }
}

impl KernelState {
    /// Fails after the interface has disappeared, like `xsk_is_bound` in the kernel.
    fn check_bound(&self) -> io::Result<()> {
        if self.gone { Err(io::Error::from_raw_os_error(libc::ENXIO)) } else { Ok(()) }
    }

    fn send(&mut self) {
        if self.gone {
            return;
        }
        let now = self.wakeups;
        // Each packet needs room for its completion, as in the kernel's `xsk_cq_reserve_locked`.
        let free = self
            .completion
            .reserve(u32::MAX)
            .granted()
            .saturating_sub(self.completing.len() as u32);
        let until_gone = self.config.vanishes_after.unwrap_or(u32::MAX);
        let mut sending = self.tx.peek(self.config.budget.min(free).min(until_gone));
        for descriptor in sending.by_ref() {
            if is_valid_tx(&self.umem, self.slot, &descriptor) {
                if let Some(sent) = &mut self.sent {
                    let (chunk, _) = self.umem.region().split(descriptor.addr);
                    sent.push((chunk, read(&self.umem, descriptor.addr, descriptor.len as usize)));
                }
                self.completing.push_back((descriptor.addr, now));
            } else {
                // As in the kernel's `xskq_cons_read_desc`, an invalid descriptor is counted,
                // skipped, and never completed.
                self.counters.tx_invalid += 1;
            }
        }
        let sent = sending.release();
        if let Some(until_gone) = &mut self.config.vanishes_after {
            *until_gone -= sent;
            self.gone = *until_gone == 0;
            if self.gone {
                return;
            }
        }

        let Some(delay) = self.config.completion_delay else { return };
        let due =
            self.completing.iter().take_while(|(_, sent)| now.wrapping_sub(*sent) >= delay).count();
        let due = due.min(self.config.completions_per_wakeup as usize);
        let mut completions = self.completion.reserve(due as u32);
        for (address, _) in self.completing.drain(..completions.granted() as usize) {
            completions.push(address);
        }
        completions.commit();
    }

    /// Drops the next packet, as an interface without a carrier does. Returns `false` if the TX
    /// ring is empty.
    fn drop_next(&mut self) -> bool {
        let mut next = self.tx.peek(1);
        let descriptor = next.next();
        next.release();
        let Some(descriptor) = descriptor else { return false };
        if !is_valid_tx(&self.umem, self.slot, &descriptor) {
            self.counters.tx_invalid += 1;
            return true;
        }
        if self.sent.is_some() {
            self.discarded.push(read(&self.umem, descriptor.addr, descriptor.len as usize));
        }
        self.completing.push_back((descriptor.addr, self.wakeups));
        true
    }

    /// Counts the lost packet, and returns the error unchanged.
    fn count(&mut self, error: DeliveryError) -> DeliveryError {
        match error {
            DeliveryError::FillRingEmpty => self.counters.fill_ring_empty += 1,
            DeliveryError::RxRingFull => self.counters.rx_ring_full += 1,
            DeliveryError::TooLong => self.counters.rx_dropped += 1,
            DeliveryError::NoInterface => {}
        }
        error
    }
}

/// Returns the queue of the port with this index. No real interface has index 0.
fn queue_of(index: u32) -> QueueId {
    QueueId { ifindex: 0, queue: index }
}

/// Returns whether the descriptor's range lies within one chunk that user space posted for
/// transmission.
fn is_valid_tx(umem: &Umem, slot: PortSlot, descriptor: &Descriptor) -> bool {
    let region = umem.region();
    let (chunk, offset) = region.split(descriptor.addr);
    region.owners.has_owner(chunk, Owner::tx(slot))
        && descriptor.len > 0
        && u64::from(offset) + u64::from(descriptor.len) <= u64::from(region.frame_size())
}

fn write(umem: &Umem, address: u64, packet: &[u8]) {
    let region = umem.region();
    assert!(
        address as usize + packet.len() <= region.len(),
        "the fill ring holds an address outside the UMEM"
    );
    // SAFETY: the range is within the mapping, in a chunk that user space has posted, so no frame
    // owns it. Needs `unsafe`: like a device, this function writes to memory outside Rust's
    // ownership.
    unsafe {
        region
            .base()
            .add(address as usize)
            .as_ptr()
            .copy_from_nonoverlapping(packet.as_ptr(), packet.len())
    };
}

fn read(umem: &Umem, address: u64, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    // SAFETY: the caller checked (`is_valid_tx`) that the range lies within one posted chunk, so no
    // frame owns it. Needs `unsafe`: like a device, this function reads memory outside Rust's
    // ownership.
    unsafe {
        umem.region()
            .base()
            .add(address as usize)
            .as_ptr()
            .copy_to_nonoverlapping(packet.as_mut_ptr(), len)
    };
    packet
}
