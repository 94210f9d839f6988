//! The rings of a packet socket (TPACKET_V3), in memory that the kernel shares with this process:
//! <https://docs.kernel.org/networking/packet_mmap.html>; kernel side `net/packet/af_packet.c`.
//!
//! The **receive ring** consists of blocks. The kernel copies packets into a block, and hands the
//! block over when it is full or a timeout (`layout::RETIRE_TIMEOUT`) has passed. The **transmit
//! ring** consists of slots of equal length, each for one packet. Both sides hand over with a
//! status word: they write it after the data (release) and read it before the data (acquire).

mod layout;
mod memory;
mod receive;
mod transmit;

pub(crate) use layout::RingLayout;
pub(crate) use memory::RingMemory;
pub(crate) use receive::ReceiveRing;
pub(crate) use transmit::TransmitRing;

#[cfg(test)]
mod tests;
