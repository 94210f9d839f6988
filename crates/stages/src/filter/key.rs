//! From a packet to what rules look at, or to why rules cannot judge it.

use xdpfwd_filter::{Addresses, Fragment, Key, L4};

use xdpfwd_wire::{Headers, IpProtocol, IpVersion, Status, gtpu, udp};

/// What is to be made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Rules judge it by this.
    Key(Key),
    /// It is out of the ordinary; with a key if rules could judge it all the same.
    Unusual(Unusual, Option<Key>),
}

/// What a packet has that a filter is led astray with. Each kind has a verdict of its own in the
/// configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unusual {
    /// It is not IP: ARP, LLC, MPLS, …
    NotIp,
    /// A header is cut short or contradicts itself.
    Malformed,
    /// More VLAN tags than are walked over.
    VlanStack,
    /// More IPv6 extension headers than are walked over.
    ExtensionChain,
    /// IPv4 options.
    IpOptions,
    /// A later fragment, which has no ports.
    LaterFragment,
}

impl Unusual {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::NotIp,
        Self::Malformed,
        Self::VlanStack,
        Self::ExtensionChain,
        Self::IpOptions,
        Self::LaterFragment,
    ];
}

/// Looks at a frame of which these headers were parsed.
#[inline]
pub fn look_at(frame: &[u8], headers: &Headers) -> Seen {
    match headers.status {
        Status::Parsed => {}
        Status::NotIp => return Seen::Unusual(Unusual::NotIp, None),
        Status::Truncated(_) | Status::Malformed(_) => {
            return Seen::Unusual(Unusual::Malformed, None);
        }
        Status::TooManyVlanTags => return Seen::Unusual(Unusual::VlanStack, None),
        Status::ExtensionChainTooLong => return Seen::Unusual(Unusual::ExtensionChain, None),
    }
    let Some(key) = key(frame, headers) else { return Seen::Unusual(Unusual::Malformed, None) };
    let has_options = headers.ip_version == Some(IpVersion::V4)
        && headers.l4_offset - headers.l3_offset > xdpfwd_wire::ipv4::HEADER_LEN as u16;
    if has_options {
        return Seen::Unusual(Unusual::IpOptions, Some(key));
    }
    if key.fragment == Fragment::Later {
        return Seen::Unusual(Unusual::LaterFragment, Some(key));
    }
    Seen::Key(key)
}

/// Looks at a frame, and, if it carries a user's packet in GTP-U, at that one instead: by its
/// addresses, protocol and ports, and by the VLAN of the frame.
#[inline]
pub fn look_inside(frame: &[u8], headers: &Headers) -> Seen {
    let to_gtpu = headers.destination_port == gtpu::PORT
        && headers.protocol == Some(IpProtocol::UDP)
        && headers.fragment == xdpfwd_wire::Fragment::Whole
        && headers.status == Status::Parsed;
    match look_at(frame, headers) {
        // What carries it has to be in order, too; and of what carries a part of it nobody can tell
        // what is in it.
        Seen::Key(key)
            if key.fragment == Fragment::First
                && key.protocol == IpProtocol::UDP.0
                && headers.destination_port == gtpu::PORT =>
        {
            return Seen::Unusual(Unusual::LaterFragment, None);
        }
        Seen::Key(_) if to_gtpu => {}
        seen => return seen,
    }
    let offset = usize::from(headers.l4_offset) + udp::HEADER_LEN;
    let message = frame.get(offset..usize::from(headers.l3_end)).unwrap_or_default();
    match gtpu::Packet::new_checked(message) {
        Ok(packet) if packet.message_type() == gtpu::G_PDU => {
            let start = offset + packet.payload_offset();
            let inner = Headers::parse_inner(frame, start, start + packet.payload().len());
            look_at(frame, &Headers { outer_vlan: headers.outer_vlan, ..inner })
        }
        // Between the nodes themselves: by what it is.
        Ok(_) => look_at(frame, headers),
        Err(_) => Seen::Unusual(Unusual::Malformed, None),
    }
}

/// `None` if the headers are not this frame's.
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
    let vlan = headers.outer_vlan.map(xdpfwd_wire::VlanId::get);
    Some(Key { addresses, protocol: protocol.0, l4, fragment, dscp, vlan })
}
