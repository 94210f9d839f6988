//! Generates rules from a seed, a set of parameters of ClassBench.

use std::collections::{HashMap, HashSet};

use super::{
    random::Random,
    rule::{Ports, Prefix, Protocol, Rule5},
    seed::{Lengths, Seed},
    trie,
};

/// Returns `rules` distinct rules, each before the rules that cover it; fewer if the seed does not
/// yield as many.
///
/// Draws can repeat a rule. If too few are distinct, draws again, with a larger number, in up to
/// eight rounds.
pub fn generate(seed: &Seed, rules: usize, random_seed: u64) -> Vec<Rule5> {
    let mut drawn = rules;
    let mut distinct = Vec::new();
    for _ in 0..MAX_ROUNDS {
        distinct = draw(seed, drawn, rules, random_seed);
        let mut seen = HashSet::with_capacity(distinct.len());
        distinct.retain(|rule| seen.insert(*rule));
        if distinct.len() >= rules {
            break;
        }
        drawn = next_draws(drawn, distinct.len(), rules);
    }
    distinct.truncate(rules);
    sort_by_scope(distinct)
}

const MAX_ROUNDS: u32 = 8;

/// Returns the number of draws for `wanted` distinct rules, at most twice `drawn`.
fn next_draws(drawn: usize, distinct: usize, wanted: usize) -> usize {
    let needed = drawn as f64 * wanted as f64 / distinct.max(1) as f64 * 1.05;
    (needed as usize + 16).min(drawn.saturating_mul(2))
}

/// Draws `count` rules, possibly with duplicates. The prefix trees branch as for `size` rules.
pub(crate) fn draw(seed: &Seed, count: usize, size: usize, random_seed: u64) -> Vec<Rule5> {
    let mut random = Random::new(random_seed);
    let mut protocols_and_ports = Vec::with_capacity(count);
    let mut lengths: Vec<Lengths> = Vec::with_capacity(count);
    for _ in 0..count {
        let (protocol, pairs) = seed.protocols.draw(&mut random);
        let pair = pairs.draw(&mut random);
        let source = seed.source_ports.draw(pair.source, &mut random);
        let destination = seed.destination_ports.draw(pair.destination, &mut random);
        protocols_and_ports.push((*protocol, source, destination));
        lengths.push(*seed.lengths[pair].draw(&mut random));
    }
    let factor = size as f64 / f64::from(seed.filters);
    let sources = trie::sources(&seed.source.scaled(factor), &lengths, &mut random);
    let branching = seed.destination.scaled(factor);
    let destinations =
        trie::destinations(&branching, &seed.correlation, &lengths, &sources, &mut random);
    let rule = |index: usize| {
        let (protocol, source_ports, destination_ports) = protocols_and_ports[index];
        Rule5 {
            source: Prefix::new(sources[index], lengths[index].source),
            destination: Prefix::new(destinations[index], lengths[index].destination),
            source_ports,
            destination_ports,
            protocol,
        }
    };
    (0..count).map(rule).collect()
}

/// Sorts by scope, narrowest first. Rules of equal scope are grouped by tuple (prefix lengths,
/// widths of the port ranges, protocol mask), in the order in which the tuples were drawn.
///
/// A rule has a larger scope than any rule that it covers, so no rule hides a later one.
fn sort_by_scope(rules: Vec<Rule5>) -> Vec<Rule5> {
    let mut tuples = HashMap::new();
    let mut keyed: Vec<_> = rules
        .into_iter()
        .map(|rule| {
            let next_index = tuples.len();
            let width = |ports: Ports| ports.high - ports.low;
            let tuple = (
                rule.source.length,
                rule.destination.length,
                width(rule.source_ports),
                width(rule.destination_ports),
                rule.protocol.mask,
            );
            (scope(&rule), *tuples.entry(tuple).or_insert(next_index), rule)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    keyed.into_iter().map(|(_, _, rule)| rule).collect()
}

/// Returns the binary logarithm of the number of different headers that the rule matches.
fn scope(rule: &Rule5) -> f64 {
    let ports = |ports: Ports| (f64::from(ports.high - ports.low) + 1.0).log2();
    f64::from(64 - rule.source.length - rule.destination.length)
        + ports(rule.source_ports)
        + ports(rule.destination_ports)
        + if rule.protocol == Protocol::ANY { 8.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{
        rule::{read_rules, write_rules},
        seed::{ClassPair, PortClass},
    };
    use super::*;

    fn seeds() -> impl Iterator<Item = Seed> {
        Seed::names().map(|name| Seed::built_in(name).unwrap())
    }

    /// Returns the class of a range. It is unambiguous for the built-in seeds, none of whose ranges
    /// equals another class.
    fn class(ports: Ports) -> PortClass {
        match (ports.low, ports.high) {
            (0, u16::MAX) => PortClass::Any,
            (1024, u16::MAX) => PortClass::High,
            (0, 1023) => PortClass::Low,
            (low, high) if low == high => PortClass::Exact,
            _ => PortClass::Range,
        }
    }

    /// Allows five standard deviations plus `slack`.
    fn assert_near<K: Ord + std::fmt::Debug>(
        seen: &BTreeMap<K, usize>,
        wanted: &BTreeMap<K, f64>,
        total: usize,
        slack: f64,
    ) {
        assert!(seen.keys().all(|key| wanted.contains_key(key)), "{seen:?}, {wanted:?}");
        for (key, share) in wanted {
            let seen = seen.get(key).copied().unwrap_or(0) as f64 / total as f64;
            let allowed = 5.0 * (share * (1.0 - share) / total as f64).sqrt() + slack;
            assert!(
                (seen - share).abs() <= allowed,
                "{key:?}: share {seen:.4}, expected {share:.4}"
            );
        }
    }

    fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
        let mut counts = BTreeMap::new();
        keys.for_each(|key| *counts.entry(key).or_insert(0) += 1);
        counts
    }

    fn assert_follows_seed(seed: &Seed, rules: &[Rule5], slack: f64) {
        let mut protocols = BTreeMap::new();
        let mut pairs = BTreeMap::new();
        let mut lengths = BTreeMap::new();
        for (share, (protocol, choice)) in seed.protocols.shares() {
            protocols.insert(*protocol, share);
            for (pair_share, pair) in choice.shares() {
                *pairs.entry(*pair).or_insert(0.0) += share * pair_share;
                for (length_share, both) in seed.lengths[pair].shares() {
                    *lengths.entry((both.source, both.destination)).or_insert(0.0) +=
                        share * pair_share * length_share;
                }
            }
        }
        let pair = |rule: &Rule5| ClassPair {
            source: class(rule.source_ports),
            destination: class(rule.destination_ports),
        };
        assert_near(&count(rules.iter().map(|rule| rule.protocol)), &protocols, rules.len(), slack);
        assert_near(&count(rules.iter().map(pair)), &pairs, rules.len(), slack);
        let length_pair = |rule: &Rule5| (rule.source.length, rule.destination.length);
        assert_near(&count(rules.iter().map(length_pair)), &lengths, rules.len(), slack);
    }

    #[test]
    fn draws_follow_shares_of_seed() {
        for seed in seeds() {
            assert_follows_seed(&seed, &draw(&seed, 10_000, 10_000, 1), 0.0);
        }
    }

    #[test]
    fn generated_set_stays_near_shares_of_seed() {
        // Rules with short prefixes and wildcards are repeated most; removing duplicates reduces
        // their share.
        for (name, slack) in [("acl", 0.03), ("ipc", 0.03), ("fw", 0.08)] {
            let seed = Seed::built_in(name).unwrap();
            assert_follows_seed(&seed, &generate(&seed, 10_000, 1), slack);
        }
    }

    #[test]
    fn generate_returns_requested_number_of_distinct_rules() {
        for seed in seeds() {
            for size in [1, 1000, 10_000] {
                let rules = generate(&seed, size, 1);
                assert_eq!(rules.len(), size, "{}", seed.name());
                assert_eq!(rules.iter().collect::<HashSet<_>>().len(), size, "{}", seed.name());
            }
        }
        assert!(generate(&Seed::built_in("fw").unwrap(), 0, 1).is_empty());
    }

    #[test]
    fn generate_is_reproducible_by_random_seed() {
        for seed in seeds() {
            assert_eq!(generate(&seed, 1000, 1), generate(&seed, 1000, 1));
            assert_ne!(generate(&seed, 1000, 1), generate(&seed, 1000, 2));
        }
    }

    #[test]
    fn generated_rule_is_never_covered_by_earlier_rule() {
        for seed in seeds() {
            let rules = generate(&seed, 2000, 1);
            for (index, rule) in rules.iter().enumerate() {
                assert_eq!(
                    rules[..index].iter().find(|before| before.covers(rule)),
                    None,
                    "{rule}"
                );
            }
        }
    }

    #[test]
    fn generated_rules_survive_write_and_read() {
        for seed in seeds() {
            let rules = generate(&seed, 500, 1);
            let mut text = Vec::new();
            write_rules(&mut text, &rules).unwrap();
            assert_eq!(read_rules(&text[..]).unwrap(), rules);
        }
    }
}
