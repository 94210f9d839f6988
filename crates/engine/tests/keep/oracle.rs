//! A second implementation of the `keep` rules, with the user-space parser and no code of the XDP
//! program.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use xdpfwd_engine::{KeepRule, OwnAddresses};
use xdpfwd_wire::{
    Addresses, EtherType, Fragment, Headers, IpProtocol, Layer, MacAddr, Status, ipv4, ipv6,
};

const ARP: EtherType = EtherType(0x0806);
const LLDP: EtherType = EtherType(0x88cc);

// IPv6 extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Decides which frames one `keep` rule passes to the kernel.
pub(crate) struct Oracle<'a> {
    pub(crate) rule: KeepRule,
    /// The addresses of the host that runs xdpfwd.
    pub(crate) addresses: &'a OwnAddresses,
    /// Datagrams whose first fragment was kept: source, destination, protocol, identification.
    kept_datagrams: HashSet<(IpAddr, IpAddr, u8, u32)>,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(rule: KeepRule, addresses: &'a OwnAddresses) -> Self {
        Self { rule, addresses, kept_datagrams: HashSet::new() }
    }

    /// Returns whether the rule keeps the frame. A kept first fragment makes later calls keep the
    /// other fragments of its datagram.
    pub(crate) fn keeps(&mut self, frame: &[u8]) -> bool {
        let Some((destination, _)) = frame.split_first_chunk::<6>() else { return false };
        // Broadcast or multicast.
        let is_to_group = destination[0] & 1 == 1;
        if frame.len() < 14 || !is_to_group && !self.addresses.macs.contains(&MacAddr(*destination))
        {
            return false;
        }
        let headers = Headers::parse(frame);
        let vlan_id = headers.vlans()[0].map_or(0, |vlan| vlan.get());
        let vlan_rule_matches = vlan_id != 0 && self.rule == KeepRule::Vlan(vlan_id);
        if is_to_group
            && vlan_id != 0
            && !vlan_rule_matches
            && !self.addresses.vlans.contains(&vlan_id)
        {
            return false;
        }
        match headers.status {
            Status::Truncated(layer) | Status::Malformed(layer) if layer != Layer::L4 => {
                return false;
            }
            Status::TooManyVlanTags | Status::ExtensionChainTooLong => return false,
            _ => {}
        }
        let l3 = frame.get(usize::from(headers.l3_offset)..).unwrap_or_default();
        if let Some(addresses) = headers.addresses(frame) {
            return self.keeps_ip(frame, &headers, addresses, vlan_rule_matches);
        }
        if headers.ethertype == ARP {
            // Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
            let expected_start = [0, 1, 8, 0, 6, 4];
            let Some(target) = l3.get(24..28) else { return false };
            let target: [u8; 4] = target.try_into().unwrap();
            let is_own = l3.starts_with(&expected_start)
                && self.addresses.ipv4.get(&target.into()).is_some_and(|roles| roles.target);
            return is_own && (vlan_rule_matches || self.rule == KeepRule::Arp);
        }
        // Bridges do not forward frames to 01:80:c2:00:00:00 … 0f (IEEE 802.1Q).
        let is_link_control = headers.outer_vlan.is_none()
            && destination.starts_with(&[0x01, 0x80, 0xc2, 0, 0])
            && destination[5] < 0x10;
        match self.rule {
            KeepRule::Lldp => is_link_control && headers.ethertype == LLDP,
            KeepRule::Stp => {
                is_link_control && headers.ethertype.0 < 0x600 && l3.starts_with(&[0x42, 0x42, 3])
            }
            _ => false,
        }
    }

    fn keeps_ip(
        &mut self,
        frame: &[u8],
        headers: &Headers,
        addresses: Addresses,
        vlan_rule_matches: bool,
    ) -> bool {
        let l3 = headers.l3(frame);
        let destination = addresses.destination();
        let (is_own, icmp, fragment_key, is_final_destination) = match (addresses, destination) {
            (Addresses::V4 { destination, .. }, _) => {
                let packet = ipv4::Packet::new_checked(l3).unwrap();
                let options = &l3[ipv4::HEADER_LEN..packet.header_len()];
                let is_own =
                    self.addresses.ipv4.get(&destination).is_some_and(|roles| roles.destination);
                let fragment_key = (packet.protocol().0, u32::from(packet.ident()));
                (is_own, IpProtocol::ICMP, fragment_key, has_no_source_route(options))
            }
            (Addresses::V6 { destination, .. }, _) => {
                let upper = ipv6::Packet::new_checked(l3).unwrap().upper().unwrap();
                let is_own =
                    self.addresses.ipv6.get(&destination).is_some_and(|roles| roles.destination);
                let fragment_key =
                    (fragment_protocol(l3), upper.fragment.map_or(0, |fragment| fragment.ident));
                (is_own, IpProtocol::ICMPV6, fragment_key, !has_segments_left(l3))
            }
        };
        if !is_final_destination {
            return false;
        }
        let protocol = headers.protocol.unwrap();
        let l4 = headers.l4(frame);
        if (vlan_rule_matches || self.rule == KeepRule::Nd)
            && self.is_nd_for_host(headers, l3, l4, is_own)
        {
            return true;
        }
        if !is_own {
            return false;
        }
        if vlan_rule_matches || self.rule == KeepRule::Local {
            return true;
        }
        let datagram = (addresses.source(), destination, fragment_key.0, fragment_key.1);
        if headers.fragment == Fragment::Later {
            return self.kept_datagrams.contains(&datagram);
        }
        let to_port = |port: u16| l4.get(2..4) == Some(&port.to_be_bytes());
        let kept = match self.rule {
            KeepRule::Icmp => protocol == icmp,
            KeepRule::Tcp(port) => protocol == IpProtocol::TCP && to_port(port),
            KeepRule::Udp(port) => protocol == IpProtocol::UDP && to_port(port),
            _ => false,
        };
        if kept && headers.fragment == Fragment::First {
            self.kept_datagrams.insert(datagram);
        }
        kept
    }

    /// Returns whether the packet is Neighbor Discovery to this host, or multicast about an address
    /// of this host. `is_own` is whether the destination is an address of this host.
    fn is_nd_for_host(&self, headers: &Headers, l3: &[u8], l4: &[u8], is_own: bool) -> bool {
        // Neighbor Discovery has code 0.
        let &[kind, 0, _, _, _, _, _, _, ref rest @ ..] = l4 else { return false };
        if headers.protocol != Some(IpProtocol::ICMPV6)
            || headers.fragment != Fragment::Whole
            || l3[0] >> 4 != 6
        {
            return false;
        }
        let target = rest.first_chunk::<16>().map(|target| Ipv6Addr::from(*target));
        let (hop_limit, is_multicast) = (l3[7], l3[24] == 0xff);
        let is_about_own = is_multicast
            && target.is_some_and(|target| {
                self.addresses.ipv6.get(&target).is_some_and(|roles| roles.target)
            });
        hop_limit == 255
            && match kind {
                // Router solicitation, router advertisement, redirect.
                133 | 134 | 137 => is_own,
                // Neighbor solicitation, neighbor advertisement.
                135 | 136 => is_own || is_about_own,
                _ => false,
            }
    }
}

fn has_no_source_route(mut options: &[u8]) -> bool {
    loop {
        options = match *options {
            // End of options.
            [] | [0, ..] => return true,
            // No operation.
            [1, ref rest @ ..] => rest,
            // Loose or strict source route.
            [131 | 137, ..] => return false,
            [_, length, ..] if length >= 2 => match options.get(usize::from(length)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

fn has_segments_left(l3: &[u8]) -> bool {
    let (mut next, mut rest) = (l3[6], &l3[40..]);
    loop {
        let length = match next {
            ROUTING if rest[3] != 0 => return true,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                (usize::from(rest[1]) + 1) * 8
            }
            AUTHENTICATION => (usize::from(rest[1]) + 2) * 4,
            // A later fragment contains no more headers.
            FRAGMENT if rest[2] != 0 || rest[3] & 0xf8 != 0 => return false,
            FRAGMENT => 8,
            _ => return false,
        };
        next = rest[0];
        rest = &rest[length..];
    }
}

/// Returns the protocol in the fragment header of an IPv6 packet; 0 without one.
fn fragment_protocol(l3: &[u8]) -> u8 {
    let (mut next, mut rest) = (l3[6], &l3[40..]);
    loop {
        let length = match next {
            FRAGMENT => return rest[0],
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                (usize::from(rest[1]) + 1) * 8
            }
            AUTHENTICATION => (usize::from(rest[1]) + 2) * 4,
            _ => return 0,
        };
        next = rest[0];
        rest = &rest[length..];
    }
}
