//! Filter rules, and which packets they match.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::key::{Addresses, ExtensionHeaders, Fragment, Key, L4};

/// A filter rule. For a matching packet, first the rate limit and the log setting apply, then the
/// verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Rule {
    /// The conditions, all of which a packet must meet.
    pub matches: Match,
    /// `None` continues the search with the next rule.
    pub verdict: Option<Verdict>,
    /// Rate limit, if any.
    pub limit: Option<Limit>,
    /// `Some(n)` logs one of `n` matching packets.
    pub log: Option<u32>,
}

/// The action that ends the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Passes the packet to the next stage.
    Accept,
    /// Drops the packet.
    Drop,
}

/// The conditions of a rule; `None` is no condition. A condition on the upper-layer header is never
/// met by a packet without it, such as a later fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// IP version; implied by a prefix (see [`Self::version`]).
    pub version: Option<Version>,
    /// Source prefix.
    pub source: Option<IpNet>,
    /// Destination prefix.
    pub destination: Option<IpNet>,
    /// Upper-layer protocol number. The number of an IPv6 extension header matches IPv6 packets
    /// with this header.
    pub protocol: Option<u8>,
    /// Matching source ports of UDP, TCP or SCTP.
    pub source_port: Option<RangeInclusive<u16>>,
    /// Matching destination ports of UDP, TCP or SCTP.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// TCP control bits.
    pub flags: Option<TcpFlags>,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: Option<u8>,
    /// Code of ICMP or ICMPv6.
    pub icmp_code: Option<u8>,
    /// VLAN identifier of the first tag that is no priority tag. Packets without such a tag do not
    /// match.
    pub vlan: Option<u16>,
    /// VLAN identifier of the second tag that is no priority tag. Packets without such a tag do not
    /// match.
    pub inner_vlan: Option<u16>,
    /// Matching fragments; `None` matches all packets.
    pub fragment: Option<FragmentMatch>,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A condition on TCP control bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Bits to compare.
    pub mask: u8,
    /// Required values of the compared bits. All other bits are 0.
    pub value: u8,
}

/// The fragments that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FragmentMatch {
    /// First fragments.
    First,
    /// Later fragments.
    Later,
    /// All fragments.
    Any,
}

/// A rate limit, as a token bucket. Packets above the limit are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Packets or bits per second, summed over all workers.
    pub rate: u64,
    /// Unit of `rate` and `burst`.
    pub unit: Unit,
    /// Bucket size in packets or bits.
    pub burst: u64,
    /// The packets that share a bucket.
    pub per: Per,
}

/// A unit of rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bits of Ethernet frames, without the frame check sequence (FCS).
    Bits,
}

/// The packets that share a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// All packets that match the rule.
    Rule,
    /// Packets whose source addresses have the same prefix of this length in bits.
    Source(u8),
}

impl Rule {
    /// Returns whether a packet meets the conditions. Tests compare faster implementations with
    /// this function.
    pub fn matches(&self, key: &Key) -> bool {
        self.matches.matches(key)
    }
}

impl Match {
    /// Returns the only IP version that can match, if any.
    pub fn version(&self) -> Option<Version> {
        let version_of =
            |prefix: &IpNet| if prefix.addr().is_ipv4() { Version::V4 } else { Version::V6 };
        self.source
            .as_ref()
            .map(version_of)
            .or(self.destination.as_ref().map(version_of))
            .or(self.version)
    }

    /// Returns whether the rule compares VLAN identifiers.
    pub fn compares_vlans(&self) -> bool {
        self.vlan.is_some() || self.inner_vlan.is_some()
    }

    fn matches(&self, key: &Key) -> bool {
        let (source, destination, version) = match key.addresses {
            Addresses::V4 { source, destination } => (
                std::net::IpAddr::V4(source.into()),
                std::net::IpAddr::V4(destination.into()),
                Version::V4,
            ),
            Addresses::V6 { source, destination } => (
                std::net::IpAddr::V6(source.into()),
                std::net::IpAddr::V6(destination.into()),
                Version::V6,
            ),
        };
        let ports = match key.l4 {
            L4::Ports { source, destination } | L4::Tcp { source, destination, .. } => {
                Some((source, destination))
            }
            L4::None | L4::Icmp { .. } => None,
        };
        let flags = if let L4::Tcp { flags, .. } = key.l4 { Some(flags) } else { None };
        let icmp = if let L4::Icmp { kind, code } = key.l4 { Some((kind, code)) } else { None };
        self.version.is_none_or(|wanted| wanted == version)
            && self.source.is_none_or(|prefix| prefix.contains(&source))
            && self.destination.is_none_or(|prefix| prefix.contains(&destination))
            && self.protocol.is_none_or(|protocol| match ExtensionHeaders::of(protocol) {
                Some(header) if version == Version::V6 => key.extensions.contains(header),
                _ => protocol == key.protocol,
            })
            && self
                .source_port
                .as_ref()
                .is_none_or(|range| ports.is_some_and(|(port, _)| range.contains(&port)))
            && self
                .destination_port
                .as_ref()
                .is_none_or(|range| ports.is_some_and(|(_, port)| range.contains(&port)))
            && self
                .flags
                .is_none_or(|wanted| flags.is_some_and(|flags| flags & wanted.mask == wanted.value))
            && self.icmp_type.is_none_or(|wanted| icmp.is_some_and(|(kind, _)| kind == wanted))
            && self.icmp_code.is_none_or(|wanted| icmp.is_some_and(|(_, code)| code == wanted))
            && self.vlan.is_none_or(|vlan| key.vlan == Some(vlan))
            && self.inner_vlan.is_none_or(|vlan| key.inner_vlan == Some(vlan))
            && self.dscp.is_none_or(|dscp| dscp == key.dscp)
            && self.fragment.is_none_or(|wanted| match wanted {
                FragmentMatch::First => key.fragment == Fragment::First,
                FragmentMatch::Later => key.fragment == Fragment::Later,
                FragmentMatch::Any => key.fragment != Fragment::No,
            })
    }
}
