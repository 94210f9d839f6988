//! The receive ring.

use std::mem::{offset_of, size_of};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::layout::RingLayout;
use super::memory::RingMemory;
use crate::abi::{BLOCK_HEADER, BlockHeader, PacketHeader};
use crate::vlan;

/// Offset of the status in a block.
pub(super) const BLOCK_STATUS: usize = BLOCK_HEADER + offset_of!(BlockHeader, block_status);

/// The user's end of a receive ring.
///
/// Packets are read in order with [`peek`](Self::peek) and [`consume`](Self::consume). A block goes
/// back to the kernel with its last packet. If the kernel finds no free block, it drops packets and
/// counts them (`PACKET_STATISTICS`; `TP_STATUS_LOSING` in a block announces that, and is ignored).
#[derive(Debug)]
pub(crate) struct ReceiveRing {
    memory: Rc<RingMemory>,
    block_len: usize,
    blocks: usize,
    /// The block that is read, or that the kernel hands over next.
    block: usize,
    /// Unread packets of that block; 0 if the kernel has it.
    unread: u32,
    /// Offset of the first unread packet's header in the memory.
    next: usize,
    /// Offset from that header to the following one.
    step: usize,
    invalid: u64,
}

/// A packet in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingPacket {
    /// Offset in the memory.
    start: usize,
    pub(crate) len: usize,
    /// The packet was longer than a block.
    pub(crate) is_truncated: bool,
    /// The VLAN tag that the kernel removed.
    pub(crate) tag: Option<[u8; 4]>,
}

impl ReceiveRing {
    pub(crate) fn new(memory: Rc<RingMemory>, layout: &RingLayout) -> Self {
        let RingLayout { block_len, blocks, .. } = *layout;
        Self { memory, block_len, blocks, block: 0, unread: 0, next: 0, step: 0, invalid: 0 }
    }

    /// Returns the first unread packet.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<RingPacket> {
        let base = self.block * self.block_len;
        if self.unread == 0 {
            // Acquire: the kernel wrote the block before its status.
            let status = self.memory.status(base + BLOCK_STATUS).load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                return None;
            }
            let header: BlockHeader = self.memory.read(base + BLOCK_HEADER);
            self.unread = header.num_pkts;
            self.next = base.saturating_add(header.offset_to_first_pkt as usize);
            if self.unread == 0 {
                // The kernel hands over no empty blocks. Without this case, one would stay here.
                self.release();
                return None;
            }
        }
        let packet = self.packet_at(self.next, base + self.block_len);
        if packet.is_none() {
            self.invalid += u64::from(self.unread);
            self.unread = 0;
            self.release();
        }
        packet
    }

    /// Copies a packet into `frame`, which must have its length.
    #[inline]
    pub(crate) fn copy(&self, packet: &RingPacket, frame: &mut [u8]) {
        self.memory.copy_out(packet.start, frame);
    }

    /// Ends the use of the packet that [`peek`](Self::peek) returned.
    #[inline]
    pub(crate) fn consume(&mut self) {
        self.unread -= 1;
        if self.unread == 0 {
            self.release();
        } else {
            self.next = self.next.saturating_add(self.step);
        }
    }

    /// Returns the number of packets whose headers were invalid. A value above 0 indicates a bug in
    /// xdpfwd or the kernel.
    pub(crate) fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Reads the header at an offset; `None` if the header or the packet does not end before `end`,
    /// or if the next header would overlap this one.
    #[inline]
    fn packet_at(&mut self, offset: usize, end: usize) -> Option<RingPacket> {
        if offset.checked_add(size_of::<PacketHeader>())? > end {
            return None;
        }
        let header: PacketHeader = self.memory.read(offset);
        let (start, len) = (offset + usize::from(header.tp_mac), header.tp_snaplen as usize);
        if start.checked_add(len)? > end {
            return None;
        }
        self.step = header.tp_next_offset as usize;
        if self.unread > 1 && self.step < size_of::<PacketHeader>() {
            return None;
        }
        Some(RingPacket {
            start,
            len,
            is_truncated: header.tp_snaplen < header.tp_len,
            tag: vlan::tag(
                header.tp_status,
                header.hv1.tp_vlan_tci as u16,
                header.hv1.tp_vlan_tpid,
            ),
        })
    }

    /// Hands the block back to the kernel and goes on to the next one.
    #[inline]
    fn release(&mut self) {
        let status = self.memory.status(self.block * self.block_len + BLOCK_STATUS);
        // Release: the block has been read before the kernel may overwrite it.
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.block = if self.block + 1 == self.blocks { 0 } else { self.block + 1 };
    }
}
