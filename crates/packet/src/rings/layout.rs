//! Sizes of the rings.

use std::time::Duration;

use crate::abi::{RingRequest, SLOT_HEADER};

/// Time after which the kernel hands over a block that is not full. A packet waits for this time at
/// most, or for twice this time if the kernel has just started the block. The shortest time that
/// the kernel accepts; kernels before 6.18 wait for up to two timer ticks (8 ms with `HZ = 250`).
const RETIRE_TIMEOUT: Duration = Duration::from_millis(1);

/// Bytes of a receive block. Smaller blocks are handed over earlier under load; larger ones cost
/// less time per packet. Has room for 20 packets of 1514 bytes or 227 of 60 bytes.
const BLOCK_LEN: u32 = 32 << 10;

/// Receive blocks: 4 MiB, so that bursts fit as well as into the socket buffer of the other ports.
const BLOCKS: u32 = 128;

/// Transmit slots. A NIC holds sent packets, and so their slots, until it reports them as sent.
const SLOTS: u32 = 512;

/// The sizes of both rings. The kernel maps them one after the other, the receive ring first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingLayout {
    pub(crate) block_len: usize,
    pub(crate) blocks: usize,
    pub(crate) slot_len: usize,
    pub(crate) slots: usize,
}

impl RingLayout {
    /// Returns the layout for packets of a UMEM with this frame size: 2048 or 4096. A slot has the
    /// size of a frame. Its header takes less than the headroom, so each packet that fits the MTU
    /// of an interface fits into a slot.
    pub(crate) fn new(frame_size: u32) -> Option<Self> {
        matches!(frame_size, 2048 | 4096).then_some(Self {
            block_len: BLOCK_LEN as usize,
            blocks: BLOCKS as usize,
            slot_len: frame_size as usize,
            slots: SLOTS as usize,
        })
    }

    pub(crate) fn receive_len(&self) -> usize {
        self.block_len * self.blocks
    }

    /// Returns the length of both rings.
    pub(crate) fn len(&self) -> usize {
        self.receive_len() + self.slot_len * self.slots
    }

    /// Returns the maximum length of a packet in a transmit slot.
    pub(crate) fn max_packet(&self) -> usize {
        self.slot_len - SLOT_HEADER
    }

    pub(crate) fn receive_request(&self) -> RingRequest {
        RingRequest {
            tp_block_size: self.block_len as u32,
            tp_block_nr: self.blocks as u32,
            // Without meaning for this version, but the kernel checks these two numbers.
            tp_frame_size: self.slot_len as u32,
            tp_frame_nr: (self.block_len / self.slot_len * self.blocks) as u32,
            tp_retire_blk_tov: RETIRE_TIMEOUT.as_millis() as u32,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        }
    }

    pub(crate) fn transmit_request(&self) -> RingRequest {
        RingRequest {
            tp_block_size: self.block_len as u32,
            tp_block_nr: (self.slot_len * self.slots / self.block_len) as u32,
            tp_frame_size: self.slot_len as u32,
            tp_frame_nr: self.slots as u32,
            tp_retire_blk_tov: 0,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        }
    }
}
