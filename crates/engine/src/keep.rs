//! The `keep` rules of a port.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A rule that selects frames for the XDP program to pass to the kernel, never frames in transit to
/// another host. `bpf/README.md` lists the exact conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeepRule {
    /// ARP requests for the host's addresses, and replies to them.
    Arp,
    /// Neighbor Discovery messages to the host's IPv6 addresses, and multicast ones about them.
    Nd,
    /// ICMP and ICMPv6 packets to the host.
    Icmp,
    /// All IP packets to the host.
    Local,
    /// LLDP frames.
    Lldp,
    /// Spanning tree frames.
    Stp,
    /// TCP packets to this port of the host.
    Tcp(u16),
    /// UDP packets to this port of the host.
    Udp(u16),
    /// ARP, Neighbor Discovery and IP packets to the host in this VLAN (outer tag).
    Vlan(u16),
}

/// The `keep` rules of a port.
pub type Keep = BTreeSet<KeepRule>;

impl KeepRule {
    /// The accepted rules, for error messages.
    pub const ACCEPTED: &'static str = "\"arp\", \"nd\", \"icmp\", \"local\", \"lldp\", \"stp\", \
         \"tcp/PORT\", \"udp/PORT\" (1 to 65535) or \"vlan/ID\" (1 to 4094)";

    const RULES_WITHOUT_NUMBER: [(&'static str, Self); 6] = [
        ("arp", Self::Arp),
        ("nd", Self::Nd),
        ("icmp", Self::Icmp),
        ("local", Self::Local),
        ("lldp", Self::Lldp),
        ("stp", Self::Stp),
    ];
}

impl fmt::Display for KeepRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Vlan(id) => write!(f, "vlan/{id}"),
            rule => f.write_str(
                Self::RULES_WITHOUT_NUMBER
                    .iter()
                    .find(|(_, other)| other == rule)
                    .map_or("", |(name, _)| name),
            ),
        }
    }
}

/// The error for a text that is not a rule. Its message lists the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", KeepRule::ACCEPTED)]
pub struct KeepRuleError;

impl FromStr for KeepRule {
    type Err = KeepRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, rule)) = Self::RULES_WITHOUT_NUMBER.iter().find(|(name, _)| *name == text) {
            return Ok(*rule);
        }
        let (kind, number) = text.split_once('/').ok_or(KeepRuleError)?;
        // Reject signs, leading zeros and 0, because `parse` alone would accept them.
        if !number.bytes().all(|byte| byte.is_ascii_digit()) || number.starts_with('0') {
            return Err(KeepRuleError);
        }
        match (kind, number.parse().map_err(|_| KeepRuleError)?) {
            ("tcp", port) => Ok(Self::Tcp(port)),
            ("udp", port) => Ok(Self::Udp(port)),
            ("vlan", id @ ..4095) => Ok(Self::Vlan(id)),
            _ => Err(KeepRuleError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_keep_rule_displays_as_original_text() {
        for text in [
            "arp",
            "nd",
            "icmp",
            "local",
            "lldp",
            "stp",
            "tcp/1",
            "tcp/22",
            "udp/65535",
            "vlan/1",
            "vlan/4094",
        ] {
            assert_eq!(text.parse::<KeepRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn keep_rule_parse_rejects_invalid_text() {
        for text in [
            "",
            "ARP",
            "arp ",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/+22",
            "tcp/022",
            "tcp/ssh",
            "vlan/0",
            "vlan/4095",
            "vlan/99999",
            "sctp/22",
            "/22",
            "tcp/22/23",
            "tcp/-1",
            "tcp/２２",
            "icmp/8",
        ] {
            assert_eq!(text.parse::<KeepRule>(), Err(KeepRuleError), "{text:?}");
        }
    }
}
