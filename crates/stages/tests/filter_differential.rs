//! Random packets and rule sets: the stage's verdicts, on single packets and on batches, equal
//! those of a linear search.

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

fn compare(sets: usize) {
    let seed = xdpfwd_testkit::random_filter::seed();
    let mut rng = SplitMix64::new(seed);
    let (mut cases, mut by_rule, mut mangled, mut max_tuples) = (0, 0, 0, 0);
    for set in 0..sets {
        let drawn = RuleSet::draw(&mut rng, usize::MAX);
        let plan = drawn.plan("user");
        let plan: &dyn std::any::Any = &*plan;
        let program = plan.downcast_ref::<FilterPlan>().unwrap().program();
        let mut filter = Filter::new(Arc::clone(program));
        let RuleSet { rules, written, .. } = &drawn;
        let classifier = Classifier::new(rules, rng.draw());
        let mut keys = Vec::new();
        for number in 0..PACKETS {
            let (frame, was_mangled) = packet(&mut rng);
            let seen = inspect(&frame, &Headers::parse(&frame));
            let expected = drawn.linear_outcome(&frame);
            let got = filter.judge(seen, frame.len(), 0);
            assert_eq!(
                got, expected,
                "FILTER_SEED={seed}, set {set}, packet {number}: {frame:02x?} by {written:#?}"
            );
            cases += 1;
            by_rule += usize::from(expected.rule.is_some());
            mangled += usize::from(was_mangled);
            if let Inspection::Key(key) | Inspection::Exception(_, Some(key)) = seen {
                keys.push(key);
            }
        }
        for keys in keys.chunks(Classifier::BATCH) {
            let mut found = [0; Classifier::BATCH];
            classifier.classify(keys, &mut found);
            for (key, found) in keys.iter().zip(found) {
                let expected = rules
                    .iter()
                    .position(|rule| rule.matches(key))
                    .map_or(Classifier::NONE, |rule| rule as u32);
                assert_eq!(
                    found, expected,
                    "FILTER_SEED={seed}, set {set}: {key:?} by {written:#?}"
                );
            }
        }
        max_tuples = max_tuples.max(classifier.shape().v4.len());
    }
    println!(
        "{cases} packets, {by_rule} decided by a rule, {mangled} mangled; up to {max_tuples} tuples"
    );
    assert!(cases >= sets * 1_000_000 / 1024);
    assert!(by_rule * 100 >= cases * 30, "{by_rule} of {cases} decided by a rule");
    assert!(mangled * 100 >= cases * 20, "{mangled} of {cases} mangled");
}
