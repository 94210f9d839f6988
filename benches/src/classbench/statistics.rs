//! Properties of a rule set that determine the cost of a classifier.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use super::{
    random::Random,
    rule::{Ports, Prefix, Protocol, Rule5},
};

/// Counts over a set of rules.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Number of rules.
    pub rules: usize,
    /// Number of distinct pairs of source and destination prefix lengths.
    pub length_pairs: usize,
    /// Number of distinct tuples: both prefix lengths, the kind of each port range (a prefix of 0
    /// to 16 bits, or another range), and whether the rule names a protocol.
    pub tuples: usize,
    /// Number of rules of the largest tuple.
    pub largest_tuple: usize,
    /// Number of distinct source prefixes.
    pub sources: usize,
    /// Number of distinct destination prefixes.
    pub destinations: usize,
    /// Maximum nesting depth of source prefixes.
    pub source_nesting: usize,
    /// Maximum nesting depth of destination prefixes.
    pub destination_nesting: usize,
    /// Pairs of rules that overlap.
    pub overlaps: Overlaps,
}

/// Pairs of rules that match a common packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overlaps {
    /// Exact: every pair was checked.
    Exact(u64),
    /// Estimated from 20 million random pairs.
    Estimate(f64),
}

/// Maximum number of rules for an exact count.
const MAX_EXACT: usize = 10_000;
const SAMPLES: usize = 20_000_000;

/// The kind of a port range in a tuple.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    /// Number of leading bits that all ports of the range share.
    Prefix(u32),
    Range,
}

impl Kind {
    fn of(ports: Ports) -> Self {
        let width = u32::from(ports.high - ports.low) + 1;
        match width.is_power_of_two() && u32::from(ports.low).is_multiple_of(width) {
            true => Self::Prefix(16 - width.ilog2()),
            false => Self::Range,
        }
    }
}

impl Statistics {
    /// Computes the statistics. Takes about a second for a large set.
    pub fn of(rules: &[Rule5]) -> Self {
        let mut tuples = BTreeMap::new();
        let mut length_pairs = HashSet::new();
        for rule in rules {
            let lengths = (rule.source.length, rule.destination.length);
            let ports = (Kind::of(rule.source_ports), Kind::of(rule.destination_ports));
            length_pairs.insert(lengths);
            *tuples.entry((lengths, ports, rule.protocol == Protocol::ANY)).or_insert(0) += 1;
        }
        let sources = rules.iter().map(|rule| rule.source).collect();
        let destinations = rules.iter().map(|rule| rule.destination).collect();
        Self {
            rules: rules.len(),
            length_pairs: length_pairs.len(),
            tuples: tuples.len(),
            largest_tuple: tuples.values().max().copied().unwrap_or(0),
            source_nesting: nesting(&sources),
            destination_nesting: nesting(&destinations),
            sources: sources.len(),
            destinations: destinations.len(),
            overlaps: overlaps(rules),
        }
    }
}

fn nesting(prefixes: &HashSet<Prefix>) -> usize {
    let depth = |prefix: &Prefix| {
        (0..=prefix.length)
            .filter(|&length| prefixes.contains(&Prefix::new(prefix.address, length)))
            .count()
    };
    prefixes.iter().map(depth).max().unwrap_or(0)
}

fn overlaps(rules: &[Rule5]) -> Overlaps {
    if rules.len() <= MAX_EXACT {
        let overlaps_with_later = |(index, rule): (usize, &Rule5)| {
            rules[index + 1..].iter().filter(|later| rule.overlaps(later)).count() as u64
        };
        return Overlaps::Exact(rules.iter().enumerate().map(overlaps_with_later).sum());
    }
    let mut random = Random::new(1);
    let random_pair_overlaps = |_: &usize| {
        let first = random.below(rules.len());
        let second = (first + 1 + random.below(rules.len() - 1)) % rules.len();
        rules[first].overlaps(&rules[second])
    };
    let overlapping = (0..SAMPLES).filter(random_pair_overlaps).count();
    Overlaps::Estimate(overlapping as f64 / SAMPLES as f64 * pairs(rules.len()))
}

fn pairs(rules: usize) -> f64 {
    rules as f64 * (rules as f64 - 1.0) / 2.0
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28}{:>12}", "rules", self.rules)?;
        writeln!(f, "{:<28}{:>12}", "tuples", self.tuples)?;
        writeln!(f, "{:<28}{:>12}", "rules of the largest tuple", self.largest_tuple)?;
        writeln!(f, "{:<28}{:>12}", "pairs of address lengths", self.length_pairs)?;
        writeln!(
            f,
            "{:<28}{:>12}   nested {}",
            "source prefixes", self.sources, self.source_nesting
        )?;
        writeln!(
            f,
            "{:<28}{:>12}   nested {}",
            "destination prefixes", self.destinations, self.destination_nesting
        )?;
        let (number, how) = match self.overlaps {
            Overlaps::Exact(number) => (number as f64, "every pair checked".to_owned()),
            Overlaps::Estimate(number) => (number, format!("estimate from {SAMPLES} pairs")),
        };
        let share = 100.0 * number / pairs(self.rules).max(1.0);
        writeln!(f, "{:<28}{number:>12.0}   {share:.4} % of all, {how}", "overlapping pairs")?;
        write!(f, "not compared with published figures: no accessible source has them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[&str]) -> Vec<Rule5> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn statistics_of_small_set_match_manual_count() {
        let statistics = Statistics::of(&rules(&[
            "@10.0.0.1/32 0.0.0.0/0 0 : 65535 80 : 80 0x06/0xff",
            "@10.0.0.0/24 0.0.0.0/0 0 : 65535 80 : 80 0x06/0xff",
            "@10.0.0.0/24 0.0.0.0/0 0 : 65535 443 : 443 0x06/0xff",
            "@10.0.0.0/24 0.0.0.0/0 0 : 65535 1024 : 65535 0x11/0xff",
            "@0.0.0.0/0 192.0.2.0/24 0 : 65535 0 : 65535 0x00/0x00",
        ]));
        assert_eq!(
            (statistics.tuples, statistics.largest_tuple, statistics.length_pairs),
            (4, 2, 3)
        );
        assert_eq!((statistics.sources, statistics.destinations), (3, 2));
        assert_eq!((statistics.source_nesting, statistics.destination_nesting), (3, 2));
        // The last rule overlaps each other rule, and the first two rules overlap.
        assert_eq!(statistics.overlaps, Overlaps::Exact(5));
        assert!(statistics.to_string().contains("tuples"));
    }

    #[test]
    fn port_kind_is_prefix_or_range() {
        let kind = |low, high| Kind::of(Ports { low, high });
        assert!(kind(0, u16::MAX) == Kind::Prefix(0) && kind(7, 7) == Kind::Prefix(16));
        assert!(
            kind(0, 1023) == Kind::Prefix(6)
                && kind(1024, u16::MAX) == Kind::Range
                && kind(1, 2) == Kind::Range
        );
    }

    #[test]
    fn statistics_of_empty_set_are_zero() {
        let statistics = Statistics::of(&[]);
        assert_eq!((statistics.tuples, statistics.overlaps), (0, Overlaps::Exact(0)));
    }
}
