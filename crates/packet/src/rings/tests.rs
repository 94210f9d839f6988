//! Tests the rings on ordinary memory; the test acts as the kernel.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use libc::{
    TP_STATUS_AVAILABLE, TP_STATUS_BLK_TMO, TP_STATUS_KERNEL, TP_STATUS_LOSING,
    TP_STATUS_SEND_REQUEST, TP_STATUS_SENDING, TP_STATUS_TS_SOFTWARE, TP_STATUS_USER,
    TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID, TP_STATUS_WRONG_FORMAT,
};

use super::receive::BLOCK_STATUS;
use super::transmit::SLOT_STATUS;
use super::*;
use crate::abi::{BLOCK_HEADER, BlockHeader, PacketHeader, SLOT_HEADER};

const LAYOUT: RingLayout = RingLayout { block_len: 4096, blocks: 3, slot_len: 256, slots: 4 };

fn memory() -> Rc<RingMemory> {
    Rc::new(RingMemory::anonymous(LAYOUT.len()))
}

/// The kernel's end of a receive ring.
struct Kernel {
    memory: Rc<RingMemory>,
    block: usize,
}

impl Kernel {
    fn header(len: usize) -> PacketHeader {
        // SAFETY: a struct of integers, for which zeros are valid. Needs `unsafe`: a shorthand for
        // many fields.
        let mut header: PacketHeader = unsafe { std::mem::zeroed() };
        (header.tp_len, header.tp_snaplen, header.tp_mac) = (len as u32, len as u32, 82);
        header
    }

    /// Writes packets into the next block and hands it over with these additional flags; returns
    /// false if the user has not released the block.
    fn deliver(&mut self, packets: &[Vec<u8>], flags: u32) -> bool {
        self.deliver_with(packets, flags, |_, _| ())
    }

    fn deliver_with(
        &mut self,
        packets: &[Vec<u8>],
        flags: u32,
        mut change: impl FnMut(usize, &mut PacketHeader),
    ) -> bool {
        let base = self.block * LAYOUT.block_len;
        let status = self.memory.status(base + BLOCK_STATUS);
        if status.load(Ordering::Acquire) != TP_STATUS_KERNEL {
            return false;
        }
        let mut offset = 48;
        let mut block: BlockHeader = self.memory.read(base + BLOCK_HEADER);
        (block.num_pkts, block.offset_to_first_pkt) = (packets.len() as u32, offset as u32);
        self.memory.write(base + BLOCK_HEADER, block);
        for (index, packet) in packets.iter().enumerate() {
            let mut header = Self::header(packet.len());
            let step = (82 + packet.len()).next_multiple_of(8);
            header.tp_next_offset = if index + 1 < packets.len() { step as u32 } else { 0 };
            change(index, &mut header);
            self.memory.write(base + offset, header);
            self.memory.copy_in(base + offset + 82, packet);
            offset += step;
        }
        status.store(TP_STATUS_USER | flags, Ordering::Release);
        self.block = (self.block + 1) % LAYOUT.blocks;
        true
    }

    /// Returns the number of blocks that the user has.
    fn blocks_in_use(&self) -> usize {
        let in_use = |&block: &usize| {
            let status = self.memory.status(block * LAYOUT.block_len + BLOCK_STATUS);
            status.load(Ordering::Acquire) & TP_STATUS_USER != 0
        };
        (0..LAYOUT.blocks).filter(in_use).count()
    }
}

fn receive_ring() -> (ReceiveRing, Kernel) {
    let memory = memory();
    (ReceiveRing::new(Rc::clone(&memory), &LAYOUT), Kernel { memory, block: 0 })
}

fn packet(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 7 + at) as u8).collect()
}

fn receive(ring: &mut ReceiveRing) -> Option<Vec<u8>> {
    let packet = ring.peek()?;
    let mut bytes = vec![0; packet.len];
    ring.copy(&packet, &mut bytes);
    ring.consume();
    Some(bytes)
}

#[test]
fn receive_ring_returns_packets_in_order_and_releases_each_block_after_its_last_packet() {
    let (mut ring, mut kernel) = receive_ring();
    let mut expected = VecDeque::new();
    let mut number = 0;
    assert_eq!(ring.peek(), None, "the kernel has all blocks");
    for round in 0..20 {
        // Blocks of 1 to 4 packets, most full and some handed over by the timeout.
        let packets: Vec<_> =
            (0..=round % 4).map(|at| packet(number + at, 60 + 41 * at + round)).collect();
        number += packets.len();
        let flags = if round % 3 == 0 { TP_STATUS_BLK_TMO | TP_STATUS_LOSING } else { 0 };
        assert!(kernel.deliver(&packets, flags));
        expected.extend(packets.iter().cloned());
        assert_eq!(kernel.blocks_in_use(), 1);
        for left in (0..packets.len()).rev() {
            assert_eq!(receive(&mut ring), expected.pop_front());
            assert_eq!(kernel.blocks_in_use(), usize::from(left > 0));
        }
        assert_eq!(ring.peek(), None);
    }
    assert_eq!(ring.invalid(), 0);
}

#[test]
fn receive_ring_with_all_blocks_in_use_resumes_after_late_release() {
    let (mut ring, mut kernel) = receive_ring();
    let delivered: Vec<_> = (0..3).map(|number| packet(number, 100)).collect();
    assert!(delivered.chunks(1).all(|packets| kernel.deliver(packets, 0)));
    assert!(!kernel.deliver(&[packet(3, 100)], 0), "the kernel overwrote a block in use");
    assert_eq!(receive(&mut ring), Some(packet(0, 100)));
    assert!(kernel.deliver(&[packet(3, 100)], TP_STATUS_LOSING));
    for number in 1..4 {
        assert_eq!(receive(&mut ring), Some(packet(number, 100)));
    }
    assert_eq!((ring.peek(), kernel.blocks_in_use()), (None, 0));
}

#[test]
fn receive_ring_reports_vlan_tag_and_truncation() {
    let (mut ring, mut kernel) = receive_ring();
    let packets: Vec<_> = (0..3).map(|number| packet(number, 60)).collect();
    kernel.deliver_with(&packets, 0, |index, header| match index {
        0 => {
            header.tp_status = TP_STATUS_USER | TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID;
            (header.hv1.tp_vlan_tci, header.hv1.tp_vlan_tpid) = (0xe064, 0x88a8);
        }
        1 => header.tp_len = 9000,
        _ => (),
    });
    let mut properties = || {
        let packet = ring.peek().unwrap();
        ring.consume();
        (packet.tag, packet.is_truncated)
    };
    assert_eq!(properties(), (Some([0x88, 0xa8, 0xe0, 0x64]), false));
    assert_eq!(properties(), (None, true));
    assert_eq!(properties(), (None, false));
}

/// The ring is memory that another program writes, so no value in it may cause an access outside of
/// the ring or an endless loop.
#[test]
fn receive_ring_skips_block_with_invalid_header() {
    type Change = fn(&mut PacketHeader);
    let changes: [Change; 7] = [
        |header| header.tp_snaplen = u32::MAX,
        |header| header.tp_snaplen = 4000,
        |header| header.tp_mac = u16::MAX,
        |header| header.tp_next_offset = u32::MAX,
        |header| header.tp_next_offset = 4090,
        |header| header.tp_next_offset = 0,
        |header| header.tp_next_offset = 8,
    ];
    for (case, change) in changes.into_iter().enumerate() {
        let (mut ring, mut kernel) = receive_ring();
        let packets: Vec<_> = (0..3).map(|number| packet(number, 60)).collect();
        kernel.deliver_with(&packets, 0, |index, header| {
            if index == 1 {
                change(header);
            }
        });
        kernel.deliver(&[packet(9, 60)], 0);
        let received: Vec<_> = (0..10).filter_map(|_| receive(&mut ring)).collect();
        assert_eq!(received.first(), Some(&packet(0, 60)), "case {case}");
        assert_eq!(received.last(), Some(&packet(9, 60)), "case {case}");
        assert_eq!(received.len() as u64 + ring.invalid(), 4, "case {case}: {received:?}");
        assert!(ring.invalid() > 0, "case {case}");
        assert_eq!(kernel.blocks_in_use(), 0, "case {case}");
    }
}

#[test]
fn receive_ring_releases_empty_block() {
    let (mut ring, mut kernel) = receive_ring();
    kernel.deliver(&[], TP_STATUS_BLK_TMO);
    kernel.deliver(&[packet(1, 60)], 0);
    assert_eq!(ring.peek(), None);
    assert_eq!(receive(&mut ring), Some(packet(1, 60)));
    assert_eq!(kernel.blocks_in_use(), 0);
}

/// The kernel's end of a transmit ring.
struct Sender {
    memory: Rc<RingMemory>,
    head: usize,
    sending: VecDeque<usize>,
}

impl Sender {
    fn status(&self, slot: usize) -> &std::sync::atomic::AtomicU32 {
        self.memory.status(LAYOUT.receive_len() + slot * LAYOUT.slot_len + SLOT_STATUS)
    }

    /// Takes requests in order, up to `count`. The slot after them, if it has a request, gets the
    /// status `refused`. Returns the packets.
    fn take(&mut self, count: usize, refused: u32) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while self.status(self.head).load(Ordering::Acquire) == TP_STATUS_SEND_REQUEST {
            if packets.len() == count {
                self.status(self.head).store(refused, Ordering::Release);
                break;
            }
            let base = LAYOUT.receive_len() + self.head * LAYOUT.slot_len;
            let header: PacketHeader = self.memory.read(base);
            assert_eq!(header.tp_next_offset, 0);
            let mut packet = vec![0; header.tp_len as usize];
            self.memory.copy_out(base + SLOT_HEADER, &mut packet);
            packets.push(packet);
            self.status(self.head).store(TP_STATUS_SENDING, Ordering::Release);
            self.sending.push_back(self.head);
            self.head = (self.head + 1) % LAYOUT.slots;
        }
        packets
    }

    /// Completes the first `count` packets that are being sent.
    fn complete(&mut self, count: usize) {
        for slot in self.sending.drain(..count).collect::<Vec<_>>() {
            // A time stamp flag beside the state.
            let status = TP_STATUS_AVAILABLE | TP_STATUS_TS_SOFTWARE;
            self.status(slot).store(status, Ordering::Release);
        }
    }
}

fn transmit_ring() -> (TransmitRing, Sender) {
    let memory = memory();
    let ring = TransmitRing::new(Rc::clone(&memory), &LAYOUT);
    (ring, Sender { memory, head: 0, sending: VecDeque::new() })
}

fn fill(ring: &TransmitRing, packets: &[Vec<u8>]) -> usize {
    ring.fill(packets.iter().map(Vec::as_slice))
}

#[test]
fn transmit_ring_sends_packets_in_order_and_reuses_completed_slots() {
    let (mut ring, mut kernel) = transmit_ring();
    for round in 0..20 {
        let packets: Vec<_> = (0..=round % 4).map(|at| packet(round + at, 60 + 49 * at)).collect();
        assert_eq!(fill(&ring, &packets), packets.len(), "round {round}");
        assert_eq!(kernel.take(usize::MAX, 0), packets);
        assert_eq!(ring.settle(packets.len()), packets.len());
        kernel.complete(packets.len());
    }
}

#[test]
fn transmit_ring_without_completed_slots_accepts_no_packet() {
    let (mut ring, mut kernel) = transmit_ring();
    let packets: Vec<_> = (0..6).map(|number| packet(number, 60)).collect();
    assert_eq!(fill(&ring, &packets), 4, "4 slots");
    kernel.take(usize::MAX, 0);
    assert_eq!(ring.settle(4), 4);
    assert_eq!(fill(&ring, &packets), 0);
    // The second packet completes before the first: the ring waits for the first.
    kernel.sending.swap(0, 1);
    kernel.complete(1);
    assert_eq!(fill(&ring, &packets), 0);
    kernel.complete(1);
    assert_eq!(fill(&ring, &packets), 2);
}

#[test]
fn transmit_ring_takes_back_requests_that_kernel_refused() {
    for refused in [TP_STATUS_SEND_REQUEST, TP_STATUS_WRONG_FORMAT] {
        let (mut ring, mut kernel) = transmit_ring();
        for round in 0..10 {
            let first: Vec<_> = (0..4).map(|number| packet(round + number, 60)).collect();
            assert_eq!(fill(&ring, &first), 4);
            assert_eq!(kernel.take(1, refused), first[..1]);
            assert_eq!(ring.settle(4), 1);
            kernel.complete(1);
            // The slot at which the kernel stopped has no request, so another packet can take it.
            assert_eq!(kernel.take(usize::MAX, 0), Vec::<Vec<u8>>::new());
            let other = [packet(77, 200)];
            assert_eq!(fill(&ring, &other), 1);
            assert_eq!(kernel.take(usize::MAX, 0), other);
            assert_eq!(ring.settle(1), 1);
            kernel.complete(1);
        }
    }
}

#[test]
fn layout_satisfies_kernel_and_holds_longest_frames() {
    assert!([0, 47, 2000, 8192, u32::MAX].into_iter().all(|size| RingLayout::new(size).is_none()));
    for frame_size in [2048, 4096] {
        let layout = RingLayout::new(frame_size).unwrap();
        for request in [layout.receive_request(), layout.transmit_request()] {
            // The conditions of `packet_set_ring`.
            assert!(request.tp_block_size.is_multiple_of(4096));
            assert!(request.tp_frame_size.is_multiple_of(16));
            let per_block = request.tp_block_size / request.tp_frame_size;
            assert_eq!(per_block * request.tp_block_nr, request.tp_frame_nr);
        }
        // The longest packet that an interface with the highest MTU sends, docs/configuration.md.
        assert!(layout.max_packet() >= frame_size as usize - 256);
        assert_eq!(layout.slots, layout.transmit_request().tp_frame_nr as usize);
    }
}
