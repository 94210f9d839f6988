//! Kernel definitions that libc lacks, and compile-time checks of struct sizes.
//!
//! Layouts follow `include/uapi/linux/if_xdp.h` and `include/uapi/linux/bpf.h`:
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if_xdp.h>

use std::mem::size_of;

pub(crate) use libc::xdp_desc as Descriptor;

/// Maximum number of descriptors sent per system call in copy mode (`if_xdp.h`, since Linux 6.17;
/// not in libc yet).
pub(crate) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// The default of [`XDP_MAX_TX_SKB_BUDGET`]; also the smallest value that the kernel accepts
/// (`TX_BATCH_SIZE` in `net/xdp/xsk.h`).
pub(crate) const TX_BUDGET_DEFAULT: u32 = 32;

/// `XDP_PACKET_HEADROOM` (`bpf.h`): bytes that the kernel leaves free in front of every received
/// packet.
pub(crate) const XDP_PACKET_HEADROOM: u32 = 256;

/// `ETH_HLEN` (`if_ether.h`): minimum length in bytes of a packet to transmit.
pub(crate) const ETH_HLEN: usize = 14;

/// `enum bpf_cmd` (`bpf.h`).
pub(crate) const BPF_LINK_CREATE: libc::c_int = 28;

pub(crate) const BPF_LINK_UPDATE: libc::c_int = 29;

/// `enum bpf_attach_type` (`bpf.h`).
pub(crate) const BPF_XDP: u32 = 37;

/// `include/uapi/linux/if_link.h`.
pub(crate) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(crate) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The first 64 bytes of `union bpf_attr` (`bpf.h`, struct `link_create`). The fields in `unused`
/// do not apply to XDP links and must be zero.
#[repr(C)]
#[derive(Default)]
pub(crate) struct BpfLinkCreate {
    pub(crate) prog_fd: u32,
    pub(crate) target_ifindex: u32,
    pub(crate) attach_type: u32,
    pub(crate) flags: u32,
    pub(crate) unused: [u64; 6],
}

/// The first 16 bytes of `union bpf_attr` (`bpf.h`, struct `link_update`).
#[repr(C)]
#[derive(Default)]
pub(crate) struct BpfLinkUpdate {
    pub(crate) link_fd: u32,
    pub(crate) new_prog_fd: u32,
    pub(crate) flags: u32,
    /// Must be 0 unless `flags` contains `BPF_F_REPLACE`.
    pub(crate) old_prog_fd: u32,
}

const _: () = {
    assert!(size_of::<Descriptor>() == 16);
    assert!(size_of::<libc::sockaddr_xdp>() == 16);
    assert!(size_of::<libc::xdp_mmap_offsets>() == 128);
    assert!(size_of::<libc::xdp_statistics>() == 48);
    assert!(size_of::<BpfLinkCreate>() == 64);
};
