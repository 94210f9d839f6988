//! Attaching an XDP program through a BPF link.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::abi::{
    BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_XDP, BpfLinkCreate, BpfLinkUpdate, XDP_FLAGS_DRV_MODE,
    XDP_FLAGS_SKB_MODE,
};

/// The point in the receive path where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before a socket buffer is allocated.
    Native,
    /// In the kernel's generic path: works with any driver, but needs a socket buffer per packet.
    Skb,
}

/// The BPF link of an attached XDP program. It is not pinned, so the kernel detaches the program on
/// drop or when the process ends, even by SIGKILL.
#[derive(Debug)]
pub struct XdpLink(OwnedFd);

/// Attaches an XDP program to an interface.
///
/// Fails with `EBUSY` if another program is attached, and with `EOPNOTSUPP` if the driver does not
/// support [`AttachMode::Native`]. If the MTU is too large for XDP, some drivers return `ERANGE`,
/// others `EINVAL`.
///
/// Calls `bpf` directly because libbpf's `bpf_program__attach_xdp` takes no flags:
/// <https://docs.kernel.org/bpf/libbpf/index.html>.
pub fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, mode: AttachMode) -> io::Result<XdpLink> {
    let attributes = BpfLinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: match mode {
            AttachMode::Native => XDP_FLAGS_DRV_MODE,
            AttachMode::Skb => XDP_FLAGS_SKB_MODE,
        },
        ..BpfLinkCreate::default()
    };
    // SAFETY: the attributes are readable for their size. Needs `unsafe`: foreign call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attributes,
            mem::size_of::<BpfLinkCreate>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor without another owner. Needs `unsafe`: the compiler cannot know
    // that.
    Ok(XdpLink(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

impl XdpLink {
    /// Atomically replaces the attached program, in the same mode: each packet is processed by
    /// exactly one of the two programs.
    pub fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let attributes = BpfLinkUpdate {
            link_fd: self.0.as_raw_fd() as u32,
            new_prog_fd: program.as_raw_fd() as u32,
            ..BpfLinkUpdate::default()
        };
        // SAFETY: the attributes are readable for their size. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_LINK_UPDATE,
                &raw const attributes,
                mem::size_of::<BpfLinkUpdate>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
