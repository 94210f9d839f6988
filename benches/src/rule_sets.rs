//! Rule sets like ClassBench's, as files for xdpfwd, with packets that they drop, and the traffic
//! that they let pass.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, Result};
use xdpfwd_bench::classbench::{
    Header, Locality, Ports, Prefix, Protocol, Rule5, Seed, generate, trace, write_rules,
};
use xdpfwd_filter::{Rule, Verdict, parse_classbench};
use xdpfwd_lab::{PacketTemplate, Traffic};

use crate::{forwarders::Environment, lab_config::LabConfig};

/// Number of different packets: more flows than a flow cache holds.
pub(crate) const PACKETS: usize = 200_000;

/// Flows of [`passing`] traffic.
const FLOWS: u32 = 1000;

/// Returns the traffic that every rule set lets pass: UDP of 1000 flows, which no rule matches,
/// except in the set of one rule, which matches everything.
pub(crate) fn passing() -> Traffic {
    Traffic::new().flows(FLOWS)
}

/// Rules, in a file.
pub(crate) struct RuleSet {
    pub(crate) count: usize,
    pub(crate) file: PathBuf,
    pub(crate) rules: Vec<Rule5>,
    /// The rules, or for few rules as many others, from which [`Self::packets`] are drawn.
    source: Vec<Rule5>,
    packets: OnceLock<Arc<[PacketTemplate]>>,
}

impl RuleSet {
    /// Generates `count` rules from a seed (`acl`, `fw`, `ipc` or a file), and writes them to the
    /// folder `scratch`.
    pub(crate) fn new(seed: &str, count: usize, scratch: &Path) -> Result<Self> {
        let seed = match Seed::built_in(seed) {
            Some(seed) => seed,
            None => {
                let text = fs::read_to_string(seed).with_context(|| {
                    format!("cannot read seed {seed:?}; use acl, fw, ipc or a file")
                })?;
                Seed::parse(seed, &text)?
            }
        };
        let random_seed = 1;
        // Sets of 0 or 1 rules use the packets for 1000 rules.
        let source = generate(&seed, if count < 2 { 1_000 } else { count }, random_seed);
        let rules = match count {
            0 => vec![],
            // A single rule matches every packet, to show the minimum cost of a rule.
            1 => vec![MATCHES_ALL],
            _ => source.clone(),
        };
        let file = scratch.join(format!("drop-{count}.rules"));
        let mut text = Vec::new();
        write_rules(&mut text, &rules)?;
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(Self { count, file, rules, source, packets: OnceLock::new() })
    }

    /// Returns [`PACKETS`] packets that match the rules.
    pub(crate) fn packets(&self) -> Arc<[PacketTemplate]> {
        let draw = || {
            let (random_share, random_seed) = (0.0, 1);
            let locality = Locality::Uniform;
            let headers = trace(&self.source, PACKETS, locality, random_share, random_seed);
            headers.iter().map(packet).collect()
        };
        Arc::clone(self.packets.get_or_init(draw))
    }

    /// Returns the verdict of all rules with which [`passing`] traffic passes.
    pub(crate) fn verdict_for_passing(&self) -> &'static str {
        // A single rule matches every packet, so it must accept.
        if self.count == 1 { "accept" } else { "drop" }
    }

    /// Returns the rules of the file for the classifier.
    pub(crate) fn parsed(&self, verdict: Verdict) -> Result<Vec<Rule>> {
        let text = fs::read_to_string(&self.file)
            .with_context(|| format!("reading {}", self.file.display()))?;
        let parsed =
            parse_classbench(&text, verdict).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        Ok(parsed.rules.into_iter().map(|(_, rule)| rule).collect())
    }

    /// Returns a stage `fw` with this filter. `verdict` applies to packets that match a rule,
    /// `default` to others.
    pub(crate) fn stage(&self, placement: &str, verdict: &str, default: &str) -> String {
        format!(
            "[stage.fw]\nkind = \"filter\"\nformat = \"classbench\"\naction = \"{verdict}\"\n\
             default = \"{default}\"\n\
             rules = {file:?}\nplace = \"{placement}\"\n",
            file = self.file.display().to_string(),
        )
    }

    /// Writes a configuration file.
    pub(crate) fn config(
        &self,
        environment: &Environment,
        placement: &str,
        verdict: &str,
        default: &str,
    ) -> Result<PathBuf> {
        let config = LabConfig {
            core: environment.core,
            stages: &["fw"],
            tables: &self.stage(placement, verdict, default),
            ..LabConfig::default()
        };
        let name = format!("drop-{}-{placement}-{verdict}.toml", self.count);
        config.write(&environment.scratch, &name)
    }
}

const MATCHES_ALL: Rule5 = Rule5 {
    source: Prefix { address: 0, length: 0 },
    destination: Prefix { address: 0, length: 0 },
    source_ports: Ports::ANY,
    destination_ports: Ports::ANY,
    protocol: Protocol::ANY,
};

fn packet(header: &Header) -> PacketTemplate {
    PacketTemplate {
        source: header.source.into(),
        destination: header.destination.into(),
        source_port: header.source_port,
        destination_port: header.destination_port,
        protocol: header.protocol,
    }
}

#[cfg(test)]
mod tests {
    use xdpfwd_filter::{Addresses, Classifier, Key, L4};
    use xdpfwd_lab::{DESTINATION_PORT, FIRST_FLOW_PORT, GEN_ADDRESS, SINK_ADDRESS};

    use super::*;

    /// Returns the number of flows that match a rule.
    fn matching_flows(count: usize, destination: std::net::Ipv4Addr) -> usize {
        let scratch = tempfile::tempdir().unwrap();
        let set = RuleSet::new("acl", count, scratch.path()).unwrap();
        assert_eq!(set.rules.len(), count);
        let rules = set.parsed(Verdict::Drop).unwrap();
        let classifier = Classifier::new(&rules, 1);
        let addresses =
            Addresses::V4 { source: GEN_ADDRESS.into(), destination: destination.into() };
        let ports = (0..FLOWS).map(|flow| L4::Ports {
            source: FIRST_FLOW_PORT + u16::try_from(flow).unwrap(),
            destination: DESTINATION_PORT,
        });
        ports
            .filter(|&ports| classifier.first_match(&Key::new(addresses, 17, ports), 0).is_some())
            .count()
    }

    /// 10.78.0.2 is the destination of the traffic for routers.
    #[test]
    fn passing_traffic_matches_only_the_set_of_one_rule() {
        for destination in [SINK_ADDRESS, [10, 78, 0, 2].into()] {
            assert_eq!(matching_flows(1, destination), FLOWS as usize);
            for count in [1_000, 10_000] {
                assert_eq!(matching_flows(count, destination), 0, "{count} rules");
            }
        }
    }
}
