//! Why a driver refuses native XDP.

use std::io;

pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ERANGE: i32 = 34;
pub(crate) const EOPNOTSUPP: i32 = 95;
/// The kernel's own, which some drivers let slip out.
const ENOTSUPP: i32 = 524;

/// Whether an attach failed because the driver has no native XDP, or does not take it as the
/// interface is set up now: the generic path may do then.
pub(crate) fn lacks_native_xdp(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENOTSUPP)) || why_not_native(error).is_some()
}

/// What the kernel means by the number with which it refuses native XDP, and what helps, for an
/// interface X.
///
/// It says it in words too, but only to who attaches through netlink (and to the tracepoint
/// `bpf_xdp_link_attach_failed`).
pub(crate) fn why_not_native(error: &io::Error) -> Option<(&'static str, &'static str)> {
    // `veth_xdp_set`: page − headroom − `skb_shared_info` − Ethernet header, for programs without
    // fragments.
    Some(match error.raw_os_error()? {
        ERANGE => (
            "the MTU is too large for it: that of the interface, or of the other end of a veth, where 3506 is the most \
             with pages of 4 KiB",
            "lower it with `ip link set dev X mtu N`, for a veth at the other end",
        ),
        ENOSPC => (
            "it has too few queues for it: a veth has to have as many receive queues as its other end has transmit queues",
            "give it more with `ethtool -L X rx N`",
        ),
        EINVAL => (
            "something about the interface does not suit it, the MTU perhaps, or LRO (the kernel's log may say)",
            "lower the MTU with `ip link set dev X mtu N`",
        ),
        _ => return None,
    })
}
