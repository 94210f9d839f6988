//! veth pairs with NAPI at both ends. Without NAPI, the receiving end drops frames that XDP
//! redirected or an AF_XDP socket sent.

use std::process::Command;

use crate::{Error, Namespace, require_root, tool};

/// Maximum MTU in bytes, for frames of 3408 bytes. A live frame of `BPF_PROG_TEST_RUN` shares a 4
/// KiB page with headroom, `skb_shared_info` and 112 bytes of administration (measured). The limit
/// of a veth whose native XDP program does not support fragments is some 100 bytes higher.
pub const MAX_MTU: u16 = 3394;

/// Returns the MAC address of the lab's interface number `n`: 02:00:00:00:00:0n.
#[must_use]
pub const fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// Creates a veth pair like those of a [`crate::Chain`]: up, NAPI on, offloads off. An end is its
/// namespace, its interface name, and the number of its MAC address ([`mac`]).
///
/// # Errors
///
/// Not root, or the error of `ip` or `ethtool`.
pub fn connect(
    a: (&Namespace, &str, u8),
    b: (&Namespace, &str, u8),
    queues: u16,
    mtu: u16,
) -> Result<(), Error> {
    require_root("creating a veth pair")?;
    let [a, b] = [a, b].map(|(namespace, name, number)| End { namespace, name, mac: mac(number) });
    create(&a, &b, queues, mtu)
}

pub(crate) struct End<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
}

/// Creates each end directly in its namespace, and brings it up.
pub(crate) fn create(a: &End<'_>, b: &End<'_>, queues: u16, mtu: u16) -> Result<(), Error> {
    let (queues, mtu) = (queues.to_string(), mtu.to_string());
    let (a_mac, b_mac) = (mac_text(a.mac), mac_text(b.mac));
    let queue_options = ["numrxqueues", &queues, "numtxqueues", &queues];
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
    command.args(queue_options).args([
        "type",
        "veth",
        "peer",
        "name",
        b.name,
        "netns",
        b.namespace.name(),
    ]);
    command.args(["mtu", &mtu, "address", &b_mac]).args(queue_options);
    tool::run(&mut command)?;
    for end in [a, b] {
        // Otherwise, a socket in this namespace would send packets without checksum or
        // segmentation, a forwarder would pass them on as they are, and the receiver would drop
        // them.
        ethtool(end, &["tx", "off", "tso", "off", "gso", "off"])?;
        end.namespace.ip(&["link", "set", end.name, "up"])?;
    }
    for end in [a, b] {
        // GRO enables NAPI, without which veth drops redirected and AF_XDP frames. Toggle it while
        // the interface is up: only then does veth mark its peer as a redirect target.
        ethtool(end, &["gro", "off"])?;
        ethtool(end, &["gro", "on"])?;
    }
    Ok(())
}

fn ethtool(end: &End<'_>, features: &[&str]) -> Result<(), Error> {
    tool::run(end.namespace.command("ethtool").args(["-K", end.name]).args(features)).map(drop)
}

pub(crate) fn link(namespace: &Namespace, interface: &str) -> Result<serde_json::Value, Error> {
    let text = namespace.ip(&["-json", "link", "show", "dev", interface])?;
    let links: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Error::io(format!("reading `ip -json link show dev {interface}`"))(error.into())
    })?;
    Ok(links.get(0).cloned().unwrap_or_default())
}

/// Counters of the veth driver at one interface (`ethtool -S`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VethDrops {
    /// Frames lost in the receive path: no memory for an skb, or a failed redirect (for example to
    /// a full AF_XDP socket).
    pub receive: u64,
    /// Frames redirected out of the interface but lost, for example at a full ring of the peer.
    pub redirect_out: u64,
    /// Frames that entered the receive path, if the interface uses NAPI: with an XDP program or with
    /// GRO.
    pub received: u64,
}

impl VethDrops {
    /// Reads the counters, summed over the queues.
    ///
    /// # Errors
    ///
    /// The error of `ethtool -S`.
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
            } else if key.starts_with("rx_queue_") && key.ends_with("_xdp_packets") {
                drops.received += value;
            }
        }
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_drops_are_summed_over_queues() {
        let text = "NIC statistics:\n     peer_ifindex: 2\n     rx_queue_0_xdp_packets: 10\n     rx_queue_0_drops: 3\n     \
                    rx_queue_0_xdp_drops: 100\n     rx_queue_1_drops: 4\n     tx_queue_0_xdp_xmit: 9\n     \
                    tx_queue_0_xdp_xmit_errors: 5\n";
        assert_eq!(VethDrops::parse(text), VethDrops { receive: 7, redirect_out: 5, received: 10 });
    }

    #[test]
    fn mac_text_is_colon_separated_hex() {
        assert_eq!(mac_text(mac(4)), "02:00:00:00:00:04");
    }
}
