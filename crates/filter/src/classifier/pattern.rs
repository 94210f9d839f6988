//! Patterns: the conditions of rules, to be compared with packed keys.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::key::{
    ExtensionHeaders, Packed, V4_WORDS, V6_WORDS, l4_word, pack_v4, pack_v6, tag_word,
};
use crate::rule::{FragmentMatch, Match, Version};

/// A key matches if `key & mask == value` and both ports are within their ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern<const N: usize> {
    pub(super) value: Packed<N>,
    pub(super) mask: Packed<N>,
    /// First and last port; 0 and 65535 without a condition.
    pub(super) source_ports: [u16; 2],
    pub(super) destination_ports: [u16; 2],
    /// Number of the rule. The smaller number takes precedence.
    pub(super) rule: u32,
    /// Per field, the number of leading bits whose value the rule prescribes.
    pub(super) bits: Bits,
}

/// A number of leading bits for each field of a packed key.
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

    pub(super) fn mask<const N: usize>(self) -> Packed<N> {
        let last_words = [
            high_bits(self.source_port, 16) << l4_word::SOURCE_PORT
                | high_bits(self.destination_port, 16) << l4_word::DESTINATION_PORT
                | high_bits(self.protocol, 8) << l4_word::PROTOCOL,
            0,
        ];
        let mut mask = [0; N];
        // The number of words determines the IP version.
        if N == V4_WORDS {
            mask.copy_from_slice(&pack_v4(
                prefix_mask_v4(self.source),
                prefix_mask_v4(self.destination),
                last_words,
            ));
        } else {
            mask.copy_from_slice(&pack_v6(
                prefix_mask_v6(self.source),
                prefix_mask_v6(self.destination),
                last_words,
            ));
        }
        mask
    }
}

/// Returns the highest `bits` of `width` bits.
fn high_bits(bits: u8, width: u8) -> u64 {
    let all = (1_u64 << width) - 1;
    all & !(all >> bits)
}

fn prefix_mask_v4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn prefix_mask_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// The last two words of a pattern, which do not depend on the IP version. [`l4_word`] and
/// [`tag_word`] define their layout.
struct LastWords {
    value: [u64; 2],
    mask: [u64; 2],
    source_ports: [u16; 2],
    destination_ports: [u16; 2],
    bits: Bits,
}

// Indexes in `LastWords::value`.
const L4: usize = 0;
const TAG: usize = 1;

impl LastWords {
    fn new(matches: &Match, version: Version) -> Self {
        let no_bits =
            Bits { source: 0, destination: 0, source_port: 0, destination_port: 0, protocol: 0 };
        let all_ports = [0, u16::MAX];
        let mut words = Self {
            value: [0; 2],
            mask: [0; 2],
            source_ports: all_ports,
            destination_ports: all_ports,
            bits: no_bits,
        };
        let is_v6 = version == Version::V6;
        match matches.protocol.map(|number| (number, ExtensionHeaders::of(number))) {
            // The protocol number of an IPv6 extension header: require this header.
            Some((_, Some(header))) if is_v6 => {
                let bit = u64::from(header.bits());
                words.require(TAG, tag_word::EXTENSIONS, bit, bit);
            }
            Some((protocol, _)) => {
                words.require(L4, l4_word::PROTOCOL, 0xff, protocol.into());
                words.bits.protocol = 8;
            }
            None => {}
        }
        if let Some(range) = &matches.source_port {
            (words.source_ports, words.bits.source_port) =
                words.require_port(l4_word::SOURCE_PORT, range);
        }
        if let Some(range) = &matches.destination_port {
            (words.destination_ports, words.bits.destination_port) =
                words.require_port(l4_word::DESTINATION_PORT, range);
        }
        for (shift, wanted) in [
            (l4_word::SOURCE_PORT, matches.icmp_type),
            (l4_word::DESTINATION_PORT, matches.icmp_code),
        ] {
            if let Some(wanted) = wanted {
                words.require(L4, shift, 0xffff, wanted.into());
                words.require(L4, l4_word::KIND, l4_word::KIND_MASK, l4_word::KIND_ICMP);
            }
        }
        match matches.fragment {
            Some(FragmentMatch::Any) => {
                words.require(L4, l4_word::FRAGMENT, l4_word::IS_FRAGMENT, l4_word::IS_FRAGMENT)
            }
            Some(FragmentMatch::First) => {
                words.require(
                    L4,
                    l4_word::FRAGMENT,
                    l4_word::IS_FRAGMENT | l4_word::IS_LATER,
                    l4_word::IS_FRAGMENT,
                );
            }
            Some(FragmentMatch::Later) => {
                words.require(L4, l4_word::FRAGMENT, l4_word::IS_LATER, l4_word::IS_LATER)
            }
            None => {}
        }
        if let Some(flags) = matches.flags {
            let mask = tag_word::HAS_FLAGS | u64::from(flags.mask);
            let wanted = tag_word::HAS_FLAGS | u64::from(flags.value);
            words.require(TAG, tag_word::FLAGS, mask, wanted);
        }
        for (shift, vlan) in
            [(tag_word::VLAN, matches.vlan), (tag_word::INNER_VLAN, matches.inner_vlan)]
        {
            if let Some(vlan) = vlan {
                let tag = tag_word::IS_TAGGED | u64::from(vlan);
                words.require(TAG, shift, tag_word::IS_TAGGED | 0xfff, tag);
            }
        }
        if let Some(dscp) = matches.dscp {
            words.require(TAG, tag_word::DSCP, 0x3f, dscp.into());
        }
        // The ICMP type is in the field of the source port.
        if matches.icmp_type.is_some() {
            words.bits.source_port = 16;
        }
        words
    }

    /// Requires `value` in the bits `mask` of the field at position `shift` of the word `L4` or
    /// `TAG`.
    fn require(&mut self, word: usize, shift: u32, mask: u64, value: u64) {
        self.mask[word] |= mask << shift;
        self.value[word] |= (value & mask) << shift;
    }

    /// Requires that the packet has ports, and that the port at position `shift` has the leading
    /// bits that all ports of `range` share. Returns the range, which these bits alone cannot
    /// express, and the number of shared bits.
    fn require_port(&mut self, shift: u32, range: &RangeInclusive<u16>) -> ([u16; 2], u8) {
        self.require(L4, l4_word::KIND, l4_word::KIND_MASK, l4_word::KIND_PORTS);
        let (first, last) = (*range.start(), *range.end());
        let common = (first ^ last).leading_zeros() as u8;
        let mask = high_bits(common, 16);
        self.require(L4, shift, mask, u64::from(first) & mask);
        ([first, last], common)
    }
}

/// Returns `None` if the rule applies to IPv6 only.
pub(super) fn pattern_v4(rule: u32, matches: &Match) -> Option<Pattern<V4_WORDS>> {
    if matches.version() == Some(Version::V6) {
        return None;
    }
    let network_and_length = |prefix: Option<IpNet>| match prefix {
        Some(IpNet::V4(prefix)) => (prefix.network().to_bits(), prefix.prefix_len()),
        _ => (0, 0),
    };
    let ((source, source_bits), (destination, destination_bits)) =
        (network_and_length(matches.source), network_and_length(matches.destination));
    let words = LastWords::new(matches, Version::V4);
    Some(Pattern {
        value: pack_v4(source, destination, words.value),
        mask: pack_v4(prefix_mask_v4(source_bits), prefix_mask_v4(destination_bits), words.mask),
        source_ports: words.source_ports,
        destination_ports: words.destination_ports,
        rule,
        bits: Bits { source: source_bits, destination: destination_bits, ..words.bits },
    })
}

pub(super) fn pattern_v6(rule: u32, matches: &Match) -> Option<Pattern<V6_WORDS>> {
    if matches.version() == Some(Version::V4) {
        return None;
    }
    let network_and_length = |prefix: Option<IpNet>| match prefix {
        Some(IpNet::V6(prefix)) => (prefix.network().to_bits(), prefix.prefix_len()),
        _ => (0, 0),
    };
    let ((source, source_bits), (destination, destination_bits)) =
        (network_and_length(matches.source), network_and_length(matches.destination));
    let words = LastWords::new(matches, Version::V6);
    Some(Pattern {
        value: pack_v6(source, destination, words.value),
        mask: pack_v6(prefix_mask_v6(source_bits), prefix_mask_v6(destination_bits), words.mask),
        source_ports: words.source_ports,
        destination_ports: words.destination_ports,
        rule,
        bits: Bits { source: source_bits, destination: destination_bits, ..words.bits },
    })
}
