//! Tests that docs/report.md documents all fields of the final report, and that the ledger (CPU
//! cycles by task) is complete. Needs root.

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Running, TIMEOUT, build_lab, cross_connect};
use xdpfwd_lab::{Chain, Traffic};

fn collect_keys(value: &Value, collected: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                collected.insert(key.clone());
                collect_keys(value, collected);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| collect_keys(value, collected)),
        _ => {}
    }
}

/// Returns the words in the first cell of each table row that starts with a backquote.
fn documented_keys(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

#[test]
fn report_page_documents_exactly_the_printed_keys() {
    let lab = build_lab(Chain::builder());
    // So many rules that the report omits some of their rows, and has the key `rows_omitted`.
    let rules: Vec<String> = (0..300).map(|port| format!("drop proto udp dport {port}")).collect();
    let config = cross_connect(1, "").replacen(
        "to = \"wan\"",
        "to = \"wan\"\nstages = [\"hop\", \"edge\"]",
        1,
    ) + "\n[stage.hop]\nkind = \"ttl\"\n"
        + &format!("\n[stage.edge]\nkind = \"filter\"\ndefault = \"accept\"\nrules = {rules:?}\n");
    let config_with = |mode: &str| {
        config.replacen("[engine]", &format!("[engine]\nkernel_ledger = \"{mode}\""), 1)
    };
    let (_, traced_report) = Running::start(&lab, &config_with("exact")).stop();
    let (_, final_report) = Running::start(&lab, &config_with("sampled")).stop();
    let mut printed = BTreeSet::new();
    collect_keys(&traced_report.json, &mut printed);
    collect_keys(&final_report.json, &mut printed);

    let reasons: BTreeSet<String> =
        final_report.json["drops"].as_object().unwrap().keys().cloned().collect();
    let architecture = documented_keys(include_str!("../../../docs/architecture.md"));
    assert!(
        reasons.is_subset(&architecture),
        "drop reasons that are not in architecture.md: {:?}",
        reasons.difference(&architecture)
    );

    let page = documented_keys(include_str!("../../../docs/report.md"));
    // Keys that the page explains in headings, in text, or in the rows of other keys.
    let in_prose = [
        "ports",
        "drops",
        "stages",
        "ledger",
        "frames",
        "port",
        "lacks",
        "reason",
        "expired",
        "not_ip",
        "kernel_ledger",
        "account",
    ];
    let filter_counters = ["accepted", "default", "log_lost"];
    let in_prose: Vec<String> =
        in_prose.into_iter().chain(filter_counters).map(String::from).collect();
    let expected: BTreeSet<String> = printed
        .into_iter()
        .filter(|key| !reasons.contains(key) && !in_prose.contains(key))
        .collect();
    let page: BTreeSet<String> = page.into_iter().filter(|key| !in_prose.contains(key)).collect();
    assert_eq!(page, expected);
}

/// The sum of busy and idle cycles differs by at most 5 % from the elapsed cycles that the control
/// thread measures.
#[test]
fn ledger_accounts_for_all_cycles_of_each_worker() {
    let lab = build_lab(Chain::builder().queues(2));
    let config = cross_connect(2, "cores = [0, 1]");
    let running = Running::start(&lab, &config);
    Traffic::new()
        .rate(20_000)
        .count(20_000)
        .core(0)
        .start(lab.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    let ledger = &final_report.json["ledger"];
    let number = |value: &Value| value.as_f64().unwrap();
    let workers = ledger["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for worker in workers {
        let share = (number(&worker["busy_cycles"]) + number(&worker["idle_cycles"]))
            / number(&worker["wall_cycles"]);
        assert!(
            (0.95..=1.05).contains(&share),
            "busy and idle cycles are {share} of the measured cycles: {ledger}"
        );
    }
    let tasks: f64 =
        ledger["tasks"].as_array().unwrap().iter().map(|task| number(&task["cycles"])).sum();
    assert_eq!(tasks, number(&ledger["busy_cycles"]) + number(&ledger["idle_cycles"]));
    let task = |name: &str| {
        ledger["tasks"].as_array().unwrap().iter().find(|task| task["name"] == name).unwrap()
    };
    assert_eq!(
        (&task("receive")["packets"], &task("transmit")["packets"]),
        (&20_000.into(), &20_000.into())
    );
    assert_eq!(task("receive")["bytes"], final_report.json["ports"][0]["rx_bytes"]);
}

#[test]
fn disabled_ledger_counts_no_cycles() {
    let lab = build_lab(Chain::builder());
    let config = cross_connect(1, "ledger = false").replacen(
        "to = \"wan\"",
        "to = \"wan\"\nstages = [\"hop\"]",
        1,
    ) + "\n[stage.hop]\nkind = \"mac-swap\"\n";
    let running = Running::start(&lab, &config);
    Traffic::new()
        .rate(20_000)
        .count(1_000)
        .core(0)
        .start(lab.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    let (_, final_report) = running.stop();
    let ledger = &final_report.json["ledger"];
    assert_eq!(
        (&ledger["on"], &ledger["busy_cycles"], &ledger["idle_cycles"]),
        (&false.into(), &0.into(), &0.into())
    );
    let stage = &final_report.json["stages"][0];
    assert_eq!((&stage["packets"], &stage["cycles_per_packet"]), (&1_000.into(), &0.0.into()));
}
