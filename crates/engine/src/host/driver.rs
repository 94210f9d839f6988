//! Driver properties of an interface: XDP features from the netlink family `netdev`; offloads,
//! channels and RSS table from `ethtool`.
//! <https://docs.kernel.org/networking/netlink_spec/netdev.html>,
//! <https://docs.kernel.org/networking/ethtool-netlink.html>

use std::collections::BTreeSet;
use std::io;

use crate::host::generic::{Family, attribute, attributes, find, find_u32};

/// The XDP features of an interface's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    bits: u64,
}

impl XdpFeatures {
    /// Names of the bits, from bit 0 on (`enum netdev_xdp_act`).
    const NAMES: [&str; 7] =
        ["basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"];

    fn has(self, name: &str) -> bool {
        Self::NAMES
            .iter()
            .position(|other| *other == name)
            .is_some_and(|bit| self.bits >> bit & 1 == 1)
    }

    /// Returns whether the driver runs XDP programs natively.
    pub fn has_native_xdp(self) -> bool {
        self.has("basic")
    }

    /// Returns whether the driver supports `XDP_REDIRECT`.
    pub fn has_redirect(self) -> bool {
        self.has("redirect")
    }

    /// Returns whether the driver reports AF_XDP zero-copy. A zero-copy bind may still fail.
    pub fn has_zero_copy(self) -> bool {
        self.has("xsk-zerocopy")
    }

    /// Returns the features' names in the kernel's specification.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.into_iter().filter(|name| self.has(name)).collect()
    }

    /// Reads the features. Fails with `Unsupported` before Linux 6.3.
    pub fn read(ifindex: u32) -> io::Result<Self> {
        const DEV_GET: u8 = 1;
        const IFINDEX: u16 = 1;
        const XDP_FEATURES: u16 = 3;
        let family = open_family("netdev")?;
        let reply = family.query(DEV_GET, &attribute(IFINDEX, &ifindex.to_ne_bytes()))?;
        let bits = find(&reply, XDP_FEATURES)
            .and_then(|bits| Some(u64::from_ne_bytes(bits.try_into().ok()?)));
        bits.map(|bits| Self { bits }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn open_family(name: &'static str) -> io::Result<Family> {
    Family::open(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::Unsupported,
            format!("this kernel has no netlink family {name:?}"),
        ),
        _ => error,
    })
}

/// A client of the netlink family `ethtool`.
pub struct Ethtool {
    family: Family,
    ifindex: u32,
}

/// Numbers of receive and transmit queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues in use.
    pub receive: u32,
    /// Transmit queues in use.
    pub send: u32,
    /// Maximum number of each.
    pub max: u32,
    /// Whether one setting changes both numbers (`ethtool -L … combined N`).
    pub combined: bool,
}

impl Ethtool {
    /// Opens the family. Fails with `Unsupported` before Linux 5.6.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        Ok(Self { family: open_family("ethtool")?, ifindex })
    }

    /// Returns the reply's attributes. The query has only a header (type 1) with the interface
    /// index.
    fn query(&self, command: u8) -> io::Result<Vec<u8>> {
        const HEADER: u16 = 1;
        const NESTED: u16 = 1 << 15;
        const DEV_INDEX: u16 = 1;
        let header = attribute(HEADER | NESTED, &attribute(DEV_INDEX, &self.ifindex.to_ne_bytes()));
        self.family.query(command, &header)
    }

    /// Returns the enabled offloads by kernel name: `rx-gro-hw`, `tx-checksum-ip-generic`, …
    pub fn offloads(&self) -> io::Result<BTreeSet<String>> {
        const FEATURES_GET: u8 = 11;
        const ACTIVE: u16 = 4;
        let reply = self.query(FEATURES_GET)?;
        Ok(set_bits(find(&reply, ACTIVE).unwrap_or_default()))
    }

    /// Returns the numbers of queues.
    pub fn channels(&self) -> io::Result<Channels> {
        const CHANNELS_GET: u8 = 17;
        let reply = self.query(CHANNELS_GET)?;
        // Attribute types: `ETHTOOL_A_CHANNELS_…` in linux/ethtool_netlink.h.
        let number = |kind| find_u32(&reply, kind).unwrap_or(0);
        let (receive_max, send_max, combined_max) = (number(2), number(3), number(5));
        let (receive, send, combined) = (number(6), number(7), number(9));
        Ok(Channels {
            receive: receive + combined,
            send: send + combined,
            max: combined_max.max(receive_max.min(send_max)),
            combined: combined_max > 0,
        })
    }

    /// Returns the receive queues in the RSS indirection table. Fails with `Unsupported` if the
    /// driver reports none, and before Linux 6.3.
    pub fn rss_queues(&self) -> io::Result<BTreeSet<u32>> {
        const RSS_GET: u8 = 38;
        const INDIRECTION: u16 = 4;
        let reply = self.query(RSS_GET)?;
        let table = find(&reply, INDIRECTION).ok_or(io::ErrorKind::Unsupported)?;
        Ok(table.as_chunks::<4>().0.iter().map(|queue| u32::from_ne_bytes(*queue)).collect())
    }
}

/// Returns the names of the bits that are set.
fn set_bits(bitset: &[u8]) -> BTreeSet<String> {
    const NO_MASK: u16 = 1;
    const BITS: u16 = 3;
    const NAME: u16 = 2;
    const VALUE: u16 = 3;
    // Without a mask, a bitset lists only set bits. With one, it also lists cleared bits, without
    // `VALUE`.
    let has_no_mask = find(bitset, NO_MASK).is_some();
    let bits = find(bitset, BITS).unwrap_or_default();
    attributes(bits)
        .filter(|(_, bit)| has_no_mask || find(bit, VALUE).is_some())
        .filter_map(|(_, bit)| {
            let name = find(bit, NAME)?;
            Some(String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdp_feature_bits_have_names_of_kernel_specification() {
        let veth = XdpFeatures { bits: 0b110_0111 };
        assert_eq!(veth.names(), ["basic", "redirect", "ndo-xmit", "rx-sg", "ndo-xmit-sg"]);
        assert!(veth.has_native_xdp() && veth.has_redirect() && !veth.has_zero_copy());
        assert!(XdpFeatures { bits: 0b1000 }.has_zero_copy());
    }

    #[test]
    fn bits_without_value_are_cleared_only_in_bitset_with_mask() {
        const NESTED: u16 = 1 << 15;
        // Attribute types of a bit: 1 index, 2 name, 3 value; of a bitset: 1 no mask, 2 size,
        // 3 bits.
        let bit = |name: &str, has_value: bool| {
            let mut inner =
                [attribute(1, &5u32.to_ne_bytes()), attribute(2, format!("{name}\0").as_bytes())]
                    .concat();
            if has_value {
                inner.extend(attribute(3, b""));
            }
            attribute(1 | NESTED, &inner)
        };
        let bits = attribute(3 | NESTED, &[bit("rx-gro", true), bit("rx-lro", false)].concat());
        let size = attribute(2, &2u32.to_ne_bytes());
        assert_eq!(
            set_bits(&[size.clone(), bits.clone()].concat()),
            BTreeSet::from(["rx-gro".to_owned()])
        );
        let without_mask = [attribute(1, b""), size, bits].concat();
        assert_eq!(
            set_bits(&without_mask),
            BTreeSet::from(["rx-gro".to_owned(), "rx-lro".to_owned()])
        );
    }

    #[test]
    fn loopback_has_offloads_but_no_zero_copy() {
        const LOOPBACK_INDEX: u32 = 1;
        let ethtool = Ethtool::open(LOOPBACK_INDEX).unwrap();
        assert!(!ethtool.offloads().unwrap().is_empty());
        let features = XdpFeatures::read(LOOPBACK_INDEX).unwrap();
        assert!(!features.has_zero_copy(), "{features:?}");
        assert!(XdpFeatures::read(u32::MAX).is_err());
    }
}
