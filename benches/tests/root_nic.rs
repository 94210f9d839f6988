//! Tests `xdpfwd-bench nic` on veth pairs in a network namespace.
//!
//! Needs root, and the binary xdpfwd in the folder of xdpfwd-bench; fails without them.

mod nic_support;

use std::fs;

use nic_support::{Bench, assert_frames_add_up};
use xdpfwd_lab::{Namespace, connect};

/// Two cables: gen0 to fwd0 and fwd1 to sink0, all in one namespace.
fn cables(mtu: u16) -> Namespace {
    let namespace = Namespace::create("nic").expect("run these tests as root");
    // Otherwise, the kernel sends IPv6 packets, which xdpfwd forwards and the sink does not count.
    let disable = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
    assert!(namespace.command("sh").args(["-ec", disable]).status().unwrap().success());
    for interfaces in [[("gen0", 1), ("fwd0", 2)], [("fwd1", 3), ("sink0", 4)]] {
        let [a, b] = interfaces.map(|(name, mac)| (&namespace, name, mac));
        connect(a, b, 1, mtu).unwrap();
    }
    namespace
}

const PORTS: [&str; 8] = ["--tx", "gen0", "--rx", "sink0", "--fwd-in", "fwd0", "--fwd-out", "fwd1"];
const SHORT: [&str; 6] = ["--rounds", "1", "--seconds", "0.8", "--warmup", "0.2"];

#[test]
fn nic_measures_cells_between_veths_and_explains_missing_ones() {
    let namespace = cables(1700);
    let bench = Bench::new(&namespace);
    let results = bench.measure(&[
        &PORTS[..],
        &SHORT,
        &["--sizes", "60", "--no-rates", "--force"],
        &["--paths", "packet,af_xdp-copy,af_xdp-zero-copy"],
        &["--columns", "none,filter-1k-kernel,aes-128-gcm"],
    ]);
    let cells: Vec<_> = results.runs.iter().map(|run| (&*run.row, &*run.column)).collect();
    for expected in [
        ("packet", "none"),
        ("packet", "aes-128-gcm"),
        ("af_xdp-copy", "none"),
        ("af_xdp-copy", "filter-1k-kernel"),
        ("af_xdp-copy", "aes-128-gcm"),
    ] {
        assert!(cells.contains(&expected), "no run of {expected:?}: {cells:?}");
    }
    assert_eq!(cells.len(), 5, "{cells:?}");
    let reason = |row: &str, column: Option<&str>| {
        let mut all = results.unavailable.iter();
        let found = all.find(|one| one.row == row && one.column.as_deref() == column);
        found.unwrap_or_else(|| panic!("{:?}", results.unavailable)).reason.clone()
    };
    assert!(!reason("af_xdp-zero-copy", None).is_empty());
    assert!(!reason("packet", Some("filter-1k-kernel")).is_empty());
    assert_frames_add_up(&results);
    for run in results.runs.iter().filter(|run| run.paced_forwarded_pps > 0.0) {
        assert_eq!(run.stage_cycles.is_some(), run.column != "none", "{run:?}");
    }
    let nic = results.nic.as_ref().unwrap();
    let roles: Vec<_> = nic.ports.iter().map(|port| (&*port.role, &*port.interface)).collect();
    let expected = [("tx", "gen0"), ("rx", "sink0"), ("fwd-in", "fwd0"), ("fwd-out", "fwd1")];
    assert_eq!(roles, expected);
    assert!(nic.ports.iter().all(|port| port.driver.as_deref() == Some("veth")), "{nic:?}");
    assert_eq!(results.generator.as_deref(), Some("live"));
}

#[test]
fn nic_finds_rates_and_latency_at_each_load() {
    let namespace = cables(1500);
    let bench = Bench::new(&namespace);
    // Every machine forwards the line rate of this link (10 Mbit/s), so the search ends there. The
    // goals are loose, because some hosts take a core away for a while.
    let results = bench.measure(&[
        &PORTS[..],
        &SHORT,
        &["--wire-sizes", "64", "--force", "--paths", "af_xdp-copy", "--columns", "none"],
        &["--link-gbps", "0.01", "--allowed-loss", "0.8,0.5", "--trial-seconds", "0.5"],
    ]);
    let [first, second] = &results.rates[..] else { panic!("{:?}", results.rates) };
    assert_eq!((first.allowed_loss, second.allowed_loss), (0.5, 0.8));
    assert_eq!(first.size, "60");
    assert_eq!(results.nic.as_ref().unwrap().latency_allowed_loss, Some(0.5));
    // 64 bytes, preamble and inter-frame gap.
    let line = 1e7 / 8.0 / 84.0;
    for rate in [first, second] {
        assert!(rate.pps > 0.5 * line && rate.pps < 1.05 * line, "{rate:?}");
    }
    let loads: Vec<_> = results.latencies.iter().map(|latency| latency.load).collect();
    assert_eq!(loads, [0.1, 0.5, 0.9]);
    for latency in &results.latencies {
        let ascending = [latency.p50_ns, latency.p99_ns, latency.p999_ns, latency.max_ns];
        assert!(ascending[0] > 0.0 && ascending.is_sorted(), "{latency:?}");
        assert!(latency.offered_pps < 1.1 * latency.load * first.pps, "{latency:?} {first:?}");
    }
}

#[test]
fn nic_without_own_forwarder_measures_a_bridge() {
    let namespace = cables(1500);
    let commands = "ip link add br0 type bridge stp_state 0 mcast_snooping 0 && \
         ip link set fwd0 master br0 && ip link set fwd1 master br0 && \
         bridge fdb replace 02:00:00:00:00:04 dev fwd1 master static && ip link set br0 up";
    assert!(namespace.command("sh").args(["-ec", commands]).status().unwrap().success());
    let bench = Bench::new(&namespace);
    let arguments = [
        &PORTS[..4],
        &SHORT,
        &["--forwarder", "none", "--name", "bridge", "--sizes", "60", "--no-rates", "--force"],
    ];
    let results = bench.measure(&arguments);
    let [run] = &results.runs[..] else { panic!("{:?}", results.runs) };
    assert_eq!((&*run.row, &*run.column, run.tool_transmitted), ("bridge", "none", None));
    assert!(run.forwarded_pps > 0.0 && run.sink_received > 0, "{run:?}");
    assert_eq!(results.nic.unwrap().forwarder, "none");

    let first = fs::read(bench.results()).unwrap();
    bench.measure(&arguments);
    assert_eq!(fs::read(bench.results()).unwrap(), first, "the first results were replaced");
    assert!(bench.results().parent().unwrap().with_file_name("nic-2/nic.txt").exists());
}

#[test]
fn nic_with_missing_preparations_prints_remedies_and_measures_nothing() {
    let namespace = cables(1500);
    let bench = Bench::new(&namespace);
    let output = bench.run(&[&PORTS[..], &["--columns", "aes-128-gcm", "--paths", "af_xdp-copy"]]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for remedy in ["→ ip link set fwd1 mtu 1700", "→ ip link set sink0 mtu 1700", "use --force"]
    {
        assert!(text.contains(remedy), "no `{remedy}` in {text}");
    }
    assert!(!text.contains("ip link set gen0 mtu"), "{text}");
    assert!(!bench.results().exists(), "results were written");
}

#[test]
fn nic_refuses_interfaces_in_use() {
    let namespace = cables(1500);
    let bench = Bench::new(&namespace);
    let ip = |line: &str| {
        let status = namespace.command("ip").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "ip {line}");
    };
    let error = |options: &[&str]| {
        let output = bench.run(&[&PORTS[..], options]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    };
    ip("address add 192.0.2.1/24 dev sink0");
    let text = error(&["--check"]);
    assert!(text.contains("`sink0` has the address 192.0.2.1"), "{text}");
    let text = error(&["--check", "--force"]);
    assert!(!text.contains("`sink0`"), "{text}");
    ip("route add default via 192.0.2.2 table 77");
    let text = error(&["--force"]);
    assert!(text.contains("`sink0` carries a default route"), "{text}");
    ip("address flush dev sink0");
    ip("link add br0 type bridge");
    ip("link set gen0 master br0");
    let text = error(&["--force"]);
    assert!(text.contains("`gen0` is a lower interface of `br0`"), "{text}");
    assert!(!bench.results().exists(), "results were written");
}
