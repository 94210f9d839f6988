//! Tests the TRex profile with scapy and a stub of TRex, which is not installed here.

use std::process::Command;

use serde_json::{Value, json};
use xdpfwd_lab::{DESTINATION_PORT, FIRST_FLOW_PORT, Traffic};

fn streams(tunables: &Value) -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/trex");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trex_profile.py");
    // Debian's python3 has Debian's scapy.
    let output = Command::new("/usr/bin/python3")
        .args([script, folder, &tunables.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packet(stream: &Value) -> Vec<u8> {
    let text = stream["packet"].as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn trex_frames_have_headers_and_lengths_of_generator_frames() {
    for wire in [64u16, 128, 1518] {
        let streams = streams(&json!({"size": wire, "flows": 16}));
        assert_eq!(streams.len(), 1);
        let (packet, own) =
            (packet(&streams[0]), Traffic::new().size(wire - 4).frame(0, 0).bytes());
        assert_eq!(packet.len(), own.len());
        // From the addresses to the UDP length. (The identification and the TTL may differ.)
        assert_eq!(packet[26..40], own[26..40]);
        assert_eq!(packet[16..18], own[16..18], "IPv4 total length");
        assert_eq!(packet[36..38], DESTINATION_PORT.to_be_bytes());
        assert_eq!(streams[0]["ports"], json!([FIRST_FLOW_PORT, FIRST_FLOW_PORT + 15]));
    }
}

#[test]
fn trex_imix_has_shares_of_the_lab() {
    let streams = streams(&json!({"size": "imix", "flows": 1, "latency": 500}));
    let found: Vec<_> = streams
        .iter()
        .map(|stream| (packet(stream).len(), stream["pps"].as_u64().unwrap()))
        .collect();
    assert_eq!(found[..3], [(60, 7), (590, 4), (1514, 1)]);
    for (bytes, count) in &found[..3] {
        let in_lab = xdpfwd_lab::IMIX.iter().filter(|size| usize::from(**size) == *bytes);
        assert_eq!(in_lab.count() as u64, *count);
    }
    assert_eq!(found[3], (60, 500));
    assert_eq!(streams[3]["measures_latency"], true);
    assert_eq!(streams[0]["ports"], Value::Null);
}
