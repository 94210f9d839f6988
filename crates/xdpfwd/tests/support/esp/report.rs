//! Reads values from reports of xdpfwd.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::Running;

pub fn latest(running: &Running) -> Value {
    let line = running
        .forwarder
        .last_line(|line| line.starts_with('{'))
        .expect("xdpfwd has not printed a report");
    serde_json::from_str(&line).unwrap()
}

pub fn received(running: &Running, interface: &str) -> u64 {
    let report = latest(running);
    let port = report["ports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["interface"] == interface)
        .unwrap();
    port["rx_packets"].as_u64().unwrap()
}

/// Returns the nonzero drop counters, by reason.
pub fn drops(report: &Value) -> BTreeMap<String, u64> {
    let counts = report["drops"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(reason, count)| (reason.clone(), count.as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}
