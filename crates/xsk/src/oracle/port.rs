//! The model of ports: plain vectors that describe two ports on one UMEM and their fake kernels.
//!
//! Every step checks the frame counts, the chunks' recorded owners, the bytes of held frames, and
//! the content and order of sent packets.

use std::collections::VecDeque;

use super::StepBytes;
use super::frame::{Edit, Shadow};
use crate::abi::ETH_HLEN;
use crate::counters::PortFrameCounts;
use crate::fake_kernel::{DeliveryError, FakeKernel, FakeKernelConfig, FakeRingSizes};
use crate::owner::Ownership;
use crate::{
    Batch, EgressQueue, Frame, HugePages, Pool, Port, PushError, Quarantine, Umem, UmemConfig,
    XskPort,
};

/// Number of ports in the model.
pub const PORTS: usize = 2;

/// A test step. The model holds frames (`Frame`) that it received or allocated. The index of a held
/// frame is taken modulo the number of held frames.
#[derive(Clone, Debug)]
pub enum Step {
    /// Delivers packets to a port.
    Deliver {
        /// The port.
        port: usize,
        /// Number of packets.
        count: usize,
        /// Length of each packet in bytes.
        len: usize,
    },
    /// Receives one batch on the port. The model then holds the batch's frames.
    Receive(usize),
    /// Returns a held frame to the pool.
    Free(usize),
    /// Drops a held frame, so its chunk is lost.
    Lose(usize),
    /// Allocates a frame with this many bytes, which the model then holds.
    Alloc(usize),
    /// Edits a held frame.
    Edit(usize, Edit),
    /// Queues the oldest held frames for a port.
    Enqueue {
        /// The port.
        port: usize,
        /// Number of frames.
        count: usize,
    },
    /// Transmits the port's queue.
    Transmit(usize),
    /// Makes the port's kernel send and complete packets without a wake-up.
    Run(usize),
    /// Reclaims the port's completed frames.
    Reclaim(usize),
    /// Sets the behaviour of the port's kernel.
    Configure(usize, FakeKernelConfig),
    /// Delivers an invalid RX descriptor.
    InvalidReception {
        /// The port.
        port: usize,
        /// The held frame whose chunk is delivered again. Without one, the kernel delivers a range
        /// that lies within no chunk.
        held: Option<usize>,
        /// The length in the descriptor.
        len: u32,
    },
    /// Reports the completion of a lost chunk or, if no chunk is lost, of a chunk that does not
    /// exist.
    InvalidCompletion(usize),
    /// Offers a held frame to another UMEM's pool, and a frame of that UMEM to the pool and to the
    /// port's queue.
    Foreign {
        /// The port.
        port: usize,
        /// The held frame to offer.
        held: usize,
    },
    /// Removes the port's interface.
    Vanish(usize),
    /// Closes the port.
    Close(usize),
    /// Drops the port without closing it.
    DropPort(usize),
    /// Reopens the port if it is closed.
    Open(usize),
}

impl Step {
    /// Decodes a step. More values of `kind` stand for frequent steps than for rare ones.
    pub fn decode([kind, index, low, high]: StepBytes) -> Self {
        let (port, held) = (usize::from(index) % PORTS, usize::from(index));
        let number = usize::from(u16::from_le_bytes([low, high]));
        match kind % 64 {
            0..8 => {
                Self::Deliver { port, count: 1 + usize::from(low % 80), len: usize::from(high) * 8 }
            }
            8..16 => Self::Receive(port),
            16..19 => Self::Free(held),
            19 => Self::Lose(held),
            20..22 => Self::Alloc(number % 1600),
            22..30 => {
                Self::Edit(held, Edit::decode(kind, number % if high < 128 { 64 } else { 5000 }))
            }
            30..38 => Self::Enqueue { port, count: 1 + usize::from(low % 64) },
            38..46 => Self::Transmit(port),
            46..50 => Self::Run(port),
            50..56 => Self::Reclaim(port),
            56..58 => Self::Configure(port, decode_config(index, low, high)),
            58 => Self::InvalidReception {
                port,
                held: (low > 99).then_some(held),
                len: u32::from(high) * 300,
            },
            59 => Self::InvalidCompletion(port),
            60 => Self::Foreign { port, held },
            61 if low < 40 => Self::Vanish(port),
            61 => Self::Open(port),
            62 if low < 100 => Self::Close(port),
            63 if low < 20 => Self::DropPort(port),
            _ => Self::Reclaim(port),
        }
    }
}

/// Returns a faulty kernel's configuration: the bits of `faults` select the faults, with parameters
/// `a` and `b`.
pub fn decode_config(faults: u8, a: u8, b: u8) -> FakeKernelConfig {
    let limit = |byte: u8| match byte % 4 {
        0 => 0,
        1 => u32::MAX,
        _ => u32::from(byte % 40),
    };
    let errnos = [libc::EAGAIN, libc::EBUSY, libc::ENOBUFS, libc::ENETDOWN, libc::ENXIO];
    let errors =
        (0..b % 4).map(|n| errnos[usize::from(a.wrapping_add(n.wrapping_mul(b))) % errnos.len()]);
    FakeKernelConfig {
        budget: if faults & 2 != 0 { limit(a) } else { u32::MAX },
        completion_delay: if faults & 4 != 0 {
            (b % 5).checked_sub(1).map(u32::from)
        } else {
            Some(0)
        },
        completions_per_wakeup: if faults & 8 != 0 { limit(b) } else { u32::MAX },
        errors: if faults & 16 != 0 { errors.collect() } else { VecDeque::new() },
        persistent_error: (faults & 32 != 0)
            .then_some([libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN][usize::from(a) % 3]),
        ignored_wakeups: if faults & 64 != 0 { limit(a) } else { 0 },
        wants_tx_wakeup: faults & 128 == 0,
        wants_rx_wakeup: b & 128 != 0,
        ..FakeKernelConfig::default()
    }
}

/// Two ports and their model.
pub struct PortModel {
    sizes: FakeRingSizes,
    ports: [Option<ModelPort>; PORTS],
    /// Held frames with their expected content.
    held: VecDeque<(Frame, Shadow)>,
    umem: Umem,
    pool: Pool,
    /// Another UMEM, for [`Step::Foreign`].
    other: (Umem, Pool),
    /// The frames of closed ports, until the port is opened again.
    quarantine: [Option<Quarantine>; PORTS],
    lost: u32,
    /// Number of chunks that are never reused, because the kernel owned them when their port was
    /// closed or dropped.
    closed: u32,
    /// Number of packets made so far. Packets of 8 bytes or more start with their number, so no two
    /// of them are equal.
    packets_made: u64,
}

struct ModelPort {
    port: XskPort,
    kernel: FakeKernel,
    queue: EgressQueue,
    /// Packets not received yet; `None` stands for an invalid descriptor.
    arrived: VecDeque<Option<Vec<u8>>>,
    /// Packets in the egress queue and the TX ring, in order.
    to_send: VecDeque<Vec<u8>>,
    received: u64,
    transmitted: u64,
    discarded: u64,
    invalid_rx: u64,
    invalid_completions: u64,
    /// Whether the interface was removed.
    gone: bool,
}

impl PortModel {
    /// Creates two ports on one UMEM.
    pub fn new(frame_size: u32, sizes: FakeRingSizes) -> Self {
        let config = UmemConfig { frame_size, frames: 256, huge_pages: HugePages::Off };
        let (umem, pool) = Umem::new(&config).expect("cannot create a UMEM of 256 frames");
        let other = Umem::new(&config).expect("cannot create a UMEM of 256 frames");
        let mut model = Self {
            sizes,
            ports: [const { None }; PORTS],
            held: VecDeque::new(),
            umem,
            pool,
            other,
            quarantine: [const { None }; PORTS],
            lost: 0,
            closed: 0,
            packets_made: 0,
        };
        (0..PORTS).for_each(|port| model.step(Step::Open(port)));
        model
    }

    /// Executes a step.
    ///
    /// # Panics
    /// If the ports and the model differ afterwards.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Deliver { port, count, len } => self.deliver(port, count, len),
            Step::Receive(port) => self.receive(port),
            Step::Free(held) => {
                if let Some((frame, _)) = self.take_held(held) {
                    self.pool.free(frame).expect("the pool rejected its own frame");
                }
            }
            Step::Lose(held) => {
                if let Some((frame, _)) = self.take_held(held) {
                    drop(frame);
                    self.lost += 1;
                }
            }
            Step::Alloc(len) => self.alloc(len),
            Step::Edit(held, edit) => {
                let fill_byte = self.held.len() as u8;
                if let Some((frame, shadow)) = pick(&mut self.held, held) {
                    shadow.edit(frame, edit, fill_byte);
                }
            }
            Step::Enqueue { port, count } => self.enqueue(port, count),
            Step::Transmit(port) => {
                if let Some(model_port) = &mut self.ports[port] {
                    let before = model_port.queue.len();
                    let sent = model_port.port.transmit(&mut model_port.queue);
                    assert_eq!(sent, before - model_port.queue.len());
                    model_port.transmitted += sent as u64;
                }
            }
            Step::Run(port) => {
                if let Some(model_port) = &self.ports[port] {
                    model_port.kernel.run();
                }
            }
            Step::Reclaim(port) => {
                if let Some(model_port) = &mut self.ports[port] {
                    let before = self.pool.len();
                    assert_eq!(model_port.port.reclaim(&mut self.pool), self.pool.len() - before);
                }
            }
            Step::Configure(port, config) => {
                if let Some(model_port) = &self.ports[port] {
                    model_port.kernel.set(config);
                }
            }
            Step::InvalidReception { port, held, len } => self.deliver_invalid(port, held, len),
            Step::InvalidCompletion(port) => self.complete_invalid(port),
            Step::Foreign { port, held } => self.foreign(port, held),
            Step::Vanish(port) => {
                if let Some(model_port) = &mut self.ports[port] {
                    model_port.kernel.vanish();
                    model_port.gone = true;
                }
            }
            Step::Close(port) => self.close(port),
            Step::DropPort(port) => {
                if let Some(model_port) = self.ports[port].take() {
                    self.closed += model_port.port.frame_counts().total() as u32;
                    self.free_all(model_port.queue);
                }
            }
            Step::Open(port) => self.open(port),
        }
        self.check();
    }

    /// Sends and reclaims what can still be sent, closes the ports, and frees the held frames: the
    /// pool must then contain every chunk that is neither lost nor closed.
    ///
    /// # Panics
    /// If a packet is not sent although the interface exists, or a chunk is missing in the pool.
    pub fn finish(mut self) {
        for port in 0..PORTS {
            self.step(Step::Configure(port, FakeKernelConfig::default()));
            let mut rounds = 0;
            while self.ports[port]
                .as_ref()
                .is_some_and(|model_port| !model_port.gone && model_port.has_work())
            {
                self.step(Step::Transmit(port));
                self.step(Step::Run(port));
                self.step(Step::Reclaim(port));
                rounds += 1;
                assert!(rounds < 200, "port {port} still has frames to send after 200 rounds");
            }
            if let Some(model_port) = &self.ports[port] {
                assert!(
                    model_port.gone || model_port.to_send.is_empty(),
                    "{} packets were never sent",
                    model_port.to_send.len()
                );
            }
            self.step(Step::Close(port));
            self.release(port);
        }
        while !self.held.is_empty() {
            self.step(Step::Free(0));
        }
        assert_eq!(self.pool.len() as u32 + self.lost + self.closed, self.umem.frames());
    }

    fn open(&mut self, port: usize) {
        if self.ports[port].is_some() {
            return;
        }
        self.release(port);
        let (opened, kernel) = FakeKernel::port_with(
            &self.umem,
            &mut self.pool,
            port as u32,
            self.sizes,
            FakeKernelConfig::default(),
        );
        self.ports[port] = Some(ModelPort {
            port: opened,
            kernel,
            queue: EgressQueue::new(&self.umem, 100),
            arrived: VecDeque::new(),
            to_send: VecDeque::new(),
            received: 0,
            transmitted: 0,
            discarded: 0,
            invalid_rx: 0,
            invalid_completions: 0,
            gone: false,
        });
    }

    fn close(&mut self, index: usize) {
        let Some(model_port) = self.ports[index].take() else { return };
        let ModelPort { port, kernel, queue, .. } = model_port;
        let counts = port.frame_counts();
        let free_before = self.pool.len();
        // The number of frames that `close` did not return to the pool.
        let quarantine = Box::new(port).close(&mut self.pool);
        let retired = quarantine.frames();
        assert_eq!(
            retired + self.pool.len() - free_before,
            counts.total() as usize,
            "freed and retired frames are not all frames of the port"
        );
        assert!(
            retired as u64 <= counts.tx + counts.completion,
            "a frame posted for reception was not returned to the pool"
        );
        // Sometimes, the frames are given up.
        if self.packets_made.is_multiple_of(3) {
            drop(quarantine);
            self.closed += retired as u32;
        } else {
            self.quarantine[index] = Some(quarantine);
        }
        assert_ne!(kernel.deliver(&[0; 60]), Ok(()), "the kernel wrote to a reclaimed frame");
        self.free_all(queue);
    }

    /// Makes the kernel release the frames of a closed port.
    fn release(&mut self, index: usize) {
        let Some(quarantine) = self.quarantine[index].take() else { return };
        let (frames, free_before) = (quarantine.frames(), self.pool.len());
        if frames == 0 {
            return;
        }
        let other = FakeKernel::release((index as u32 + 1) % PORTS as u32);
        let quarantine = quarantine
            .take_back(&other, &mut self.pool)
            .expect_err("frames returned with a proof about another queue");
        let returned = quarantine.take_back(&FakeKernel::release(index as u32), &mut self.pool);
        assert_eq!(returned.expect("the proof is about this queue"), frames);
        assert_eq!(self.pool.len(), free_before + frames);
    }

    fn free_all(&mut self, mut queue: EgressQueue) {
        while let Some(frame) = queue.pop() {
            self.pool.free(frame).expect("the pool rejected its own frame");
        }
    }

    fn deliver(&mut self, port: usize, count: usize, len: usize) {
        let Some(model_port) = &mut self.ports[port] else { return };
        for _ in 0..count {
            self.packets_made += 1;
            let packet: Vec<u8> =
                self.packets_made.to_be_bytes().into_iter().cycle().take(len).collect();
            let expected = if model_port.gone {
                Err(DeliveryError::NoInterface)
            } else if len + Pool::HEADROOM > self.umem.frame_size() as usize {
                Err(DeliveryError::TooLong)
            } else if model_port.arrived.len() == self.sizes.rx as usize {
                Err(DeliveryError::RxRingFull)
            } else if model_port.kernel.posted() == 0 {
                Err(DeliveryError::FillRingEmpty)
            } else {
                Ok(())
            };
            assert_eq!(model_port.kernel.deliver(&packet), expected);
            if expected.is_ok() {
                model_port.arrived.push_back(Some(packet));
            }
        }
    }

    fn receive(&mut self, port: usize) {
        let Some(model_port) = &mut self.ports[port] else { return };
        let mut batch = Batch::new();
        let entries = model_port.arrived.len().min(Batch::CAPACITY);
        let received = model_port.port.receive(&mut batch, &mut self.pool);
        assert_eq!(received, batch.len());
        model_port.invalid_rx += (entries - received) as u64;
        model_port.received += received as u64;
        let expected = model_port.arrived.drain(..entries).flatten();
        let frames = batch.slots_mut().iter_mut().filter_map(Option::take);
        for (frame, packet) in frames.zip(expected) {
            assert!(frame[..] == packet[..], "a received packet is wrong or out of order");
            assert_eq!(frame.headroom(), Pool::HEADROOM);
            let shadow = Shadow::copy_of(&frame);
            self.held.push_back((frame, shadow));
        }
        assert!(batch.slots().iter().all(Option::is_none), "more packets received than delivered");
    }

    fn alloc(&mut self, len: usize) {
        let free = self.pool.len();
        let Some(mut frame) = self.pool.alloc() else { return assert_eq!(free, 0) };
        assert_eq!((frame.headroom(), frame.len()), (Pool::HEADROOM, 0));
        let mut shadow = Shadow::copy_of(&frame);
        shadow.edit(&mut frame, Edit::Append(len), 0xa5);
        self.held.push_back((frame, shadow));
    }

    fn enqueue(&mut self, port: usize, count: usize) {
        let Some(model_port) = &mut self.ports[port] else { return };
        for _ in 0..count {
            let Some((mut frame, mut shadow)) = self.held.pop_front() else { break };
            let room = model_port.queue.room();
            if frame.len() >= ETH_HLEN {
                self.packets_made += 1;
                shadow.stamp(&mut frame, &self.packets_made.to_be_bytes());
            }
            match model_port.queue.push(frame) {
                Ok(()) => model_port.to_send.push_back(shadow.into_bytes()),
                Err(PushError::Full(frame)) => {
                    assert_eq!(room, 0);
                    self.held.push_back((frame, shadow));
                }
                Err(PushError::Runt(frame)) => {
                    assert!(frame.len() < ETH_HLEN);
                    self.held.push_back((frame, shadow));
                }
                Err(foreign) => panic!("{foreign}"),
            }
        }
    }

    fn deliver_invalid(&mut self, port: usize, held: Option<usize>, len: u32) {
        let Some(model_port) = &mut self.ports[port] else { return };
        let held = held.and_then(|held| pick(&mut self.held, held));
        let is_held = held.is_some();
        // Without a held frame, deliver an address after the UMEM's end (for an even `len`), or a
        // range longer than a chunk.
        let (address, len) = match held {
            Some((frame, _)) => (frame.address(), len),
            None if len.is_multiple_of(2) => (self.umem.bytes() as u64 + u64::from(len), 60),
            None => (256, self.umem.frame_size() + len),
        };
        if model_port.kernel.deliver_descriptor(address, len) {
            model_port.arrived.push_back(None);
        }
        // Receive the descriptor of a held frame now: later, the frame's chunk might be posted for
        // reception, which would make the descriptor valid.
        while is_held
            && self.ports[port].as_ref().is_some_and(|model_port| !model_port.arrived.is_empty())
        {
            self.receive(port);
        }
    }

    fn complete_invalid(&mut self, port: usize) {
        let Some(model_port) = &mut self.ports[port] else { return };
        let lost = self.umem.lost_chunks().last().copied();
        let address =
            lost.map_or(u64::MAX, |chunk| u64::from(chunk) * u64::from(self.umem.frame_size()));
        model_port.invalid_completions += u64::from(model_port.kernel.complete_address(address));
    }

    fn foreign(&mut self, port: usize, held: usize) {
        if let Some((frame, shadow)) = self.take_held(held) {
            let frame =
                self.other.1.free(frame).expect_err("the pool accepted a frame of another UMEM").0;
            shadow.check(&frame);
            self.held.push_back((frame, shadow));
        }
        let mut frame = self.other.1.alloc().expect("the other UMEM has no free frame");
        frame.append(60).expect("an empty frame has no room for 60 bytes").fill(0);
        frame = self.pool.free(frame).expect_err("the pool accepted a frame of another UMEM").0;
        if let Some(model_port) = &mut self.ports[port] {
            frame = match model_port.queue.push(frame) {
                Err(PushError::Foreign(frame) | PushError::Full(frame)) => frame,
                other => panic!("the queue accepted a frame of another UMEM: {other:?}"),
            };
        }
        self.other.1.free(frame).expect("the pool rejected its own frame");
    }

    /// Removes a held frame; takes the index modulo the number of held frames.
    fn take_held(&mut self, index: usize) -> Option<(Frame, Shadow)> {
        let index = index.checked_rem(self.held.len())?;
        self.held.remove(index)
    }

    fn check(&mut self) {
        for model_port in self.ports.iter_mut().flatten() {
            model_port.check();
        }
        for (frame, shadow) in &self.held {
            shadow.check(frame);
        }
        let queued: usize =
            self.ports.iter().flatten().map(|model_port| model_port.queue.len()).sum();
        let ports: Vec<&XskPort> =
            self.ports.iter().flatten().map(|model_port| &model_port.port).collect();
        let quarantined: usize = self.quarantine.iter().flatten().map(Quarantine::frames).sum();
        assert_conserved_except(
            &self.umem,
            &self.pool,
            &ports,
            quarantined as u64,
            self.held.len() + queued,
            self.lost,
            self.closed,
        );
        assert_eq!((self.other.0.held(), self.other.0.lost()), (0, 0));
    }
}

impl ModelPort {
    fn has_work(&self) -> bool {
        let frame_counts = self.port.frame_counts();
        !self.queue.is_empty()
            || self.port.has_unsent()
            || frame_counts.tx + frame_counts.completion > 0
    }

    fn check(&mut self) {
        let mut sent = VecDeque::from(self.kernel.take_sent());
        let mut discarded = VecDeque::from(self.kernel.take_discarded());
        self.discarded += discarded.len() as u64;
        // The kernel sent or discarded each packet, in the order of `to_send`.
        while !sent.is_empty() || !discarded.is_empty() {
            let expected = self.to_send.pop_front();
            let packets =
                if sent.front() == expected.as_ref() { &mut sent } else { &mut discarded };
            assert!(
                expected.is_some() && packets.pop_front() == expected,
                "a sent packet was not queued or is out of order"
            );
        }
        // With invalid descriptors, the RX ring can have more entries than the port has posted
        // frames. The port counts only as many entries as frames.
        let frame_counts = self.port.frame_counts();
        assert_eq!(
            frame_counts.rx,
            self.arrived.len().min((frame_counts.rx + frame_counts.fill) as usize) as u64
        );
        let counters = self.port.counters();
        assert_eq!((counters.rx_packets, counters.tx_packets), (self.received, self.transmitted));
        assert_eq!(counters.tx_dropped, self.discarded);
        assert!(counters.tx_retries <= counters.syscalls);
        // Invalid completions are counted only when the port reclaims them.
        let rejected = counters.invalid_descriptors;
        assert!(
            (self.invalid_rx..=self.invalid_rx + self.invalid_completions).contains(&rejected),
            "{rejected} descriptors rejected, but {} to {} were invalid",
            self.invalid_rx,
            self.invalid_rx + self.invalid_completions
        );
        let kernel = self.port.kernel_counters();
        assert_eq!(
            (kernel.rx_invalid, kernel.tx_invalid),
            (0, 0),
            "the kernel rejected a descriptor"
        );
    }
}

/// Returns a held frame; takes the index modulo the number of held frames.
fn pick(held: &mut VecDeque<(Frame, Shadow)>, index: usize) -> Option<&mut (Frame, Shadow)> {
    let index = index.checked_rem(held.len())?;
    held.get_mut(index)
}

/// Panics if the frame counts disagree with the ownership record, if the number of held frames is
/// not `held`, or if a chunk is lost or closed.
#[track_caller]
pub fn assert_conserved(umem: &Umem, pool: &Pool, ports: &[&XskPort], held: usize) {
    assert_conserved_except(umem, pool, ports, 0, held, 0, 0);
}

#[track_caller]
fn assert_conserved_except(
    umem: &Umem,
    pool: &Pool,
    ports: &[&XskPort],
    quarantined: u64,
    held: usize,
    lost: u32,
    closed: u32,
) {
    // Closed ports of the fake kernel leave only frames posted for transmission behind.
    let mut in_rings = PortFrameCounts { tx: quarantined, ..PortFrameCounts::default() };
    for port in ports {
        in_rings += port.frame_counts();
    }
    let expected = Ownership {
        pool: pool.len() as u32,
        held: held as u32,
        fill: (in_rings.fill + in_rings.rx) as u32,
        tx: (in_rings.tx + in_rings.completion) as u32,
        lost,
        closed,
    };
    assert_eq!(umem.ownership(), expected, "the ownership record differs from the frame counts");
    let total = pool.len() as u64 + in_rings.total() + held as u64 + u64::from(lost + closed);
    assert_eq!(
        total,
        u64::from(umem.frames()),
        "the counts do not add up to the frames of the UMEM: {expected:?}"
    );
}

/// Executes the steps on two ports and the model. The first step's bytes select the chunk size, the
/// ring sizes and the initial counters.
pub fn run(steps: impl IntoIterator<Item = StepBytes>) {
    let mut steps = steps.into_iter();
    let [chunk_size, before_wrap, rx_sizes, tx_sizes] = steps.next().unwrap_or_default();
    let ring_size = |bits: u8| 8 << (bits % 4);
    let sizes = FakeRingSizes {
        fill: ring_size(rx_sizes),
        rx: ring_size(rx_sizes >> 4),
        tx: ring_size(tx_sizes),
        completion: ring_size(tx_sizes >> 4),
        start: 0u32.wrapping_sub(u32::from(before_wrap)),
    };
    let mut model = PortModel::new(if chunk_size % 2 == 0 { 2048 } else { 4096 }, sizes);
    steps.map(Step::decode).for_each(|step| model.step(step));
    model.finish();
}
