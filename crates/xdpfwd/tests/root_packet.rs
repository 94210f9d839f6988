//! Tests what ports on packet sockets (`io = "packet"`, `"packet-mmsg"`, `"packet-mmap"`) have in
//! common beyond the tests of all I/O methods in `root_io.rs`. Needs root.
//!
//! The lab connects gen0 to fwd0 and fwd1 to sink0; xdpfwd forwards between fwd0 and fwd1.

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::iperf3::{GEN_ADDRESS, SINK_ADDRESS, transfer_both_ways};
use support::{FinalReport, Running, TIMEOUT, build_lab, cross_connect_io, until};
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_testkit::lab::{ip, ping, sh};

const METHODS: [&str; 3] = ["packet", "packet-mmsg", "packet-mmap"];

fn rx_ring_full(final_report: &FinalReport) -> u64 {
    final_report.json["ports"][0]["kernel"]["rx_ring_full"].as_u64().unwrap()
}

/// Returns the packets that fwd0 has received.
fn received_by_interface(lab: &Chain) -> u64 {
    let text = sh(lab.fwd(), "ip -json -statistics link show fwd0");
    let links: Value = serde_json::from_str(&text).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn ping_and_tcp_pass_both_ways() {
    for io in METHODS {
        let lab = build_lab(Chain::builder().addresses(true));
        // docs/configuration.md: GRO joins packets into longer ones.
        sh(lab.fwd(), "ethtool -K fwd0 gro off; ethtool -K fwd1 gro off");
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, ""));
        for (from, to) in [(lab.gen_(), SINK_ADDRESS), (lab.sink(), GEN_ADDRESS)] {
            ping(from, to, &["-c100", "-f", "-s1472"]);
        }
        let received_bytes = transfer_both_ways(&lab, ["--bytes", "8M"]);
        assert!(received_bytes.iter().all(|&bytes| bytes > 1_000_000), "{io}: {received_bytes:?}");
        let (exit, final_report) = running.stop();
        assert!(exit.status.success(), "{io}: {exit:?}");
        final_report.assert_frames_and_packets_add_up();
    }
}

#[test]
fn packet_socket_overflow_is_counted() {
    for io in METHODS {
        let lab = build_lab(Chain::builder());
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, "cores = [1]"));
        let before = received_by_interface(&lab);
        let traffic = Traffic::new().size(60).flows(16).core(0).count(2_000_000);
        traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
        // Until the interface has received all packets that the generator sent.
        let mut after = before;
        until("a steady count of received packets", || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let earlier = std::mem::replace(&mut after, received_by_interface(&lab));
            after > before && after == earlier
        });
        // The last packets are still in the socket.
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        let received = final_report.parsed.port("fwd0").unwrap().rx_packets;
        let lost = rx_ring_full(&final_report);
        assert!(lost > 0, "{io}: no overflow: {}", final_report.json);
        assert_eq!(received + lost, after - before, "{io}: {}", final_report.json);
    }
}

/// A packet socket receives copies, so the kernel receives and answers the ping too.
#[test]
fn packet_sockets_forward_ping_that_kernel_answers() {
    for io in METHODS {
        let lab = build_lab(Chain::builder());
        ip(lab.gen_(), "address add 10.99.0.1/24 dev gen0");
        ip(lab.fwd(), "address add 10.99.0.2/24 dev fwd0");
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, ""));
        ping(lab.gen_(), "10.99.0.2", &["-c3", "-i0.2"]);
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        assert!(
            final_report.parsed.port("fwd1").unwrap().tx_packets >= 3,
            "{io}: the pings were not forwarded: {}",
            final_report.json
        );
    }
}

/// The counts of system calls that docs/configuration.md states.
#[test]
fn system_calls_per_packet_match_method() {
    let mut counts = BTreeMap::new();
    for io in METHODS {
        let lab = build_lab(Chain::builder());
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, "cores = [1]"));
        let traffic = Traffic::new().rate(20_000).count(5_000).core(0);
        traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        let tasks = final_report.json["ledger"]["tasks"].as_array().unwrap();
        let wake = tasks.iter().find(|task| task["name"] == "wake").unwrap();
        let system_calls = final_report.json["kernel"]["syscalls"].as_u64().unwrap();
        let sent = final_report.parsed.port("fwd1").unwrap().tx_packets;
        assert!(sent > 0, "{io}: {}", final_report.json);
        counts.insert(io, (sent, wake["calls"].as_u64().unwrap(), system_calls));
    }
    let (sent, sends, all) = counts["packet"];
    assert_eq!(sends, sent, "one `send` per packet");
    assert!(all >= 2 * sent, "{counts:?}");
    for io in ["packet-mmsg", "packet-mmap"] {
        let (sent, sends, _) = counts[io];
        assert!(sends <= sent, "{io}: {counts:?}");
    }
    // Blocks of the receive ring arrive about once per millisecond, so packets leave in batches.
    let (sent, _, all) = counts["packet-mmap"];
    assert!(all < sent, "{counts:?}");
}

/// With `qdisc = "use"`, packets pass through the queueing discipline, which counts them.
#[test]
fn qdisc_of_port_is_used_or_bypassed() {
    for io in ["packet", "packet-mmap"] {
        let lab = build_lab(Chain::builder());
        sh(lab.fwd(), "tc qdisc replace dev fwd1 root pfifo limit 1000");
        let mut counted = Vec::new();
        for qdisc in ["", "qdisc = \"use\""] {
            let config = cross_connect_io(io, io, 1, "")
                .replace("interface = \"fwd1\"", &format!("interface = \"fwd1\"\n{qdisc}"));
            let running = Running::start(&lab, &config);
            let sink = Sink::builder().attach(lab.sink(), "sink0").unwrap();
            let traffic = Traffic::new().rate(20_000).count(1000).core(0);
            traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
            let (_, final_report) = running.stop();
            final_report.assert_frames_and_packets_add_up();
            assert_eq!(sink.seen().unwrap().arrived.packets, 1000, "{io}, {qdisc}");
            let text = sh(lab.fwd(), "tc -json -s qdisc show dev fwd1");
            let qdiscs: Value = serde_json::from_str(&text).unwrap();
            counted.push(qdiscs[0]["packets"].as_u64().unwrap());
        }
        assert_eq!(counted, [0, 1000], "{io}");
    }
}
