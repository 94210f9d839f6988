//! The errors with which drivers refuse native XDP.

use std::io;

pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ERANGE: i32 = 34;
pub(crate) const EOPNOTSUPP: i32 = 95;
/// This error number is internal to the kernel, but some drivers return it to user space.
const ENOTSUPP: i32 = 524;

/// Returns whether the driver does not support native XDP, or refuses it in the current
/// configuration. Generic XDP may still work.
pub(crate) fn is_native_xdp_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENOTSUPP))
        || why_not_native(error, "").is_some()
}

/// Returns why the current configuration of an interface makes the driver refuse native XDP, and a
/// remedy. Returns `None` for other errors, such as that of a driver without native XDP.
///
/// The result is a guess from the error number: the kernel tells the cause only over netlink and in
/// the tracepoint `bpf_xdp_link_attach_failed`.
pub(crate) fn why_not_native(error: &io::Error, interface: &str) -> Option<(&'static str, String)> {
    // The 3506 below is from `veth_xdp_set`, without multi-buffer support: page − headroom −
    // `skb_shared_info` − Ethernet header.
    Some(match error.raw_os_error()? {
        ERANGE => (
            "the MTU is too large (for a veth, the MTU of its other end counts: at most 3506 with \
             4 KiB pages)",
            format!(
                "lower the MTU with `ip link set dev {interface} mtu N` (for a veth, at its other \
                 end)"
            ),
        ),
        ENOSPC => (
            "too few queues (a veth needs at least as many receive queues as its other end has \
             transmit queues)",
            format!("add queues with `ethtool -L {interface} rx N`"),
        ),
        EINVAL => (
            "the driver rejects a setting of the interface, possibly the MTU or LRO \
             (see the kernel log)",
            format!(
                "lower the MTU with `ip link set dev {interface} mtu N`, or switch LRO off with \
                 `ethtool -K {interface} lro off`"
            ),
        ),
        _ => return None,
    })
}
