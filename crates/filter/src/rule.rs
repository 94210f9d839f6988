//! Rules and their meaning.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::key::{Addresses, Fragment, Key, L4};

/// One rule. On a match its modifiers apply, and its verdict, if it has one, ends the search.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Rule {
    /// Conditions. All must be met.
    pub matches: Match,
    /// Action for matching packets; `None` continues the search with the next rule.
    pub verdict: Option<Verdict>,
    /// Rate limit. Packets in excess are dropped.
    pub limit: Option<Limit>,
    /// Sampling of log entries: one in this number of packets.
    pub log: Option<u32>,
}

/// The action for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Passes the packet to the next stage.
    Accept,
    /// Drops the packet.
    Drop,
}

/// The conditions of a rule; `None` accepts any value. A condition on the upper protocol's header
/// excludes packets without one, such as later fragments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// IP version. A prefix implies it.
    pub version: Option<Version>,
    /// Source prefix.
    pub source: Option<IpNet>,
    /// Destination prefix.
    pub destination: Option<IpNet>,
    /// The upper protocol.
    pub protocol: Option<u8>,
    /// Source port of UDP, TCP or SCTP.
    pub source_port: Option<RangeInclusive<u16>>,
    /// Destination port of UDP, TCP or SCTP.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// Control bits of TCP.
    pub flags: Option<TcpFlags>,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: Option<u8>,
    /// Code of ICMP or ICMPv6.
    pub icmp_code: Option<u8>,
    /// VLAN of the outermost tag.
    pub vlan: Option<u16>,
    /// Required kind of fragment.
    pub fragment: Option<Fragments>,
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

/// TCP control bits that must be set or clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Bits to compare.
    pub mask: u8,
    /// Required values of these bits.
    pub value: u8,
}

/// A kind of fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragments {
    /// First fragments.
    First,
    /// Later fragments.
    Later,
    /// All fragments.
    Any,
}

/// A token bucket. Packets in excess are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Packets or bits per second, over all workers.
    pub rate: u64,
    /// Unit of rate and burst.
    pub unit: Unit,
    /// Bucket size in packets or bits.
    pub burst: u64,
    /// Whether all packets share one bucket or each source prefix has its own.
    pub per: Per,
}

/// A unit of rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bits of frames as in memory.
    Bits,
}

/// The packets that share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// All packets that match the rule.
    Rule,
    /// All packets from one source prefix of this length.
    Source(u8),
}

impl Rule {
    /// Returns whether a packet matches. The reference for all faster implementations.
    pub fn matches(&self, key: &Key) -> bool {
        self.matches.matches(key)
    }
}

impl Match {
    /// Returns the IP version that the rule is limited to; `None` means both.
    pub fn version(&self) -> Option<Version> {
        let of = |prefix: &IpNet| if prefix.addr().is_ipv4() { Version::V4 } else { Version::V6 };
        self.source.as_ref().map(of).or(self.destination.as_ref().map(of)).or(self.version)
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
            && self.protocol.is_none_or(|protocol| protocol == key.protocol)
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
            && self.dscp.is_none_or(|dscp| dscp == key.dscp)
            && self.fragment.is_none_or(|wanted| match wanted {
                Fragments::First => key.fragment == Fragment::First,
                Fragments::Later => key.fragment == Fragment::Later,
                Fragments::Any => key.fragment != Fragment::No,
            })
    }
}
