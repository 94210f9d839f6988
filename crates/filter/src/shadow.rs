//! Rules without effect, because an earlier rule with a verdict matches all of their packets.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::classifier::Classifier;
use crate::key::{Addresses, Fragment, Key, L4};
use crate::rule::{Fragments, Match, Rule, Version};

/// A rule that never decides, and the earlier rule that shadows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Rule number, from 0.
    pub rule: u32,
    /// Number of the shadowing rule.
    pub by: u32,
}

/// Maximum number of earlier rules compared with each rule.
const MAX_COMPARED: usize = 256;

/// Returns the rules that a single earlier rule with a verdict covers. Does not detect a rule that
/// several rules cover together. `classifier` must have been compiled from `rules`.
pub fn shadowed(rules: &[Rule], classifier: &Classifier) -> Vec<Shadowed> {
    let find = |(number, rule): (u32, &Rule)| {
        let example = rule.matches.example();
        let mut from = 0;
        // A covering rule also matches the example.
        for _ in 0..MAX_COMPARED {
            let earlier =
                classifier.first_match(&example, from).filter(|&earlier| earlier < number)?;
            let by = &rules[earlier as usize];
            if by.verdict.is_some() && by.matches.covers(&rule.matches) {
                return Some(Shadowed { rule: number, by: earlier });
            }
            from = earlier + 1;
        }
        None
    };
    (0..).zip(rules).filter_map(find).collect()
}

impl Match {
    /// Returns a packet that matches.
    fn example(&self) -> Key {
        let addresses = match self.version() {
            Some(Version::V6) => {
                let of = |prefix: Option<IpNet>| match prefix {
                    Some(IpNet::V6(prefix)) => prefix.network().to_bits(),
                    _ => 0,
                };
                Addresses::V6 { source: of(self.source), destination: of(self.destination) }
            }
            _ => {
                let of = |prefix: Option<IpNet>| match prefix {
                    Some(IpNet::V4(prefix)) => prefix.network().to_bits(),
                    _ => 0,
                };
                Addresses::V4 { source: of(self.source), destination: of(self.destination) }
            }
        };
        let first =
            |range: &Option<RangeInclusive<u16>>| range.as_ref().map_or(0, |range| *range.start());
        let (source, destination) = (first(&self.source_port), first(&self.destination_port));
        let l4 = if let Some(flags) = self.flags {
            L4::Tcp { source, destination, flags: flags.value }
        } else if self.icmp_type.is_some() || self.icmp_code.is_some() {
            L4::Icmp { kind: self.icmp_type.unwrap_or(0), code: self.icmp_code.unwrap_or(0) }
        } else if self.source_port.is_some() || self.destination_port.is_some() {
            L4::Ports { source, destination }
        } else {
            L4::None
        };
        let fragment = match self.fragment {
            None => Fragment::No,
            Some(Fragments::Later) => Fragment::Later,
            Some(Fragments::First | Fragments::Any) => Fragment::First,
        };
        let (protocol, dscp) = (self.protocol.unwrap_or(0), self.dscp.unwrap_or(0));
        Key { addresses, protocol, l4, fragment, dscp, vlan: self.vlan }
    }

    /// Returns whether every packet that matches `other` matches `self`.
    fn covers(&self, other: &Self) -> bool {
        fn field<T>(own: Option<&T>, others: Option<&T>, covers: impl Fn(&T, &T) -> bool) -> bool {
            own.is_none_or(|own| others.is_some_and(|others| covers(own, others)))
        }
        let prefix = |own: &IpNet, others: &IpNet| own.contains(others);
        let range = |own: &RangeInclusive<u16>, others: &RangeInclusive<u16>| {
            own.start() <= others.start() && own.end() >= others.end()
        };
        // Even the full port range requires ports to be present.
        field(self.version().as_ref(), other.version().as_ref(), |own, others| own == others)
            && field(self.source.as_ref(), other.source.as_ref(), prefix)
            && field(self.destination.as_ref(), other.destination.as_ref(), prefix)
            && field(self.protocol.as_ref(), other.protocol.as_ref(), |own, others| own == others)
            && self.covers_ports(other, range)
            && field(self.flags.as_ref(), other.flags.as_ref(), |own, others| {
                own.mask & others.mask == own.mask && others.value & own.mask == own.value
            })
            && field(self.icmp_type.as_ref(), other.icmp_type.as_ref(), |own, others| own == others)
            && field(self.icmp_code.as_ref(), other.icmp_code.as_ref(), |own, others| own == others)
            && field(self.vlan.as_ref(), other.vlan.as_ref(), |own, others| own == others)
            && field(self.dscp.as_ref(), other.dscp.as_ref(), |own, others| own == others)
            && field(self.fragment.as_ref(), other.fragment.as_ref(), |own, others| {
                *own == Fragments::Any || own == others
            })
    }

    fn covers_ports(
        &self,
        other: &Self,
        covers: impl Fn(&RangeInclusive<u16>, &RangeInclusive<u16>) -> bool + Copy,
    ) -> bool {
        let all = 0..=u16::MAX;
        // A condition on one port requires a packet with both.
        let has_ports = other.source_port.is_some()
            || other.destination_port.is_some()
            || other.flags.is_some();
        let implied =
            |range: &Option<RangeInclusive<u16>>| range.clone().or(has_ports.then(|| all.clone()));
        let one = |own: &Option<RangeInclusive<u16>>, others: &Option<RangeInclusive<u16>>| {
            own.as_ref()
                .is_none_or(|own| implied(others).is_some_and(|others| covers(own, &others)))
        };
        one(&self.source_port, &other.source_port)
            && one(&self.destination_port, &other.destination_port)
    }
}
