//! Compares the filter with a linear search, for random packets and rule sets: the outcome for each
//! packet, and the first matching rule for each packet of a batch.

use std::sync::Arc;

use xdpfwd_filter::Classifier;
use xdpfwd_stages::filter::{Filter, FilterPlan, Inspection, inspect};
use xdpfwd_testkit::random_filter::{RuleSet, SplitMix64, packet};
use xdpfwd_wire::Headers;

const PACKETS: usize = 1024;

#[test]
fn filter_equals_linear_search_on_million_packets() {
    compare(1024);
}

#[test]
#[ignore = "long: make test-long"]
fn filter_equals_linear_search_on_ten_million_packets() {
    compare(10_240);
}

/// Compares results for `set_count` random rule sets with [`PACKETS`] packets each.
fn compare(set_count: usize) {
    let seed = xdpfwd_testkit::random_filter::seed();
    let mut rng = SplitMix64::new(seed);
    // `mangled` packets were truncated, overwritten or extended.
    let (mut cases, mut by_rule, mut mangled, mut max_tables) = (0, 0, 0, 0);
    for set in 0..set_count {
        let max_continue_rules = usize::MAX;
        let rule_set = RuleSet::draw(&mut rng, max_continue_rules);
        let plan = rule_set.plan("user");
        let plan: &dyn std::any::Any = &*plan;
        let program = plan.downcast_ref::<FilterPlan>().unwrap().program();
        let mut filter = Filter::new(Arc::clone(program));
        let RuleSet { rules, rule_texts, .. } = &rule_set;
        let classifier = Classifier::new(rules, rng.draw());
        let mut keys = Vec::new();
        for packet_index in 0..PACKETS {
            let (frame, was_mangled) = packet(&mut rng);
            let inspection = inspect(&frame, &Headers::parse(&frame));
            let expected = rule_set.linear_outcome(&frame);
            let now = 0;
            let outcome = filter.decide(inspection, frame.len(), now);
            assert_eq!(
                outcome, expected,
                "FILTER_SEED={seed}, set {set}, packet {packet_index}: {frame:02x?}, rules {rule_texts:#?}"
            );
            cases += 1;
            by_rule += usize::from(expected.rule.is_some());
            mangled += usize::from(was_mangled);
            if let Inspection::Key(key) | Inspection::Exception(_, Some(key)) = inspection {
                keys.push(key);
            }
        }
        for keys in keys.chunks(Classifier::BATCH) {
            let mut first_matches = [0; Classifier::BATCH];
            classifier.classify(keys, &mut first_matches);
            for (key, first_match) in keys.iter().zip(first_matches) {
                let expected = rules
                    .iter()
                    .position(|rule| rule.matches(key))
                    .map_or(Classifier::NONE, |rule| rule as u32);
                assert_eq!(
                    first_match, expected,
                    "FILTER_SEED={seed}, set {set}: {key:?}, rules {rule_texts:#?}"
                );
            }
        }
        max_tables = max_tables.max(classifier.shape().v4.len());
    }
    println!(
        "{cases} packets, {by_rule} decided by a rule, {mangled} mangled; up to {max_tables} hash \
         tables for IPv4"
    );
    // A million packets per 1024 sets.
    assert!(cases >= set_count * 1_000_000 / 1024);
    assert!(by_rule * 100 >= cases * 30, "a rule decided only {by_rule} of {cases} packets");
    assert!(mangled * 100 >= cases * 20, "only {mangled} of {cases} packets were mangled");
}
