//! The links, addresses and default routes of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::net::if_::if_nametoindex;
use xdpfwd_pipeline::{PortAddress, PortId, PortInfo, Ports};
use xdpfwd_wire::MacAddr;

use crate::host::link::Links;
use crate::host::netlink::dump;
use crate::plan::PortPlan;

#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    links: Links,
    addresses: Vec<Address>,
    /// The addresses in the routing table `local`, by which the kernel decides which packets are
    /// for this host. An element of `addresses` is missing here if duplicate address detection
    /// failed, or if its interface is down.
    local: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    link: u32,
    ip: IpAddr,
    prefix_len: u8,
    /// Duplicate address detection is in progress.
    tentative: bool,
}

/// This host's addresses for which frames can arrive on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// MAC addresses of the interface and of those above it.
    pub macs: BTreeSet<MacAddr>,
    /// IDs of the VLANs above the interface.
    pub vlans: BTreeSet<u16>,
    /// IPv4 addresses.
    pub ipv4: BTreeMap<Ipv4Addr, AddressUse>,
    /// IPv6 addresses; link-local ones only of the interface and of those above it.
    pub ipv6: BTreeMap<Ipv6Addr, AddressUse>,
}

/// The uses of an address of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressUse {
    /// Whether the kernel accepts packets to this address, on any interface.
    pub destination: bool,
    /// Whether ARP and Neighbor Discovery messages about it are for this host: it is on the
    /// receiving interface, above it, or on loopback. An address elsewhere on this host may be
    /// another host's, too.
    pub target: bool,
}

impl Host {
    /// Reads the state of this host. If links or addresses change meanwhile, entries may be missing
    /// or duplicated.
    pub(crate) fn read() -> io::Result<Self> {
        let mut host = Self { links: Links::read()?, ..Self::default() };
        for reply in dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?.replies {
            if let RouteNetlinkMessage::NewAddress(message) = reply {
                host.addresses.extend(Address::new(&message));
            }
        }
        for family in FAMILIES {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.table = TABLE_LOCAL;
            request.header.kind = RouteType::Local;
            host.local.extend(routes(request)?.iter().filter_map(local_address));
        }
        Ok(host)
    }

    pub(crate) fn own_addresses(&self, index: u32) -> OwnAddresses {
        let stack = self.links.stack(index);
        let mut own = OwnAddresses::default();
        for link in self.links.iter().filter(|link| stack.contains(&link.index)) {
            own.macs.extend(link.mac);
            own.vlans.extend(link.vlan);
        }
        for address @ Address { link, ip, tentative, .. } in &self.addresses {
            let in_stack = stack.contains(link);
            let is_local = self.local.contains(ip);
            let in_stack_or_loopback =
                in_stack || self.links.get(*link).is_some_and(|link| link.loopback);
            let uses = AddressUse {
                destination: is_local,
                target: in_stack_or_loopback && (is_local || *tentative),
            };
            if address.is_special() || uses == AddressUse::default() {
                continue;
            }
            match ip {
                IpAddr::V4(ip) => own.ipv4.entry(*ip).or_default().add(uses),
                IpAddr::V6(ip) if ip.is_unicast_link_local() && !in_stack => {}
                IpAddr::V6(ip) => own.ipv6.entry(*ip).or_default().add(uses),
            }
        }
        own
    }

    /// Describes the port, whose interface index is `index`, for stages. Omits tentative addresses.
    pub(crate) fn describe(&self, index: u32, port: &PortPlan) -> PortInfo {
        let link = self.links.get(index);
        let own =
            self.addresses.iter().filter(|address| address.link == index && !address.tentative);
        PortInfo {
            mac: link.and_then(|link| link.mac),
            mtu: link.and_then(|link| link.mtu),
            addresses: own
                .map(|own| PortAddress { ip: own.ip, prefix_len: own.prefix_len })
                .collect(),
            ..without_interface(port)
        }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn links_of(&self, ip: IpAddr) -> impl Iterator<Item = u32> {
        self.addresses.iter().filter(move |address| address.ip == ip).map(|address| address.link)
    }
}

/// Describes the ports for stages. MAC address, MTU and IP addresses are missing if an interface
/// does not exist or the kernel cannot be queried.
pub fn describe_ports(ports: &[PortPlan]) -> Ports {
    let host = Host::read().inspect_err(|error| {
        tracing::warn!(
            %error,
            "cannot read links and addresses; stages get no MAC addresses, MTUs or IP addresses"
        );
    });
    let describe = |port: &PortPlan| match (&host, if_nametoindex(&*port.interface)) {
        (Ok(host), Ok(index)) => host.describe(index, port),
        _ => without_interface(port),
    };
    ports.iter().map(describe).collect()
}

/// Describes the ports for stages, without MAC addresses, MTUs and IP addresses.
pub fn ports_without_interfaces(ports: &[PortPlan]) -> Ports {
    ports.iter().map(without_interface).collect()
}

fn without_interface(port: &PortPlan) -> PortInfo {
    // Callers set the ID by collecting into `Ports`.
    PortInfo { queues: port.queues, ..PortInfo::new(PortId(0), &*port.name, &*port.interface) }
}

impl AddressUse {
    fn add(&mut self, other: Self) {
        self.destination |= other.destination;
        self.target |= other.target;
    }
}

/// Returns the interface indexes of default routes, with true for IPv6.
pub(crate) fn default_routes() -> io::Result<BTreeSet<(u32, bool)>> {
    let mut links = BTreeSet::new();
    for family in FAMILIES {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.header.kind = RouteType::Unicast;
        for route in routes(request)? {
            if route.header.destination_prefix_length != 0
                || route.header.kind != RouteType::Unicast
            {
                continue;
            }
            let ipv6 = family == AddressFamily::Inet6;
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(link) => links.extend([(*link, ipv6)]),
                    RouteAttribute::MultiPath(hops) => {
                        links.extend(hops.iter().map(|hop| (hop.interface_index, ipv6)));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(links)
}

/// Returns a routing table, empty if the table does not exist. With `CONFIG_IP_MULTIPLE_TABLES`,
/// the kernel creates a table with its first route, so a network namespace whose loopback is down
/// has no table `local`.
fn routes(request: RouteMessage) -> io::Result<Vec<RouteMessage>> {
    match dump(&RouteNetlinkMessage::GetRoute(request)) {
        Ok(dump) => {
            let as_route = |reply| match reply {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            };
            Ok(dump.replies.into_iter().filter_map(as_route).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `RT_TABLE_LOCAL` in linux/rtnetlink.h.
const TABLE_LOCAL: u8 = 255;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Returns the address of this host that a route of the table `local` describes, if any.
fn local_address(route: &RouteMessage) -> Option<IpAddr> {
    if route.header.kind != RouteType::Local || route.header.table != TABLE_LOCAL {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })?;
    // Ignore ranges of addresses, such as 127.0.0.0/8.
    let length = if destination.is_ipv4() { 32 } else { 128 };
    (route.header.destination_prefix_length == length).then_some(destination)
}

impl Address {
    fn new(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address, mut flags) = (None, None, AddressFlags::empty());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(value) => flags = *value,
                _ => {}
            }
        }
        let tentative =
            flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Dadfailed);
        // Prefer `Local`: on a point-to-point link, `Address` is the remote end.
        Some(Self {
            link: message.header.index,
            ip: local.or(address)?,
            prefix_len: message.header.prefix_len,
            tentative,
        })
    }

    fn is_special(&self) -> bool {
        self.ip.is_loopback() || self.ip.is_multicast() || self.ip.is_unspecified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::link::Link;
    use crate::host::link::tests::{link, stacked_links};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn own_addresses_include_vlans_and_macs_of_interfaces_above() {
        let host = Host { links: stacked_links(), ..Host::default() };
        assert_eq!(
            (host.own_addresses(1).vlans, host.own_addresses(2).vlans),
            (BTreeSet::from([100, 200]), BTreeSet::from([200]))
        );
        assert_eq!(host.own_addresses(7).macs, BTreeSet::from([MacAddr([2, 0, 0, 0, 0, 7])]));
    }

    /// Rows: interface, address, in table `local`, tentative, expected uses on interface 2
    /// (`d`estination, `t`arget).
    #[test]
    fn own_addresses_returns_uses_of_each_address() {
        let addresses = [
            (1, "127.0.0.1", true, false, ""),
            (1, "::1", true, false, ""),
            (1, "10.255.0.1", true, false, "dt"), // on the loopback interface, as on routers
            (2, "192.0.2.1", true, false, "dt"),
            (3, "172.17.0.1", true, false, "d"),
            (2, "239.9.9.9", true, false, ""),
            (2, "fe80::2", true, false, "dt"),
            (3, "fe80::3", true, false, ""),
            (3, "2001:db8::3", true, false, "d"),
            (2, "2001:db8::4", false, true, "t"), // duplicate address detection is in progress
            (2, "2001:db8::5", false, false, ""), // failed detection, or the interface is down
            (3, "2001:db8::6", false, true, ""),
        ];
        let mut host = Host { links: Links::of([2, 3].map(link).to_vec()), ..Host::default() };
        host.links.push(Link { loopback: true, ..link(1) });
        for (link, text, local, tentative, _) in addresses {
            host.addresses.push(Address { link, ip: ip(text), prefix_len: 24, tentative });
            host.local.extend(local.then(|| ip(text)));
        }
        let own = host.own_addresses(2);
        for (_, text, _, _, expected) in addresses {
            let uses = match ip(text) {
                IpAddr::V4(ip) => own.ipv4.get(&ip),
                IpAddr::V6(ip) => own.ipv6.get(&ip),
            };
            let AddressUse { destination, target } = uses.copied().unwrap_or_default();
            let letters = [destination.then_some("d"), target.then_some("t")]
                .into_iter()
                .flatten()
                .collect::<String>();
            assert_eq!(letters, expected, "{text}");
        }
    }

    #[test]
    fn point_to_point_address_is_that_of_local_end() {
        let mut message = AddressMessage::default();
        message.attributes = vec![
            AddressAttribute::Address(ip("192.0.2.2")),
            AddressAttribute::Local(ip("192.0.2.1")),
            AddressAttribute::Flags(AddressFlags::Tentative),
        ];
        assert_eq!(
            Address::new(&message),
            Some(Address { link: 0, ip: ip("192.0.2.1"), prefix_len: 0, tentative: true })
        );
        message.attributes[2] =
            AddressAttribute::Flags(AddressFlags::Tentative | AddressFlags::Dadfailed);
        assert!(
            !Address::new(&message).unwrap().tentative,
            "an address that failed duplicate address detection was taken for tentative"
        );
        message.attributes = vec![AddressAttribute::Address(ip("2001:db8::1"))];
        assert_eq!(Address::new(&message).unwrap().ip, ip("2001:db8::1"));
    }

    #[test]
    fn local_address_accepts_only_single_addresses_of_local_table() {
        let route = |text: &str, length, kind, table| {
            let mut route = RouteMessage::default();
            route.header.destination_prefix_length = length;
            route.header.kind = kind;
            route.header.table = table;
            route.attributes.push(RouteAttribute::Destination(ip(text).into()));
            local_address(&route)
        };
        const TABLE_MAIN: u8 = 254;
        let table = TABLE_LOCAL;
        assert_eq!(route("192.0.2.1", 32, RouteType::Local, table), Some(ip("192.0.2.1")));
        assert_eq!(route("2001:db8::1", 128, RouteType::Local, table), Some(ip("2001:db8::1")));
        assert_eq!(route("127.0.0.0", 8, RouteType::Local, table), None);
        assert_eq!(route("192.0.2.255", 32, RouteType::Broadcast, table), None);
        assert_eq!(route("192.0.2.1", 32, RouteType::Local, TABLE_MAIN), None);
    }

    #[test]
    fn host_read_finds_loopback_interface() {
        let host = Host::read().unwrap();
        assert!(host.links.iter().any(|link| link.index == 1 && link.loopback));
        assert!(host.local.contains(&ip("127.0.0.1")), "{:?}", host.local);
        assert!(!host.own_addresses(1).ipv4.contains_key(&Ipv4Addr::LOCALHOST));
        default_routes().unwrap();
    }
}
