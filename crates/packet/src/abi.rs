//! Kernel definitions for packet sockets, with layout checks.
//!
//! `include/uapi/linux/if_packet.h`:
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if_packet.h>

use std::mem::{offset_of, size_of};

pub(crate) use libc::tpacket_auxdata as AuxData;

/// Kernel counters of a packet socket. Reading resets them to zero.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct TpacketStats {
    /// Including dropped packets.
    pub(crate) packets: u32,
    /// Dropped because the socket's buffer was full.
    pub(crate) drops: u32,
}

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

const _: () = {
    assert!(size_of::<TpacketStats>() == 8);
    assert!(size_of::<AuxData>() == 20);
    assert!(size_of::<libc::sockaddr_ll>() == 20);
    assert!(size_of::<libc::sock_filter>() == 8);
    // SAFETY: plain arithmetic. Needs `unsafe`: libc declares these C macros as unsafe functions.
    unsafe {
        assert!(offset_of!(Control, aux) == libc::CMSG_LEN(0) as usize);
        assert!(size_of::<Control>() == libc::CMSG_SPACE(size_of::<AuxData>() as u32) as usize);
    }
};
