//! Properties of ports that stages can use: names, interfaces, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdpfwd_wire::MacAddr;

use crate::verdict::PortId;

/// A port, as a stage sees it.
///
/// Interface properties are those when the stage is planned or built. `None` means unknown: the
/// interface does not exist yet, or its properties were not read, as in `xdpfwd filter test`
/// and in tests. If `mtu` is `None`, empty `addresses` mean unknown too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The number of the port, for [`Verdict::To`](crate::Verdict::To) and
    /// [`Cx::emit`](crate::Cx::emit).
    pub id: PortId,
    /// The name in the configuration and in reports.
    pub name: String,
    /// The name of the network interface.
    pub interface: String,
    /// The number of queues that xdpfwd serves.
    pub queues: u16,
    /// The MAC address of the interface.
    pub mac: Option<MacAddr>,
    /// The maximum packet length in bytes, without the Ethernet header.
    pub mtu: Option<u32>,
    /// The IP addresses of the interface, in the kernel's order.
    pub addresses: Vec<PortAddress>,
}

/// An IP address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// The address.
    pub ip: IpAddr,
    /// The length of the network prefix, in bits.
    pub prefix_len: u8,
}

impl PortInfo {
    /// Creates a port with unknown interface properties.
    pub fn new(id: PortId, name: impl Into<String>, interface: impl Into<String>) -> Self {
        let (name, interface) = (name.into(), interface.into());
        Self { id, name, interface, queues: 1, mac: None, mtu: None, addresses: Vec::new() }
    }

    /// Returns the first IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    /// Returns the first IPv6 address, preferably not link-local.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        let ipv6_addresses = || {
            self.addresses.iter().filter_map(|address| match address.ip {
                IpAddr::V6(ip) => Some(ip),
                IpAddr::V4(_) => None,
            })
        };
        ipv6_addresses().find(|ip| !ip.is_unicast_link_local()).or_else(|| ipv6_addresses().next())
    }
}

/// The ports of a configuration; a [`PortId`] is an index into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<PortInfo>);

impl Ports {
    /// An empty list of ports.
    pub const NONE: &'static Self = &Self(Vec::new());

    /// Returns the port with this number.
    pub fn get(&self, id: PortId) -> Option<&PortInfo> {
        self.0.get(usize::from(id.0))
    }

    /// Returns the port with this name.
    pub fn by_name(&self, name: &str) -> Option<&PortInfo> {
        self.0.iter().find(|port| port.name == name)
    }

    /// Formats the names as `"lan", "wan"`, or `none`.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|port| format!("{:?}", port.name)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Returns all ports, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &PortInfo> {
        self.0.iter()
    }
}

impl FromIterator<PortInfo> for Ports {
    /// Numbers the ports, at most 256, in the order of the iterator.
    fn from_iter<I: IntoIterator<Item = PortInfo>>(ports: I) -> Self {
        let ports = (0..=u8::MAX).zip(ports);
        Self(ports.map(|(id, port)| PortInfo { id: PortId(id), ..port }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(addresses: &[&str]) -> PortInfo {
        let address = |ip: &&str| PortAddress { ip: ip.parse().unwrap(), prefix_len: 64 };
        PortInfo {
            addresses: addresses.iter().map(address).collect(),
            ..PortInfo::new(PortId(0), "lan", "eth0")
        }
    }

    #[test]
    fn ipv6_prefers_address_that_is_not_link_local() {
        assert_eq!(
            port(&["fe80::1", "10.0.0.1", "2001:db8::1"]).ipv6(),
            Some("2001:db8::1".parse().unwrap())
        );
        assert_eq!(port(&["fe80::1"]).ipv6(), Some("fe80::1".parse().unwrap()));
        assert_eq!(port(&["10.0.0.1"]).ipv6(), None);
    }

    #[test]
    fn ipv4_returns_first_ipv4_address() {
        assert_eq!(port(&["fe80::1", "10.0.0.1", "10.0.0.2"]).ipv4(), Some([10, 0, 0, 1].into()));
        assert_eq!(port(&["fe80::1"]).ipv4(), None);
    }

    #[test]
    fn ports_are_numbered_in_order_and_found_by_name() {
        let names = ["lan", "wan"];
        let ports: Ports =
            names.iter().map(|name| PortInfo::new(PortId(9), *name, "eth")).collect();
        assert_eq!(ports.by_name("wan").unwrap().id, PortId(1));
        assert_eq!(ports.get(PortId(0)).unwrap().name, "lan");
        assert!(ports.get(PortId(2)).is_none() && ports.by_name("dmz").is_none());
    }
}
