//! Tests the stages `esp-seal` (encapsulation) and `esp-open` (decapsulation) as docs/esp.md
//! describes them. Needs root.
//!
//! Two instances of xdpfwd are connected: xdpfwd 0 on side 0 and xdpfwd 1 on side 1
//! (support/esp/mod.rs). Arrays in [`Setup`] have an element for each side.

#[path = "../support/mod.rs"]
mod support;

mod encapsulation;
mod files;
mod inbound;
mod policy;
mod rekeying;
mod size;
mod state;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::esp::{Lab, Setup, drops, inject, latest, received};
use support::{FinalReport, Running, until};

/// A line of an outbound SA's table. Only the test's packets match, so packets that the hosts'
/// kernels send on their own, such as Neighbor Discovery, use no sequence numbers.
const SELECT_10_77: &str = "selector = [\"10.77.0.0/16\"]\n";

fn for_both_sides(lines: &str) -> [String; 2] {
    [lines.to_owned(), lines.to_owned()]
}

fn for_side_0(lines: &str) -> [String; 2] {
    [lines.to_owned(), String::new()]
}

fn for_side_1(lines: &str) -> [String; 2] {
    [String::new(), lines.to_owned()]
}

/// Stops xdpfwd, and checks its exit code and its final report.
#[track_caller]
fn stop(running: Running) -> FinalReport {
    let log = running.forwarder.stderr();
    let (exit, final_report) = running.stop();
    assert!(exit.status.success() && !exit.killed, "{exit:?}: {log:#?}");
    final_report.assert_frames_and_packets_add_up();
    final_report
}

#[track_caller]
fn stop_both(instances: [Running; 2]) -> [FinalReport; 2] {
    instances.map(|running| stop(running))
}

fn stage_counter(report: &Value, stage: &str, name: &str) -> u64 {
    let stages = report["stages"].as_array().unwrap();
    let stage = stages.iter().find(|candidate| candidate["name"] == stage).unwrap();
    stage["counters"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {stage}"))
}

/// Calls `inject`, which sends `count` packets to an interface of xdpfwd, and waits until they are
/// received. Returns the drops by reason.
fn drops_during(
    running: &Running,
    interface: &str,
    count: u64,
    inject: impl FnOnce(),
) -> BTreeMap<String, u64> {
    let (received_before, drops_before) = (received(running, interface), drops(&latest(running)));
    inject();
    until("xdpfwd has received all packets", || {
        received(running, interface) >= received_before + count
    });
    // The latest report may precede the processing of the last packets.
    thread::sleep(Duration::from_millis(150));
    let report = latest(running);
    assert_eq!(received(running, interface), received_before + count, "{report}");
    let mut new_drops = drops(&report);
    for (reason, count) in drops_before {
        *new_drops.get_mut(&reason).unwrap() -= count;
    }
    new_drops.retain(|_, count| *count > 0);
    new_drops
}

/// Sends frames from the wire to xdpfwd 1. Returns the drops by reason.
fn drops_of<'a>(
    lab: &Lab,
    receiver: &Running,
    frames: impl IntoIterator<Item = &'a Vec<u8>>,
) -> BTreeMap<String, u64> {
    let frames: Vec<_> = frames.into_iter().collect();
    drops_during(receiver, "wan1", frames.len() as u64, || inject(&lab.wire, "tap1", frames))
}

/// Returns expected drop counts, without zeros.
fn drop_counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}

/// Cuts a frame to `length` bytes, and corrects length and checksum in its IPv4 header.
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

#[track_caller]
fn reload(lab: &Lab, running: &Running, setup: &Setup, side: usize) {
    running.config.write(&setup.config(lab, side));
    running.reload("INFO reloaded");
}
