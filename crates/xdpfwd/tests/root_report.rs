//! docs/report.md and what is really printed say the same. Needs root.

mod support;

use std::collections::BTreeSet;

use lab::Chain;
use serde_json::Value;
use support::{Running, chain, cross_connect};

/// Every key of an object and of what is in it.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

/// What stands in backquotes in the first column of a page's tables.
fn documented(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

#[test]
fn the_page_names_every_field_and_no_other() {
    let chain = chain(Chain::builder());
    let config = cross_connect(1, "").replacen("to = \"wan\"", "to = \"wan\"\nstages = [\"hop\"]", 1)
        + "\n[stage.hop]\nkind = \"ttl\"\n";
    let (_, last) = Running::start(&chain, &config).stop();
    let mut printed = BTreeSet::new();
    keys(&last.json, &mut printed);

    let reasons: BTreeSet<String> = last.json["drops"].as_object().unwrap().keys().cloned().collect();
    let architecture = documented(include_str!("../../../docs/architecture.md"));
    assert!(reasons.is_subset(&architecture), "not in architecture.md: {:?}", reasons.difference(&architecture));

    let page = documented(include_str!("../../../docs/report.md"));
    // Named in prose: the tables' own headings, what is in `fallback`, the reasons, a stage's own counters.
    let elsewhere =
        ["ports", "drops", "stages", "frames", "port", "lacks", "reason", "expired", "not_ip"].map(String::from);
    let expected: BTreeSet<String> =
        printed.into_iter().filter(|key| !reasons.contains(key) && !elsewhere.contains(key)).collect();
    let page: BTreeSet<String> = page.into_iter().filter(|key| !elsewhere.contains(key)).collect();
    assert_eq!(page, expected);
}
