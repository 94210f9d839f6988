//! Compares ICMP messages, and SYNs with a lowered MSS, byte by byte with those of scapy.

use std::process::Command;

use serde_json::Value;
use xdpfwd_xsk::{HugePages, Umem, UmemConfig};

use super::mss;
use xdpfwd_wire::Headers;
use xdpfwd_wire::icmp::{ErrorMessage, Problem, Sources};

/// Returns cases by scapy; `answer` is the expected message or SYN. Uses Debian's Python, which has
/// scapy; `python3` in the PATH may be another.
fn cases(kind: &str, count: usize) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/esp_answers_by_scapy.py");
    let output = Command::new("/usr/bin/python3").args([script, kind, &count.to_string()]).output();
    let output = output.expect("python3 with scapy: `make test-deps` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let cases: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), count);
    cases
}

fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn number(case: &Value, key: &str) -> u16 {
    case[key].as_u64().unwrap().try_into().unwrap()
}

fn address<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &Value) -> Option<T> {
    text.as_str().map(|text| text.parse().unwrap())
}

/// Checks that at least `min` cases have an answer over IPv4, `min` over IPv6, and `min` no answer.
/// The field `kind` of a case is the IP version.
fn assert_all_outcomes_occur(cases: &[Value], min: usize) {
    for version in ["v4", "v6"] {
        let count = cases
            .iter()
            .filter(|case| case["kind"] == version && !case["answer"].is_null())
            .count();
        assert!(count >= min, "{count} cases over {version} with an answer, expected {min}");
    }
    let count = cases.iter().filter(|case| case["answer"].is_null()).count();
    assert!(count >= min, "{count} cases without an answer, expected {min}");
}

#[test]
fn too_big_message_equals_message_of_scapy() {
    let cases = cases("too_big", 2500);
    assert_all_outcomes_occur(&cases, 200);
    let (_umem, mut pool) =
        Umem::new(&UmemConfig { frame_size: 4096, frames: 256, huge_pages: HugePages::Off })
            .unwrap();
    for case in &cases {
        let bytes = unhex(&case["frame"]);
        let mut frame = pool.alloc().unwrap();
        frame.append(bytes.len()).unwrap().copy_from_slice(&bytes);
        let sources = Sources { v4: address(&case["v4"]), v6: address(&case["v6"]) };
        let problem = Problem::TooBig { mtu: number(case, "mtu") };
        let message = ErrorMessage::about(&frame, &Headers::parse(&bytes), problem, &sources);
        if let Some(message) = &message {
            frame.prepend(message.front_len()).unwrap();
            message.emit(&mut frame).unwrap();
            frame.truncate(message.frame_len());
        }
        assert_eq!(message.is_some(), !case["answer"].is_null(), "{case}");
        let expected = if message.is_some() { &case["answer"] } else { &case["frame"] };
        assert_eq!(hex(&frame), *expected, "{case}");
        pool.free(frame).unwrap();
    }
}

#[test]
fn syn_with_lowered_mss_equals_syn_of_scapy() {
    let cases = cases("mss", 1500);
    assert_all_outcomes_occur(&cases, 150);
    let mut odd_offsets = 0;
    for case in &cases {
        let mut frame = unhex(&case["frame"]);
        let headers = Headers::parse(&frame);
        let before = frame.clone();
        let clamped = mss::clamp(&mut frame, &headers, number(case, "max_mss"));
        assert_eq!(clamped, !case["answer"].is_null(), "{case}");
        let expected = if clamped { &case["answer"] } else { &case["frame"] };
        assert_eq!(hex(&frame), *expected, "{case}");
        let options_start = usize::from(headers.l4_offset) + 20;
        let changed = (options_start..frame.len()).find(|&offset| frame[offset] != before[offset]);
        // The MSS option begins with its kind, 2, and its length, 4.
        odd_offsets += usize::from(changed.is_some_and(|offset| {
            frame[offset - 2..offset] == [2, 4] && offset % 2 != options_start % 2
        }));
    }
    assert!(odd_offsets >= 50, "{odd_offsets} MSS options at an odd offset, expected 50");
}
