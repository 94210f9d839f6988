//! Reads the packet fields that rules match, and detects packet exceptions.

use xdpfwd_filter::{Addresses, ExtensionHeaders, Fragment, Key, L4};

use super::exception::PacketException;
use xdpfwd_wire::ipv6::ExtensionSet;
use xdpfwd_wire::{EtherType, Headers, IpProtocol, IpVersion, Status, gtpu, udp};

/// The result of inspecting a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// An ordinary packet: the fields that rules match.
    Key(Key),
    /// A packet exception, with a key if rules can apply nevertheless. `IpOptions`, `RoutingHeader`
    /// and `LaterFragment` have a key, except for the first fragment of a GTP-U packet, which
    /// [`inspect_gtpu`] reports as one of them.
    Exception(PacketException, Option<Key>),
}

/// Inspects a frame, whose parsed headers are `headers`.
#[inline]
pub fn inspect(frame: &[u8], headers: &Headers) -> Inspection {
    match headers.status {
        Status::Parsed => {}
        Status::NotIp if headers.ethertype == EtherType::ARP => {
            return Inspection::Exception(PacketException::Arp, None);
        }
        Status::NotIp => return Inspection::Exception(PacketException::NotIp, None),
        Status::Truncated(_) | Status::Malformed(_) => {
            return Inspection::Exception(PacketException::Malformed, None);
        }
        Status::TooManyVlanTags => return Inspection::Exception(PacketException::VlanStack, None),
        Status::ExtensionChainTooLong => {
            return Inspection::Exception(PacketException::ExtensionChain, None);
        }
    }
    let Some(key) = key(frame, headers) else {
        return Inspection::Exception(PacketException::Malformed, None);
    };
    let has_options = headers.ip_version == Some(IpVersion::V4)
        && headers.l4_offset - headers.l3_offset > xdpfwd_wire::ipv4::HEADER_LEN as u16;
    if has_options {
        return Inspection::Exception(PacketException::IpOptions, Some(key));
    }
    if headers.has_segments_left {
        return Inspection::Exception(PacketException::RoutingHeader, Some(key));
    }
    if key.fragment == Fragment::Later {
        return Inspection::Exception(PacketException::LaterFragment, Some(key));
    }
    Inspection::Key(key)
}

/// Like [`inspect`], but inspects the user packet if the frame carries one in GTP-U. The key has
/// the VLANs of the frame.
///
/// Returns a packet exception if the outer packet is a fragment, or has IP options or a routing
/// header with segments left.
#[inline]
pub fn inspect_gtpu(frame: &[u8], headers: &Headers) -> Inspection {
    let is_gtpu = headers.destination_port == gtpu::PORT
        && headers.protocol == Some(IpProtocol::UDP)
        && headers.status == Status::Parsed;
    let is_fragment = headers.fragment == xdpfwd_wire::Fragment::First;
    match inspect(frame, headers) {
        // A first fragment lacks the end of the user packet: give it no key, so that no rule can
        // match it.
        Inspection::Key(_) if is_gtpu && is_fragment => {
            return Inspection::Exception(PacketException::LaterFragment, None);
        }
        Inspection::Exception(exception, Some(_)) if is_gtpu && is_fragment => {
            return Inspection::Exception(exception, None);
        }
        Inspection::Key(_) if is_gtpu => {}
        inspection => return inspection,
    }
    let offset = usize::from(headers.l4_offset) + udp::HEADER_LEN;
    let message = frame.get(offset..usize::from(headers.l3_end)).unwrap_or_default();
    match gtpu::Packet::new_checked(message) {
        Ok(packet) if packet.message_type() == gtpu::G_PDU => {
            let start = offset + packet.payload_offset();
            let inner = Headers::parse_inner(frame, start, start + packet.payload().len());
            let Headers { outer_vlan, inner_vlan, .. } = *headers;
            inspect(frame, &Headers { outer_vlan, inner_vlan, ..inner })
        }
        // Signalling between GTP-U nodes, without a user packet.
        Ok(_) => inspect(frame, headers),
        Err(_) => Inspection::Exception(PacketException::Malformed, None),
    }
}

/// Returns the fields that rules match, or `None` if the frame is too short for one of them.
#[inline]
fn key(frame: &[u8], headers: &Headers) -> Option<Key> {
    let l3 = headers.l3(frame);
    let (addresses, dscp) = match headers.addresses(frame)? {
        xdpfwd_wire::Addresses::V4 { source, destination } => (
            Addresses::V4 { source: source.to_bits(), destination: destination.to_bits() },
            l3.get(1)? >> 2,
        ),
        xdpfwd_wire::Addresses::V6 { source, destination } => {
            let traffic_class = u16::from_be_bytes(*l3.first_chunk()?) >> 4;
            (
                Addresses::V6 { source: source.to_bits(), destination: destination.to_bits() },
                traffic_class as u8 >> 2,
            )
        }
    };
    let protocol = headers.protocol?;
    let l4 = headers.l4(frame);
    let (source, destination) = (headers.source_port, headers.destination_port);
    let l4 = match (headers.fragment, protocol) {
        (xdpfwd_wire::Fragment::Later, _) => L4::None,
        (_, IpProtocol::UDP | IpProtocol::SCTP) => L4::Ports { source, destination },
        (_, IpProtocol::TCP) => L4::Tcp { source, destination, flags: *l4.get(13)? },
        (_, IpProtocol::ICMP | IpProtocol::ICMPV6) => {
            L4::Icmp { kind: *l4.first()?, code: *l4.get(1)? }
        }
        _ => L4::None,
    };
    let fragment = match headers.fragment {
        xdpfwd_wire::Fragment::Whole => Fragment::No,
        xdpfwd_wire::Fragment::First => Fragment::First,
        xdpfwd_wire::Fragment::Later => Fragment::Later,
    };
    let [vlan, inner_vlan] = headers.vlans().map(|vlan| vlan.map(xdpfwd_wire::VlanId::get));
    let extensions = ExtensionHeaders::from_bits(headers.extensions.bits());
    Some(Key { addresses, protocol: protocol.0, extensions, l4, fragment, dscp, vlan, inner_vlan })
}

/// xdpfwd-wire and xdpfwd-filter must use the same bits for extension headers.
const _: () = {
    let mut bit = 0;
    while bit < ExtensionSet::TYPES.len() {
        assert!(ExtensionSet::TYPES[bit].0 == ExtensionHeaders::PROTOCOLS[bit]);
        bit += 1;
    }
    assert!(ExtensionHeaders::PROTOCOLS.len() == ExtensionSet::TYPES.len());
};
