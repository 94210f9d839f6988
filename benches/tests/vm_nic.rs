//! Tests `xdpfwd-bench nic` on the NICs of the test VM (`make vmtest SUITE=nic`; crates/vm). i0 and
//! i1 are igb; their cables lead to i0far and i1far, which are virtio-net.

mod nic_support;

use std::{path::Path, thread, time::Duration, time::Instant};

use nic_support::{Bench, assert_frames_add_up};
use xdpfwd_lab::Namespace;

/// Moves interfaces to a new namespace, and starts them.
fn namespace_with(interfaces: &[&str]) -> Namespace {
    let namespace = Namespace::create("nic").unwrap();
    let run = |line: String| {
        let status = namespace.command("sh").args(["-ec", &line]).status().unwrap();
        assert!(status.success(), "{line}");
    };
    run("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6".into());
    for interface in interfaces {
        // The interfaces of the previous test return some time after its namespace is removed.
        let start = Instant::now();
        while !Path::new("/sys/class/net").join(interface).exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "{interface} is missing");
            thread::sleep(Duration::from_millis(100));
        }
        let target = ["link", "set", interface, "netns", namespace.name()];
        assert!(std::process::Command::new("ip").args(target).status().unwrap().success());
        run(format!("ip link set {interface} up mtu 1700"));
    }
    namespace
}

const SHORT: [&str; 8] =
    ["--rounds", "1", "--seconds", "1", "--warmup", "0.5", "--link-gbps", "0.1"];
const RATES: [&str; 6] =
    ["--allowed-loss", "0.1,0.5", "--trial-seconds", "0.5", "--precision", "0.3"];

#[test]
fn nic_measures_forwarding_between_igb_ports() {
    let namespace = namespace_with(&["i0", "i0far", "i1", "i1far"]);
    // igb has two queues by default; xdpfwd serves one.
    for interface in ["i0", "i1"] {
        let arguments = ["-L", interface, "combined", "1"];
        assert!(namespace.command("ethtool").args(arguments).status().unwrap().success());
    }
    let bench = Bench::new(&namespace);
    let results = bench.measure(&[
        &["--tx", "i0far", "--rx", "i1far", "--fwd-in", "i0", "--fwd-out", "i1"],
        &SHORT[..],
        &RATES,
        &["--sizes", "60", "--force", "--columns", "none"],
        &["--paths", "af_xdp-copy,af_xdp-zero-copy", "--flows", "16"],
    ]);
    let rows: Vec<_> = results.runs.iter().map(|run| &*run.row).collect();
    assert_eq!(rows, ["af_xdp-copy", "af_xdp-zero-copy"], "{:?}", results.unavailable);
    assert_frames_add_up(&results);
    let nic = results.nic.as_ref().unwrap();
    let igb = nic.ports.iter().find(|port| port.role == "fwd-in").unwrap();
    assert_eq!(igb.driver.as_deref(), Some("igb"));
    assert!(igb.bus.as_ref().is_some_and(|bus| bus.starts_with("0000:")), "{igb:?}");
    assert_eq!(igb.speed_mbps, Some(1000), "{igb:?}");
    assert!(igb.pcie.as_ref().is_some_and(|pcie| pcie.contains("GT/s")), "{igb:?}");
    assert!(igb.firmware.is_some(), "{igb:?}");
    assert_eq!(results.rates.len(), 4, "{:?}", results.rates);
    let lowest = results.rates.iter().filter(|rate| rate.allowed_loss == 0.1 && rate.pps > 0.0);
    assert_eq!(results.latencies.len(), 3 * lowest.count(), "{:?}", results.rates);
    assert!(results.latencies.iter().all(|latency| latency.p50_ns > 0.0));
}

/// The cable itself forwards.
#[test]
fn nic_sends_from_igb_with_either_generator() {
    let namespace = namespace_with(&["i0", "i0far"]);
    for generator in ["live", "pktgen"] {
        let bench = Bench::new(&namespace);
        let results = bench.measure(&[
            &["--tx", "i0", "--rx", "i0far", "--forwarder", "none", "--name", "cable"],
            &SHORT[..],
            &RATES,
            &["--sizes", "60,508", "--force", "--generator", generator],
        ]);
        assert_eq!(results.generator.as_deref(), Some(generator));
        assert_eq!(results.runs.len(), 2, "{:?}", results.runs);
        for run in &results.runs {
            assert!(run.forwarded_pps > 0.0, "{run:?}");
            // Frames sent at the end of the window arrive after it.
            assert!(run.forwarded_pps <= run.offered_pps * 1.1, "{run:?}");
        }
        let expected = if generator == "live" { 6 } else { 0 };
        assert_eq!(results.latencies.len(), expected, "{:?}", results.latencies);
    }
}
