//! The distributions for drawing rules.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Error, Result, bail, ensure};

use super::{
    parameters,
    random::{Choice, Random},
    rule::{Ports, Protocol},
    seed_file::SeedFile,
};

const BUILT_IN: [(&str, &str); 3] = [
    ("acl", include_str!("../../classbench/acl.toml")),
    ("fw", include_str!("../../classbench/fw.toml")),
    ("ipc", include_str!("../../classbench/ipc.toml")),
];

/// The distributions of one kind of rule set.
#[derive(Clone, Debug)]
pub struct Seed {
    pub(crate) name: String,
    /// Number of rules in the set that the seed describes. A larger generated set has address tries
    /// with more branches.
    pub(crate) filters: u32,
    pub(crate) protocols: Choice<(Protocol, Choice<ClassPair>)>,
    pub(crate) source_ports: PortValues,
    pub(crate) destination_ports: PortValues,
    pub(crate) lengths: BTreeMap<ClassPair, Choice<Lengths>>,
    pub(crate) source: Branching,
    pub(crate) destination: Branching,
    /// Probability at each level that the destination's bit equals the source's, if all previous
    /// bits do.
    pub(crate) correlation: [f64; 33],
}

impl Seed {
    /// Returns the names for [`Seed::built_in`].
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Returns a seed of benches/classbench; `None`: unknown name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(other, _)| *other == name)?;
        Some(Self::parse(name, text).expect("valid built-in seed"))
    }

    /// Parses a seed in TOML, or a parameter file of ClassBench, which starts with `-scale`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let file = match text.trim_start().starts_with("-scale") {
            true => parameters::read(text),
            false => toml::from_str(text).map_err(Error::from),
        };
        file.and_then(|file| Self::resolve(name, &file)).with_context(|| format!("seed {name}"))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn resolve(name: &str, file: &SeedFile) -> Result<Self> {
        ensure!(file.filters > 0, "filters is 0; use the number of rules of the original set");
        let mut lengths = BTreeMap::new();
        let mut default = None;
        for (pair, values) in &file.lengths {
            let choice = Lengths::choice(values).with_context(|| format!("lengths of {pair}"))?;
            match pair.as_str() {
                "default" => default = Some(choice),
                _ => drop(lengths.insert(pair.parse::<ClassPair>()?, choice)),
            }
        }
        let mut protocols = Vec::new();
        for protocol in &file.protocol {
            let value = protocol.number.map_or(Protocol::ANY, Protocol::number);
            let pairs: Result<Vec<_>> = protocol
                .ports
                .iter()
                .map(|(pair, &share)| Ok((share, pair.parse::<ClassPair>()?)))
                .collect();
            let pairs = Choice::new(pairs?)
                .with_context(|| format!("ports of protocol {}", value.value))?;
            for (_, pair) in pairs.shares() {
                if let (false, Some(default)) = (lengths.contains_key(pair), &default) {
                    lengths.insert(*pair, default.clone());
                }
                ensure!(
                    lengths.contains_key(pair),
                    "there are no lengths for {pair:?} and no default"
                );
            }
            protocols.push((protocol.share, (value, pairs)));
        }
        let seed = Self {
            name: name.to_owned(),
            filters: file.filters,
            protocols: Choice::new(protocols).context("protocols")?,
            source_ports: PortValues::new(&file.source_ranges, &file.source_exact)
                .context("source ports")?,
            destination_ports: PortValues::new(&file.destination_ranges, &file.destination_exact)
                .context("destination ports")?,
            lengths,
            source: Branching::new(file.source_nesting, &file.source_branching)
                .context("source branching")?,
            destination: Branching::new(file.destination_nesting, &file.destination_branching)
                .context("destination branching")?,
            correlation: file.correlation()?,
        };
        for (_, (_, pairs)) in seed.protocols.shares() {
            for (_, pair) in pairs.shares() {
                seed.source_ports.check(pair.source).context("source ports")?;
                seed.destination_ports.check(pair.destination).context("destination ports")?;
            }
        }
        Ok(seed)
    }
}

/// The class of a port field, in the order of ClassBench's WC, HI, LO, AR and EM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PortClass {
    Any,
    /// 1024 to 65535.
    High,
    /// 0 to 1023.
    Low,
    Range,
    Exact,
}

impl FromStr for PortClass {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Ok(match word {
            "wc" => Self::Any,
            "hi" => Self::High,
            "lo" => Self::Low,
            "ar" => Self::Range,
            "em" => Self::Exact,
            _ => bail!("invalid port class {word:?}: use wc, hi, lo, ar or em"),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClassPair {
    pub(crate) source: PortClass,
    pub(crate) destination: PortClass,
}

impl FromStr for ClassPair {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let Some((source, destination)) = word.split_once('-') else {
            bail!("invalid pair of port classes {word:?}: use for example wc-em")
        };
        Ok(Self { source: source.parse()?, destination: destination.parse()? })
    }
}

/// Prefix lengths in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lengths {
    pub(crate) source: u8,
    pub(crate) destination: u8,
}

impl Lengths {
    fn choice(values: &[(f64, u8, u8)]) -> Result<Choice<Self>> {
        for &(_, source, destination) in values {
            ensure!(
                source <= 32 && destination <= 32,
                "invalid prefix lengths {source} and {destination}: use 0 to 32"
            );
        }
        Choice::new(
            values
                .iter()
                .map(|&(share, source, destination)| (share, Self { source, destination })),
        )
    }
}

#[derive(Clone, Debug)]
pub(crate) struct PortValues {
    ranges: Option<Choice<Ports>>,
    exact: Option<Choice<Ports>>,
}

impl PortValues {
    fn new(ranges: &[(f64, u16, u16)], exact: &[(f64, u16)]) -> Result<Self> {
        let choice = |values: Vec<(f64, Ports)>| {
            (!values.is_empty()).then(|| Choice::new(values)).transpose()
        };
        for &(_, low, high) in ranges {
            ensure!(low <= high, "the port range {low} to {high} is in the wrong order");
        }
        Ok(Self {
            ranges: choice(
                ranges.iter().map(|&(share, low, high)| (share, Ports { low, high })).collect(),
            )?,
            exact: choice(
                exact
                    .iter()
                    .map(|&(share, port)| (share, Ports { low: port, high: port }))
                    .collect(),
            )?,
        })
    }

    fn check(&self, class: PortClass) -> Result<()> {
        match class {
            PortClass::Range => {
                ensure!(self.ranges.is_some(), "class ar is used, but there are no ranges")
            }
            PortClass::Exact => {
                ensure!(self.exact.is_some(), "class em is used, but there are no ports")
            }
            _ => {}
        }
        Ok(())
    }

    /// Draws a port range of the class, which [`PortValues::check`] must have accepted.
    pub(crate) fn draw(&self, class: PortClass, random: &mut Random) -> Ports {
        let from = |values: &Option<Choice<Ports>>, random| {
            *values.as_ref().expect("checked by PortValues::check").draw(random)
        };
        match class {
            PortClass::Any => Ports::ANY,
            PortClass::High => Ports { low: 1024, high: u16::MAX },
            PortClass::Low => Ports { low: 0, high: 1023 },
            PortClass::Range => from(&self.ranges, random),
            PortClass::Exact => from(&self.exact, random),
        }
    }
}

/// How the trie of the source or destination prefixes branches.
#[derive(Clone, Debug)]
pub(crate) struct Branching {
    /// Approximate maximum number of nested prefixes.
    pub(crate) nesting: u8,
    pub(crate) levels: [Level; 33],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// Probability that a node has two children instead of one.
    pub(crate) two_children: f64,
    /// 1 - (rules below the lighter child) / (rules below the heavier child).
    pub(crate) skew: f64,
}

impl Branching {
    fn new(nesting: u8, ranges: &[(u8, u8, f64, f64)]) -> Result<Self> {
        ensure!(nesting > 0, "nesting is 0; 1 means that no prefix lies in another");
        let mut levels = [Level { two_children: 0.0, skew: 1.0 }; 33];
        for &(first, last, two_children, skew) in ranges {
            ensure!(
                first <= last && last <= 32,
                "invalid levels {first} to {last}: use 0 to 32 in ascending order"
            );
            ensure!(
                (0.0..=1.0).contains(&two_children) && (0.0..=1.0).contains(&skew),
                "invalid share {two_children} or skew {skew}: use 0 to 1"
            );
            levels[usize::from(first)..=usize::from(last)].fill(Level { two_children, skew });
        }
        Ok(Self { nesting, levels })
    }

    /// Returns the branching for a set that is `factor` times as large. A larger set gets more
    /// addresses, not more rules per address. A factor of at most 1 changes nothing.
    ///
    /// Like ClassBench's option `-b`, balances levels from the root down until the sum of the
    /// removed imbalances equals `factor`. A level's imbalance is 2 if all nodes have one child,
    /// and 0 if all have two children of equal weight.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        let mut scaled = self.clone();
        let mut remaining = if factor > 1.0 { factor } else { 0.0 };
        for level in &mut scaled.levels[..32] {
            if remaining <= 0.0 {
                break;
            }
            let imbalance = 2.0 * (1.0 - level.two_children + level.two_children * level.skew);
            let removed_by_second_children = imbalance - 2.0 * level.skew;
            *level = if imbalance <= remaining {
                Level { two_children: 1.0, skew: 0.0 }
            } else if removed_by_second_children > remaining {
                Level {
                    two_children: (1.0 - (imbalance - remaining) / 2.0) / (1.0 - level.skew),
                    skew: level.skew,
                }
            } else {
                Level { two_children: 1.0, skew: (imbalance - remaining) / 2.0 }
            };
            remaining -= imbalance;
        }
        scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_seeds_parse() {
        for name in Seed::names() {
            let text = BUILT_IN.iter().find(|(other, _)| *other == name).unwrap().1;
            assert_eq!(Seed::parse(name, text).unwrap().name(), name);
            assert!(text.len() < 60_000, "{name} has 60,000 bytes or more");
        }
        assert!(Seed::built_in("acl1").is_none());
    }

    #[test]
    fn invalid_seed_error_names_the_problem() {
        let text = BUILT_IN[0].1;
        for (from, to, word) in [
            ("filters =", "filter =", "unknown field"),
            ("wc-em", "wc-xx", "\"xx\""),
            ("share = ", "share = 1", "invalid share"),
            ("destination-ranges", "source-ranges", "class ar is used"),
            ("source-nesting = ", "source-nesting = 0 # ", "nesting is 0"),
        ] {
            assert!(text.contains(from), "{from}");
            let error =
                format!("{:#}", Seed::parse("acl", &text.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains("seed acl") && error.contains(word), "{error}");
        }
    }

    #[test]
    fn scaled_branching_balances_levels_from_the_root() {
        let branching = Branching::new(4, &[(0, 1, 1.0, 0.5), (2, 32, 0.25, 0.5)]).unwrap();
        assert_eq!(branching.scaled(1.0).levels, branching.levels);
        // Levels 0 and 1 have an imbalance of 1 each. Level 2 has 1.75, from which the remaining
        // 0.5 is removed.
        let scaled = branching.scaled(2.5).levels;
        assert_eq!(scaled[..2], [Level { two_children: 1.0, skew: 0.0 }; 2]);
        assert_eq!(scaled[2], Level { two_children: 0.75, skew: 0.5 });
        assert_eq!(scaled[3], branching.levels[3]);
        // Giving all nodes two children removes only 0.75 of the remaining 1.25.
        assert_eq!(branching.scaled(3.25).levels[2], Level { two_children: 1.0, skew: 0.25 });
    }
}
