//! Traffic that the rule sets let pass, although it resembles the traffic of the rules.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use xdpfwd_bench::classbench::{Header, Locality, Rule5, Seed, generate, trace, write_rules};
use xdpfwd_filter::{Addresses, Classifier, Key, L4, Rule, Verdict, parse_classbench};
use xdpfwd_lab::{GeneratorKind, PacketTemplate, Traffic};

/// Number of flows.
pub(crate) const FLOWS: u32 = 1000;

/// The seed of the rule sets of the matrix, and the seed of the random numbers.
pub(crate) const RULE_SEED: &str = "acl";
pub(crate) const RANDOM_SEED: u64 = 1;

const UDP: u8 = 17;

/// Returns the traffic that the rule set of the matrix with this many rules lets pass. Without a
/// rule set, or with a single rule, which matches everything, it is that of the set of 1000 rules.
///
/// pktgen has only flows with the same addresses: hardly any rule covers these, so that a filter
/// has little to search.
pub(crate) fn passing(rules: Option<u32>, generator: GeneratorKind) -> Result<Traffic> {
    match generator {
        GeneratorKind::Live => Ok(Traffic::new().headers(flows_for(rules)?)),
        GeneratorKind::Pktgen => Ok(Traffic::new().flows(FLOWS)),
    }
}

/// Returns the flows of [`passing`] traffic. Computes them once per process.
pub(crate) fn flows_for(rules: Option<u32>) -> Result<Arc<[PacketTemplate]>> {
    static FLOWS_BY_RULES: Mutex<BTreeMap<usize, Arc<[PacketTemplate]>>> =
        Mutex::new(BTreeMap::new());
    let count = rules.map_or(1000, |rules| (rules as usize).max(1000));
    let mut by_rules = FLOWS_BY_RULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(flows) = by_rules.get(&count) {
        return Ok(Arc::clone(flows));
    }
    let seed = Seed::built_in(RULE_SEED).with_context(|| format!("no rules like {RULE_SEED}"))?;
    let flows = passing_flows(&generate(&seed, count, RANDOM_SEED))?;
    by_rules.insert(count, Arc::clone(&flows));
    Ok(flows)
}

/// Returns [`FLOWS`] headers of UDP that no rule matches, but that a filter must search as many
/// groups of rules for as for those that match.
///
/// Each is a header that matches a rule, with the protocol UDP and, if it then matches a rule, a
/// port of another such header.
pub(crate) fn passing_flows(rules: &[Rule5]) -> Result<Arc<[PacketTemplate]>> {
    let parsed = parse(rules)?;
    let classifier = Classifier::new(&parsed, RANDOM_SEED);
    let candidates = |header: &Header| classifier.candidate_tuples(&key(header));
    let (random_share, mut seen) = (0.0, HashSet::new());
    let mut flows = Vec::with_capacity(FLOWS as usize);
    for random_seed in 2..100 {
        let headers = trace(rules, 10_000, Locality::Uniform, random_share, random_seed);
        for pair in headers.windows(2) {
            let [first, second] =
                [pair[0], pair[1]].map(|header| Header { protocol: UDP, ..header });
            let variants = [
                first,
                Header { destination_port: second.destination_port, ..first },
                Header { source_port: second.source_port, ..first },
            ];
            let passing = variants.into_iter().filter(|variant| {
                is_routable(variant) && classifier.first_match(&key(variant), 0).is_none()
            });
            let Some(best) = passing.max_by_key(|variant| candidates(variant)) else { continue };
            // Flows that differ only in the rule from which they were drawn are equal.
            if seen.insert(Header { drawn_from: None, ..best }) {
                flows.push(template(&best));
            }
            if flows.len() == FLOWS as usize {
                return Ok(flows.into());
            }
        }
    }
    bail!("only {} of {FLOWS} flows pass the {} rules", flows.len(), rules.len())
}

/// Returns the packet with a header.
pub(crate) fn template(header: &Header) -> PacketTemplate {
    PacketTemplate {
        source: header.source.into(),
        destination: header.destination.into(),
        source_port: header.source_port,
        destination_port: header.destination_port,
        protocol: header.protocol,
    }
}

/// Returns whether a router forwards packets with these addresses: not this network, loopback,
/// multicast, reserved addresses, or the networks of the lab.
fn is_routable(header: &Header) -> bool {
    [header.source, header.destination].into_iter().all(|address| {
        let [a, b, ..] = address.to_be_bytes();
        !matches!((a, b), (0 | 127 | 224.., _) | (169, 254) | (10, 77 | 78))
    })
}

fn parse(rules: &[Rule5]) -> Result<Vec<Rule>> {
    let mut text = Vec::new();
    write_rules(&mut text, rules)?;
    parse_rules(&String::from_utf8(text)?, Verdict::Drop)
}

/// Parses rules in ClassBench's format, all with one verdict.
pub(crate) fn parse_rules(text: &str, verdict: Verdict) -> Result<Vec<Rule>> {
    let parsed = parse_classbench(text, verdict);
    let parsed = parsed.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    Ok(parsed.rules.into_iter().map(|(_, rule)| rule).collect())
}

/// Returns the fields of a packet for a classifier.
fn key(header: &Header) -> Key {
    let addresses = Addresses::V4 { source: header.source, destination: header.destination };
    let ports = L4::Ports { source: header.source_port, destination: header.destination_port };
    // TCP, UDP, SCTP
    let has_ports = matches!(header.protocol, 6 | 17 | 132);
    Key::new(addresses, header.protocol, if has_ports { ports } else { L4::None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(mut numbers: Vec<u32>) -> u32 {
        numbers.sort_unstable();
        numbers[numbers.len() / 2]
    }

    fn header(flow: &PacketTemplate) -> Header {
        Header {
            source: flow.source.into(),
            destination: flow.destination.into(),
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            protocol: flow.protocol,
            drawn_from: None,
        }
    }

    /// The filter searches as many tuples for packets that pass as for packets that match.
    #[test]
    fn passing_flows_match_no_rule_and_have_as_many_candidates_as_matching_packets() {
        let seed = Seed::built_in(RULE_SEED).unwrap();
        for count in [1_000, 10_000] {
            let rules = generate(&seed, count, RANDOM_SEED);
            let flows = passing_flows(&rules).unwrap();
            let distinct: HashSet<_> = flows.iter().map(header).collect();
            assert_eq!(distinct.len(), FLOWS as usize);
            let classifier = Classifier::new(&parse(&rules).unwrap(), 1);
            let candidates = |header: &Header| classifier.candidate_tuples(&key(header));
            for flow in &distinct {
                assert_eq!(classifier.first_match(&key(flow), 0), None, "{flow:?}");
                assert!(is_routable(flow), "{flow:?}");
            }
            let matching = trace(&rules, 10_000, Locality::Uniform, 0.0, 1);
            let passing = median(distinct.iter().map(candidates).collect());
            let matching = median(matching.iter().map(candidates).collect());
            assert!(passing >= matching && matching > 1, "{count}: {passing} {matching}");
        }
    }
}
