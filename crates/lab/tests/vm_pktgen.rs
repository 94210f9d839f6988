//! Tests the kernel's packet generator in the test VM (`make vmtest SUITE=pktgen`; crates/vm): this
//! repository's usual host has no pktgen.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use xdpfwd_lab::{
    Chain, Error, GeneratorKind, Namespace, Pktgen, PktgenRun, Sink, Traffic, Window,
};

const DEADLINE: Duration = Duration::from_secs(60);
/// Packets per second: a small part of what the emulated machine can send.
const RATE: u64 = 10_000;

fn read(namespace: &Namespace, interface: &str, counter: &str) -> u64 {
    let file = format!("/sys/class/net/{interface}/statistics/{counter}");
    let output = namespace.command("cat").arg(&file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Waits until the sink has counted as many frames, or returns its last count.
fn arrived(sink: &Sink, expected: u64) -> u64 {
    let start = Instant::now();
    loop {
        let packets = sink.seen().unwrap().arrived.packets;
        if packets >= expected || start.elapsed() > Duration::from_secs(5) {
            return packets;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pktgen_interface_and_sink_report_same_counts() {
    let chain = Chain::builder().build().unwrap();
    for (size, count) in [(60, 10_000), (508, 5_000), (1514, 5_000)] {
        let counters = [(chain.gen_(), "gen0", "tx_packets"), (chain.fwd(), "fwd0", "rx_packets")];
        let before =
            counters.map(|(namespace, interface, counter)| read(namespace, interface, counter));
        let sink = Sink::attach(chain.fwd(), "fwd0").unwrap();
        let run = Pktgen::new().size(size).rate(RATE).count(count).start(chain.gen_(), "gen0");
        let (totals, devices) = run.unwrap().finish(DEADLINE).unwrap();
        assert_eq!(devices.len(), 1, "{devices:?}");
        let device = &devices[0];
        assert_eq!((totals.packets, totals.bytes), (count, count * u64::from(size)));
        assert_eq!((device.packets, device.errors), (count, 0), "{device:?}");
        assert_eq!(device.size, Some(size), "{device:?}");
        assert_eq!(arrived(&sink, count), count);
        let seen = sink.seen().unwrap();
        assert_eq!((seen.arrived.bytes, seen.foreign), (totals.bytes, 0));
        for ((namespace, interface, counter), before) in counters.into_iter().zip(before) {
            let increase = read(namespace, interface, counter) - before;
            assert_eq!(increase, count, "{interface} {counter}");
        }
        // pktgen's own rate times its own duration is the sink's count.
        let (pps, seconds) = (device.pps.unwrap() as f64, device.seconds.unwrap());
        assert!((pps * seconds / count as f64 - 1.0).abs() < 0.01, "{device:?}");
        assert!((totals.pps() / pps - 1.0).abs() < 0.01, "{totals:?} {device:?}");
        // It cannot be faster than asked for (by more than the rounding of pktgen).
        assert!(pps < RATE as f64 * 1.01, "{device:?}");
        println!("case: {size} bytes: {count} frames, {pps} packets per second by pktgen");
    }
}

#[test]
fn traffic_with_pktgen_passes_a_bridge_to_the_sink() {
    let chain = Chain::builder().build().unwrap();
    let commands = "ip link add br0 type bridge stp_state 0 mcast_snooping 0 && \
         ip link set fwd0 master br0 && ip link set fwd1 master br0 && \
         bridge fdb replace 02:00:00:00:00:04 dev fwd1 master static && ip link set br0 up";
    let status = chain.fwd().command("sh").args(["-ec", commands]).status().unwrap();
    assert!(status.success());
    let sink = Sink::attach(chain.sink(), "sink0").unwrap();
    let traffic = Traffic::new().generator(GeneratorKind::Pktgen).rate(RATE).core(0);
    let generator = traffic.start(chain.gen_(), "gen0").unwrap();
    let window = Window::measure(&generator, &sink, Duration::from_secs(1)).unwrap();
    assert!(generator.is_running());
    assert!(matches!(generator.grant(1), Err(Error::Value { .. })));
    let totals = generator.stop().unwrap();
    assert_eq!(arrived(&sink, totals.packets), totals.packets);
    assert!(window.offered.packets > 0 && window.forwarded.packets > 0, "{window:?}");
    assert!(window.offered.packets < totals.packets, "{window:?} {totals:?}");
    println!("case: bridge: {window:?}, {totals:?}");
}

/// Returns the UDP source ports and the first payload bytes of some successive frames at fwd0.
fn capture(chain: &Chain, pktgen: &Pktgen, frames: usize) -> Vec<(u16, [u8; 4])> {
    let mut dumpcap = chain.fwd().command("dumpcap");
    dumpcap.args(["-i", "fwd0", "-P", "-c", &frames.to_string()]);
    dumpcap.args(["-f", "udp dst port 9", "-w", "-"]);
    let mut dumpcap = dumpcap.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // dumpcap names the output file when it captures.
    let mut stderr = BufReader::new(dumpcap.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("File:") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "dumpcap ended");
    }
    // Keep the pipe open: dumpcap writes the number of packets to it.
    let reader = thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let run = pktgen.start(chain.gen_(), "gen0").unwrap();
    let output = dumpcap.wait_with_output().unwrap();
    run.stop().unwrap();
    reader.join().unwrap().unwrap();
    // The pcap format: a header of 24 bytes, then records of 16 bytes and a frame each.
    let mut rest = &output.stdout[24..];
    let mut captured = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let frame = &rest[16..16 + length];
        // Source port and payload behind 14 bytes of Ethernet, 20 of IPv4 and 8 of UDP.
        let port = u16::from_be_bytes(frame[34..36].try_into().unwrap());
        captured.push((port, frame[42..46].try_into().unwrap()));
        rest = &rest[16 + length..];
    }
    captured
}

#[test]
fn pktgen_flows_differ_in_source_port() {
    const FLOWS: u32 = 16;
    let chain = Chain::builder().build().unwrap();
    let pktgen = Pktgen::new().flows(FLOWS).rate(2_000);
    let frames = capture(&chain, &pktgen, 64);
    assert_eq!(frames.len(), 64, "{frames:?}");
    let mut counts = BTreeMap::<u16, u32>::new();
    for (port, magic) in &frames {
        assert_eq!(u32::from_be_bytes(*magic), 0xbe9b_e955, "{frames:?}");
        *counts.entry(*port).or_default() += 1;
    }
    let expected: BTreeMap<u16, u32> = (1024..1024 + FLOWS as u16).map(|port| (port, 4)).collect();
    assert_eq!(counts, expected);
    // In turn: each port is the successor of the previous one.
    for pair in frames.windows(2) {
        let next = 1024 + (pair[0].0 - 1024 + 1) % FLOWS as u16;
        assert_eq!(pair[1].0, next, "{frames:?}");
    }

    let frames = capture(&chain, &pktgen.random_flows(true), 64);
    assert!(frames.iter().all(|(port, _)| (1024..1040).contains(port)), "{frames:?}");
    let in_turn =
        frames.windows(2).filter(|pair| pair[1].0 == 1024 + (pair[0].0 - 1024 + 1) % 16).count();
    assert!(in_turn < 32, "not random: {frames:?}");
}

#[test]
fn pktgen_with_two_threads_feeds_two_queues() {
    const COUNT: u64 = 5_000;
    let chain = Chain::builder().queues(2).build().unwrap();
    let sink = Sink::attach(chain.fwd(), "fwd0").unwrap();
    let pktgen = Pktgen::new().cores(&[0, 1]).queues(2).rate(RATE).count(COUNT);
    let run = pktgen.start(chain.gen_(), "gen0").unwrap();
    let (totals, devices) = run.finish(DEADLINE).unwrap();
    assert_eq!(totals.packets, COUNT);
    let found: Vec<_> = devices.iter().map(|d| (d.core, d.packets, d.queues)).collect();
    assert_eq!(found, [(0, COUNT / 2, (0, 0)), (1, COUNT / 2, (1, 1))]);
    assert_eq!(arrived(&sink, COUNT), COUNT);
    let output = chain.fwd().command("ethtool").args(["-S", "fwd0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for queue in 0..2 {
        let line = format!("rx_queue_{queue}_xdp_packets: {}", COUNT / 2);
        assert!(text.contains(&line), "no `{line}` in {text}");
    }
}

/// Returns the devices of all threads of pktgen in a namespace.
fn devices(namespace: &Namespace) -> String {
    let script = "cat /proc/net/pktgen/kpktgend_*";
    let output = namespace.command("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Running:"), "{text}");
    text
}

#[test]
fn second_run_in_same_namespace_is_rejected_until_first_ends() {
    let chain = Chain::builder().build().unwrap();
    let start =
        || -> Result<PktgenRun, Error> { Pktgen::new().rate(RATE).start(chain.gen_(), "gen0") };
    let first = start().unwrap();
    let error = start().unwrap_err().to_string();
    assert!(error.contains("rem_device_all") && error.contains("gen0@0"), "{error}");
    assert!(first.is_running(), "the rejected run stopped the first");
    drop(first);
    assert!(!devices(chain.gen_()).contains("gen0"), "a dropped run left its device");
    let second = start().unwrap();
    second.stop().unwrap();
    assert!(!devices(chain.gen_()).contains("gen0"), "a stopped run left its device");
}

#[test]
fn pktgen_setting_that_driver_rejects_is_named() {
    let chain = Chain::builder().build().unwrap();
    // veth cannot send one socket buffer twice.
    let error = Pktgen::new().clones(10).start(chain.gen_(), "gen0").unwrap_err().to_string();
    assert!(error.contains("clone_skb 10"), "{error}");
    assert!(!devices(chain.gen_()).contains("gen0"), "the failed run left its device");
    let error = Pktgen::new().cores(&[99]).start(chain.gen_(), "gen0").unwrap_err().to_string();
    assert!(error.contains("99") && error.contains("online core"), "{error}");
    let error = Pktgen::new().start(chain.gen_(), "nope0").unwrap_err().to_string();
    assert!(error.contains("nope0"), "{error}");
}

#[test]
fn modules_of_pktgen_are_loaded_on_demand() {
    Pktgen::check_available().unwrap();
    let loaded = Command::new("lsmod").output().unwrap();
    assert!(String::from_utf8(loaded.stdout).unwrap().contains("pktgen"));
}
