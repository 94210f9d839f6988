//! Kernel definitions that libc lacks, and compile-time checks of struct sizes.
//!
//! Layouts follow `include/uapi/linux/if_xdp.h` and `include/uapi/linux/bpf.h`:
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if_xdp.h>

use std::mem::size_of;

pub(crate) use libc::xdp_desc as Descriptor;

/// Socket option: maximum number of descriptors sent per system call in copy mode (`if_xdp.h`,
/// since Linux 6.17; libc does not define it yet).
pub(crate) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Default of `XDP_MAX_TX_SKB_BUDGET` in descriptors, and the smallest value that the kernel
/// accepts: `TX_BATCH_SIZE` in `net/xdp/xsk.h`.
pub(crate) const TX_BUDGET_DEFAULT: u32 = 32;

/// `XDP_PACKET_HEADROOM` (`bpf.h`): bytes that the kernel leaves free in front of every received
/// packet.
pub(crate) const XDP_PACKET_HEADROOM: u32 = 256;

/// `ETH_HLEN` (`if_ether.h`): minimum length in bytes of a packet to transmit.
pub(crate) const ETH_HLEN: usize = 14;

/// `BPF_LINK_CREATE` of `enum bpf_cmd` (`bpf.h`).
pub(crate) const BPF_LINK_CREATE: libc::c_int = 28;

/// `BPF_LINK_UPDATE`.
pub(crate) const BPF_LINK_UPDATE: libc::c_int = 29;

/// `BPF_XDP` of `enum bpf_attach_type` (`bpf.h`).
pub(crate) const BPF_XDP: u32 = 37;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (`include/uapi/linux/if_link.h`).
pub(crate) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(crate) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The first 64 bytes of `union bpf_attr` for `BPF_LINK_CREATE` (`bpf.h`, struct `link_create`).
/// The fields in `unused` do not apply to XDP links and must be zero.
#[repr(C)]
#[derive(Default)]
pub(crate) struct BpfLinkCreate {
    pub(crate) prog_fd: u32,
    pub(crate) target_ifindex: u32,
    pub(crate) attach_type: u32,
    pub(crate) flags: u32,
    pub(crate) unused: [u64; 6],
}

/// The first 16 bytes of `union bpf_attr` for `BPF_LINK_UPDATE` (`bpf.h`, struct `link_update`).
#[repr(C)]
#[derive(Default)]
pub(crate) struct BpfLinkUpdate {
    pub(crate) link_fd: u32,
    pub(crate) new_prog_fd: u32,
    pub(crate) flags: u32,
    /// The program to replace, if `flags` contains `BPF_F_REPLACE`. Otherwise the kernel requires
    /// 0.
    pub(crate) old_prog_fd: u32,
}

const _: () = {
    assert!(size_of::<Descriptor>() == 16);
    assert!(size_of::<libc::sockaddr_xdp>() == 16);
    assert!(size_of::<libc::xdp_mmap_offsets>() == 128);
    assert!(size_of::<libc::xdp_statistics>() == 48);
    assert!(size_of::<BpfLinkCreate>() == 64);
};
