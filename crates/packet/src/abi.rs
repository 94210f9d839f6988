//! Kernel definitions for packet sockets, with layout checks.
//!
//! `include/uapi/linux/if_packet.h`:
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if_packet.h>

use std::mem::{offset_of, size_of};

pub(crate) use libc::{
    tpacket_auxdata as AuxData, tpacket_hdr_v1 as BlockHeader, tpacket_req3 as RingRequest,
    tpacket_stats as TpacketStats, tpacket3_hdr as PacketHeader,
};

/// Buffer for a `PACKET_AUXDATA` message, the only control message that is requested.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Control {
    pub(crate) header: libc::cmsghdr,
    pub(crate) aux: AuxData,
    /// Needed because `CMSG_SPACE` rounds the length up to whole machine words.
    pub(crate) padding: u32,
}

/// `BPF_RET | BPF_K` (`include/uapi/linux/bpf_common.h`): accepts the first `k` bytes of a packet,
/// or no packet if `k` is 0.
pub(crate) const BPF_RET: u16 = 0x06;

/// Offset of the [`BlockHeader`] in a block of a receive ring (`struct tpacket_block_desc`).
pub(crate) const BLOCK_HEADER: usize = offset_of!(libc::tpacket_block_desc, hdr);

/// Offset of the packet in a slot of a transmit ring (`tpacket_parse_header` without
/// `PACKET_TX_HAS_OFF`).
pub(crate) const SLOT_HEADER: usize = libc::TPACKET3_HDRLEN - size_of::<libc::sockaddr_ll>();

const _: () = {
    assert!(size_of::<TpacketStats>() == 8);
    assert!(size_of::<AuxData>() == 20);
    assert!(size_of::<libc::sockaddr_ll>() == 20);
    assert!(size_of::<libc::sock_filter>() == 8);
    assert!(size_of::<RingRequest>() == 28);
    assert!(size_of::<BlockHeader>() == 40);
    assert!(size_of::<PacketHeader>() == 48);
    assert!(size_of::<libc::ifreq>() == 40);
    assert!(BLOCK_HEADER == 8 && SLOT_HEADER == 48);
    // SAFETY: plain arithmetic. Needs `unsafe`: libc declares these C macros as unsafe functions.
    unsafe {
        assert!(offset_of!(Control, aux) == libc::CMSG_LEN(0) as usize);
        assert!(size_of::<Control>() == libc::CMSG_SPACE(size_of::<AuxData>() as u32) as usize);
    }
};
