//! Finds rules without effect, because an earlier rule with a verdict matches all their packets.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::classifier::Classifier;
use crate::key::{Addresses, ExtensionHeaders, Fragment, Key, L4};
use crate::rule::{FragmentMatch, Match, Rule, Version};

/// A rule without effect, and the earlier rule that shadows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Number of the rule without effect, from 0.
    pub rule: u32,
    /// Number of the shadowing rule, from 0.
    pub by: u32,
}

/// Maximum number of earlier rules to compare with a rule. Shadowing by any further rule is not
/// detected.
const MAX_COMPARED: usize = 256;

/// Returns the rules that one earlier rule with a verdict shadows, but not those that several rules
/// shadow only together. `classifier` must have been compiled from `rules`.
pub fn shadowed(rules: &[Rule], classifier: &Classifier) -> Vec<Shadowed> {
    let find = |(number, rule): (u32, &Rule)| {
        // A rule that covers this rule also matches an example packet of this rule, so compare only
        // rules that match the example.
        classifier
            .matches(&rule.matches.example(), 0)
            .take_while(|&earlier| earlier < number)
            .take(MAX_COMPARED)
            .find(|&earlier| {
                let by = &rules[earlier as usize];
                by.verdict.is_some() && by.matches.covers(&rule.matches)
            })
            .map(|by| Shadowed { rule: number, by })
    };
    (0..).zip(rules).filter_map(find).collect()
}

impl Match {
    /// Returns a key that meets the conditions.
    fn example(&self) -> Key {
        let addresses = match self.version() {
            Some(Version::V6) => {
                let network_bits = |prefix: Option<IpNet>| match prefix {
                    Some(IpNet::V6(prefix)) => prefix.network().to_bits(),
                    _ => 0,
                };
                Addresses::V6 {
                    source: network_bits(self.source),
                    destination: network_bits(self.destination),
                }
            }
            _ => {
                let network_bits = |prefix: Option<IpNet>| match prefix {
                    Some(IpNet::V4(prefix)) => prefix.network().to_bits(),
                    _ => 0,
                };
                Addresses::V4 {
                    source: network_bits(self.source),
                    destination: network_bits(self.destination),
                }
            }
        };
        let first_port =
            |range: &Option<RangeInclusive<u16>>| range.as_ref().map_or(0, |range| *range.start());
        let (source, destination) =
            (first_port(&self.source_port), first_port(&self.destination_port));
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
            Some(FragmentMatch::Later) => Fragment::Later,
            Some(FragmentMatch::First | FragmentMatch::Any) => Fragment::First,
        };
        let (protocol, dscp) = (self.protocol.unwrap_or(0), self.dscp.unwrap_or(0));
        let extensions = ExtensionHeaders::of(protocol).unwrap_or_default();
        let (vlan, inner_vlan) = (self.vlan, self.inner_vlan);
        Key { addresses, protocol, extensions, l4, fragment, dscp, vlan, inner_vlan }
    }

    /// Returns `true` only if every packet that matches `other` also matches `self`.
    fn covers(&self, other: &Self) -> bool {
        fn field_covers<T>(
            ours: Option<&T>,
            theirs: Option<&T>,
            covers: impl Fn(&T, &T) -> bool,
        ) -> bool {
            ours.is_none_or(|ours| theirs.is_some_and(|theirs| covers(ours, theirs)))
        }
        let prefix_covers = |ours: &IpNet, theirs: &IpNet| ours.contains(theirs);
        let range_covers = |ours: &RangeInclusive<u16>, theirs: &RangeInclusive<u16>| {
            ours.start() <= theirs.start() && ours.end() >= theirs.end()
        };
        field_covers(self.version().as_ref(), other.version().as_ref(), |ours, theirs| {
            ours == theirs
        }) && field_covers(self.source.as_ref(), other.source.as_ref(), prefix_covers)
            && field_covers(self.destination.as_ref(), other.destination.as_ref(), prefix_covers)
            && field_covers(self.protocol.as_ref(), other.protocol.as_ref(), |ours, theirs| {
                ours == theirs
            })
            && self.covers_ports(other, range_covers)
            && field_covers(self.flags.as_ref(), other.flags.as_ref(), |ours, theirs| {
                ours.mask & theirs.mask == ours.mask && theirs.value & ours.mask == ours.value
            })
            && field_covers(self.icmp_type.as_ref(), other.icmp_type.as_ref(), |ours, theirs| {
                ours == theirs
            })
            && field_covers(self.icmp_code.as_ref(), other.icmp_code.as_ref(), |ours, theirs| {
                ours == theirs
            })
            && field_covers(self.vlan.as_ref(), other.vlan.as_ref(), |ours, theirs| ours == theirs)
            && field_covers(self.inner_vlan.as_ref(), other.inner_vlan.as_ref(), |ours, theirs| {
                ours == theirs
            })
            && field_covers(self.dscp.as_ref(), other.dscp.as_ref(), |ours, theirs| ours == theirs)
            && field_covers(self.fragment.as_ref(), other.fragment.as_ref(), |ours, theirs| {
                *ours == FragmentMatch::Any || ours == theirs
            })
    }

    fn covers_ports(
        &self,
        other: &Self,
        covers: impl Fn(&RangeInclusive<u16>, &RangeInclusive<u16>) -> bool + Copy,
    ) -> bool {
        let full_range = 0..=u16::MAX;
        // A condition on a port or on TCP flags implies that the packet has ports. A port without a
        // condition is then any port; otherwise, the packet may lack ports.
        let has_ports = other.source_port.is_some()
            || other.destination_port.is_some()
            || other.flags.is_some();
        let implied_range = |range: &Option<RangeInclusive<u16>>| {
            range.clone().or(has_ports.then(|| full_range.clone()))
        };
        let port_covers = |ours: &Option<RangeInclusive<u16>>,
                           theirs: &Option<RangeInclusive<u16>>| {
            ours.as_ref().is_none_or(|ours| {
                implied_range(theirs).is_some_and(|theirs| covers(ours, &theirs))
            })
        };
        port_covers(&self.source_port, &other.source_port)
            && port_covers(&self.destination_port, &other.destination_port)
    }
}
