//! Writes rules in the rule language.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use crate::rule::{FragmentMatch, Limit, Match, Per, Rule, TcpFlags, Unit, Verdict, Version};

/// Protocols with a name in the rule language.
pub(super) const PROTOCOLS: [(&str, u8); 11] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
];
pub(super) const FLAG_NAMES: [(&str, u8); 8] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

/// Writes the rule in the rule language. Parsing the text returns an equal rule.
impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verdict {
            Some(Verdict::Accept) => "accept",
            Some(Verdict::Drop) => "drop",
            None => "continue",
        })?;
        let Match { version, source, destination, protocol, source_port, destination_port, .. } =
            &self.matches;
        let Match { flags, icmp_type, icmp_code, vlan, inner_vlan, fragment, dscp, .. } =
            &self.matches;
        match version {
            Some(Version::V4) => f.write_str(" ipv4")?,
            Some(Version::V6) => f.write_str(" ipv6")?,
            None => {}
        }
        let mut field = |name: &str, value: Option<String>| {
            value.map_or(Ok(()), |value| write!(f, " {name} {value}"))
        };
        field("src", source.map(|prefix| prefix.to_string()))?;
        field("dst", destination.map(|prefix| prefix.to_string()))?;
        field("proto", protocol.map(protocol_name))?;
        field("sport", source_port.as_ref().map(range))?;
        field("dport", destination_port.as_ref().map(range))?;
        field("flags", flags.map(flag_names))?;
        field("icmp-type", icmp_type.map(|kind| kind.to_string()))?;
        field("icmp-code", icmp_code.map(|code| code.to_string()))?;
        field("vlan", vlan.map(|vlan| vlan.to_string()))?;
        field("inner-vlan", inner_vlan.map(|vlan| vlan.to_string()))?;
        let fragment_name = |fragment| match fragment {
            FragmentMatch::First => "first",
            FragmentMatch::Later => "later",
            FragmentMatch::Any => "any",
        };
        field("fragment", fragment.map(|fragment| fragment_name(fragment).to_owned()))?;
        field("dscp", dscp.map(|dscp| dscp.to_string()))?;
        if let Some(Limit { rate, unit, burst, per }) = self.limit {
            let (rate_unit, burst_unit) =
                if unit == Unit::Packets { ("pps", "") } else { ("bps", "bit") };
            field("limit", Some(with_suffix(rate) + rate_unit))?;
            field("burst", Some(with_suffix(burst) + burst_unit))?;
            if let Per::Source(length) = per {
                field("per", Some(format!("src/{length}")))?;
            }
        }
        field("log", self.log.map(|sample| format!("1/{sample}")))
    }
}

fn protocol_name(protocol: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
    named.map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

fn range(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}

fn flag_names(flags: TcpFlags) -> String {
    let compared = FLAG_NAMES.iter().filter(|(_, bit)| flags.mask & bit != 0);
    let names = compared
        .map(|(name, bit)| format!("{}{name}", if flags.value & bit == 0 { "!" } else { "" }));
    names.collect::<Vec<_>>().join(",")
}

/// Returns the number as text, with the largest of the units G, M and k that divides it.
fn with_suffix(number: u64) -> String {
    for (scale, name) in [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
        if number >= scale && number.is_multiple_of(scale) {
            return format!("{}{name}", number / scale);
        }
    }
    number.to_string()
}
