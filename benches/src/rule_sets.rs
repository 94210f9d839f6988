//! Rule sets like ClassBench's, as files for xdpfwd, with packets that they drop.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, Result};
use xdpfwd_bench::classbench::{
    Locality, Ports, Prefix, Protocol, Rule5, Seed, generate, trace, write_rules,
};
use xdpfwd_filter::{Rule, Verdict};
use xdpfwd_lab::{PacketTemplate, Traffic};

use crate::{
    forwarders::Environment,
    lab_config::LabConfig,
    passing::{RANDOM_SEED, parse_rules, passing_flows, template},
};

/// Number of different packets: more flows than a flow cache holds.
pub(crate) const PACKETS: usize = 200_000;

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
        // Sets of 0 or 1 rules use the packets for 1000 rules.
        let source = generate(&seed, if count < 2 { 1_000 } else { count }, RANDOM_SEED);
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
            let random_share = 0.0;
            let locality = Locality::Uniform;
            let headers = trace(&self.source, PACKETS, locality, random_share, RANDOM_SEED);
            headers.iter().map(template).collect()
        };
        Arc::clone(self.packets.get_or_init(draw))
    }

    /// Returns traffic that no rule matches, except in the set of one rule.
    pub(crate) fn passing(&self) -> Result<Traffic> {
        Ok(Traffic::new().headers(passing_flows(&self.source)?))
    }

    /// Returns the verdict of all rules with which [`Self::passing`] traffic passes.
    pub(crate) fn verdict_for_passing(&self) -> &'static str {
        // A single rule matches every packet, so it must accept.
        if self.count == 1 { "accept" } else { "drop" }
    }

    /// Returns the rules of the file for the classifier.
    pub(crate) fn parsed(&self, verdict: Verdict) -> Result<Vec<Rule>> {
        let text = fs::read_to_string(&self.file)
            .with_context(|| format!("reading {}", self.file.display()))?;
        parse_rules(&text, verdict)
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

#[cfg(test)]
mod tests {
    use xdpfwd_filter::{Addresses, Classifier, Key, L4};

    use super::*;
    use crate::passing::{RULE_SEED, flows_for};

    /// Returns the number of flows for the set that match one of its rules, and of all its flows.
    fn matching_flows(count: u32) -> (usize, usize) {
        let scratch = tempfile::tempdir().unwrap();
        let set = RuleSet::new(RULE_SEED, count as usize, scratch.path()).unwrap();
        assert_eq!(set.rules.len(), count as usize);
        let classifier = Classifier::new(&set.parsed(Verdict::Drop).unwrap(), 1);
        let flows = flows_for(Some(count)).unwrap();
        let matches = |flow: &&PacketTemplate| {
            let (source, destination) = (flow.source.into(), flow.destination.into());
            let ports = L4::Ports { source: flow.source_port, destination: flow.destination_port };
            let key = Key::new(Addresses::V4 { source, destination }, flow.protocol, ports);
            classifier.first_match(&key, 0).is_some()
        };
        (flows.iter().filter(matches).count(), flows.len())
    }

    #[test]
    fn flows_match_only_the_set_of_one_rule() {
        assert_eq!(matching_flows(1), (1000, 1000));
        assert_eq!(matching_flows(1_000), (0, 1000));
        assert_eq!(matching_flows(10_000), (0, 1000));
    }
}
