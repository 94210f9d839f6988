//! What rules have matched in XDP programs that others have taken the place of: a rule's counter goes on for as long as there is a
//! rule that says the same.

use std::collections::{BTreeMap, HashMap};

use pipeline::Matched;

use crate::report::RuleReport;

/// Of each stage, by its path and name.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<(String, String), Counted>);

/// Of the rules of one stage.
#[derive(Debug, Default)]
struct Counted {
    /// By what a rule says; if several say the same, in their order.
    rules: HashMap<String, Vec<u64>>,
    default: u64,
}

impl Tally {
    /// Adds what was counted to a report.
    pub(crate) fn add_to(&self, report: &mut RuleReport) {
        let Some(counted) = self.0.get(&(report.path.clone(), report.stage.clone())) else { return };
        let mut nth: HashMap<&str, usize> = HashMap::new();
        for rule in &mut report.rules {
            let nth = nth.entry(&rule.text).or_default();
            rule.packets += counted.rules.get(&rule.text).and_then(|counts| counts.get(*nth)).copied().unwrap_or(0);
            *nth += 1;
        }
        report.default += counted.default;
    }

    /// Forgets all but the rules of these reports.
    pub(crate) fn retain(&mut self, reports: Vec<RuleReport>) {
        let mut kept = Self::default();
        for mut report in reports {
            self.add_to(&mut report);
            kept.keep(report, None);
        }
        *self = kept;
    }

    /// Takes note of what a stage's rules had matched when they went. The report has the rules as they were, and what was counted before.
    pub(crate) fn keep(&mut self, mut report: RuleReport, matched: Option<&Matched>) {
        self.add_to(&mut report);
        if let Some(matched) = matched {
            report.add(matched);
        }
        let mut counted = Counted { default: report.default, ..Counted::default() };
        for rule in report.rules {
            counted.rules.entry(rule.text).or_default().push(rule.packets);
        }
        self.0.insert((report.path, report.stage), counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RuleCount;

    fn report(rules: &[&str]) -> RuleReport {
        let rules = rules.iter().enumerate();
        let rules = rules.map(|(rule, text)| RuleCount { rule, packets: 0, text: (*text).to_owned() });
        RuleReport { path: "a->b".into(), stage: "fw".into(), place: "kernel", rules: rules.collect(), default: 0 }
    }

    #[test]
    fn counters_follow_what_a_rule_says() {
        let mut tally = Tally::default();
        tally.keep(report(&["drop", "accept", "drop"]), Some(&Matched { rules: vec![1, 2, 3], default: 4 }));
        // Others come, and the two that say the same stay in their order.
        let mut now = report(&["accept dscp 0", "drop", "drop", "accept"]);
        tally.add_to(&mut now);
        assert_eq!(now.rules.iter().map(|rule| rule.packets).collect::<Vec<_>>(), [0, 1, 3, 2]);
        assert_eq!(now.default, 4);
        // And what those count is added.
        tally.keep(report(&["accept dscp 0", "drop"]), Some(&Matched { rules: vec![10, 10], default: 10 }));
        let mut now = report(&["drop", "accept"]);
        tally.add_to(&mut now);
        assert_eq!(now.rules.iter().map(|rule| rule.packets).collect::<Vec<_>>(), [11, 0]);
        assert_eq!(now.default, 14);
        // What is gone is forgotten; what is there, is not.
        tally.retain(vec![report(&["accept dscp 0"])]);
        let mut now = report(&["drop", "accept dscp 0"]);
        tally.add_to(&mut now);
        assert_eq!(now.rules.iter().map(|rule| rule.packets).collect::<Vec<_>>(), [0, 10]);
        assert_eq!(now.default, 14);
        let mut other = RuleReport { stage: "other".into(), ..report(&["drop"]) };
        tally.add_to(&mut other);
        assert_eq!((other.rules[0].packets, other.default), (0, 0));
    }
}
