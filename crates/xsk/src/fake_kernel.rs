//! A fake kernel for tests: it plays the kernel's side of a port's four rings, in this process.
//!
//! It needs no interface and no privileges. The feature `fake-kernel` enables it; enable it in
//! dev-dependencies only. A test delivers packets with [`FakeKernel::deliver`], lets the code under
//! test work on the port, and reads what the port sent with [`FakeKernel::take_sent`].
//!
//! ```
//! use xdpfwd_xsk::fake_kernel::FakeKernel;
//! use xdpfwd_xsk::{Batch, EgressQueue, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
//!
//! kernel.deliver(b"a frame of sixteen bytes, or so").unwrap();
//! let mut batch = Batch::new();
//! assert_eq!(port.receive(&mut batch, &mut pool), 1);
//!
//! let mut queue = EgressQueue::new(&umem, 64);
//! for place in batch.places_mut() {
//!     queue.push(place.take().unwrap()).unwrap();
//! }
//! port.transmit(&mut queue);
//! assert_eq!(kernel.take_sent(), [b"a frame of sixteen bytes, or so"]);
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//!
//! # A kernel that misbehaves
//!
//! A [`Behaviour`] makes the fake kernel refuse, delay or lose work; [`FakeKernel::set`] changes it
//! at any time.
//!
//! | the kernel | set |
//! |---|---|
//! | stalls: accepts descriptors and sends nothing | `budget: 0` |
//! | sends a few descriptors per wake-up, as copy mode does | `budget: 32` |
//! | loses the next wake-up, or every one | `ignored_wakeups: 1`, or `u32::MAX` |
//! | answers the next wake-ups with errors | `errors: [libc::EAGAIN, libc::ENOBUFS].into()` |
//! | throws the next packet away, as without a carrier | `errors: [libc::EBUSY].into()` |
//! | answers every wake-up with one error | `answer: Some(libc::ENETDOWN)` |
//! | completes late, or never | `completion_delay: Some(3)`, or `None` |
//! | removes the interface after five packets | `vanishes_after: Some(5)` |
//!
//! These methods act at once: [`FakeKernel::vanish`] removes the interface.
//! [`FakeKernel::deliver_descriptor`] and [`FakeKernel::complete_address`] write a ring entry that
//! no correct kernel writes: an address outside the UMEM, or a chunk that the kernel does not own.
//! Packets are lost on the receive side when the fill ring is empty or the RX ring is full:
//! [`FakeKernel::deliver`] returns [`Lost`] then.
//!
//! ```
//! use xdpfwd_xsk::fake_kernel::{Behaviour, FakeKernel};
//! use xdpfwd_xsk::{EgressQueue, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
//! let mut queue = EgressQueue::new(&umem, 64);
//! let mut frame = pool.alloc().unwrap();
//! frame.append(60).unwrap().fill(1);
//! queue.push(frame).unwrap();
//!
//! kernel.set(Behaviour { budget: 0, ..Behaviour::default() });
//! port.transmit(&mut queue);
//! assert_eq!((kernel.unsent(), kernel.take_sent().len()), (1, 0)); // stalled
//!
//! kernel.set(Behaviour::default());
//! kernel.run();
//! assert_eq!((kernel.unsent(), kernel.take_sent().len()), (0, 1)); // recovered
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::abi::{Descriptor, XDP_PACKET_HEADROOM};
use crate::owner::{Owner, Slot};
use crate::pool::Pool;
use crate::port::KernelCounters;
use crate::ring::heap::HeapRing;
use crate::ring::{Consumer, Producer};
use crate::umem::Umem;
use crate::xsk_port::{Kernel, Rings, XskPort};

/// How the fake kernel behaves. By default it sends and completes everything at each wake-up.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Descriptors that it sends per wake-up at most, as copy mode does; the rest waits for another
    /// one.
    pub budget: u32,
    /// Completions are reported this many wake-ups late; `None`: never.
    pub completion_delay: Option<u32>,
    /// At most this many completions are reported per wake-up.
    pub completions_per_wakeup: u32,
    /// Errors (errno values) with which the next wake-ups are answered, first one first; nothing is
    /// sent then. With `EBUSY` a packet is thrown away: completed without being sent.
    pub errors: VecDeque<i32>,
    /// After those, every wake-up is answered with this error; nothing is sent then.
    pub answer: Option<i32>,
    /// The next so many wake-ups are answered with success, and that is all: they are lost.
    /// `u32::MAX`: all of them.
    pub ignored_wakeups: u32,
    /// The interface disappears when it has sent so many more descriptors: in the middle of a
    /// batch, if that is where it is.
    pub vanishes_after: Option<u32>,
    /// Whether it asks to be woken for transmission: if not, it works on its own, when
    /// [`FakeKernel::run`] is called.
    pub wants_tx_wakeup: bool,
    /// Whether it asks to be woken for reception.
    pub wants_rx_wakeup: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            budget: u32::MAX,
            completion_delay: Some(0),
            completions_per_wakeup: u32::MAX,
            errors: VecDeque::new(),
            answer: None,
            ignored_wakeups: 0,
            vanishes_after: None,
            wants_tx_wakeup: true,
            wants_rx_wakeup: false,
        }
    }
}

/// Entries of the fake rings and where their counters start.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Entries of the fill ring, and frames that the port keeps in it.
    pub fill: u32,
    /// Entries of the RX ring.
    pub rx: u32,
    /// Entries of the TX ring.
    pub tx: u32,
    /// Entries of the completion ring.
    pub completion: u32,
    /// Where all eight counters start: close to 2³² to see them wrap.
    pub start: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { fill: 128, rx: 128, tx: 128, completion: 128, start: 0 }
    }
}

/// Why a packet was not delivered, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No frame was in the fill ring.
    FillRingEmpty,
    /// The RX ring was full.
    RxRingFull,
    /// The packet is longer than a frame has room for.
    TooLong,
    /// There is no interface any more.
    NoInterface,
}

/// The handle of the kernel's side; clones refer to the same one.
#[derive(Clone)]
pub struct FakeKernel(Rc<RefCell<Side>>);

struct Side {
    umem: Umem,
    slot: Slot,
    // The kernel's ends; dropped before the memory they lie in.
    fill: Consumer<u64>,
    completion: Producer<u64>,
    rx: Producer<Descriptor>,
    tx: Consumer<Descriptor>,
    memory: Rc<Memory>,
    behaviour: Behaviour,
    /// What was sent, each with its chunk, unless it is not to be kept.
    sent: Option<Vec<(u32, Vec<u8>)>>,
    /// What was thrown away, the same.
    thrown_away: Vec<Vec<u8>>,
    /// The interface has disappeared.
    gone: bool,
    /// Addresses sent and not reported, with the wake-up at which they may be.
    completing: VecDeque<(u64, u32)>,
    wakeups: u32,
    counters: KernelCounters,
}

struct Memory {
    fill: Box<HeapRing<u64>>,
    completion: Box<HeapRing<u64>>,
    rx: Box<HeapRing<Descriptor>>,
    tx: Box<HeapRing<Descriptor>>,
}

impl FakeKernel {
    /// A port and the kernel's side of it. `index` tells the ports of one UMEM apart: each takes
    /// one of its own.
    ///
    /// # Panics
    /// If `index` is not below 126, another port of the UMEM has it, or the pool is of another
    /// UMEM.
    pub fn port(umem: &Umem, pool: &mut Pool, index: u32) -> (XskPort, Self) {
        Self::port_with(umem, pool, index, Sizes::default(), Behaviour::default())
    }

    /// The same with a say in sizes and behaviour.
    ///
    /// # Panics
    /// If `index` is not below 126 or another port of the UMEM has it, a size is not a power of
    /// two, or the pool is of another UMEM.
    pub fn port_with(
        umem: &Umem,
        pool: &mut Pool,
        index: u32,
        sizes: Sizes,
        behaviour: Behaviour,
    ) -> (XskPort, Self) {
        assert!(umem.is_same(pool.umem()), "the pool is of another UMEM than the port");
        let slot = Slot::new(index).expect("a UMEM has at most 126 ports");
        assert!(umem.region().claim(slot), "another port of this UMEM has index {index}");
        let (rings, side) = Self::rings(umem, slot, sizes);
        side.set(behaviour);
        let mut port = XskPort::new(umem, slot, Box::new(side.clone()), rings, sizes.fill, false);
        port.refill(pool);
        (port, side)
    }

    /// The user's ends of four rings, and the kernel's side of them.
    pub(crate) fn rings(umem: &Umem, slot: Slot, sizes: Sizes) -> (Rings, Self) {
        let memory = Rc::new(Memory {
            fill: HeapRing::new(sizes.fill, sizes.start),
            completion: HeapRing::new(sizes.completion, sizes.start),
            rx: HeapRing::new(sizes.rx, sizes.start),
            tx: HeapRing::new(sizes.tx, sizes.start),
        });
        // SAFETY: both sides keep `memory`, behind fields that are dropped before it; each ring's
        // ends are taken once. Unsafe because the ends hold addresses.
        let ((user_fill, fill), (completion, user_completion), (rx, user_rx), (user_tx, tx)) = unsafe {
            (memory.fill.ends(), memory.completion.ends(), memory.rx.ends(), memory.tx.ends())
        };
        let rings = Rings {
            fill: user_fill,
            completion: user_completion,
            rx: user_rx,
            tx: user_tx,
            _memory: Box::new(Rc::clone(&memory)),
        };
        let side = Self(Rc::new(RefCell::new(Side {
            umem: umem.clone(),
            slot,
            fill,
            completion,
            rx,
            tx,
            memory,
            behaviour: Behaviour::default(),
            sent: Some(Vec::new()),
            thrown_away: Vec::new(),
            gone: false,
            // As many as can be under way, so that a wake-up allocates nothing.
            completing: VecDeque::with_capacity(umem.frames() as usize),
            wakeups: 0,
            counters: KernelCounters::default(),
        })));
        (rings, side)
    }

    /// Behaves like this from now on.
    pub fn set(&self, behaviour: Behaviour) {
        let mut side = self.0.borrow_mut();
        side.tx.set_needs_wakeup(behaviour.wants_tx_wakeup);
        side.fill.set_needs_wakeup(behaviour.wants_rx_wakeup);
        side.behaviour = behaviour;
    }

    /// A packet arrives. Not delivered, it is counted as the kernel would.
    pub fn deliver(&self, packet: &[u8]) -> Result<(), Lost> {
        self.deliver_in_chunk(packet).map(drop)
    }

    /// Delivers a packet like [`deliver`](Self::deliver) and returns the number of the chunk that
    /// holds it, which is [`Frame::chunk`](crate::Frame::chunk) of the received frame.
    pub fn deliver_in_chunk(&self, packet: &[u8]) -> Result<u32, Lost> {
        let mut side = self.0.borrow_mut();
        let side = &mut *side;
        if side.gone {
            return Err(Lost::NoInterface);
        }
        let offset = XDP_PACKET_HEADROOM;
        let Ok(len) = u16::try_from(packet.len()) else { return Err(side.count(Lost::TooLong)) };
        if u32::from(len) + offset > side.umem.frame_size() {
            return Err(side.count(Lost::TooLong));
        }
        let mut reservation = side.rx.reserve(1);
        if reservation.granted() == 0 {
            drop(reservation);
            return Err(side.count(Lost::RxRingFull));
        }
        let mut posted = side.fill.peek(1);
        let Some(address) = posted.next() else {
            drop(posted);
            drop(reservation);
            return Err(side.count(Lost::FillRingEmpty));
        };
        posted.release();
        // What user space posted it must own no more: a chunk that was taken back meanwhile is not
        // written to.
        let (chunk, _) = side.umem.region().split(address);
        if !side.umem.region().owners.is(chunk, Owner::fill(side.slot)) {
            drop(reservation);
            side.counters.rx_invalid += 1;
            return Err(side.count(Lost::FillRingEmpty));
        }
        let address = address + u64::from(offset);
        write(&side.umem, address, packet);
        reservation.push(Descriptor { addr: address, len: u32::from(len), options: 0 });
        reservation.commit();
        Ok(chunk)
    }

    /// Returns the length in bytes of the longest packet that a frame has room for.
    pub fn longest_packet(&self) -> usize {
        (self.0.borrow().umem.frame_size() - XDP_PACKET_HEADROOM) as usize
    }

    /// An RX descriptor as no honest kernel would write it: what user space does with it is the
    /// test's subject.
    pub fn deliver_descriptor(&self, address: u64, len: u32) -> bool {
        let mut side = self.0.borrow_mut();
        let mut reservation = side.rx.reserve(1);
        let pushed = reservation.push(Descriptor { addr: address, len, options: 0 });
        reservation.commit();
        pushed
    }

    /// A completion as no honest kernel would report it.
    pub fn complete_address(&self, address: u64) -> bool {
        let mut side = self.0.borrow_mut();
        let mut reservation = side.completion.reserve(1);
        let pushed = reservation.push(address);
        reservation.commit();
        pushed
    }

    /// Works as if woken, without a system call: what a driver does on its own.
    pub fn run(&self) {
        self.0.borrow_mut().send();
    }

    /// `n` packets of `len` bytes arrive of which no byte is written, as many as there is room for,
    /// in as little time as possible: for benchmarks. Returns how many came.
    pub fn arrive(&self, n: u32, len: u32) -> u32 {
        let mut side = self.0.borrow_mut();
        let side = &mut *side;
        let mut reservation = side.rx.reserve(n);
        let mut posted = side.fill.peek(reservation.granted());
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

    /// Completes all that was posted for transmission and looks at none of it, in as little time as
    /// possible: for benchmarks. Returns how many.
    pub fn complete(&self) -> u32 {
        let mut side = self.0.borrow_mut();
        let side = &mut *side;
        let mut reservation = side.completion.reserve(side.tx.available());
        let mut sending = side.tx.peek(reservation.granted());
        for descriptor in sending.by_ref() {
            reservation.push(descriptor.addr);
        }
        sending.release();
        reservation.commit()
    }

    /// Stands in for a user who does nothing: takes all packets, posts `n` frames, transmits `n`,
    /// and takes back what is completed, by moving the counters alone. With it, a benchmark
    /// measures what [`arrive`](Self::arrive) and [`complete`](Self::complete) take themselves. The
    /// port can't be used any more.
    pub fn pretend_user(&self, n: u32) {
        let side = self.0.borrow();
        let Memory { fill, completion, rx, tx } = &*side.memory;
        rx.pretend_consumed();
        fill.pretend_produced(n);
        tx.pretend_produced(n);
        completion.pretend_consumed();
    }

    /// What was sent since the last call, in order.
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        self.take_sent_chunks().into_iter().map(|(_, packet)| packet).collect()
    }

    /// Returns the packets that were sent since the last call, in order, each with the number of
    /// the chunk that held it.
    pub fn take_sent_chunks(&self) -> Vec<(u32, Vec<u8>)> {
        self.0.borrow_mut().sent.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What was thrown away (`EBUSY`) since the last call, in order.
    pub fn take_thrown_away(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.borrow_mut().thrown_away)
    }

    /// The interface disappears: nothing comes, nothing is sent or completed any more, and every
    /// wake-up fails with ENXIO, as when the kernel has unbound the socket (`xsk_unbind_dev`).
    pub fn vanish(&self) {
        self.0.borrow_mut().gone = true;
    }

    /// Whether to keep a copy of what is sent, as it does at first.
    pub fn set_recording(&self, on: bool) {
        self.0.borrow_mut().sent = on.then(Vec::new);
    }

    /// Descriptors in the TX ring that it has not taken.
    pub fn unsent(&self) -> u32 {
        self.0.borrow().tx.available()
    }

    /// Wake-ups so far.
    pub fn wakeups(&self) -> u32 {
        self.0.borrow().wakeups
    }

    /// Frames posted for reception that it has not taken.
    pub fn posted(&self) -> u32 {
        self.0.borrow().fill.available()
    }
}

impl Kernel for FakeKernel {
    fn ends_when_dropped(&self) -> bool {
        true
    }

    fn wake_tx(&mut self) -> io::Result<()> {
        let mut side = self.0.borrow_mut();
        side.wakeups = side.wakeups.wrapping_add(1);
        side.check_bound()?;
        if side.behaviour.ignored_wakeups > 0 {
            if side.behaviour.ignored_wakeups != u32::MAX {
                side.behaviour.ignored_wakeups -= 1;
            }
            return Ok(());
        }
        let errno = side.behaviour.errors.pop_front().or(side.behaviour.answer);
        if let Some(errno) = errno {
            if errno == libc::EBUSY && !side.swallow() {
                return Ok(());
            }
            return Err(io::Error::from_raw_os_error(errno));
        }
        side.send();
        side.check_bound()?;
        if side.tx.available() > 0 {
            // As `__xsk_generic_xmit` answers when the budget is used up.
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(())
    }

    fn wake_rx(&mut self) -> io::Result<()> {
        let mut side = self.0.borrow_mut();
        side.wakeups = side.wakeups.wrapping_add(1);
        side.check_bound()
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn statistics(&self) -> KernelCounters {
        self.0.borrow().counters
    }
}

impl Side {
    /// As `xsk_is_bound`.
    fn check_bound(&self) -> io::Result<()> {
        if self.gone { Err(io::Error::from_raw_os_error(libc::ENXIO)) } else { Ok(()) }
    }

    fn send(&mut self) {
        if self.gone {
            return;
        }
        let now = self.wakeups;
        // As `xsk_cq_reserve_locked`: nothing is sent for whose completion there is no place in the
        // ring.
        let places = self
            .completion
            .reserve(u32::MAX)
            .granted()
            .saturating_sub(self.completing.len() as u32);
        let left = self.behaviour.vanishes_after.unwrap_or(u32::MAX);
        let mut sending = self.tx.peek(self.behaviour.budget.min(places).min(left));
        for descriptor in sending.by_ref() {
            if is_sending(&self.umem, self.slot, &descriptor) {
                if let Some(sent) = &mut self.sent {
                    let (chunk, _) = self.umem.region().split(descriptor.addr);
                    sent.push((chunk, read(&self.umem, descriptor.addr, descriptor.len as usize)));
                }
                self.completing.push_back((descriptor.addr, now));
            } else {
                // As `xskq_cons_read_desc`: counted, skipped, never completed.
                self.counters.tx_invalid += 1;
            }
        }
        let sent = sending.release();
        if let Some(left) = &mut self.behaviour.vanishes_after {
            *left -= sent;
            self.gone = *left == 0;
            if self.gone {
                return;
            }
        }

        let Some(delay) = self.behaviour.completion_delay else { return };
        let due =
            self.completing.iter().take_while(|(_, sent)| now.wrapping_sub(*sent) >= delay).count();
        let due = due.min(self.behaviour.completions_per_wakeup as usize);
        let mut completions = self.completion.reserve(due as u32);
        for (address, _) in self.completing.drain(..completions.granted() as usize) {
            completions.push(address);
        }
        completions.commit();
    }

    /// Throws the next packet away, as an interface without a carrier does. Whether there was one.
    fn swallow(&mut self) -> bool {
        let mut next = self.tx.peek(1);
        let descriptor = next.next();
        next.release();
        let Some(descriptor) = descriptor else { return false };
        if !is_sending(&self.umem, self.slot, &descriptor) {
            self.counters.tx_invalid += 1;
            return true;
        }
        if self.sent.is_some() {
            self.thrown_away.push(read(&self.umem, descriptor.addr, descriptor.len as usize));
        }
        self.completing.push_back((descriptor.addr, self.wakeups));
        true
    }

    fn count(&mut self, lost: Lost) -> Lost {
        match lost {
            Lost::FillRingEmpty => self.counters.fill_ring_empty += 1,
            Lost::RxRingFull => self.counters.rx_ring_full += 1,
            Lost::TooLong => self.counters.rx_dropped += 1,
            Lost::NoInterface => {}
        }
        lost
    }
}

/// Whether user space gave this to be sent, and has not got it back: a range within one chunk.
fn is_sending(umem: &Umem, slot: Slot, descriptor: &Descriptor) -> bool {
    let region = umem.region();
    let (chunk, offset) = region.split(descriptor.addr);
    region.owners.is(chunk, Owner::tx(slot))
        && descriptor.len > 0
        && u64::from(offset) + u64::from(descriptor.len) <= u64::from(region.frame_size())
}

fn write(umem: &Umem, address: u64, packet: &[u8]) {
    let region = umem.region();
    assert!(
        address as usize + packet.len() <= region.len(),
        "the fill ring holds an address outside the UMEM"
    );
    // SAFETY: within the mapping, and in a chunk that user space has posted, so that no frame
    // stands for it. Unsafe because it plays the device that writes to memory behind Rust's back.
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
    // SAFETY: the caller checked (`is_sending`) that the range lies within one chunk of the
    // mapping, and that user space has posted it, so that no frame stands for it. Unsafe because it
    // plays the device.
    unsafe {
        umem.region()
            .base()
            .add(address as usize)
            .as_ptr()
            .copy_to_nonoverlapping(packet.as_mut_ptr(), len)
    };
    packet
}
