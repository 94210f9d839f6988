//! Checks emitted frames of [`xdpfwd_wire`] with scapy, which parses every field and rebuilds the
//! frame. scapy computes lengths and checksums itself; for header stacks, also the fields that
//! state the type of the next layer.
//!
//! Before `emit`, buffers contain 0xee, so that scapy also detects a byte that `emit` leaves out.

mod case;
mod link;
mod network;
#[path = "../scapy/mod.rs"]
mod scapy;
mod stack;
mod transport;
mod tunnel;

use std::collections::BTreeMap;

use serde_json::Value;
use xdpfwd_wire::HeaderStack;

use case::{Case, Random, hex};
use link::frame;
use stack::{extension, stack, stack_layers};

const FRAME_COUNT: usize = 500;

/// Arguments of the script: whether scapy keeps or recomputes the fields that state a type.
const KEEP_TYPES: &str = "-";
const RECOMPUTE_TYPES: &str = "types";

#[test]
fn scapy_reads_and_rebuilds_emitted_frames() {
    let mut random = Random(20_240_229);
    let cases: Vec<Case> = (0..FRAME_COUNT).map(|_| frame(&mut random)).collect();
    let input: String = cases.iter().map(|case| hex(&case.bytes) + "\n").collect();
    let answers = scapy::run("emit_against_scapy.py", KEEP_TYPES, &input);
    assert_eq!(answers.len(), FRAME_COUNT);
    assert_scapy_corrects_checksum(&cases);
    for (case, answer) in cases.iter().zip(&answers) {
        let frame = hex(&case.bytes);
        assert_eq!(answer["layers"], Value::from(case.layers.clone()), "{frame}");
        assert_eq!(answer["rebuilt"], frame, "{answer}");
    }
    // Without these layers, the comparisons would prove nothing about them.
    for layer in [
        "ARP",
        "Dot1AD",
        "Dot1Q",
        "GTPErrorIndication",
        "GTPPDUSessionContainer",
        "GTP_U_Header",
        "ICMP",
        "ICMPv6EchoReply",
        "ICMPv6EchoRequest",
        "IPv6ExtHdrDestOpt",
        "TCP",
    ] {
        let has_layer = |case: &&Case| case.layers.iter().any(|fields| fields["layer"] == layer);
        let count = cases.iter().filter(has_layer).count();
        assert!(count > 10, "only {count} frames have the layer {layer}");
    }
}

#[test]
fn scapy_reads_and_rebuilds_emitted_stacks() {
    let mut random = Random(20_261_130);
    let containers: Vec<_> = (0..8).map(|_| [extension(&mut random)]).collect();
    let cases: Vec<_> = (0..FRAME_COUNT).map(|_| stack(&mut random, &containers)).collect();
    let frames = cases.iter().map(|(headers, payload)| {
        let frame = HeaderStack(headers).packet(payload).unwrap();
        hex(&frame)
    });
    let frames: Vec<String> = frames.collect();
    let input: String = frames.iter().map(|frame| frame.clone() + "\n").collect();
    let answers = scapy::run("emit_against_scapy.py", RECOMPUTE_TYPES, &input);
    assert_eq!(answers.len(), FRAME_COUNT);
    let mut counts = BTreeMap::new();
    for (((headers, payload), frame), answer) in cases.iter().zip(&frames).zip(&answers) {
        let layers = answer["layers"].as_array().unwrap().iter();
        let layers: Vec<&str> = layers.map(|fields| fields["layer"].as_str().unwrap()).collect();
        let expected = stack_layers(headers, payload);
        assert_eq!(layers, expected, "{frame}");
        assert_eq!(answer["rebuilt"], *frame, "{answer}");
        layers.windows(2).for_each(|pair| *counts.entry(pair.join(" ")).or_insert(0) += 1);
    }
    // Without such frames, the comparisons would prove nothing about the type fields of these
    // layers.
    for pair in [
        "Dot1AD Dot1Q",
        "Dot1Q IP",
        "Dot1Q IPv6",
        "Ether Dot1AD",
        "Ether Dot1Q",
        "Ether IP",
        "Ether IPv6",
        "GTP_U_Header IP",
        "GTP_U_Header IPv6",
        "IP ICMP",
        "IP IP",
        "IP IPv6",
        "IP TCP",
        "IP UDP",
        "IPv6 ICMPv6EchoRequest",
        "IPv6 IP",
        "IPv6 IPv6",
        "IPv6 TCP",
        "IPv6 UDP",
    ] {
        let count = counts.get(pair).copied().unwrap_or(0);
        assert!(count > 10, "only {count} frames have the pair of layers {pair}");
    }
}

/// Asserts that scapy corrects an incorrect checksum. Otherwise, the tests would accept any
/// checksum.
fn assert_scapy_corrects_checksum(cases: &[Case]) {
    let has_tcp = |case: &&Case| case.layers.iter().any(|fields| fields["layer"] == "TCP");
    let mut frame = cases.iter().find(has_tcp).unwrap().bytes.clone();
    *frame.last_mut().unwrap() ^= 1;
    let answers = scapy::run("emit_against_scapy.py", KEEP_TYPES, &hex(&frame));
    assert_ne!(answers[0]["rebuilt"], hex(&frame), "scapy kept an incorrect TCP checksum");
}
