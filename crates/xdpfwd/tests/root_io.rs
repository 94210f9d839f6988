//! Compares all I/O methods (`io`): bytes, order and counts of the same frames through each;
//! overload, a stop under load, and frames that cannot be received or sent. Needs root.
//!
//! `io = "xsk-rs"` is tested if the tests are built with its feature, as `make test` does.

mod support;

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::wire::{Side, gen0, hex, marks, pass, sink0};
use support::{Config, Final, Running, TIMEOUT, XDPFWD, chain, stderr};
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_testkit::lab::ip;

/// The I/O methods of this build.
const IOS: &[&str] = if cfg!(feature = "xsk-rs") {
    &["af_xdp", "packet-mmsg", "xsk-rs"]
} else {
    &["af_xdp", "packet-mmsg"]
};

/// Returns the I/O methods other than `af_xdp`.
fn other_ios() -> impl Iterator<Item = &'static str> {
    IOS.iter().copied().filter(|&io| io != "af_xdp")
}

fn cross_connect(lan: &str, wan: &str, queues: u16, engine: &str) -> String {
    support::cross_connect(queues, engine)
        .replacen("interface = \"fwd0\"", &format!("interface = \"fwd0\"\nio = \"{lan}\""), 1)
        .replacen("interface = \"fwd1\"", &format!("interface = \"fwd1\"\nio = \"{wan}\""), 1)
}

/// Returns frames of many lengths and flows, with no, one and two VLAN tags.
fn frames() -> Vec<Vec<u8>> {
    const TAGS: [&[u8]; 5] = [
        &[],
        &[0x81, 0, 0, 100],
        &[0x81, 0, 0xe0, 7],
        &[0x88, 0xa8, 0, 200],
        &[0x88, 0xa8, 0, 200, 0x81, 0, 0, 100],
    ];
    let mut frames = Vec::new();
    for (number, len) in (60..=1514).enumerate() {
        let tags = TAGS[number % TAGS.len()];
        // veth counts a second tag against the MTU.
        let tags = if len > 1506 { &[] } else { tags };
        let mut frame = vec![2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 1];
        frame.extend(tags);
        if number % 3 == 0 {
            frame.extend([0x88, 0xb5]);
        } else {
            // UDP over IPv4, 16 flows. No test checks the checksums.
            let flow = (number % 16) as u8;
            let total = (len - 14) as u16;
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(total.to_be_bytes());
            frame.extend([0, number as u8, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend([0x10, flow, 0x20, flow]);
            frame.extend((total - 20).to_be_bytes());
        }
        let len = len + tags.len();
        let mut filler = number as u32;
        while frame.len() < len {
            filler = filler.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            frame.push((filler >> 24) as u8);
        }
        frames.push(frame);
    }
    frames
}

#[track_caller]
fn assert_same(arrived: &[Vec<u8>], expected: &[Vec<u8>], context: &str) {
    if let Some(at) = arrived.iter().zip(expected).position(|(a, b)| a != b) {
        let start = |frame: &[u8]| hex(&frame[..frame.len().min(40)]);
        let (actual, expected) = (&arrived[at], &expected[at]);
        let (actual_len, expected_len) = (actual.len(), expected.len());
        panic!(
            "{context}: frame {at} differs: {actual_len} bytes {}… instead of {expected_len} bytes {}…",
            start(actual),
            start(expected)
        );
    }
    assert_eq!(arrived.len(), expected.len(), "{context}: number of arrived frames");
}

/// Returns packets and bytes of each port in a final report, in both directions.
fn counted(last: &Final) -> Vec<[u64; 4]> {
    let ports = last.json["ports"].as_array().unwrap().iter();
    let keys = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"];
    ports.map(|port| keys.map(|key| port[key].as_u64().unwrap())).collect()
}

fn kernel(last: &Final, port: usize, counter: &str) -> u64 {
    last.json["ports"][port]["kernel"][counter]
        .as_u64()
        .unwrap_or_else(|| panic!("no {counter} in {}", last.json))
}

/// Returns the kernel's counters of an interface's direction: packets, and dropped packets.
fn kernel_counts(chain: &Chain, interface: &str, direction: &str) -> (u64, u64) {
    let mut ip = chain.fwd().command("ip");
    let output = ip.args(["-json", "-statistics", "link", "show", interface]).output().unwrap();
    let links: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = &links[0]["stats64"][direction];
    (counts["packets"].as_u64().unwrap(), counts["dropped"].as_u64().unwrap())
}

/// The differential test: forwarded frames and counters do not depend on the I/O method.
#[test]
fn every_io_forwards_same_frames_with_same_counts() {
    let frames = frames();
    let tagged =
        frames.iter().filter(|frame| matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8])).count();
    let combinations = IOS
        .iter()
        .map(|&io| (io, io))
        .chain([("af_xdp", "packet-mmsg"), ("packet-mmsg", "af_xdp")]);
    let mixed =
        cfg!(feature = "xsk-rs").then_some([("xsk-rs", "packet-mmsg"), ("packet-mmsg", "xsk-rs")]);
    let mut counts: Vec<(String, Vec<[u64; 4]>)> = Vec::new();
    for (lan, wan) in combinations.chain(mixed.into_iter().flatten()) {
        for frame_size in [2048, 4096] {
            let case = format!("{lan} and {wan}, frame_size {frame_size}");
            let chain = chain(Chain::builder());
            let umem = format!("\n[umem]\nframe_size = {frame_size}\nframes = 2048\n");
            let running = Running::start(&chain, &(cross_connect(lan, wan, 1, "") + &umem));
            for (from, to) in [(gen0(&chain), sink0(&chain)), (sink0(&chain), gen0(&chain))] {
                assert_same(
                    &pass(from, to, &frames),
                    &frames,
                    &format!("{case}, {} to {}", from.1, to.1),
                );
            }
            let (ended, last) = running.stop();
            assert!(ended.status.success() && !ended.killed, "{case}: {ended:?}");
            last.assert_conserved();
            assert_eq!(last.report.drops.values().sum::<u64>(), 0, "{case}: {}", last.json);
            for counter in ["tx_dropped", "rx_dropped", "rx_ring_full"] {
                assert_eq!(last.json["kernel"][counter], 0, "{case}: {}", last.json);
            }
            // packet-mmsg inserts a VLAN tag that the kernel removed. This moves the start of the
            // packet, and xsk-rs then has to copy it.
            let copied = if [lan, wan].contains(&"xsk-rs") && lan != wan { tagged } else { 0 };
            assert_eq!(last.json["kernel"]["tx_copied"], copied, "{case}: {}", last.json);
            for (port, io) in [lan, wan].into_iter().enumerate() {
                let port = &last.json["ports"][port];
                let mode = if io == "packet-mmsg" { io } else { "copy" };
                assert_eq!((&port["io"], &port["mode"]), (&io.into(), &mode.into()), "{case}");
            }
            counts.push((case, counted(&last)));
        }
    }
    let (packets, bytes) =
        (frames.len() + marks(frames.len()), frames.iter().map(Vec::len).sum::<usize>());
    let (packets, bytes) = (packets as u64, (bytes + 60 * marks(frames.len())) as u64);
    for (case, counts) in &counts {
        assert_eq!(counts, &[[packets, bytes, packets, bytes]; 2], "{case}");
    }
    println!("{} frames both ways through {} combinations", frames.len(), counts.len());
}

/// Stops under overload: no frame leaks, and all sent packets arrived or were counted as dropped.
#[test]
fn stop_under_overload_leaks_no_frame() {
    for io in other_ios() {
        let chain = chain(Chain::builder());
        let running = Running::start(&chain, &cross_connect(io, io, 1, "cores = [1]"));
        let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
        let generator =
            Traffic::new().size(60).flows(16).core(0).start(chain.gen_(), "gen0").unwrap();
        thread::sleep(Duration::from_secs(3));
        let (ended, last) = running.stop();
        let sent = generator.stop().unwrap();
        assert!(ended.status.success() && !ended.killed, "{io}: {ended:?}");
        last.assert_conserved();
        let (lan, wan) = (last.report.port("fwd0").unwrap(), last.report.port("fwd1").unwrap());
        assert!(sent.packets > lan.rx_packets, "{io}: no overload: xdpfwd received all packets");
        assert!(lan.rx_packets > 10_000, "{io}: {}", last.json);
        assert!(
            kernel(&last, 0, "rx_ring_full") > 0,
            "{io}: lost packets are not counted: {}",
            last.json
        );
        let seen = sink.seen().unwrap();
        let (transmitted, dropped) = kernel_counts(&chain, "fwd1", "tx");
        assert_eq!(seen.arrived.packets, transmitted, "{io}: {}", last.json);
        let tx_dropped = last.json["kernel"]["tx_dropped"].as_u64().unwrap();
        assert_eq!(
            wan.tx_packets,
            transmitted + tx_dropped,
            "{io}: the kernel dropped {dropped}: {}",
            last.json
        );
        assert!(seen.is_clean(), "{io}: {seen:?}");
        println!(
            "{io}: {} offered, {} received, {} sent, {tx_dropped} dropped by the interface",
            sent.packets, lan.rx_packets, wan.tx_packets
        );
    }
}

/// Starts and stops repeatedly on the same interfaces under load, with alternating I/O methods:
/// each releases the resources that the next one needs.
#[test]
fn each_io_starts_after_another_on_same_interfaces() {
    let chain = chain(Chain::builder());
    let generator = Traffic::new().rate(20_000).core(0).start(chain.gen_(), "gen0").unwrap();
    for round in 0..3 {
        for &io in IOS {
            let running = Running::start(&chain, &cross_connect(io, io, 1, ""));
            let (ended, last) = running.stop();
            assert!(ended.status.success() && !ended.killed, "{io}, round {round}: {ended:?}");
            last.assert_conserved();
            assert!(
                last.report.port("fwd0").unwrap().rx_packets > 0,
                "{io}, round {round}: {}",
                last.json
            );
        }
    }
    generator.stop().unwrap();
}

/// Every packet that reached a packet socket's interface was received or counted as lost.
#[test]
fn packet_socket_overflow_is_counted() {
    let chain = chain(Chain::builder());
    let running =
        Running::start(&chain, &cross_connect("packet-mmsg", "packet-mmsg", 1, "cores = [1]"));
    let (before, _) = kernel_counts(&chain, "fwd0", "rx");
    let generator = Traffic::new()
        .size(60)
        .flows(16)
        .core(0)
        .count(2_000_000)
        .start(chain.gen_(), "gen0")
        .unwrap();
    generator.finish(TIMEOUT).unwrap();
    let (after, _) = kernel_counts(&chain, "fwd0", "rx");
    let (_, last) = running.stop();
    last.assert_conserved();
    let received = last.report.port("fwd0").unwrap().rx_packets;
    let lost = kernel(&last, 0, "rx_ring_full");
    assert!(lost > 0, "no overflow: {}", last.json);
    assert_eq!(received + lost, after - before, "{}", last.json);
}

/// Two queues with one worker each: every packet arrives on one of them.
#[test]
fn two_workers_forward_all_packets_of_two_queues() {
    for io in other_ios() {
        let chain = chain(Chain::builder().queues(2));
        let running = Running::start(&chain, &cross_connect(io, io, 2, "cores = [0, 1]"));
        let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
        for core in [0, 1] {
            let traffic = Traffic::new().rate(20_000).count(5_000).core(core);
            traffic.start(chain.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
        }
        let (_, last) = running.stop();
        last.assert_conserved();
        assert_eq!(last.json["workers"], 2);
        assert_eq!(last.report.port("fwd1").unwrap().tx_packets, 10_000, "{io}: {}", last.json);
        assert_eq!(sink.seen().unwrap().arrived.packets, 10_000, "{io}: {}", last.json);
    }
}

fn set_mtu(side: Side<'_>, mtu: usize) {
    ip(side.0, &format!("link set dev {} mtu {mtu}", side.1));
}

fn plain_frame(len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend((14..len).map(|at| at as u8));
    frame
}

/// A packet longer than its frame, or longer than the output interface accepts, is dropped and
/// counted; the others pass.
#[test]
fn too_long_packets_are_counted_on_receive_and_transmit() {
    for io in other_ios() {
        let chain = chain(Chain::builder());
        let running = Running::start(&chain, &cross_connect(io, io, 1, ""));
        [gen0(&chain), (chain.fwd(), "fwd0")].into_iter().for_each(|side| set_mtu(side, 2000));
        // A frame has room for 1792 bytes. fwd1 accepts 1514, and 1518 with a VLAN tag (as a veth,
        // also without one).
        let frames = [60, 1793, 1519, 1514, 1900, 61].map(plain_frame);
        let arrived = pass(gen0(&chain), sink0(&chain), &frames);
        assert_same(&arrived, &[60, 1514, 61].map(plain_frame), io);
        let (_, last) = running.stop();
        last.assert_conserved();
        assert_eq!(kernel(&last, 0, "rx_dropped"), 2, "{io}: {}", last.json);
        assert_eq!(last.json["kernel"]["tx_dropped"], 1, "{io}: {}", last.json);
        assert_eq!(
            counted(&last)[1][2],
            5,
            "{io}: sent: three packets, a mark, and the dropped packet: {}",
            last.json
        );
    }
}

/// While the output interface is down, packets wait, and further ones are dropped and counted. When
/// it is up again, both directions forward.
#[test]
fn forwarding_resumes_after_interface_was_down() {
    for io in other_ios() {
        let chain = chain(Chain::builder());
        let running = Running::start(&chain, &cross_connect(io, io, 1, ""));
        let wan = (chain.fwd(), "fwd1");
        ip(wan.0, "link set dev fwd1 down");
        let traffic = Traffic::new().rate(20_000).count(5_000).core(0);
        traffic.start(chain.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
        ip(wan.0, "link set dev fwd1 up");
        let frames = [60, 61, 1514].map(plain_frame);
        // The generator's frames that waited come first.
        let arrived = pass(gen0(&chain), sink0(&chain), &frames);
        assert_same(&arrived[arrived.len() - 3..], &frames, io);
        assert_same(&pass(sink0(&chain), gen0(&chain), &frames), &frames, io);
        let (ended, last) = running.stop();
        assert!(ended.status.success() && !ended.killed, "{io}: {ended:?}");
        last.assert_conserved();
        assert!(last.report.drops["egress_full"] > 0, "{io}: {}", last.json);
    }
}

/// With packet sockets, the kernel also receives the packets: the forwarder's host answers ping.
#[test]
fn kernel_also_answers_ping_with_packet_sockets() {
    let chain = chain(Chain::builder());
    ip(chain.gen_(), "address add 10.99.0.1/24 dev gen0");
    ip(chain.fwd(), "address add 10.99.0.2/24 dev fwd0");
    let running = Running::start(&chain, &cross_connect("packet-mmsg", "packet-mmsg", 1, ""));
    let ping = chain.gen_().command("ping").args(["-c3", "-i0.2", "10.99.0.2"]).output().unwrap();
    assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
    let (_, last) = running.stop();
    last.assert_conserved();
    assert!(
        last.report.port("fwd1").unwrap().tx_packets >= 3,
        "the pings were not forwarded: {}",
        last.json
    );
}

/// `--check` shows the method, warns if the kernel also forwards, and reports methods missing from
/// the build.
#[test]
fn check_prints_io_method_of_each_port() {
    let chain = chain(Chain::builder());
    let check = |config: &str| -> (Option<i32>, String, String) {
        let config = Config::new(config);
        let mut command: Command = chain.fwd().command(XDPFWD);
        let output = command.args(["--config", config.path(), "--check"]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let (code, out, err) = check(&cross_connect("packet-mmsg", "af_xdp", 1, ""));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("lan: fwd0 by packet-mmsg, present") && out.contains("wan: fwd1 by af_xdp"),
        "{out}"
    );
    let sysctl = chain
        .fwd()
        .command("sysctl")
        .args(["-qw", "net.ipv4.conf.fwd0.forwarding=1"])
        .output()
        .unwrap();
    assert!(sysctl.status.success(), "{}", stderr(&sysctl));
    let (code, _, err) = check(&cross_connect("packet-mmsg", "af_xdp", 1, ""));
    assert_eq!(code, Some(0));
    assert!(
        err.contains("warning: ") && err.contains("`sysctl -w net.ipv4.conf.fwd0.forwarding=0`"),
        "{err}"
    );
    let (code, out, err) = check(&cross_connect("xsk-rs", "xsk-rs", 1, ""));
    if cfg!(feature = "xsk-rs") {
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    } else {
        assert_eq!(code, Some(2));
        assert!(err.contains("`cargo build --release --features xsk-rs`"), "{err}");
    }
}
