//! Packet headers that match the rules of a set.

use std::{
    fmt,
    io::{self, Write},
};

use super::{
    random::Random,
    rule::{Ports, Prefix, Protocol, Rule5},
};

/// The packet fields for a classifier, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Protocol.
    pub protocol: u8,
    /// Index of the rule from which the header was drawn, or `None` if random. An earlier rule may
    /// also match.
    pub drawn_from: Option<usize>,
}

/// How often a header occurs back to back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Locality {
    /// Once.
    Uniform,
    /// Once. Each field lies anywhere within its rule's range instead of at an end of the range, so
    /// headers of wide rules are almost never equal.
    Scattered,
    /// As in ClassBench: the number of copies has a Pareto distribution and is rounded up. Before
    /// rounding, the probability of at most x copies is 1 - (b / x)^a.
    ///
    /// ClassBench's low locality is a = 1, b = 0.0001; its high locality is a = 1, b = 1.
    Pareto {
        /// The shape; a smaller shape makes the longest bursts longer.
        a: f64,
        /// The scale: the minimum number of copies before rounding up.
        b: f64,
    },
}

impl Locality {
    fn copies(self, random: &mut Random) -> usize {
        match self {
            Self::Uniform | Self::Scattered => 1,
            // The cast saturates at usize::MAX; the trace's length limits the copies.
            Self::Pareto { a, b } => {
                ((b / (1.0 - random.fraction()).powf(1.0 / a)).ceil() as usize).max(1)
            }
        }
    }
}

/// Returns `packets` headers. A header is random with the probability `random_share`, or if there
/// are no rules. Otherwise it is a corner of a random rule: each field is the low or the high end
/// of the rule's range; with [`Locality::Scattered`], it lies anywhere within the rule.
pub fn trace(
    rules: &[Rule5],
    packets: usize,
    locality: Locality,
    random_share: f64,
    random_seed: u64,
) -> Vec<Header> {
    // Do not draw the same random numbers as for the rules, if they have the same seed.
    let mut random = Random::new(random_seed ^ 0x7472_6163_6500_0000);
    let mut headers = Vec::with_capacity(packets);
    while headers.len() < packets {
        let header = if rules.is_empty() || random.chance(random_share) {
            random_header(&mut random)
        } else {
            matching_header(rules, locality == Locality::Scattered, &mut random)
        };
        let copies = locality.copies(&mut random).min(packets - headers.len());
        headers.extend(std::iter::repeat_n(header, copies));
    }
    headers
}

fn matching_header(rules: &[Rule5], scattered: bool, random: &mut Random) -> Header {
    let index = random.below(rules.len());
    let rule = &rules[index];
    let mut pick = |low: u32, high: u32| match scattered {
        true => low + random.below((high - low) as usize + 1) as u32,
        false if random.below(2) == 0 => low,
        false => high,
    };
    let mut prefix = |prefix: Prefix| pick(prefix.bounds().0, prefix.bounds().1);
    let (source, destination) = (prefix(rule.source), prefix(rule.destination));
    let mut port = |ports: Ports| pick(ports.low.into(), ports.high.into()) as u16;
    Header {
        source,
        destination,
        source_port: port(rule.source_ports),
        destination_port: port(rule.destination_ports),
        protocol: match rule.protocol {
            Protocol { mask: 0, .. } => pick(0, 255) as u8,
            Protocol { value, .. } => value,
        },
        drawn_from: Some(index),
    }
}

fn random_header(random: &mut Random) -> Header {
    let (addresses, ports_and_protocol) = (random.bits(), random.bits());
    Header {
        source: (addresses >> 32) as u32,
        destination: addresses as u32,
        source_port: (ports_and_protocol >> 48) as u16,
        destination_port: (ports_and_protocol >> 32) as u16,
        protocol: (ports_and_protocol >> 24) as u8,
        drawn_from: None,
    }
}

/// A line of a ClassBench trace, without ClassBench's column of TCP flags: decimal addresses, ports,
/// protocol, and index of the rule or -1. `dpdk-test-acl --tracef` reads the first five columns.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, source_port, destination_port, protocol, drawn_from } =
            self;
        write!(f, "{source}\t{destination}\t{source_port}\t{destination_port}\t{protocol}\t")?;
        match drawn_from {
            Some(rule) => write!(f, "{rule}"),
            None => f.write_str("-1"),
        }
    }
}

/// Writes one header per line.
pub fn write_trace(mut output: impl Write, headers: &[Header]) -> io::Result<()> {
    headers.iter().try_for_each(|header| writeln!(output, "{header}"))?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::super::{generate, seed::Seed};
    use super::*;

    fn matches(rule: &Rule5, header: &Header) -> bool {
        let port = |port| Ports { low: port, high: port };
        rule.covers(&Rule5 {
            source: Prefix::new(header.source, 32),
            destination: Prefix::new(header.destination, 32),
            source_ports: port(header.source_port),
            destination_ports: port(header.destination_port),
            protocol: Protocol::number(header.protocol),
        })
    }

    fn rules() -> Vec<Rule5> {
        generate(&Seed::built_in("ipc").unwrap(), 1000, 1)
    }

    #[test]
    fn trace_headers_match_their_rule_and_are_reproducible() {
        let rules = rules();
        let headers = trace(&rules, 5000, Locality::Uniform, 0.1, 1);
        let random = headers.iter().filter(|header| header.drawn_from.is_none()).count();
        assert!((400..600).contains(&random), "{random}");
        for header in &headers {
            assert!(header.drawn_from.is_none_or(|rule| matches(&rules[rule], header)), "{header}");
        }
        assert_eq!(headers, trace(&rules, 5000, Locality::Uniform, 0.1, 1));
        assert_ne!(headers, trace(&rules, 5000, Locality::Uniform, 0.1, 2));
    }

    #[test]
    fn pareto_locality_repeats_headers_in_bursts() {
        let rules = rules();
        let changes = |locality| {
            let headers = trace(&rules, 10_000, locality, 0.0, 1);
            assert_eq!(headers.len(), 10_000);
            headers.windows(2).filter(|pair| pair[0] != pair[1]).count()
        };
        let low = changes(Locality::Pareto { a: 1.0, b: 0.0001 });
        let high = changes(Locality::Pareto { a: 1.0, b: 1.0 });
        assert!(changes(Locality::Uniform) > 9_900);
        assert!(low > 9_000 && high < 3_000, "{low} {high}");
    }

    #[test]
    fn trace_without_rules_has_random_headers() {
        assert!(
            trace(&[], 10, Locality::Uniform, 0.0, 1)
                .iter()
                .all(|header| header.drawn_from.is_none())
        );
    }

    #[test]
    fn write_trace_uses_line_format_of_dpdk() {
        let header = Header {
            source: 0xc000_0201,
            destination: 1,
            source_port: 1024,
            destination_port: 80,
            protocol: 6,
            drawn_from: Some(7),
        };
        let mut text = Vec::new();
        write_trace(&mut text, &[header, Header { drawn_from: None, ..header }]).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "3221225985\t1\t1024\t80\t6\t7\n3221225985\t1\t1024\t80\t6\t-1\n");
    }
}
