//! The links (interfaces) of this network namespace, as rtnetlink reports them. In contrast to
//! /sys, rtnetlink always shows the namespace of the process.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoPortKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use xdpfwd_wire::MacAddr;

use crate::host::netlink::{dump, query};

/// A snapshot of all links of this network namespace.
#[derive(Clone, Debug, Default)]
pub struct Links(Vec<Link>);

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The index, which identifies the interface while it exists.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The type of the frames that the interface carries.
    pub hardware_type: HardwareType,
    /// The MAC address.
    pub mac: Option<MacAddr>,
    /// Longest packet in bytes, without the Ethernet header.
    pub mtu: Option<u32>,
    /// Whether the interface is administratively up (`ip link set … up`).
    pub is_up: bool,
    /// Operational state (RFC 2863), in the spelling of /sys: `up`, `down`, `lowerlayerdown`, ….
    pub state: String,
    /// Whether the interface belongs to a device, such as a PCI card. If not, the interface is
    /// virtual.
    pub has_device: bool,
    /// The kind of a virtual interface, such as `veth`.
    pub kind: Option<String>,
    pub(crate) loopback: bool,
    /// Index of the interface on which this one (a VLAN or the like) is stacked.
    pub(crate) lower: Option<u32>,
    /// The VLAN ID of a VLAN interface.
    pub(crate) vlan: Option<u16>,
    /// Index of the bridge, bond or the like of which this is a port.
    pub(crate) controller: Option<u32>,
    /// The kind of `controller`, such as `bridge`.
    pub(crate) controller_kind: Option<String>,
    /// Index of the other end of a veth, if this namespace has an interface with this index.
    pub(crate) peer: Option<u32>,
    /// The hardware address, of any length.
    pub(crate) address: Vec<u8>,
}

/// The type of the frames of an interface (`ARPHRD_…` in linux/if_arp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareType(LinkLayerType);

/// The error for an interface with another hardware type than Ethernet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface \"{interface}\" carries no Ethernet frames (hardware type {hardware_type}), and \
     xdpfwd forwards only Ethernet; use an interface that `ip link` lists as link/ether"
)]
pub struct NotEthernet {
    /// The interface.
    pub interface: String,
    /// Its type.
    pub hardware_type: HardwareType,
}

/// A bridge, VLAN or the like that uses an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkUser {
    /// A bridge, bond, team, VRF or Open vSwitch of which the interface is a port.
    Controller {
        /// Its name.
        name: String,
        /// Its kind, such as `bridge`.
        kind: String,
    },
    /// An interface that is stacked on the interface, such as a VLAN or macvlan.
    Stacked {
        /// Its name.
        name: String,
        /// Its kind, such as `macvlan`.
        kind: String,
        /// The ID of a VLAN.
        vlan: Option<u16>,
    },
}

impl Default for HardwareType {
    fn default() -> Self {
        Self::ETHERNET
    }
}

impl HardwareType {
    /// Ethernet, and all interfaces that behave like it.
    pub const ETHERNET: Self = Self(LinkLayerType::Ether);

    /// Returns whether the interface carries Ethernet frames. The loopback interface does not
    /// count: its frames have no addresses.
    pub fn is_ethernet(self) -> bool {
        self == Self::ETHERNET
    }
}

impl From<u16> for HardwareType {
    fn from(number: u16) -> Self {
        Self(number.into())
    }
}

impl fmt::Display for HardwareType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LinkLayerType::Void => f.write_str("unknown"),
            known => write!(f, "{} {known}", u16::from(known)),
        }
    }
}

impl Links {
    /// Reads all links. If links change meanwhile, some may be missing.
    pub fn read() -> io::Result<Self> {
        let mut request = LinkMessage::default();
        request.attributes.push(without_statistics());
        let as_link = |reply| match reply {
            RouteNetlinkMessage::NewLink(message) => Some(Link::new(&message)),
            _ => None,
        };
        let replies = dump(&RouteNetlinkMessage::GetLink(request))?.replies;
        Ok(Self(replies.into_iter().filter_map(as_link).collect()))
    }

    /// Returns the link with this index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.0.iter().find(|link| link.index == index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    /// Returns an interface and all above it, at any depth: VLANs and the like, bridges and bonds.
    pub(crate) fn stack(&self, index: u32) -> BTreeSet<u32> {
        let mut stack = BTreeSet::from([index]);
        loop {
            let stacked =
                |link: &Link| link.lower.filter(|lower| stack.contains(lower)).map(|_| link.index);
            let controller = |link: &Link| link.controller.filter(|_| stack.contains(&link.index));
            let more: Vec<u32> = self
                .0
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

    /// Returns the users directly above an interface: its controller, and the interfaces stacked on
    /// it.
    pub fn users(&self, index: u32) -> Vec<LinkUser> {
        let name = |index: u32| {
            self.get(index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
        };
        let link = self.get(index);
        let controller = link.and_then(|link| Some((link.controller?, &link.controller_kind)));
        let controller = controller.map(|(controller, kind)| LinkUser::Controller {
            name: name(controller),
            kind: kind.clone().unwrap_or_else(|| "controller".to_owned()),
        });
        let stacked = self.0.iter().filter(|link| link.lower == Some(index));
        let stacked = stacked.map(|link| LinkUser::Stacked {
            name: link.name.clone(),
            kind: link.kind.clone().unwrap_or_default(),
            vlan: link.vlan,
        });
        controller.into_iter().chain(stacked).collect()
    }

    /// Returns the other end of a veth, if it is in this namespace.
    pub fn veth_peer(&self, index: u32) -> Option<&Link> {
        // A peer in another namespace may have the index of an unrelated interface here: check that
        // it names this one.
        let peer = self.get(self.get(index)?.peer?)?;
        (peer.peer == Some(index)).then_some(peer)
    }

    #[cfg(test)]
    pub(crate) fn of(links: Vec<Link>) -> Self {
        Self(links)
    }

    #[cfg(test)]
    pub(crate) fn push(&mut self, link: Link) {
        self.0.push(link);
    }
}

impl Link {
    /// Reads one link. Fails if it does not exist.
    pub fn read(index: u32) -> io::Result<Self> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(without_statistics());
        match query(&RouteNetlinkMessage::GetLink(request))? {
            RouteNetlinkMessage::NewLink(message) => Ok(Self::new(&message)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Returns the folder in /sys; `None` if /sys is missing or shows another network namespace,
    /// where another interface may have the same name.
    pub fn sysfs_folder(&self) -> Option<PathBuf> {
        let folder = Path::new("/sys/class/net").join(&self.name);
        let read = |file| Some(fs::read_to_string(folder.join(file)).ok()?.trim().to_owned());
        // Interfaces of two namespaces can have the same name and index, so compare the address
        // too.
        let bytes: Vec<String> = self.address.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_same =
            read("ifindex")? == self.index.to_string() && read("address")? == bytes.join(":");
        is_same.then_some(folder)
    }

    /// Returns whether the interface is one end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    /// Fails if the interface carries other frames than Ethernet. The error names `interface`,
    /// which may be an alternative name.
    pub fn check_ethernet(&self, interface: &str) -> Result<(), NotEthernet> {
        let hardware_type = self.hardware_type;
        match hardware_type.is_ethernet() {
            true => Ok(()),
            false => Err(NotEthernet { interface: interface.to_owned(), hardware_type }),
        }
    }

    fn new(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            hardware_type: HardwareType(message.header.link_layer_type),
            loopback: flags.contains(LinkFlags::Loopback),
            is_up: flags.contains(LinkFlags::Up),
            state: "unknown".to_owned(),
            ..Self::default()
        };
        let (mut lower, mut lower_in_other_namespace) = (None, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) => {
                    link.address.clone_from(address);
                    link.mac = <[u8; 6]>::try_from(address.as_slice())
                        .ok()
                        .filter(|mac| *mac != [0; 6])
                        .map(MacAddr);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
                LinkAttribute::OperState(state) => link.state = state.to_string().to_lowercase(),
                LinkAttribute::ParentDevName(_) => link.has_device = true,
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => lower_in_other_namespace = true,
                LinkAttribute::Controller(controller) => link.controller = Some(*controller),
                LinkAttribute::LinkInfo(infos) => link.add_kind(infos),
                _ => {}
            }
        }
        // With `LinkNetNsId`, the index belongs to another network namespace.
        let lower = lower.filter(|_| !lower_in_other_namespace);
        // The attribute `Link` names the peer of a veth, or the interface that sends a tunnel's
        // packets. Neither counts as `lower`.
        link.peer = lower.filter(|_| link.is_veth());
        link.lower = lower.filter(|_| link.kind.as_deref().is_some_and(is_stacked));
        link
    }

    fn add_kind(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::PortKind(kind) => self.controller_kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vlan(attributes)) => {
                    self.vlan = attributes.iter().find_map(|attribute| match attribute {
                        InfoVlan::Id(id) => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
    }
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

fn is_stacked(kind: &str) -> bool {
    use InfoKind::{IpVlan, IpVtap, MacSec, MacVlan, MacVtap, Vlan};
    [Vlan, MacVlan, MacVtap, IpVlan, IpVtap, MacSec].iter().any(|other| other.to_string() == kind)
}

impl LinkUser {
    /// Returns whether this is a bond or team, which needs control packets (LACP) from each link.
    pub fn is_aggregate(&self) -> bool {
        let aggregates = [InfoPortKind::Bond, InfoPortKind::Team].map(|kind| kind.to_string());
        matches!(self, Self::Controller { kind, .. } if aggregates.contains(kind))
    }

    /// Returns the command that ends the use.
    pub fn release_command(&self, interface: &str) -> String {
        match self {
            Self::Controller { kind, .. } if kind == "openvswitch" => {
                format!("ovs-vsctl del-port {interface}")
            }
            Self::Controller { .. } => format!("ip link set dev {interface} nomaster"),
            Self::Stacked { name, .. } => format!("ip link delete dev {name}"),
        }
    }
}

impl fmt::Display for LinkUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller { name, kind } => write!(f, "the {kind} {name}"),
            Self::Stacked { name, kind, vlan: Some(vlan) } => {
                write!(f, "the {kind} interface {name} (ID {vlan})")
            }
            Self::Stacked { name, kind, .. } => write!(f, "the {kind} interface {name}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns an unstacked interface with a MAC address.
    pub(crate) fn link(index: u32) -> Link {
        let mac = Some(MacAddr([2, 0, 0, 0, 0, index as u8]));
        Link { index, name: format!("if{index}"), mac, ..Link::default() }
    }

    /// Interfaces 1 and 2 are ports of bridge 3. VLAN 4 is stacked on 3, VLAN 5 on 1, and macvlan 6
    /// on 5. No interface is above or below 7.
    pub(crate) fn stacked_links() -> Links {
        let kind = |kind: &str| Some(kind.to_owned());
        let port =
            |index| Link { controller: Some(3), controller_kind: kind("bridge"), ..link(index) };
        let vlan = |index, lower, id| Link {
            lower: Some(lower),
            vlan: Some(id),
            kind: kind("vlan"),
            ..link(index)
        };
        Links(vec![
            Link { lower: Some(5), kind: kind("macvlan"), ..link(6) },
            vlan(5, 1, 100),
            port(1),
            port(2),
            link(3),
            vlan(4, 3, 200),
            link(7),
        ])
    }

    #[test]
    fn stack_contains_interface_and_all_above_it() {
        let links = stacked_links();
        assert_eq!(links.stack(1), BTreeSet::from([1, 3, 4, 5, 6]));
        assert_eq!(links.stack(2), BTreeSet::from([2, 3, 4]));
        assert_eq!(links.stack(7), BTreeSet::from([7]));
    }

    #[test]
    fn users_are_controller_and_interfaces_stacked_directly() {
        let links = stacked_links();
        let users = |index| links.users(index).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(users(1), ["the bridge if3", "the vlan interface if5 (ID 100)"]);
        assert_eq!(users(5), ["the macvlan interface if6"]);
        assert!(users(7).is_empty());
        assert_eq!(links.users(1)[0].release_command("if1"), "ip link set dev if1 nomaster");
        assert_eq!(links.users(5)[0].release_command("if5"), "ip link delete dev if6");
        let user = |kind: &str| LinkUser::Controller { name: "x".into(), kind: kind.into() };
        let kinds = ["bond", "team", "bridge", "vrf", "openvswitch"];
        assert_eq!(kinds.map(|kind| user(kind).is_aggregate()), [true, true, false, false, false]);
        assert_eq!(user("openvswitch").release_command("if1"), "ovs-vsctl del-port if1");
    }

    /// The messages have the attributes that Linux 6.18 sends.
    #[test]
    fn link_is_parsed_from_kernel_message() {
        let parsed = |kind: InfoKind, more: &[LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.header.index = 9;
            message.header.link_layer_type = LinkLayerType::Ether;
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
            (veth.lower, veth.peer, veth.controller),
            (None, Some(4), Some(7)),
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
    fn only_hardware_type_1_is_ethernet() {
        let text = |number: u16| {
            let link = Link { hardware_type: number.into(), ..Link::default() };
            link.check_ethernet("if0").err().map(|error| error.to_string())
        };
        assert_eq!(text(1), None);
        // In this order: loopback; tun and WireGuard; ipip; sit; GRE; PPP; CAN; 802.15.4;
        // InfiniBand; a type without a name.
        for (number, shown) in [
            (772, "772 LOOPBACK"),
            (65534, "65534 NONE"),
            (768, "768 TUNNEL"),
            (776, "776 SIT"),
            (778, "778 IPGRE"),
            (512, "512 PPP"),
            (280, "280 CAN"),
            (804, "804 "),
            (32, "32 INFINIBAND"),
            (12345, "unknown"),
        ] {
            let text = text(number).unwrap();
            assert!(
                text.starts_with(&format!(
                    "interface \"if0\" carries no Ethernet frames (hardware type {shown}"
                )) && text.contains("link/ether"),
                "{text}"
            );
        }
    }

    #[test]
    fn loopback_is_read_with_its_hardware_type() {
        const LOOPBACK_INDEX: u32 = 1;
        let link = Link::read(LOOPBACK_INDEX).unwrap();
        assert_eq!((link.name.as_str(), link.hardware_type), ("lo", 772.into()));
        assert!(link.loopback && link.mtu.is_some() && !link.has_device, "{link:?}");
        let links = Links::read().unwrap();
        assert_eq!(links.get(LOOPBACK_INDEX).unwrap().hardware_type, 772.into());
        assert!(Link::read(u32::MAX >> 1).is_err());
    }
}
