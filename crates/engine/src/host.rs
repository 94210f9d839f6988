//! What the kernel says of this host: its links, its addresses, its default routes.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use pipeline::wire::MacAddr;

use crate::netlink::dump;

/// The links and addresses of this network namespace, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    links: Vec<Link>,
    addresses: Vec<Address>,
}

/// A network interface.
#[derive(Clone, Debug)]
struct Link {
    index: u32,
    mac: Option<MacAddr>,
    up: bool,
    /// The link that this one is a part of, as a VLAN is.
    lower: Option<u32>,
    /// The bridge or bond that this one is a port of.
    controller: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    link: u32,
    ip: IpAddr,
}

/// The addresses by which frames that arrive on one interface are for this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// Of the interface, and of those that are stacked on it.
    pub macs: BTreeSet<MacAddr>,
    /// Of all interfaces, without 127.0.0.0/8.
    pub ipv4: BTreeSet<Ipv4Addr>,
    /// Of all interfaces, without ::1, and without the link-local addresses of other interfaces.
    pub ipv6: BTreeSet<Ipv6Addr>,
}

impl Host {
    /// Asks the kernel.
    pub(crate) fn read() -> io::Result<Self> {
        let mut host = Self::default();
        for answer in dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                host.links.push(Link::new(&message));
            }
        }
        for answer in dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                host.addresses.extend(Address::new(&message));
            }
        }
        Ok(host)
    }

    /// Whether an interface is administratively up; `false` if there is none.
    pub(crate) fn is_up(&self, index: u32) -> bool {
        self.links.iter().any(|link| link.index == index && link.up)
    }

    /// An interface and those stacked on it: VLANs and the like, the bridge or bond that it is a port of, and theirs.
    pub(crate) fn stack(&self, index: u32) -> BTreeSet<u32> {
        let mut stack = BTreeSet::from([index]);
        loop {
            let on_top = |link: &Link| link.lower.filter(|lower| stack.contains(lower)).map(|_| link.index);
            let above = |link: &Link| link.controller.filter(|_| stack.contains(&link.index));
            let more: Vec<u32> = self.links.iter().flat_map(|link| [on_top(link), above(link)]).flatten().collect();
            let before = stack.len();
            stack.extend(more);
            if stack.len() == before {
                return stack;
            }
        }
    }

    /// The addresses by which frames that arrive on an interface are for this host.
    pub(crate) fn own(&self, index: u32) -> OwnAddresses {
        let stack = self.stack(index);
        let mut own = OwnAddresses::default();
        own.macs.extend(self.links.iter().filter(|link| stack.contains(&link.index)).filter_map(|link| link.mac));
        for Address { link, ip } in self.addresses.iter().filter(|address| !address.ip.is_loopback()) {
            match ip {
                IpAddr::V4(ip) => own.ipv4.extend([ip]),
                IpAddr::V6(ip) if !ip.is_unicast_link_local() || stack.contains(link) => own.ipv6.extend([ip]),
                IpAddr::V6(_) => {}
            }
        }
        own
    }

    /// The interfaces that have an address.
    pub(crate) fn links_of(&self, ip: IpAddr) -> impl Iterator<Item = u32> {
        self.addresses.iter().filter(move |address| address.ip == ip).map(|address| address.link)
    }
}

/// The interfaces that default routes lead to.
pub(crate) fn default_routes() -> io::Result<BTreeSet<u32>> {
    let mut links = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        for answer in dump(&RouteNetlinkMessage::GetRoute(request))? {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
                continue;
            }
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(link) => links.extend([link]),
                    RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
                    _ => {}
                }
            }
        }
    }
    Ok(links)
}

impl Link {
    fn new(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            mac: None,
            up: message.header.flags.contains(LinkFlags::Up),
            lower: None,
            controller: None,
        };
        let (mut below, mut elsewhere, mut stacked) = (None, false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(address) => {
                    link.mac = <[u8; 6]>::try_from(address.as_slice()).ok().filter(|mac| *mac != [0; 6]).map(MacAddr);
                }
                LinkAttribute::Link(lower) => below = Some(*lower),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Controller(controller) => link.controller = Some(*controller),
                LinkAttribute::LinkInfo(infos) => stacked = infos.iter().any(is_stacked),
                _ => {}
            }
        }
        // A veth names its peer in the same place, and a tunnel the interface that it sends through.
        link.lower = below.filter(|_| stacked && !elsewhere);
        link
    }
}

fn is_stacked(info: &LinkInfo) -> bool {
    use InfoKind::{IpVlan, IpVtap, MacSec, MacVlan, MacVtap, Vlan};
    matches!(info, LinkInfo::Kind(Vlan | MacVlan | MacVtap | IpVlan | IpVtap | MacSec))
}

impl Address {
    fn new(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                _ => {}
            }
        }
        // Where they differ, the other one is the far end of a point-to-point link.
        Some(Self { link: message.header.index, ip: local.or(address)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, lower: Option<u32>, controller: Option<u32>) -> Link {
        Link { index, mac: Some(MacAddr([2, 0, 0, 0, 0, index as u8])), up: true, lower, controller }
    }

    #[test]
    fn a_stack_holds_what_rests_on_an_interface_and_nothing_else() {
        // 1 and 2 are ports of bridge 3, which has VLAN 4; 5 is a VLAN of 1 with a macvlan 6 on it; 7 is alone.
        let links = vec![
            link(6, Some(5), None),
            link(5, Some(1), None),
            link(1, None, Some(3)),
            link(2, None, Some(3)),
            link(3, None, None),
            link(4, Some(3), None),
            link(7, None, None),
        ];
        let host = Host { links, addresses: Vec::new() };
        assert_eq!(host.stack(1), BTreeSet::from([1, 3, 4, 5, 6]));
        assert_eq!(host.stack(2), BTreeSet::from([2, 3, 4]));
        assert_eq!(host.stack(7), BTreeSet::from([7]));
    }

    #[test]
    fn link_local_addresses_belong_to_their_interface() {
        let addresses = [
            (1, "127.0.0.1"),
            (1, "::1"),
            (1, "10.255.0.1"), // on the loopback interface, as routers have it
            (2, "192.0.2.1"),
            (3, "198.51.100.1"),
            (2, "fe80::2"),
            (3, "fe80::3"),
            (3, "2001:db8::3"),
        ];
        let addresses = addresses.map(|(link, ip)| Address { link, ip: ip.parse().unwrap() }).to_vec();
        let host = Host { links: vec![link(1, None, None), link(2, None, None), link(3, None, None)], addresses };
        let own = host.own(2);
        let texts = |own: &OwnAddresses| own.ipv6.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(own.macs, BTreeSet::from([MacAddr([2, 0, 0, 0, 0, 2])]));
        assert_eq!(own.ipv4.len(), 3);
        assert_eq!(texts(&own), ["2001:db8::3", "fe80::2"]);
        assert_eq!(texts(&host.own(3)), ["2001:db8::3", "fe80::3"]);
    }

    #[test]
    fn this_host_has_a_loopback_interface() {
        let host = Host::read().unwrap();
        assert!(host.links.iter().any(|link| link.index == 1) && !host.is_up(u32::MAX));
        assert!(!host.own(1).ipv4.contains(&Ipv4Addr::LOCALHOST));
        default_routes().unwrap();
    }
}
