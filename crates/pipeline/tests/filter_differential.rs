//! A million packets by lot against a thousand sets of rules by lot: the stage's verdict, one packet at a time and in batches,
//! is what looking at each rule makes it.

#[path = "support/random_filter.rs"]
mod random_filter;

use std::sync::Arc;

use filter::{Classifier, Rule, Verdict};
use pipeline::stages::filter::{Filter, FilterPlan, Outcome, Seen, Unusual, look_at};
use pipeline::wire::Headers;
use pipeline::{PlanCx, Reason, Registry};
use random_filter::{Lot, packet, rule};

const SETS: usize = 1024;
const PACKETS: usize = 1024;

/// Rules looked at one after the other, and the words of the configuration: what docs/filter.md says.
fn by_looking(rules: &[Rule], default: Verdict, judge_all: bool, frame: &[u8]) -> Outcome {
    let by_default = |verdict| (verdict == Verdict::Drop).then_some(Reason::Policy);
    let key = match look_at(frame, &Headers::parse(frame)) {
        Seen::Key(key) => key,
        Seen::Unusual(Unusual::NotIp, _) => return Outcome { drop: None, rule: None },
        Seen::Unusual(_, Some(key)) if judge_all => key,
        Seen::Unusual(unusual, _) => return Outcome { drop: Some(unusual.reason()), rule: None },
    };
    for (number, rule) in (0..).zip(rules) {
        match rule.verdict {
            Some(verdict) if rule.matches(&key) => return Outcome { drop: by_default(verdict), rule: Some(number) },
            _ => {}
        }
    }
    Outcome { drop: by_default(default), rule: None }
}

#[test]
fn a_million_packets_are_judged_as_the_rules_say() {
    let seed = std::env::var("FILTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("FILTER_SEED={seed}");
    let mut lot = Lot::new(seed);
    let (mut cases, mut by_a_rule, mut mangled, mut most) = (0, 0, 0, 0);
    for set in 0..SETS {
        let count = lot.of(&[1, 8, 9, 20, 60, 150, 300]);
        let written: Vec<String> = (0..count).map(|_| rule(&mut lot)).collect();
        let judge_all = !lot.one_in(3);
        let manner = if judge_all { "judge" } else { "drop" };
        let default = lot.of(&["accept", "drop"]);
        let table = format!(
            "{{ default = \"{default}\", rules = {written:?}, later_fragments = \"{manner}\", ip_options = \"{manner}\" }}"
        );
        let cx = PlanCx { directory: std::path::Path::new("."), workers: 1 };
        let plan = Registry::builtin().plan("filter", toml::de::ValueDeserializer::parse(&table).unwrap(), &cx);
        let plan = plan.unwrap_or_else(|error| panic!("FILTER_SEED={seed}, set {set}: {error}: {written:#?}"));
        let plan: &dyn std::any::Any = &*plan;
        let program = plan.downcast_ref::<FilterPlan>().unwrap().program();
        let mut filter = Filter::new(Arc::clone(program));
        let rules: Vec<Rule> = written.iter().map(|line| filter::parse_rule(line).unwrap().unwrap()).collect();
        let classifier = Classifier::new(&rules, lot.draw());
        let default = if default == "accept" { Verdict::Accept } else { Verdict::Drop };
        let mut keys = Vec::new();
        for number in 0..PACKETS {
            let (frame, was_mangled) = packet(&mut lot);
            let seen = look_at(&frame, &Headers::parse(&frame));
            let expected = by_looking(&rules, default, judge_all, &frame);
            let got = filter.judge(seen, frame.len(), 0);
            assert_eq!(got, expected, "FILTER_SEED={seed}, set {set}, packet {number}: {frame:02x?} by {written:#?}");
            cases += 1;
            by_a_rule += usize::from(expected.rule.is_some());
            mangled += usize::from(was_mangled);
            if let Seen::Key(key) | Seen::Unusual(_, Some(key)) = seen {
                keys.push(key);
            }
        }
        for keys in keys.chunks(Classifier::BATCH) {
            let mut found = [0; Classifier::BATCH];
            classifier.classify(keys, &mut found);
            for (key, found) in keys.iter().zip(found) {
                let expected =
                    rules.iter().position(|rule| rule.matches(key)).map_or(Classifier::NONE, |rule| rule as u32);
                assert_eq!(found, expected, "FILTER_SEED={seed}, set {set}: {key:?} by {written:#?}");
            }
        }
        most = most.max(classifier.shape().v4.len());
    }
    println!("{cases} packets, {by_a_rule} decided by a rule, {mangled} mangled; up to {most} tuples");
    assert!(cases >= 1_000_000);
    assert!(by_a_rule * 100 >= cases * 30, "{by_a_rule} of {cases} decided by a rule");
    assert!(mangled * 100 >= cases * 20, "{mangled} of {cases} mangled");
}
