//! Tests `xdpfwd-lab demo` with a fake xdpfwd: a kernel bridge, and a script that reports its
//! counters correctly or falsely.
//!
//! Needs root and python3; fails without them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

const BINARY: &str = env!("CARGO_BIN_EXE_xdpfwd-lab");

/// Prints reports like `xdpfwd --json`. Its "configuration" has two numbers: frames to hide, and
/// frames to report as leaked. If the first is negative, the program fails.
const FAKE_XDPFWD: &str = r#"#!/usr/bin/env python3
import json, signal, subprocess, sys, time

hide, leak = map(int, open(sys.argv[sys.argv.index("--config") + 1]).read().split())
if hide < 0:
    sys.exit("the configuration is invalid")
stop = False
def on_signal(*_):
    global stop
    stop = True
signal.signal(signal.SIGINT, on_signal)
for line in ("ip link add br0 type bridge stp_state 0 mcast_snooping 0", "ip link set fwd0 master br0",
             "ip link set fwd1 master br0", "ip link set br0 up"):
    subprocess.run(line.split(), check=True)

def count(interface, direction):
    links = json.loads(subprocess.run(["ip", "-json", "-s", "link", "show", "dev", interface],
                                      check=True, capture_output=True).stdout)
    return links[0]["stats64"][direction]["packets"]

def report(kind):
    received, sent = count("fwd0", "rx"), count("fwd1", "tx")
    print(json.dumps({
        "schema": 1, "type": kind,
        "ports": [
            {"name": "lan", "interface": "fwd0", "mode": "copy", "rx_packets": max(received - hide, 0), "tx_packets": 0,
             "xdp_redirected": received, "xdp_passed": 0},
            {"name": "wan", "interface": "fwd1", "mode": "copy", "rx_packets": 0, "tx_packets": max(sent - hide, 0)}],
        "drops": {}, "stages": [],
        "frames": {"total": 8 + leak, "pool": 8, "leaked": leak},
        "kernel": {"syscalls": 1}}), flush=True)

report("interval")
while not stop:
    time.sleep(0.05)
report("final")
"#;

fn demo(name: &str, configuration: &str, arguments: &[&str]) -> Output {
    xdpfwd_lab::require_root("tests/root_demo.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).expect("create a directory");
    let (program, file) = (directory.join("fake-xdpfwd"), directory.join("configuration"));
    fs::write(&program, FAKE_XDPFWD).expect("write the fake xdpfwd");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it executable");
    fs::write(&file, configuration).expect("write the configuration");
    let mut command = Command::new(BINARY);
    command
        .args(["demo", "--seconds", "1", "--rate", "2000", "--xdpfwd"])
        .arg(&program)
        .arg("--config")
        .arg(&file);
    command.args(arguments).output().expect("run xdpfwd-lab")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn demo_with_correct_report_balances() {
    let output = demo("correct", "0 0", &["--json"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let result: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(result["balance"], true);
    assert_eq!(result["leaked"], 0);
    assert_eq!(result["offered"]["packets"], result["forwarded"]["packets"]);
    assert!(result["offered"]["packets"].as_u64() > Some(100));
}

#[test]
fn demo_text_lists_loss_locations_and_leaks() {
    let output = demo("readable", "0 0", &["--size", "1514"]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", text(&output.stderr));
    for part in [
        "offered",
        "location of the loss",
        "fill ring empty",
        "leaked 0",
        "Every frame is accounted for",
    ] {
        assert!(stdout.contains(part), "{part} is missing:\n{stdout}");
    }
}

#[test]
fn demo_with_hidden_frames_fails() {
    let output = demo("hidden", "3 0", &[]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("does NOT balance: 3 redirected to AF_XDP"), "{stdout}");
}

#[test]
fn demo_with_leak_fails() {
    let output = demo("leak", "0 2", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("LEAKED 2"), "{}", text(&output.stdout));
}

#[test]
fn demo_prints_stderr_of_a_forwarder_that_exits() {
    let output = demo("invalid", "-1 0", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("the configuration is invalid"),
        "{}",
        text(&output.stderr)
    );
}
