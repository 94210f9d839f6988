//! A rule as the classifier compares it with a packed key.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::key::{Packed, V4, V6, ports, rest, words_v4, words_v6};
use crate::rule::{Fragments, Match, Version};

/// A rule over packed keys: `key & mask == value`, and both ports within their ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern<const N: usize> {
    pub(super) value: Packed<N>,
    pub(super) mask: Packed<N>,
    /// First and last source port; the full range if the rule has none.
    pub(super) source: [u16; 2],
    /// First and last destination port, likewise.
    pub(super) destination: [u16; 2],
    /// Rule number. Smaller numbers take precedence.
    pub(super) rule: u32,
    /// Number of bits that the rule gives in each field.
    pub(super) bits: Bits,
}

/// A number of bits for each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bits {
    pub(super) source: u8,
    pub(super) destination: u8,
    pub(super) source_port: u8,
    pub(super) destination_port: u8,
    /// 0 or 8.
    pub(super) protocol: u8,
}

impl Bits {
    /// Returns whether each field has at least as many bits as in `other`.
    pub(super) fn covers(self, other: Self) -> bool {
        self.source >= other.source
            && self.destination >= other.destination
            && self.source_port >= other.source_port
            && self.destination_port >= other.destination_port
            && self.protocol >= other.protocol
    }

    pub(super) fn sum(self) -> u32 {
        let all =
            [self.source, self.destination, self.source_port, self.destination_port, self.protocol];
        all.into_iter().map(u32::from).sum()
    }

    /// Returns the mask that selects these bits.
    pub(super) fn mask<const N: usize>(self) -> Packed<N> {
        let upper = [
            high_bits(self.source_port, 16) << ports::SOURCE
                | high_bits(self.destination_port, 16) << ports::DESTINATION
                | high_bits(self.protocol, 8) << ports::PROTOCOL,
            0,
        ];
        let mut mask = [0; N];
        // The number of words determines the IP version.
        if N == V4 {
            mask.copy_from_slice(&words_v4(
                prefix_v4(self.source),
                prefix_v4(self.destination),
                upper,
            ));
        } else {
            mask.copy_from_slice(&words_v6(
                prefix_v6(self.source),
                prefix_v6(self.destination),
                upper,
            ));
        }
        mask
    }
}

/// Returns the highest `bits` of a field that is `width` bits wide.
fn high_bits(bits: u8, width: u8) -> u64 {
    let all = (1_u64 << width) - 1;
    all & !(all >> bits)
}

fn prefix_v4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn prefix_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// Value and mask of the two words that both versions have, and the port ranges, which they cannot
/// express.
struct Upper {
    value: [u64; 2],
    mask: [u64; 2],
    source: [u16; 2],
    destination: [u16; 2],
    bits: Bits,
}

impl Upper {
    fn new(matches: &Match) -> Self {
        let no_bits =
            Bits { source: 0, destination: 0, source_port: 0, destination_port: 0, protocol: 0 };
        let all = [0, u16::MAX];
        let mut upper =
            Self { value: [0; 2], mask: [0; 2], source: all, destination: all, bits: no_bits };
        if let Some(protocol) = matches.protocol {
            upper.require(0, ports::PROTOCOL, 0xff, protocol.into());
            upper.bits.protocol = 8;
        }
        if let Some(range) = &matches.source_port {
            (upper.source, upper.bits.source_port) = upper.require_port(ports::SOURCE, range);
        }
        if let Some(range) = &matches.destination_port {
            (upper.destination, upper.bits.destination_port) =
                upper.require_port(ports::DESTINATION, range);
        }
        for (shift, wanted) in
            [(ports::SOURCE, matches.icmp_type), (ports::DESTINATION, matches.icmp_code)]
        {
            if let Some(wanted) = wanted {
                upper.require(0, shift, 0xffff, wanted.into());
                upper.require(0, ports::KIND, ports::KIND_MASK, ports::KIND_ICMP);
            }
        }
        match matches.fragment {
            Some(Fragments::Any) => {
                upper.require(0, ports::FRAGMENT, ports::IS_FRAGMENT, ports::IS_FRAGMENT)
            }
            Some(Fragments::First) => {
                upper.require(
                    0,
                    ports::FRAGMENT,
                    ports::IS_FRAGMENT | ports::IS_LATER,
                    ports::IS_FRAGMENT,
                );
            }
            Some(Fragments::Later) => {
                upper.require(0, ports::FRAGMENT, ports::IS_LATER, ports::IS_LATER)
            }
            None => {}
        }
        if let Some(flags) = matches.flags {
            let wanted = rest::HAS_FLAGS | u64::from(flags.value);
            upper.require(1, rest::FLAGS, rest::HAS_FLAGS | u64::from(flags.mask), wanted);
        }
        if let Some(vlan) = matches.vlan {
            upper.require(
                1,
                rest::VLAN,
                rest::IS_TAGGED | 0xfff,
                rest::IS_TAGGED | u64::from(vlan),
            );
        }
        if let Some(dscp) = matches.dscp {
            upper.require(1, rest::DSCP, 0x3f, dscp.into());
        }
        if matches.icmp_type.is_some() {
            upper.bits.source_port = 16;
        }
        upper
    }

    fn require(&mut self, word: usize, shift: u32, mask: u64, value: u64) {
        self.mask[word] |= mask << shift;
        self.value[word] |= (value & mask) << shift;
    }

    /// Adds the bits that all ports of the range have in common, and returns the range, to be
    /// compared in the bucket, and the number of common bits.
    fn require_port(&mut self, shift: u32, range: &RangeInclusive<u16>) -> ([u16; 2], u8) {
        self.require(0, ports::KIND, ports::KIND_MASK, ports::KIND_PORTS);
        let (first, last) = (*range.start(), *range.end());
        let common = (first ^ last).leading_zeros() as u8;
        let mask = high_bits(common, 16);
        self.require(0, shift, mask, u64::from(first) & mask);
        ([first, last], common)
    }
}

/// Returns `None` if the rule applies to IPv6 only.
pub(super) fn pattern_v4(rule: u32, matches: &Match) -> Option<Pattern<V4>> {
    if matches.version() == Some(Version::V6) {
        return None;
    }
    let of = |prefix: Option<IpNet>| match prefix {
        Some(IpNet::V4(prefix)) => (prefix.network().to_bits(), prefix.prefix_len()),
        _ => (0, 0),
    };
    let ((source, source_bits), (destination, destination_bits)) =
        (of(matches.source), of(matches.destination));
    let upper = Upper::new(matches);
    Some(Pattern {
        value: words_v4(source, destination, upper.value),
        mask: words_v4(prefix_v4(source_bits), prefix_v4(destination_bits), upper.mask),
        source: upper.source,
        destination: upper.destination,
        rule,
        bits: Bits { source: source_bits, destination: destination_bits, ..upper.bits },
    })
}

/// Returns `None` if the rule applies to IPv4 only.
pub(super) fn pattern_v6(rule: u32, matches: &Match) -> Option<Pattern<V6>> {
    if matches.version() == Some(Version::V4) {
        return None;
    }
    let of = |prefix: Option<IpNet>| match prefix {
        Some(IpNet::V6(prefix)) => (prefix.network().to_bits(), prefix.prefix_len()),
        _ => (0, 0),
    };
    let ((source, source_bits), (destination, destination_bits)) =
        (of(matches.source), of(matches.destination));
    let upper = Upper::new(matches);
    Some(Pattern {
        value: words_v6(source, destination, upper.value),
        mask: words_v6(prefix_v6(source_bits), prefix_v6(destination_bits), upper.mask),
        source: upper.source,
        destination: upper.destination,
        rule,
        bits: Bits { source: source_bits, destination: destination_bits, ..upper.bits },
    })
}
