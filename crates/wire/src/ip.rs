use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// The protocol of an IP packet's payload, from IANA's registry "Protocol Numbers".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct IpProtocol(pub u8);

/// Whether an IP packet is a fragment.
///
/// An IPv6 packet whose fragment header has offset 0 and a clear more-fragments flag (an atomic
/// fragment, RFC 6946) counts as `Whole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fragment {
    /// Not a fragment.
    #[default]
    Whole,
    /// The first fragment, with the header of the upper protocol.
    First,
    /// A later fragment, without it.
    Later,
}

/// The addresses of an IP packet, as in a pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4 addresses.
    V4 {
        /// Source address.
        source: Ipv4Addr,
        /// Destination address.
        destination: Ipv4Addr,
    },
    /// IPv6 addresses.
    V6 {
        /// Source address.
        source: Ipv6Addr,
        /// Destination address. In the pseudo header of a packet with a routing header, this must
        /// be the final destination (RFC 8200, section 8.1).
        destination: Ipv6Addr,
    },
}

impl IpProtocol {
    /// IPv6 hop-by-hop options (RFC 8200, 4.3).
    pub const HOP_BY_HOP: IpProtocol = IpProtocol(0);
    /// ICMP (RFC 792).
    pub const ICMP: IpProtocol = IpProtocol(1);
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: IpProtocol = IpProtocol(4);
    /// TCP (RFC 9293).
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP (RFC 768).
    pub const UDP: IpProtocol = IpProtocol(17);
    /// IPv6 in IP (RFC 2473).
    pub const IPV6: IpProtocol = IpProtocol(41);
    /// IPv6 routing header (RFC 8200, 4.4).
    pub const ROUTING: IpProtocol = IpProtocol(43);
    /// IPv6 fragment header (RFC 8200, 4.5).
    pub const FRAGMENT: IpProtocol = IpProtocol(44);
    /// GRE (RFC 2784).
    pub const GRE: IpProtocol = IpProtocol(47);
    /// Encapsulating security payload (RFC 4303).
    pub const ESP: IpProtocol = IpProtocol(50);
    /// Authentication header (RFC 4302).
    pub const AH: IpProtocol = IpProtocol(51);
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: IpProtocol = IpProtocol(58);
    /// No next header: nothing follows (RFC 8200, section 4.7).
    pub const NO_NEXT_HEADER: IpProtocol = IpProtocol(59);
    /// IPv6 destination options (RFC 8200, 4.6).
    pub const DESTINATION_OPTIONS: IpProtocol = IpProtocol(60);
    /// SCTP (RFC 9260).
    pub const SCTP: IpProtocol = IpProtocol(132);
    /// IPv6 mobility header (RFC 6275).
    pub const MOBILITY: IpProtocol = IpProtocol(135);
    /// Host identity protocol (RFC 7401).
    pub const HIP: IpProtocol = IpProtocol(139);
    /// Shim6 (RFC 5533).
    pub const SHIM6: IpProtocol = IpProtocol(140);
}

impl Fragment {
    /// Returns the variant for a fragment offset and the more-fragments flag.
    #[inline]
    pub const fn new(offset: u16, more: bool) -> Fragment {
        match (offset, more) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        }
    }
}

impl Addresses {
    /// Returns the source address.
    #[inline]
    pub const fn source(self) -> IpAddr {
        match self {
            Addresses::V4 { source, .. } => IpAddr::V4(source),
            Addresses::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// Returns the destination address.
    #[inline]
    pub const fn destination(self) -> IpAddr {
        match self {
            Addresses::V4 { destination, .. } => IpAddr::V4(destination),
            Addresses::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            IpProtocol::HOP_BY_HOP => "hop-by-hop",
            IpProtocol::ICMP => "icmp",
            IpProtocol::IPV4 => "ipv4",
            IpProtocol::TCP => "tcp",
            IpProtocol::UDP => "udp",
            IpProtocol::IPV6 => "ipv6",
            IpProtocol::ROUTING => "routing",
            IpProtocol::FRAGMENT => "fragment",
            IpProtocol::GRE => "gre",
            IpProtocol::ESP => "esp",
            IpProtocol::AH => "ah",
            IpProtocol::ICMPV6 => "icmpv6",
            IpProtocol::NO_NEXT_HEADER => "no-next-header",
            IpProtocol::DESTINATION_OPTIONS => "destination-options",
            IpProtocol::SCTP => "sctp",
            IpProtocol::MOBILITY => "mobility",
            IpProtocol::HIP => "hip",
            IpProtocol::SHIM6 => "shim6",
            IpProtocol(other) => return other.fmt(f),
        })
    }
}
