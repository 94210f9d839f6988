//! The transmit ring.

use std::mem::offset_of;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::layout::RingLayout;
use super::memory::RingMemory;
use crate::abi::{PacketHeader, SLOT_HEADER};

/// Offset of the status in a slot.
pub(super) const SLOT_STATUS: usize = offset_of!(PacketHeader, tp_status);

/// The states of a slot in its status, which also contains time stamp flags. No flag: the slot is
/// free.
const STATES: u32 =
    libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING | libc::TP_STATUS_WRONG_FORMAT;

/// The user's end of a transmit ring.
///
/// [`fill`](Self::fill) copies packets into slots. A system call then makes the kernel take slots,
/// in order, until one fails: its packet was dropped, or the kernel cannot send now. In both cases
/// the kernel looks at the same slot again at the next call, and sends nothing as long as the slot
/// contains no request. Therefore [`settle`](Self::settle) takes back all slots that the kernel
/// left. Between two calls the ring contains no requests, so no packet can block it and none is
/// lost with it. A taken slot becomes free when the interface has sent its packet.
#[derive(Debug)]
pub(crate) struct TransmitRing {
    memory: Rc<RingMemory>,
    /// Offset of the ring in the memory.
    start: usize,
    slot_len: usize,
    slots: usize,
    /// The slot that the kernel looks at first in the next call.
    head: usize,
}

impl TransmitRing {
    pub(crate) fn new(memory: Rc<RingMemory>, layout: &RingLayout) -> Self {
        let RingLayout { slot_len, slots, .. } = *layout;
        Self { memory, start: layout.receive_len(), slot_len, slots, head: 0 }
    }

    /// Copies packets into free slots and requests their transmission, until a slot is not free.
    /// Returns the number of requests. Each packet must fit into a slot.
    #[inline]
    pub(crate) fn fill<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut requests = 0;
        for packet in packets.take(self.slots) {
            let slot = self.slot(requests);
            let status = self.memory.status(slot + SLOT_STATUS);
            // Acquire: the interface has read the previous packet before the slot was free.
            if status.load(Ordering::Acquire) & STATES != 0 {
                break;
            }
            assert!(packet.len() <= self.slot_len - SLOT_HEADER);
            self.memory.write(slot, header_of(packet.len()));
            self.memory.copy_in(slot + SLOT_HEADER, packet);
            // Release: the packet is complete before the request.
            status.store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
            requests += 1;
        }
        requests
    }

    /// Returns how many of the requests the kernel has taken, and takes back the others. Call this
    /// after the system call that follows [`fill`](Self::fill), with its result.
    #[inline]
    pub(crate) fn settle(&mut self, requests: usize) -> usize {
        const LEFT: u32 = libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_WRONG_FORMAT;
        let status = |n| self.memory.status(self.slot(n) + SLOT_STATUS);
        let taken =
            (0..requests).take_while(|&n| status(n).load(Ordering::Acquire) & LEFT == 0).count();
        (taken..requests)
            .for_each(|n| status(n).store(libc::TP_STATUS_AVAILABLE, Ordering::Release));
        self.head = self.wrap(self.head + taken);
        taken
    }

    /// Returns the offset of the `n`-th slot from the head. `n` is below the number of slots.
    #[inline]
    fn slot(&self, n: usize) -> usize {
        self.start + self.wrap(self.head + n) * self.slot_len
    }

    /// Wraps a slot's index that is below twice the number of slots.
    #[inline]
    fn wrap(&self, index: usize) -> usize {
        if index < self.slots { index } else { index - self.slots }
    }
}

/// Returns the header of a free slot with a packet of this length.
fn header_of(len: usize) -> PacketHeader {
    PacketHeader {
        // The kernel refuses slots of variable length.
        tp_next_offset: 0,
        tp_sec: 0,
        tp_nsec: 0,
        tp_snaplen: 0,
        tp_len: len as u32,
        tp_status: libc::TP_STATUS_AVAILABLE,
        tp_mac: 0,
        tp_net: 0,
        hv1: libc::tpacket_hdr_variant1 {
            tp_rxhash: 0,
            tp_vlan_tci: 0,
            tp_vlan_tpid: 0,
            tp_padding: 0,
        },
        tp_padding: [0; 8],
    }
}
