//! Tests `esp-seal` and `esp-open` of two instances of xdpfwd back to back against docs/esp.md,
//! with ping, iperf3, TCP, tshark and captures on the wire. Needs root.

#[path = "../support/mod.rs"]
mod support;

mod encapsulation;
mod files;
mod inbound;
mod policy;
mod rekeying;
mod size;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::esp::{Lab, Setup, drops, inject, latest, received};
use support::{Final, Running, until};

/// Encapsulates only the generator's packets, so that the kernel's own packets use no sequence
/// numbers.
const ONLY_10_77: &str = "selector = [\"10.77.0.0/16\"]\n";

/// Returns the same lines for both sides.
fn both(lines: &str) -> [String; 2] {
    [lines.to_owned(), lines.to_owned()]
}

/// Returns a line for the first side only.
fn first(line: &str) -> [String; 2] {
    [line.to_owned(), String::new()]
}

/// Returns a line for the second side only.
fn second(line: &str) -> [String; 2] {
    [String::new(), line.to_owned()]
}

#[track_caller]
fn stop(running: Running) -> Final {
    let log = running.forwarder.stderr();
    let (ended, last) = running.stop();
    assert!(ended.status.success() && !ended.killed, "{ended:?}: {log:#?}");
    last.assert_conserved();
    last
}

#[track_caller]
fn stop_both(ends: [Running; 2]) -> [Final; 2] {
    ends.map(|running| stop(running))
}

/// Returns a stage's own counter in a final report.
fn counter(report: &Value, stage: &str, name: &str) -> u64 {
    let stages = report["stages"].as_array().unwrap();
    let stage = stages.iter().find(|found| found["name"] == stage).unwrap();
    stage["counters"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {stage}"))
}

/// Sends packets to a port of a running xdpfwd, waits until it has received all, and returns the
/// dropped ones by reason.
fn drops_during(
    running: &Running,
    port: &str,
    count: u64,
    inject: impl FnOnce(),
) -> BTreeMap<String, u64> {
    let (had, before) = (received(running, port), drops(&latest(running)));
    inject();
    until("xdpfwd has received all packets", || received(running, port) >= had + count);
    // A report may be written while a worker processes the packets, so wait for the next ones.
    thread::sleep(Duration::from_millis(150));
    let report = latest(running);
    assert_eq!(received(running, port), had + count, "{report}");
    let mut after = drops(&report);
    for (reason, count) in before {
        *after.get_mut(&reason).unwrap() -= count;
    }
    after.retain(|_, count| *count > 0);
    after
}

/// Sends frames to the second xdpfwd, and returns the dropped ones by reason.
fn drops_of<'a>(
    lab: &Lab,
    receiver: &Running,
    frames: impl IntoIterator<Item = &'a Vec<u8>>,
) -> BTreeMap<String, u64> {
    let frames: Vec<_> = frames.into_iter().collect();
    drops_during(receiver, "wan1", frames.len() as u64, || inject(&lab.wire, "tap1", frames))
}

/// Returns the expected drops by reason, without zeros.
fn reasons<const N: usize>(reasons: [(&str, u64); N]) -> BTreeMap<String, u64> {
    reasons
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}

/// Returns a frame with its IPv4 packet truncated, with correct length and checksum.
fn truncate(frame: &[u8], length: usize) -> Vec<u8> {
    let mut frame = frame[..length].to_vec();
    let total = (length - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[24..26].fill(0);
    let words =
        frame[14..34].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Rewrites a side's configuration and reloads it.
#[track_caller]
fn reload(lab: &Lab, running: &Running, setup: &Setup, side: usize) {
    running.config.write(&setup.config(lab, side));
    running.reload("INFO reloaded");
}
