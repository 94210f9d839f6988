//! veth pairs, set up so that a frame sent into one end is never lost for want of NAPI at the
//! other.

use std::process::Command;

use crate::{Error, Namespace, require_root, tool};

/// The largest MTU of the lab, in bytes, for frames of 3408: what is left of a 4 KiB page for a
/// live frame of `BPF_PROG_TEST_RUN` (its own 112 bytes, headroom and `skb_shared_info` taken off;
/// measured). A veth with a native XDP program without fragments would take some 100 bytes more.
pub const MAX_MTU: u16 = 3394;

/// The MAC address of the lab's interface number `n`: 02:00:00:00:00:0n.
#[must_use]
pub const fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// Lays one more cable between two namespaces, like those of a [`crate::Chain`]: each end is a
/// namespace, an interface to be, and the number of its MAC address ([`mac`]).
///
/// # Errors
///
/// Not root, or what `ip` or `ethtool` says.
pub fn connect(
    a: (&Namespace, &str, u8),
    b: (&Namespace, &str, u8),
    queues: u16,
    mtu: u16,
) -> Result<(), Error> {
    require_root("laying a cable")?;
    let [a, b] = [a, b].map(|(namespace, name, number)| End { namespace, name, mac: mac(number) });
    create(&a, &b, queues, mtu)
}

/// One end of a pair.
pub(crate) struct End<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
}

/// Creates the pair, each end in its namespace from the first moment, and brings it up.
pub(crate) fn create(a: &End<'_>, b: &End<'_>, queues: u16, mtu: u16) -> Result<(), Error> {
    let (queues, mtu) = (queues.to_string(), mtu.to_string());
    let (a_mac, b_mac) = (mac_text(a.mac), mac_text(b.mac));
    let sized = ["numrxqueues", &queues, "numtxqueues", &queues];
    let mut command = Command::new("ip");
    command.args([
        "link",
        "add",
        "name",
        a.name,
        "netns",
        a.namespace.name(),
        "mtu",
        &mtu,
        "address",
        &a_mac,
    ]);
    command.args(sized).args(["type", "veth", "peer", "name", b.name, "netns", b.namespace.name()]);
    command.args(["mtu", &mtu, "address", &b_mac]).args(sized);
    tool::run(&mut command)?;
    for end in [a, b] {
        // Packets of a local socket must not carry a checksum or a segmentation that is still to be
        // done: a forwarder that moves bytes would pass them on as they are, and the far end would
        // drop them.
        ethtool(end, &["tx", "off", "tso", "off", "gso", "off"])?;
        end.namespace.ip(&["link", "set", end.name, "up"])?;
    }
    for end in [a, b] {
        // GRO needs NAPI, and without NAPI at the receiving end veth drops redirected and AF_XDP
        // frames. It has to be switched while the interface is up: only then does veth tell its
        // peer that it may be redirected to.
        ethtool(end, &["gro", "off"])?;
        ethtool(end, &["gro", "on"])?;
    }
    Ok(())
}

fn ethtool(end: &End<'_>, features: &[&str]) -> Result<(), Error> {
    tool::run(end.namespace.command("ethtool").args(["-K", end.name]).args(features)).map(drop)
}

/// What `ip -json link show` says about an interface.
pub(crate) fn link(namespace: &Namespace, interface: &str) -> Result<serde_json::Value, Error> {
    let text = namespace.ip(&["-json", "link", "show", "dev", interface])?;
    let links: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Error::io(format!("reading `ip -json link show dev {interface}`"))(error.into())
    })?;
    Ok(links.get(0).cloned().unwrap_or_default())
}

/// Drops that the veth driver itself counted at one interface, from `ethtool -S`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VethDrops {
    /// Frames that arrived and were lost in its receive path: no room for an skb, or the redirect
    /// failed (an AF_XDP socket without room counts here).
    pub receive: u64,
    /// Frames redirected out of it that the peer's ring had no room for.
    pub redirect_out: u64,
}

impl VethDrops {
    /// Reads the counters of `interface`, summed over its queues.
    ///
    /// # Errors
    ///
    /// What `ethtool -S` says.
    pub fn read(namespace: &Namespace, interface: &str) -> Result<Self, Error> {
        Ok(Self::parse(&tool::run(namespace.command("ethtool").args(["-S", interface]))?))
    }

    fn parse(text: &str) -> Self {
        let mut drops = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once(": ")) {
            let value: u64 = value.parse().unwrap_or(0);
            if key.starts_with("rx_queue_")
                && key.ends_with("_drops")
                && !key.ends_with("_xdp_drops")
            {
                drops.receive += value;
            } else if key.starts_with("tx_queue_") && key.ends_with("_xdp_xmit_errors") {
                drops.redirect_out += value;
            }
        }
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_summed_over_queues() {
        let text = "NIC statistics:\n     peer_ifindex: 2\n     rx_queue_0_xdp_packets: 10\n     rx_queue_0_drops: 3\n     \
                    rx_queue_0_xdp_drops: 100\n     rx_queue_1_drops: 4\n     tx_queue_0_xdp_xmit: 9\n     \
                    tx_queue_0_xdp_xmit_errors: 5\n";
        assert_eq!(VethDrops::parse(text), VethDrops { receive: 7, redirect_out: 5 });
    }

    #[test]
    fn addresses_are_readable() {
        assert_eq!(mac_text(mac(4)), "02:00:00:00:00:04");
    }
}
