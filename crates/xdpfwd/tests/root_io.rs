//! Compares all I/O methods (key `io`): they must forward the same bytes in the same order with the
//! same counts. `io = "xsk-rs"` needs the feature `xsk-rs`, which `make test` enables. Needs root.
//!
//! The lab connects gen0 to fwd0 and fwd1 to sink0; xdpfwd forwards between fwd0 and fwd1.

mod support;

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::wire::{Side, gen0, hex, mark_count, send_and_capture, sink0};
use support::{Config, FinalReport, Running, TIMEOUT, XDPFWD, build_lab, cross_connect_io, stderr};
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_testkit::lab::ip;

const IO_METHODS: &[&str] = if cfg!(feature = "xsk-rs") {
    &["af_xdp", "packet", "packet-mmsg", "packet-mmap", "xsk-rs"]
} else {
    &["af_xdp", "packet", "packet-mmsg", "packet-mmap"]
};

/// Most other test files use af_xdp, the default.
fn methods_except_af_xdp() -> impl Iterator<Item = &'static str> {
    IO_METHODS.iter().copied().filter(|&io| io != "af_xdp")
}

/// Returns frames of 60 to 1514 bytes, most with one or two VLAN tags. Two thirds are UDP packets
/// of 16 flows; the others are not IP.
fn test_frames() -> Vec<Vec<u8>> {
    const TAGS: [&[u8]; 5] = [
        &[],
        &[0x81, 0, 0, 100],
        &[0x81, 0, 0xe0, 7],
        &[0x88, 0xa8, 0, 200],
        &[0x88, 0xa8, 0, 200, 0x81, 0, 0, 100],
    ];
    let mut frames = Vec::new();
    for (index, len) in (60..=1514).enumerate() {
        let tags = TAGS[index % TAGS.len()];
        // veth counts a second tag against the MTU, so the longest frames have no tag.
        let tags = if len > 1506 { &[] } else { tags };
        let mut frame = vec![2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 1];
        frame.extend(tags);
        if index % 3 == 0 {
            frame.extend([0x88, 0xb5]);
        } else {
            // UDP over IPv4. The checksums are wrong, but nothing checks them.
            let flow = (index % 16) as u8;
            let total = (len - 14) as u16;
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(total.to_be_bytes());
            frame.extend([0, index as u8, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend([0x10, flow, 0x20, flow]);
            frame.extend((total - 20).to_be_bytes());
        }
        let len = len + tags.len();
        let mut filler = index as u32;
        while frame.len() < len {
            filler = filler.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            frame.push((filler >> 24) as u8);
        }
        frames.push(frame);
    }
    frames
}

/// Compares frames. A failure prints only the first difference.
#[track_caller]
fn assert_same(arrived: &[Vec<u8>], expected: &[Vec<u8>], context: &str) {
    if let Some(index) = arrived.iter().zip(expected).position(|(a, b)| a != b) {
        let start = |frame: &[u8]| hex(&frame[..frame.len().min(40)]);
        let (actual, expected) = (&arrived[index], &expected[index]);
        let (actual_len, expected_len) = (actual.len(), expected.len());
        panic!(
            "{context}: frame {index} differs: {actual_len} bytes {}… instead of {expected_len} \
             bytes {}…",
            start(actual),
            start(expected)
        );
    }
    assert_eq!(arrived.len(), expected.len(), "{context}: wrong number of arrived frames");
}

/// Returns, for each port, received packets and bytes, and sent packets and bytes.
fn port_counters(final_report: &FinalReport) -> Vec<[u64; 4]> {
    let ports = final_report.json["ports"].as_array().unwrap().iter();
    let keys = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"];
    ports.map(|port| keys.map(|key| port[key].as_u64().unwrap())).collect()
}

fn kernel_counter(final_report: &FinalReport, port: usize, counter: &str) -> u64 {
    final_report.json["ports"][port]["kernel"][counter]
        .as_u64()
        .unwrap_or_else(|| panic!("no {counter} in {}", final_report.json))
}

/// Returns the kernel's packets and dropped packets for a `direction` (`rx` or `tx`).
fn interface_counters(lab: &Chain, interface: &str, direction: &str) -> (u64, u64) {
    let mut ip = lab.fwd().command("ip");
    let output = ip.args(["-json", "-statistics", "link", "show", interface]).output().unwrap();
    let links: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = &links[0]["stats64"][direction];
    (counts["packets"].as_u64().unwrap(), counts["dropped"].as_u64().unwrap())
}

#[test]
fn every_io_forwards_same_frames_with_same_counts() {
    let frames = test_frames();
    let tagged_count =
        frames.iter().filter(|frame| matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8])).count();
    let combinations = IO_METHODS
        .iter()
        .map(|&io| (io, io))
        .chain([("af_xdp", "packet-mmsg"), ("packet-mmsg", "af_xdp")])
        .chain([("af_xdp", "packet-mmap"), ("packet-mmap", "packet")]);
    let xsk_rs_combinations =
        cfg!(feature = "xsk-rs").then_some([("xsk-rs", "packet-mmsg"), ("packet-mmsg", "xsk-rs")]);
    let mut counts: Vec<(String, Vec<[u64; 4]>)> = Vec::new();
    for (lan, wan) in combinations.chain(xsk_rs_combinations.into_iter().flatten()) {
        // Both sizes for each I/O method, one for each combination of two.
        for &frame_size in if lan == wan { &[2048, 4096][..] } else { &[4096] } {
            let case = format!("{lan} and {wan}, frame_size {frame_size}");
            let lab = build_lab(Chain::builder());
            let umem = format!("\n[umem]\nframe_size = {frame_size}\nframes = 2048\n");
            let running = Running::start(&lab, &(cross_connect_io(lan, wan, 1, "") + &umem));
            for (from, to) in [(gen0(&lab), sink0(&lab)), (sink0(&lab), gen0(&lab))] {
                assert_same(
                    &send_and_capture(from, to, &frames),
                    &frames,
                    &format!("{case}, {} to {}", from.1, to.1),
                );
            }
            let (exit, final_report) = running.stop();
            assert!(exit.status.success() && !exit.killed, "{case}: {exit:?}");
            final_report.assert_frames_and_packets_add_up();
            assert_eq!(
                final_report.parsed.drops.values().sum::<u64>(),
                0,
                "{case}: {}",
                final_report.json
            );
            for counter in ["tx_dropped", "rx_dropped", "rx_ring_full"] {
                assert_eq!(
                    final_report.json["kernel"][counter], 0,
                    "{case}: {}",
                    final_report.json
                );
            }
            // A packet socket reinserts a VLAN tag that the kernel removed. This moves the start of
            // the packet within the frame, so a port with xsk-rs copies the packet to send it.
            let copied =
                if [lan, wan].contains(&"xsk-rs") && lan != wan { tagged_count } else { 0 };
            assert_eq!(
                final_report.json["kernel"]["tx_copied"], copied,
                "{case}: {}",
                final_report.json
            );
            for (port, io) in [lan, wan].into_iter().enumerate() {
                let port = &final_report.json["ports"][port];
                let mode = if io.starts_with("packet") { io } else { "copy" };
                assert_eq!((&port["io"], &port["mode"]), (&io.into(), &mode.into()), "{case}");
            }
            counts.push((case, port_counters(&final_report)));
        }
    }
    // After every 32 frames, wire.py also sends a mark: a frame of 60 bytes.
    let (packets, bytes) =
        (frames.len() + mark_count(frames.len()), frames.iter().map(Vec::len).sum::<usize>());
    let (packets, bytes) = (packets as u64, (bytes + 60 * mark_count(frames.len())) as u64);
    for (case, counts) in &counts {
        assert_eq!(counts, &[[packets, bytes, packets, bytes]; 2], "{case}");
    }
    println!("{} frames both ways through {} combinations", frames.len(), counts.len());
}

#[test]
fn stop_under_overload_leaks_no_frame() {
    for io in methods_except_af_xdp() {
        let lab = build_lab(Chain::builder());
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, "cores = [1]"));
        let sink = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
        let generator =
            Traffic::new().size(60).flows(16).core(0).start(lab.gen_(), "gen0").unwrap();
        thread::sleep(Duration::from_millis(1500));
        let (exit, final_report) = running.stop();
        let sent = generator.stop().unwrap();
        assert!(exit.status.success() && !exit.killed, "{io}: {exit:?}");
        final_report.assert_frames_and_packets_add_up();
        let (lan, wan) =
            (final_report.parsed.port("fwd0").unwrap(), final_report.parsed.port("fwd1").unwrap());
        assert!(sent.packets > lan.rx_packets, "{io}: no overload: xdpfwd received all packets");
        assert!(lan.rx_packets > 10_000, "{io}: {}", final_report.json);
        assert!(
            kernel_counter(&final_report, 0, "rx_ring_full") > 0,
            "{io}: rx_ring_full does not count the lost packets: {}",
            final_report.json
        );
        let seen = sink.seen().unwrap();
        let (transmitted, kernel_dropped) = interface_counters(&lab, "fwd1", "tx");
        assert_eq!(seen.arrived.packets, transmitted, "{io}: {}", final_report.json);
        let tx_dropped = final_report.json["kernel"]["tx_dropped"].as_u64().unwrap();
        assert_eq!(
            wan.tx_packets,
            transmitted + tx_dropped,
            "{io}: the kernel dropped {kernel_dropped}: {}",
            final_report.json
        );
        assert!(seen.is_clean(), "{io}: {seen:?}");
        println!(
            "{io}: {} offered, {} received, {} sent, {tx_dropped} dropped by the interface",
            sent.packets, lan.rx_packets, wan.tx_packets
        );
    }
}

/// Each run must release the resources that the next needs.
#[test]
fn io_methods_start_in_turn_on_same_interfaces() {
    let lab = build_lab(Chain::builder());
    let generator = Traffic::new().rate(20_000).core(0).start(lab.gen_(), "gen0").unwrap();
    for round in 0..3 {
        for &io in IO_METHODS {
            let running = Running::start(&lab, &cross_connect_io(io, io, 1, ""));
            let (exit, final_report) = running.stop();
            assert!(exit.status.success() && !exit.killed, "{io}, round {round}: {exit:?}");
            final_report.assert_frames_and_packets_add_up();
            assert!(
                final_report.parsed.port("fwd0").unwrap().rx_packets > 0,
                "{io}, round {round}: {}",
                final_report.json
            );
        }
    }
    generator.stop().unwrap();
}

#[test]
fn two_workers_forward_all_packets_of_two_queues() {
    for io in methods_except_af_xdp() {
        let lab = build_lab(Chain::builder().queues(2));
        let running = Running::start(&lab, &cross_connect_io(io, io, 2, "cores = [0, 1]"));
        let sink = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
        for core in [0, 1] {
            let traffic = Traffic::new().rate(20_000).count(5_000).core(core);
            traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
        }
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        assert_eq!(final_report.json["workers"], 2);
        assert_eq!(
            final_report.parsed.port("fwd1").unwrap().tx_packets,
            10_000,
            "{io}: {}",
            final_report.json
        );
        assert_eq!(sink.seen().unwrap().arrived.packets, 10_000, "{io}: {}", final_report.json);
    }
}

fn set_mtu(side: Side<'_>, mtu: usize) {
    ip(side.0, &format!("link set dev {} mtu {mtu}", side.1));
}

fn plain_frame(len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend((14..len).map(|index| index as u8));
    frame
}

/// Tests packets too long for a UMEM frame or for the output interface.
#[test]
fn too_long_packets_are_counted_on_receive_and_transmit() {
    for io in methods_except_af_xdp() {
        let lab = build_lab(Chain::builder());
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, ""));
        [gen0(&lab), (lab.fwd(), "fwd0")].into_iter().for_each(|side| set_mtu(side, 2000));
        // A UMEM frame has room for 1792 bytes. fwd1 accepts 1514 bytes, or 1518 with a VLAN tag.
        // (A veth accepts 1518 bytes even without a tag.)
        let frames = [60, 1793, 1519, 1514, 1900, 61].map(plain_frame);
        let arrived = send_and_capture(gen0(&lab), sink0(&lab), &frames);
        assert_same(&arrived, &[60, 1514, 61].map(plain_frame), io);
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        assert_eq!(
            kernel_counter(&final_report, 0, "rx_dropped"),
            2,
            "{io}: {}",
            final_report.json
        );
        assert_eq!(final_report.json["kernel"]["tx_dropped"], 1, "{io}: {}", final_report.json);
        assert_eq!(
            port_counters(&final_report)[1][2],
            5,
            "{io}: `tx_packets` of wan: three that arrived, a mark of wire.py, and the drop: {}",
            final_report.json
        );
    }
}

/// While the output interface is down, its rings fill up, and xdpfwd then drops packets.
#[test]
fn forwarding_resumes_after_interface_was_down() {
    for io in methods_except_af_xdp() {
        let lab = build_lab(Chain::builder());
        let running = Running::start(&lab, &cross_connect_io(io, io, 1, ""));
        let wan = (lab.fwd(), "fwd1");
        ip(wan.0, "link set dev fwd1 down");
        let traffic = Traffic::new().rate(20_000).count(5_000).core(0);
        traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
        ip(wan.0, "link set dev fwd1 up");
        let frames = [60, 61, 1514].map(plain_frame);
        // The generator's packets that waited in the rings arrive first.
        let arrived = send_and_capture(gen0(&lab), sink0(&lab), &frames);
        assert_same(&arrived[arrived.len() - 3..], &frames, io);
        assert_same(&send_and_capture(sink0(&lab), gen0(&lab), &frames), &frames, io);
        let (exit, final_report) = running.stop();
        assert!(exit.status.success() && !exit.killed, "{io}: {exit:?}");
        final_report.assert_frames_and_packets_add_up();
        assert!(final_report.parsed.drops["egress_full"] > 0, "{io}: {}", final_report.json);
    }
}

#[test]
fn check_prints_io_methods_and_rejects_method_not_built() {
    let lab = build_lab(Chain::builder());
    let check = |config: &str| -> (Option<i32>, String, String) {
        let config = Config::new(config);
        let mut command: Command = lab.fwd().command(XDPFWD);
        let output = command.args(["--config", config.path(), "--check"]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let (code, stdout, errors) = check(&cross_connect_io("packet-mmsg", "af_xdp", 1, ""));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("lan: fwd0 with packet-mmsg, present")
            && stdout.contains("wan: fwd1 with af_xdp"),
        "{stdout}"
    );
    let rings = cross_connect_io("packet-mmap", "packet", 1, "")
        .replace("io = \"packet\"", "io = \"packet\"\nqdisc = \"use\"");
    let (code, stdout, errors) = check(&rings);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("lan: fwd0 with packet-mmap (+1 copy), present")
            && stdout.contains("wan: fwd1 with packet, present")
            && stdout.contains(", through the queueing discipline"),
        "{stdout}"
    );
    let (code, _, errors) = check(&rings.replace("io = \"packet\"", "io = \"af_xdp\""));
    assert_eq!(code, Some(2));
    assert!(errors.contains("qdisc: io = \"af_xdp\" always bypasses"), "{errors}");
    let sysctl = lab
        .fwd()
        .command("sysctl")
        .args(["-qw", "net.ipv4.conf.fwd0.forwarding=1"])
        .output()
        .unwrap();
    assert!(sysctl.status.success(), "{}", stderr(&sysctl));
    let (code, _, errors) = check(&cross_connect_io("packet-mmsg", "af_xdp", 1, ""));
    assert_eq!(code, Some(0));
    assert!(
        errors.contains("warning: ")
            && errors.contains("`sysctl -w net.ipv4.conf.fwd0.forwarding=0`"),
        "{errors}"
    );
    let (code, stdout, errors) = check(&cross_connect_io("xsk-rs", "xsk-rs", 1, ""));
    if cfg!(feature = "xsk-rs") {
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{stdout}");
    } else {
        assert_eq!(code, Some(2));
        assert!(errors.contains("`cargo build --release --features xsk-rs`"), "{errors}");
    }
}
