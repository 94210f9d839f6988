//! Addresses for prefixes of given lengths, as in ClassBench: from a binary trie of the source
//! prefixes and one of the destination prefixes.
//!
//! A prefix whose length is the level of a node has the node's address. The level's [`Branching`]
//! decides whether longer prefixes go to one child or are split between two. At the maximum
//! nesting, prefixes that end one level deeper go to one child, and longer prefixes to the other.

use super::{
    random::Random,
    seed::{Branching, Lengths},
};

/// Returns an address for each entry of `lengths`.
pub(crate) fn sources(branching: &Branching, lengths: &[Lengths], random: &mut Random) -> Vec<u32> {
    let mut sources = Sources { branching, lengths, random, addresses: vec![0; lengths.len()] };
    sources.grow(0, 0, (0..lengths.len()).collect(), 0);
    sources.addresses
}

/// Returns a destination address for each entry of `lengths`. Its first bits equal those of the
/// source address: a random number of bits, by the probabilities in `correlation`.
pub(crate) fn destinations(
    branching: &Branching,
    correlation: &[f64; 33],
    lengths: &[Lengths],
    sources: &[u32],
    random: &mut Random,
) -> Vec<u32> {
    let addresses = vec![0; lengths.len()];
    let nodes = vec![Node::default()];
    let mut growing =
        Destinations { branching, correlation, lengths, sources, random, nodes, addresses };
    growing.follow(0, 0, 0, (0..lengths.len()).collect(), 0);
    growing.finish(0, 0, 0, Vec::new(), 0);
    growing.addresses
}

fn child(address: u32, level: u8, side: usize) -> u32 {
    address | (side as u32) << (31 - level)
}

/// Returns how many of `count` rules the heavier child has.
fn heavier_count(count: usize, skew: f64) -> usize {
    // lighter = (1 - skew) * heavier, and lighter + heavier = count.
    (count as f64 / (2.0 - skew)) as usize
}

/// Returns whether the maximum nesting requires separating the next level's prefixes from longer
/// ones.
fn must_separate(
    branching: &Branching,
    nested: u8,
    level: u8,
    count: usize,
    any_ends_next: bool,
) -> bool {
    // Level 32 is the last: at level 31, no prefixes are longer than those that end next.
    count > 1 && nested + 1 >= branching.nesting && any_ends_next && level < 31
}

struct Sources<'a> {
    branching: &'a Branching,
    lengths: &'a [Lengths],
    random: &'a mut Random,
    addresses: Vec<u32>,
}

impl Sources<'_> {
    /// Assigns addresses from this node down. `nested` prefixes lie on the path to it.
    fn grow(&mut self, level: u8, address: u32, rules: Vec<usize>, nested: u8) {
        let length = |rule: usize| self.lengths[rule].source;
        let (ending, mut longer): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|&rule| length(rule) == level);
        ending.iter().for_each(|&rule| self.addresses[rule] = address);
        if longer.is_empty() {
            return;
        }
        let nested = nested + u8::from(!ending.is_empty());
        let heavier_side = self.random.below(2);
        let ends_next = |rule: usize| length(rule) == level + 1;
        let any_ends_next = longer.iter().any(|&rule| ends_next(rule));
        let branching = self.branching.levels[usize::from(level)];
        let lighter_rules =
            if must_separate(self.branching, nested, level, longer.len(), any_ends_next) {
                let (ending_next, ending_later): (Vec<_>, Vec<_>) =
                    longer.into_iter().partition(|&rule| ends_next(rule));
                let lighter_rules;
                (longer, lighter_rules) = if ending_next.len() > ending_later.len() {
                    (ending_next, ending_later)
                } else {
                    (ending_later, ending_next)
                };
                lighter_rules
            } else if longer.len() == 1 || !self.random.chance(branching.two_children) {
                Vec::new()
            } else {
                longer.split_off(heavier_count(longer.len(), branching.skew))
            };
        for (side, rules) in [(heavier_side, longer), (1 - heavier_side, lighter_rules)] {
            if !rules.is_empty() {
                self.grow(level + 1, child(address, level, side), rules, nested);
            }
        }
    }
}

#[derive(Default)]
struct Node {
    children: [Option<usize>; 2],
    /// Rules that [`Destinations::follow`] moved below each child.
    weight: [usize; 2],
    /// Rules whose destination diverges from the source here.
    stubs: Vec<usize>,
    ends_here: bool,
}

struct Destinations<'a> {
    branching: &'a Branching,
    correlation: &'a [f64; 33],
    lengths: &'a [Lengths],
    sources: &'a [u32],
    random: &'a mut Random,
    nodes: Vec<Node>,
    addresses: Vec<u32>,
}

impl Destinations<'_> {
    /// Moves each rule along the bits of its source, and leaves it at the node where its
    /// destination diverges.
    fn follow(&mut self, node: usize, level: u8, address: u32, rules: Vec<usize>, nested: u8) {
        let longer = self.assign_address(node, level, address, rules);
        let nested = nested + u8::from(self.nodes[node].ends_here);
        if self.must_separate(nested, level, &longer) {
            self.nodes[node].stubs.extend(longer);
            return;
        }
        let mut following = [Vec::new(), Vec::new()];
        for rule in longer {
            let length = self.lengths[rule].source;
            if length <= level {
                self.nodes[node].stubs.push(rule);
                continue;
            }
            let side = (self.sources[rule] >> (31 - level) & 1) as usize;
            // Always diverge at the last bit of the source's prefix: otherwise, the destination
            // would lie inside this prefix.
            if length > level + 1 && self.random.chance(self.correlation[usize::from(level) + 1]) {
                self.nodes[node].weight[side] += 1;
                following[side].push(rule);
            } else {
                let away = self.child(node, 1 - side);
                self.nodes[node].weight[1 - side] += 1;
                self.nodes[away].stubs.push(rule);
            }
        }
        for (side, rules) in
            following.into_iter().enumerate().filter(|(_, rules)| !rules.is_empty())
        {
            let next = self.child(node, side);
            self.follow(next, level + 1, child(address, level, side), rules, nested);
        }
    }

    /// Moves the stubs of this node, and `rules` from its parent, down to the nodes at which they
    /// end.
    fn finish(&mut self, node: usize, level: u8, address: u32, mut rules: Vec<usize>, nested: u8) {
        rules.append(&mut self.nodes[node].stubs);
        let mut longer = self.assign_address(node, level, address, rules);
        let nested = nested + u8::from(self.nodes[node].ends_here);
        let mut split = [Vec::new(), Vec::new()];
        if !longer.is_empty() {
            let Node { children, weight, .. } = self.nodes[node];
            let heavier_side = match weight[0].cmp(&weight[1]) {
                std::cmp::Ordering::Greater => 0,
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Equal => self.random.below(2),
            };
            let branching = self.branching.levels[usize::from(level)];
            if self.must_separate(nested, level, &longer) {
                let (ending_next, ending_later): (Vec<_>, Vec<_>) = longer
                    .into_iter()
                    .partition(|&rule| self.lengths[rule].destination == level + 1);
                let (more, less) = if ending_next.len() > ending_later.len() {
                    (ending_next, ending_later)
                } else {
                    (ending_later, ending_next)
                };
                split[heavier_side] = more;
                split[1 - heavier_side] = less;
            } else if children.contains(&None) && !self.random.chance(branching.two_children) {
                let side = children.iter().position(Option::is_some).unwrap_or(heavier_side);
                split[side] = longer;
            } else {
                // Approach the skew, counting also the rules that are already below the children.
                let total = longer.len() + weight[0] + weight[1];
                let wanted = heavier_count(total, branching.skew);
                let lighter_count = (total - wanted).saturating_sub(weight[1 - heavier_side]);
                let lighter_count = if wanted <= weight[heavier_side] {
                    longer.len()
                } else {
                    lighter_count.min(longer.len())
                };
                split[heavier_side] = longer.split_off(lighter_count);
                split[1 - heavier_side] = longer;
            }
        }
        for (side, rules) in split.into_iter().enumerate() {
            if !rules.is_empty() || self.nodes[node].weight[side] > 0 {
                let next = self.child(node, side);
                self.finish(next, level + 1, child(address, level, side), rules, nested);
            }
        }
    }

    /// Assigns the address to the rules that end here. Returns the rules with longer prefixes.
    fn assign_address(
        &mut self,
        node: usize,
        level: u8,
        address: u32,
        rules: Vec<usize>,
    ) -> Vec<usize> {
        let (ending, longer): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|&rule| self.lengths[rule].destination == level);
        ending.iter().for_each(|&rule| self.addresses[rule] = address);
        self.nodes[node].ends_here |= !ending.is_empty();
        longer
    }

    fn must_separate(&self, nested: u8, level: u8, rules: &[usize]) -> bool {
        let any_ends_next = rules.iter().any(|&rule| self.lengths[rule].destination == level + 1);
        must_separate(self.branching, nested, level, rules.len(), any_ends_next)
    }

    fn child(&mut self, node: usize, side: usize) -> usize {
        if let Some(child) = self.nodes[node].children[side] {
            return child;
        }
        self.nodes.push(Node::default());
        let child = self.nodes.len() - 1;
        self.nodes[node].children[side] = Some(child);
        child
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{rule::Prefix, seed::Level};
    use super::*;

    fn branching(two_children: f64, skew: f64) -> Branching {
        Branching { nesting: 4, levels: [Level { two_children, skew }; 33] }
    }

    fn repeated(count: usize, source: u8, destination: u8) -> Vec<Lengths> {
        vec![Lengths { source, destination }; count]
    }

    #[test]
    fn source_trie_branching_sets_number_of_addresses() {
        let distinct = |two_children, skew, length| {
            let addresses = sources(
                &branching(two_children, skew),
                &repeated(256, length, 0),
                &mut Random::new(1),
            );
            addresses.into_iter().collect::<BTreeSet<_>>().len()
        };
        assert_eq!(distinct(0.0, 1.0, 32), 1);
        assert_eq!(distinct(1.0, 0.0, 8), 256);
        assert_eq!(distinct(1.0, 0.0, 4), 16);
        // Skew 1: the heavier child has all rules.
        assert_eq!(distinct(1.0, 1.0, 32), 1);
    }

    #[test]
    fn heavier_child_gets_share_given_by_skew() {
        let addresses = sources(&branching(1.0, 0.5), &repeated(300, 1, 0), &mut Random::new(1));
        let upper_half = addresses.iter().filter(|&&address| address == 1 << 31).count();
        // The heavier child gets 200 rules, the lighter child 100.
        assert!(upper_half == 100 || upper_half == 200, "{upper_half}");
    }

    #[test]
    fn destination_diverges_from_source_where_correlation_ends() {
        let lengths = repeated(200, 32, 32);
        let sources = sources(&branching(1.0, 0.0), &lengths, &mut Random::new(1));
        let mut correlation = [0.0; 33];
        correlation[1..=12].fill(1.0);
        let found = destinations(
            &branching(1.0, 0.0),
            &correlation,
            &lengths,
            &sources,
            &mut Random::new(2),
        );
        for (source, destination) in sources.iter().zip(&found) {
            assert_eq!(
                (source ^ destination).leading_zeros(),
                12,
                "{source:08x} {destination:08x}"
            );
        }
    }

    #[test]
    fn prefixes_have_their_length_and_bounded_nesting() {
        let mut random = Random::new(3);
        let mut length = || [0, 8, 16, 20, 22, 24, 26, 28, 30, 32][random.below(10)];
        let lengths: Vec<_> =
            (0..2000).map(|_| Lengths { source: length(), destination: length() }).collect();
        let branching = branching(0.5, 0.5);
        let sources = sources(&branching, &lengths, &mut Random::new(4));
        let found = destinations(&branching, &[0.5; 33], &lengths, &sources, &mut Random::new(5));
        for (side, addresses) in [&sources, &found].into_iter().enumerate() {
            let prefixes: BTreeSet<_> = (addresses.iter().zip(&lengths))
                .map(|(&address, lengths)| {
                    let prefix = Prefix::new(
                        address,
                        if side == 0 { lengths.source } else { lengths.destination },
                    );
                    assert_eq!(prefix.address, address);
                    prefix
                })
                .collect();
            let deepest =
                prefixes.iter().map(|a| prefixes.iter().filter(|b| b.covers(*a)).count()).max();
            // As in ClassBench, the maximum nesting of 4 can be exceeded: `finish` can place a
            // prefix above prefixes that `follow` has placed, and counts only those above.
            assert!(deepest.is_some_and(|deepest| deepest <= 6), "side {side}: {deepest:?}");
        }
    }
}
