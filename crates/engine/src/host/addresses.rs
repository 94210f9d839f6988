//! The links, addresses and default routes of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::net::if_::if_nametoindex;
use xdpfwd_pipeline::{PortAddress, PortId, PortInfo, Ports};
use xdpfwd_wire::MacAddr;

use crate::host::netlink::{dump, query};
use crate::plan::PortPlan;

#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    links: Vec<Link>,
    addresses: Vec<Address>,
    /// The addresses in the routing table `local`, by which the kernel decides which packets are
    /// for this host. An address may be missing if duplicate address detection failed, or its
    /// interface is down.
    local: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default)]
struct Link {
    index: u32,
    mac: Option<MacAddr>,
    mtu: Option<u32>,
    loopback: bool,
    /// Index of the interface on which this one (a VLAN or the like) is stacked.
    lower: Option<u32>,
    vlan: Option<u16>,
    /// Index of the bridge or bond of which this is a port.
    controller: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    link: u32,
    ip: IpAddr,
    prefix_len: u8,
    /// Duplicate address detection is in progress.
    tentative: bool,
}

/// The addresses of this host that frames received on an interface can be for.
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
    /// receiving interface, on one above it, or on loopback. Another host on the network may have
    /// the address of another interface.
    pub target: bool,
}

impl Host {
    /// If links or addresses change meanwhile, entries may be missing or duplicated.
    pub(crate) fn read() -> io::Result<Self> {
        let mut host = Self::default();
        let mut links = LinkMessage::default();
        links.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        for reply in dump(&RouteNetlinkMessage::GetLink(links))?.replies {
            if let RouteNetlinkMessage::NewLink(message) = reply {
                host.links.push(Link::new(&message));
            }
        }
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

    /// Returns an interface and all above it, at any depth: VLANs and the like, bridges and bonds.
    pub(crate) fn stack(&self, index: u32) -> BTreeSet<u32> {
        let mut stack = BTreeSet::from([index]);
        loop {
            let stacked =
                |link: &Link| link.lower.filter(|lower| stack.contains(lower)).map(|_| link.index);
            let controller = |link: &Link| link.controller.filter(|_| stack.contains(&link.index));
            let more: Vec<u32> = self
                .links
                .iter()
                .flat_map(|link| [stacked(link), controller(link)])
                .flatten()
                .collect();
            let before = stack.len();
            stack.extend(more);
            if stack.len() == before {
                return stack;
            }
        }
    }

    pub(crate) fn own_addresses(&self, index: u32) -> OwnAddresses {
        let stack = self.stack(index);
        let mut own = OwnAddresses::default();
        for link in self.links.iter().filter(|link| stack.contains(&link.index)) {
            own.macs.extend(link.mac);
            own.vlans.extend(link.vlan);
        }
        for address @ Address { link, ip, tentative, .. } in &self.addresses {
            let in_stack = stack.contains(link);
            let is_local = self.local.contains(ip);
            let in_stack_or_loopback =
                in_stack || self.links.iter().any(|other| other.index == *link && other.loopback);
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

    /// Omits tentative addresses.
    pub(crate) fn describe(&self, index: u32, port: &PortPlan) -> PortInfo {
        let link = self.links.iter().find(|link| link.index == index);
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

    pub(crate) fn links_of(&self, ip: IpAddr) -> impl Iterator<Item = u32> {
        self.addresses.iter().filter(move |address| address.ip == ip).map(|address| address.link)
    }
}

/// Returns the ports for stages. MAC address, MTU and IP addresses are missing if an interface does
/// not exist or the kernel cannot be queried.
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

/// Returns the ports for stages, without MAC addresses, MTUs and IP addresses.
pub fn ports_without_interfaces(ports: &[PortPlan]) -> Ports {
    ports.iter().map(without_interface).collect()
}

fn without_interface(port: &PortPlan) -> PortInfo {
    // Collecting into `Ports` sets the IDs.
    PortInfo { queues: port.queues, ..PortInfo::new(PortId(0), &*port.name, &*port.interface) }
}

/// Returns whether an interface is administratively up; fails if it does not exist.
pub(crate) fn is_up(index: u32) -> io::Result<bool> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    let reply = query(&RouteNetlinkMessage::GetLink(request))?;
    Ok(
        matches!(reply, RouteNetlinkMessage::NewLink(link) if link.header.flags.contains(LinkFlags::Up)),
    )
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

/// Returns none if the routing table does not exist. With `CONFIG_IP_MULTIPLE_TABLES`, the kernel
/// creates a table with its first route, so a network namespace whose loopback is down has no table
/// `local`.
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

impl Link {
    fn new(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let (mut lower, mut lower_in_other_namespace, mut stacked) = (None, false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(address) => {
                    link.mac = <[u8; 6]>::try_from(address.as_slice())
                        .ok()
                        .filter(|mac| *mac != [0; 6])
                        .map(MacAddr);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => lower_in_other_namespace = true,
                LinkAttribute::Controller(controller) => link.controller = Some(*controller),
                LinkAttribute::LinkInfo(infos) => {
                    stacked = infos.iter().any(is_stacked);
                    link.vlan = infos.iter().find_map(vlan);
                }
                _ => {}
            }
        }
        // Only for stacked kinds: the `Link` of a veth is its peer, that of a tunnel the underlying
        // interface. With `LinkNetNsId`, the index belongs to another network namespace.
        link.lower = lower.filter(|_| stacked && !lower_in_other_namespace);
        link
    }
}

fn is_stacked(info: &LinkInfo) -> bool {
    use InfoKind::{IpVlan, IpVtap, MacSec, MacVlan, MacVtap, Vlan};
    matches!(info, LinkInfo::Kind(Vlan | MacVlan | MacVtap | IpVlan | IpVtap | MacSec))
}

fn vlan(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    attributes
        .iter()
        .find_map(|attribute| if let InfoVlan::Id(id) = attribute { Some(*id) } else { None })
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

    fn link(index: u32, lower: Option<u32>, controller: Option<u32>) -> Link {
        let mac = Some(MacAddr([2, 0, 0, 0, 0, index as u8]));
        Link { index, mac, lower, controller, ..Link::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn stack_contains_interface_and_all_above_it() {
        // 1 and 2 are ports of bridge 3. VLAN 4 is stacked on 3, VLAN 5 on 1, and macvlan 6 on 5.
        // No interface is above or below 7.
        let links = vec![
            link(6, Some(5), None),
            Link { vlan: Some(100), ..link(5, Some(1), None) },
            link(1, None, Some(3)),
            link(2, None, Some(3)),
            link(3, None, None),
            Link { vlan: Some(200), ..link(4, Some(3), None) },
            link(7, None, None),
        ];
        let host = Host { links, ..Host::default() };
        assert_eq!(host.stack(1), BTreeSet::from([1, 3, 4, 5, 6]));
        assert_eq!(host.stack(2), BTreeSet::from([2, 3, 4]));
        assert_eq!(host.stack(7), BTreeSet::from([7]));
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
        let mut host =
            Host { links: vec![link(2, None, None), link(3, None, None)], ..Host::default() };
        host.links.push(Link { loopback: true, ..link(1, None, None) });
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

    /// As Linux 6.18 sends them.
    #[test]
    fn link_is_parsed_from_kernel_message() {
        let parsed = |kind: InfoKind, more: &[LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.header.index = 9;
            message.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]));
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            message.attributes.extend_from_slice(more);
            Link::new(&message)
        };
        let macvlan = parsed(InfoKind::MacVlan, &[LinkAttribute::Link(4)]);
        assert_eq!((macvlan.lower, macvlan.controller), (Some(4), None));
        assert_eq!(macvlan.mac, Some(MacAddr([2, 0, 0, 0, 0, 9])));
        let veth = parsed(InfoKind::Veth, &[LinkAttribute::Link(4), LinkAttribute::Controller(7)]);
        assert_eq!(
            (veth.lower, veth.controller),
            (None, Some(7)),
            "the peer of a veth was taken for its lower link"
        );
        let in_other_namespace =
            parsed(InfoKind::MacVlan, &[LinkAttribute::Link(4), LinkAttribute::LinkNetNsId(1)]);
        assert_eq!(
            in_other_namespace.lower, None,
            "the index of a link in another network namespace was used"
        );
        let mut message = LinkMessage::default();
        let data = LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(100)]));
        message.attributes =
            vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), data])];
        message.attributes.push(LinkAttribute::Link(4));
        let vlan = Link::new(&message);
        assert_eq!((vlan.lower, vlan.vlan, vlan.mac), (Some(4), Some(100), None));
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
        let missing_index = 0x7fff_ffff;
        assert!(is_up(1).is_ok() && is_up(missing_index).is_err());
    }
}
