//! Rules, and what they mean.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::key::{Addresses, Fragment, Key, L4};

/// One rule: if it matches, its modifiers are applied, and its verdict ends the search, if it has
/// one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Rule {
    /// What it matches: all of these.
    pub matches: Match,
    /// What becomes of a packet that it matches; `None`: the search goes on with the next rule.
    pub verdict: Option<Verdict>,
    /// What is beyond this is dropped.
    pub limit: Option<Limit>,
    /// One of so many is logged.
    pub log: Option<u32>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It ends here.
    Drop,
}

/// What a rule wants of a packet. What is not said may be anything. A rule that wants something of
/// the upper protocol's header does not match a packet that has none, such as a later fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// Which IP version; of one with a prefix the prefix says it.
    pub version: Option<Version>,
    /// Where it comes from.
    pub source: Option<IpNet>,
    /// Where it goes.
    pub destination: Option<IpNet>,
    /// The upper protocol.
    pub protocol: Option<u8>,
    /// The source port, of UDP, TCP or SCTP.
    pub source_port: Option<RangeInclusive<u16>>,
    /// The destination port, likewise.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// TCP's control bits.
    pub flags: Option<TcpFlags>,
    /// ICMP's or ICMPv6's type.
    pub icmp_type: Option<u8>,
    /// ICMP's or ICMPv6's code.
    pub icmp_code: Option<u8>,
    /// The VLAN of the outermost tag.
    pub vlan: Option<u16>,
    /// That it is a fragment.
    pub fragment: Option<Fragments>,
    /// The differentiated services code point.
    pub dscp: Option<u8>,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 4
    V4,
    /// 6
    V6,
}

/// Control bits that have to be set, and that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// The bits that are looked at.
    pub mask: u8,
    /// How they have to be.
    pub value: u8,
}

/// Which fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragments {
    /// The first.
    First,
    /// All others.
    Later,
    /// All.
    Any,
}

/// How much of what a rule matches may pass: a token bucket. What is beyond is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Packets or bits a second, over all workers.
    pub rate: u64,
    /// Of what.
    pub unit: Unit,
    /// How much may come at once: packets or bits.
    pub burst: u64,
    /// Whether all have one bucket, or each source prefix one of its own.
    pub per: Per,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bits of frames, as they lie in memory.
    Bits,
}

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// All that the rule matches.
    Rule,
    /// All from one source prefix of this length.
    Source(u8),
}

impl Rule {
    /// Whether it matches. This is what rules mean; everything faster is tested against it.
    pub fn matches(&self, key: &Key) -> bool {
        self.matches.matches(key)
    }
}

impl Match {
    /// Which IP version it is about; `None`: both.
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
