//! Tests the lab with a kernel bridge.
//!
//! Needs root, and python3 for sending invalid frames; fails without them.

use std::{
    fs,
    io::Write,
    panic,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use xdpfwd_lab::{
    Chain, Error, Forwarder, Namespace, NamespaceGuard, PacketTemplate, Sink, SinkCounters,
    Traffic, Window, sweep,
};

const BINARY: &str = env!("CARGO_BIN_EXE_xdpfwd-lab");

fn chain_with_bridge(mtu: u16) -> Chain {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let chain = Chain::builder().mtu(mtu).build().expect("build a lab");
    let ip = |line: &str| {
        let status = chain.fwd().command("ip").args(line.split(' ')).status().expect("run ip");
        assert!(status.success(), "ip {line}: {status}");
    };
    // Bridge netfilter drops IPv4 frames with a bad header before the sink sees them.
    let netfilter = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let off = chain
        .fwd()
        .run(|| if Path::new(netfilter).exists() { fs::write(netfilter, "0") } else { Ok(()) });
    off.expect("enter the namespace").expect("disable bridge netfilter");
    ip("link add br0 type bridge stp_state 0 mcast_snooping 0");
    ip(&format!("link set br0 mtu {mtu}"));
    for end in ["fwd0", "fwd1"] {
        ip(&format!("link set {end} master br0"));
    }
    ip("link set br0 up");
    chain
}

/// Returns the counters when they are `done`, or after 5 s.
fn wait_for_counters(sink: &Sink, done: impl Fn(&SinkCounters) -> bool) -> SinkCounters {
    let start = Instant::now();
    loop {
        let seen = sink.seen().expect("read the sink");
        if done(&seen) || start.elapsed() > Duration::from_secs(5) {
            return seen;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends frames out of gen0 through an AF_PACKET socket.
fn send(chain: &Chain, frames: &[Vec<u8>]) {
    const SENDER: &str = "\
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('gen0', 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))";
    let mut python = chain
        .gen_()
        .command("python3")
        .args(["-c", SENDER])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start python3 (Debian: apt-get install python3)");
    let mut stdin = python.stdin.take().expect("stdin is piped");
    for frame in frames {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(stdin, "{hex}").expect("write to python3");
    }
    drop(stdin);
    assert!(python.wait().expect("wait for python3").success());
}

fn check_frames(chain: &Chain, frames: &[Vec<u8>]) -> SinkCounters {
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").expect("attach the sink");
    send(chain, frames);
    let all = frames.len() as u64;
    wait_for_counters(&sink, |seen| seen.arrived.packets + seen.foreign == all)
}

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("xdpfwd-{pid}-");
    fs::read_dir("/run/netns")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect::<Vec<_>>()
        })
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

#[test]
fn slow_traffic_arrives_intact_and_in_order() {
    let chain = chain_with_bridge(xdpfwd_lab::MAX_MTU);
    // 61 and 67 bytes end in a partial word of the payload pattern; the last size is the maximum.
    for size in [60, 61, 67, 68, 590, 1514, xdpfwd_lab::MAX_MTU + 14] {
        let sink =
            Sink::builder().check(true).attach(chain.sink(), "sink0").expect("attach the sink");
        let generator = Traffic::new()
            .size(size)
            .flows(16)
            .rate(5_000)
            .start(chain.gen_(), "gen0")
            .expect("start the generator");
        thread::sleep(Duration::from_millis(400));
        let sent = generator.stop().expect("stop the generator");
        let seen = wait_for_counters(&sink, |seen| seen.arrived.packets == sent.packets);
        assert!(sent.packets > 100, "{size} bytes: {sent:?}");
        assert_eq!(seen.arrived.packets, sent.packets, "{size} bytes");
        assert_eq!(seen.arrived.bytes, sent.bytes, "{size} bytes");
        assert!(seen.is_clean() && seen.foreign == 0, "{size} bytes: {seen:?}");
    }
}

/// Captures `count` frames that fwd0 receives while `send` runs. Returns of each frame: its
/// length, the lengths in its IPv4 and UDP headers, its sequence number in the run, both addresses,
/// and both ports.
fn capture(chain: &Chain, count: u64, send: impl FnOnce()) -> Vec<[u64; 6]> {
    const CAPTURE: &str = "\
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL: before the bridge
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
s.bind(('fwd0', 3))
s.settimeout(20)
print('ready', flush=True)
for _ in range(int(sys.argv[1])):
    f = s.recv(65535)
    ip, = struct.unpack_from('!H', f, 16)
    udp, = struct.unpack_from('!H', f, 38)
    sequence = struct.unpack_from('!Q', f, 44)[0] & (1 << 40) - 1
    print(len(f), ip, udp, sequence, *struct.unpack_from('!QL', f, 26))";
    let mut python = Forwarder::spawn(chain.fwd(), &["python3", "-c", CAPTURE, &count.to_string()])
        .expect("start python3 (Debian: apt-get install python3)");
    python.wait_for_line(Duration::from_secs(20), |line| line == "ready").expect("open a socket");
    send();
    let parse = |line: &str| -> Vec<u64> {
        line.split(' ').map(|number| number.parse().expect("a number")).collect()
    };
    let is_last = |line: &str| line != "ready" && parse(line)[3] == count - 1;
    python.wait_for_line(Duration::from_secs(20), is_last).expect("the last frame");
    let lines = python.stdout();
    let frames = lines.iter().filter(|line| *line != "ready");
    frames.map(|line| parse(line).try_into().expect("six numbers")).collect()
}

#[test]
fn imix_has_seven_four_and_one_of_twelve_frames_with_valid_lengths() {
    let chain = chain_with_bridge(1700);
    let sink = Sink::builder()
        .check(true)
        .latency(true)
        .attach(chain.sink(), "sink0")
        .expect("attach the sink");
    // A number of frames that ends in the middle of the pattern, and several flows.
    let (count, rate) = (1_205, 2_000);
    let traffic = Traffic::imix().flows(5).rate(rate).count(count);
    let mut sent = None;
    let frames = capture(&chain, count, || {
        let generator = traffic.start(chain.gen_(), "gen0").expect("start the generator");
        sent = Some(generator.finish(Duration::from_secs(60)).expect("send all frames"));
    });
    let sent = sent.expect("the generator ran");
    let seen = wait_for_counters(&sink, |seen| seen.arrived.packets == count);
    assert!(seen.is_clean() && seen.foreign == 0, "{seen:?}");
    assert_eq!(sink.latency().expect("read the latencies").count(), count);
    let bytes: u64 = frames.iter().map(|frame| frame[0]).sum();
    assert_eq!((sent.packets, sent.bytes), (count, bytes));
    assert_eq!((seen.arrived.packets, seen.arrived.bytes), (count, bytes));
    // The generator may be slower if it is preempted, but not faster.
    assert!(sent.pps() < 1.05 * rate as f64, "{sent:?}");

    for (number, [length, ip, udp, sequence, ..]) in (0..).zip(&frames) {
        assert_eq!((*sequence, *ip, *udp), (number, length - 14, length - 34), "frame {number}");
    }
    for twelve in frames.chunks_exact(12) {
        let count = |length| twelve.iter().filter(|frame| frame[0] == length).count();
        assert_eq!([60, 590, 1514].map(count), [7, 4, 1], "{twelve:?}");
    }
}

#[test]
fn flows_with_headers_have_their_addresses_and_ports_in_turn() {
    let chain = chain_with_bridge(1700);
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").expect("attach the sink");
    // Sums of the address words with and without a carry, and the port that the sink expects of
    // other flows.
    let header = |source: [u8; 4], destination: [u8; 4], destination_port| PacketTemplate {
        source: source.into(),
        destination: destination.into(),
        source_port: 53,
        destination_port,
        protocol: 17,
    };
    let headers = [
        header([0, 0, 0, 1], [0, 0, 0, 0], 80),
        header([255, 255, 255, 254], [255, 255, 255, 255], 65535),
        header([192, 0, 2, 1], [198, 51, 100, 7], 9),
    ];
    let count = 600;
    let traffic = Traffic::imix().headers(headers.into()).rate(2_000).count(count);
    let frames = capture(&chain, count, || {
        let generator = traffic.start(chain.gen_(), "gen0").expect("start the generator");
        generator.finish(Duration::from_secs(60)).expect("send all frames");
    });
    for (number, [.., addresses, ports]) in frames.iter().enumerate() {
        let header = headers[number % headers.len()];
        let expected = [header.source, header.destination].map(|a| u64::from(u32::from(a)));
        assert_eq!(*addresses, expected[0] << 32 | expected[1], "frame {number}");
        assert_eq!(*ports, 53 << 16 | u64::from(header.destination_port), "frame {number}");
    }
    // The sink checks lengths and checksums.
    let seen = wait_for_counters(&sink, |seen| seen.arrived.packets == count);
    assert!(seen.is_clean() && seen.foreign == 0, "{seen:?}");
}

#[test]
fn imix_at_full_speed_arrives_intact() {
    let chain = chain_with_bridge(1700);
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").expect("attach the sink");
    let generator = Traffic::imix().start(chain.gen_(), "gen0").expect("start the generator");
    let window = Window::measure(&generator, &sink, Duration::from_millis(500)).expect("measure");
    let sent = generator.stop().expect("stop the generator");
    let seen = wait_for_counters(&sink, |seen| seen.arrived.packets == sent.packets);
    // The bridge may lose frames, but not change them.
    assert!(seen.is_clean() && window.forwarded.packets > 0, "{seen:?}");
    let mean = window.offered.bytes as f64 / window.offered.packets as f64;
    assert!((mean - Traffic::imix().mean_size()).abs() < 1.0, "{window:?}");
}

#[test]
fn check_accepts_valid_frames_of_another_sender() {
    let chain = chain_with_bridge(1500);
    let frames: Vec<_> =
        (0..100).map(|n| Traffic::new().size(200).frame(n % 4, n.into()).bytes()).collect();
    let seen = check_frames(&chain, &frames);
    assert_eq!(seen.arrived.packets, 100);
    assert!(seen.is_clean() && seen.foreign == 0, "{seen:?}");
}

#[test]
fn latency_histogram_counts_every_frame() {
    let chain = chain_with_bridge(1500);
    let sink =
        Sink::builder().latency(true).attach(chain.sink(), "sink0").expect("attach the sink");
    let generator = Traffic::new()
        .rate(5_000)
        .count(1_000)
        .start(chain.gen_(), "gen0")
        .expect("start the generator");
    let sent = generator.finish(Duration::from_secs(60)).expect("send all frames");
    let seen = wait_for_counters(&sink, |seen| seen.arrived.packets == sent.packets);
    let live = sink.latency().expect("read the latencies");
    assert_eq!(live.count(), seen.arrived.packets);
    assert!(live.quantile(0.5).unwrap() > Duration::ZERO, "median latency is zero");

    // Send a frame with the latency `old`, and one with send time 0: a longer latency.
    let uptime = fs::read_to_string("/proc/uptime").expect("read the uptime");
    let uptime: f64 =
        uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("seconds");
    let old = Duration::from_secs(20).min(Duration::from_secs_f64(uptime / 2.0));
    let mut frame = Traffic::new().frame(0, 0);
    frame.time = ((uptime * 1e9) as u64).saturating_sub(old.as_nanos() as u64);
    send(&chain, &[frame.bytes(), Traffic::new().frame(0, 1).bytes()]);
    wait_for_counters(&sink, |seen| seen.arrived.packets == sent.packets + 2);
    let crafted = sink.latency().expect("read the latencies").since(&live);
    let [(first, 1), (last, 1)] = crafted.buckets().collect::<Vec<_>>()[..] else {
        panic!("{crafted:?}")
    };
    // /proc/uptime has two decimals. Like the clock of the frames, it does not count the time for
    // which the host pauses this virtual machine.
    assert!(
        first + Duration::from_millis(20) >= old && first < last,
        "{first:?} and {last:?} for {old:?}"
    );

    drop(sink);
    let sink = Sink::attach(chain.sink(), "sink0").expect("attach the sink");
    send(&chain, &[Traffic::new().frame(0, 0).bytes()]);
    wait_for_counters(&sink, |seen| seen.arrived.packets == 1);
    assert_eq!(sink.latency().expect("read the latencies").count(), 0);
}

#[test]
fn check_counts_damaged_frames_as_corrupt() {
    let chain = chain_with_bridge(1500);
    let valid = Traffic::new().size(203).frame(0, 0).bytes();
    let mut damaged = Vec::new();
    // Offsets of the damaged byte. 42 and 43: magic number; 17: IPv4 length; 22: TTL; 24: IPv4
    // checksum; 33: destination address; 60 and 67: first pattern word; 194: last pattern word;
    // 202: partial word.
    for at in [42, 43, 17, 22, 24, 33, 60, 67, 194, 202] {
        let mut frame = valid.clone();
        frame[at] ^= 0x10;
        damaged.push(frame);
    }
    damaged.push(valid[..202].to_vec());
    damaged.push([&valid[..], &[0]].concat());
    for frame in &damaged {
        let seen = check_frames(&chain, std::slice::from_ref(frame));
        let found = (seen.arrived.packets, seen.corrupt, seen.foreign);
        let at = frame.iter().zip(&valid).position(|(a, b)| a != b);
        assert_eq!(found, (1, 1, 0), "damaged at {at:?}, {} bytes", frame.len());
    }
    let mut stream: Vec<_> =
        (0..50).map(|n| Traffic::new().size(203).frame(0, n).bytes()).collect();
    for (n, frame) in damaged.iter().enumerate() {
        stream.insert(3 * n + 1, frame.clone());
    }
    let seen = check_frames(&chain, &stream);
    assert_eq!((seen.corrupt, seen.reordered, seen.duplicates), (damaged.len() as u64, 0, 0));
}

#[test]
fn check_counts_duplicate_and_reordered_frames() {
    let chain = chain_with_bridge(1500);
    let frames = |numbers: &[u64], flows: u64| -> Vec<_> {
        numbers.iter().map(|n| Traffic::new().frame((n % flows) as u32, *n).bytes()).collect()
    };
    // Returns the numbers of reordered and of duplicate frames.
    let found = |numbers: &[u64], flows| {
        let seen = check_frames(&chain, &frames(numbers, flows));
        assert_eq!(seen.arrived.packets, numbers.len() as u64);
        assert_eq!(seen.corrupt, 0);
        (seen.reordered, seen.duplicates)
    };
    assert_eq!(found(&[0, 1, 2, 3, 4], 1), (0, 0));
    assert_eq!(
        found(&[0, 1, 5, 6], 1),
        (0, 0),
        "a lost frame is neither reordered nor a duplicate"
    );
    assert_eq!(found(&[0, 1, 1, 2], 1), (0, 1));
    assert_eq!(found(&[0, 1, 2, 3, 0], 1), (0, 1));
    assert_eq!(found(&[0, 2, 1, 3], 1), (1, 0));
    assert_eq!(found(&[3, 2, 1, 0], 1), (3, 0));
    assert_eq!(found(&[0, 2, 1, 1], 1), (1, 1));
    assert_eq!(found(&[1, 0, 3, 2], 2), (0, 0), "frames of different flows have no order");
    assert_eq!(found(&[2, 3, 0, 1], 2), (2, 0));
    // The sink recognises a duplicate that is less than 262,144 sequence numbers late. A later one
    // counts as reordered.
    assert_eq!(found(&[0, 200_000, 0], 1), (0, 1));
    assert_eq!(found(&[0, 262_144, 0], 1), (1, 0));
}

#[test]
fn sink_counts_other_frames_as_foreign() {
    let chain = chain_with_bridge(1500);
    // Flows with different headers have other ports, and the generator's magic number.
    let mut other_port = Traffic::new().frame(0, 0).bytes();
    other_port[37] = 53;
    other_port[42] = 0;
    let mut arp = Traffic::new().frame(0, 0).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let short = Traffic::new().frame(0, 0).bytes()[..30].to_vec();
    let seen = check_frames(&chain, &[other_port, arp, short]);
    assert_eq!((seen.arrived.packets, seen.foreign), (0, 3));
}

#[test]
fn sink_for_esp_counts_only_esp_between_its_addresses() {
    let chain = chain_with_bridge(1500);
    let sink = Sink::builder()
        .esp([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
        .attach(chain.sink(), "sink0")
        .expect("attach the sink");
    let frame = |protocol: u8, source: [u8; 4], destination: [u8; 4]| {
        let mut frame = Traffic::new().frame(0, 0).bytes();
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame
    };
    let (here, there) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let esp = frame(50, here, there);
    let mut arp = esp.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let frames = [esp, arp, frame(17, here, there), frame(50, there, here), frame(6, here, there)];
    send(&chain, &frames);
    let seen = wait_for_counters(&sink, |seen| seen.arrived.packets + seen.foreign == 5);
    assert_eq!((seen.arrived.packets, seen.foreign), (1, 4), "{seen:?}");
}

#[test]
fn traffic_with_count_stops_after_last_frame() {
    let chain = chain_with_bridge(1500);
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").expect("attach the sink");
    let generator = Traffic::new()
        .count(1000)
        .rate(10_000)
        .flows(3)
        .start(chain.gen_(), "gen0")
        .expect("start the generator");
    let seen = wait_for_counters(&sink, |seen| seen.arrived.packets >= 1000);
    assert_eq!(generator.sent().expect("read").packets, 1000);
    assert_eq!(generator.stop().expect("stop").packets, 1000);
    assert_eq!(seen.arrived.packets, 1000);
    assert!(seen.is_clean(), "{seen:?}");
}

#[test]
fn second_run_is_not_counted_as_duplicates() {
    let chain = chain_with_bridge(1500);
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").expect("attach the sink");
    for run in 1..=2 {
        let generator =
            Traffic::new().count(100).rate(10_000).start(chain.gen_(), "gen0").expect("start");
        let seen = wait_for_counters(&sink, |seen| seen.arrived.packets >= 100 * run);
        generator.stop().expect("stop");
        assert_eq!(seen.arrived.packets, 100 * run);
        assert!(seen.is_clean(), "{seen:?}");
    }
}

#[test]
fn generator_keeps_requested_rate() {
    let chain = chain_with_bridge(1500);
    let sink = Sink::attach(chain.sink(), "sink0").expect("attach the sink");
    for rate in [1_000, 20_000] {
        let generator =
            Traffic::new().rate(rate).start(chain.gen_(), "gen0").expect("start the generator");
        let window = Window::measure(&generator, &sink, Duration::from_secs(1)).expect("measure");
        generator.stop().expect("stop");
        // The rate is lower if the generator is preempted for long.
        let ratio = window.offered_pps() / rate as f64;
        assert!((0.5..1.05).contains(&ratio), "{ratio} of {rate} packets per second");
    }
}

#[test]
fn chain_has_requested_queues_and_addresses() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let chain = Chain::builder().queues(3).addresses(true).build().expect("build a lab");
    let output =
        chain.fwd().command("ls").arg("/sys/class/net/fwd0/queues").output().expect("run ls");
    let queues = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        queues.contains("rx-2") && queues.contains("tx-2") && !queues.contains("rx-3"),
        "{queues}"
    );
    let output = chain.sink().command("ip").args(["-br", "address"]).output().expect("run ip");
    let addresses = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(addresses.contains("10.77.0.2/24") && !addresses.contains("fe80"), "{addresses}");
}

#[test]
fn ping_passes_through_a_bridge() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let chain = Chain::builder().addresses(true).ipv6(true).build().expect("build a lab");
    let bridge = "ip link add br0 type bridge && ip link set fwd0 master br0 && \
                  ip link set fwd1 master br0 && ip link set br0 up";
    assert!(chain.fwd().command("sh").args(["-c", bridge]).status().expect("run sh").success());
    for target in ["10.77.0.2", "fd77::2"] {
        let status = chain
            .gen_()
            .command("ping")
            .args(["-q", "-c", "2", "-W", "5", target])
            .stdout(Stdio::null())
            .status();
        assert!(
            status.expect("run ping (Debian: apt-get install iputils-ping)").success(),
            "{target}"
        );
    }
}

#[test]
fn namespace_run_executes_closure_inside() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let namespace = Namespace::create("work").expect("create");
    let interfaces = namespace
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .expect("run")
        .expect("read");
    assert!(interfaces.contains("lo:") && !interfaces.contains("eth0"), "{interfaces}");
    assert!(matches!(namespace.run(|| panic!("on purpose")), Err(Error::Panicked(_))));
    assert!(matches!(Namespace::create("No-Label"), Err(Error::Value { .. })));
}

#[test]
fn namespaces_are_removed_on_drop_and_panic() {
    let chain = chain_with_bridge(1500);
    let names: Vec<_> =
        [chain.gen_(), chain.fwd(), chain.sink()].map(|n| n.name().to_owned()).into();
    assert!(names.iter().all(|name| exists(name)));
    sweep().expect("sweep");
    assert!(names.iter().all(|name| exists(name)), "sweep removed the namespaces of a running lab");
    drop(chain);
    assert!(!names.iter().any(|name| exists(name)));

    let namespace = Namespace::create("panic").expect("create");
    let name = namespace.name().to_owned();
    let result = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _namespace = namespace;
        panic!("on purpose");
    }));
    assert!(result.is_err() && !exists(&name));
}

/// A running `xdpfwd-lab run`.
struct Lab {
    process: std::process::Child,
    forwarder_pid: u32,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Both fail only if the process has been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Lab {
    /// Runs a lab with the forwarder `sleep SECONDS`. The seconds identify the process: each test
    /// needs its own.
    fn start(seconds: &str) -> Self {
        xdpfwd_lab::require_root("tests/root_lab.rs")
            .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
        let arguments = ["run", "--rate", "1000", "--seconds", "60", "--", "sleep", seconds];
        let mut command = Command::new(BINARY);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut lab =
            Self { process: command.spawn().expect("start xdpfwd-lab"), forwarder_pid: 0 };
        let start = Instant::now();
        while lab.forwarder_pid == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the forwarder did not start within 20 s"
            );
            thread::sleep(Duration::from_millis(20));
            let pids = namespaces_of(lab.process.id()).into_iter().flat_map(|name| {
                let output =
                    Command::new("ip").args(["netns", "pids", &name]).output().expect("run ip");
                let pids = String::from_utf8_lossy(&output.stdout).into_owned();
                pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
            });
            lab.forwarder_pid =
                pids.into_iter().find(|pid| is_forwarder(*pid, seconds)).unwrap_or(0);
        }
        lab
    }
}

fn is_forwarder(pid: u32, seconds: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line == format!("sleep\0{seconds}\0").as_bytes())
}

fn wait_until_gone(pid: u32, seconds: &str) {
    let start = Instant::now();
    while is_forwarder(pid, seconds) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the forwarder still ran 10 s after its lab had ended"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sweep_removes_namespaces_of_killed_lab() {
    let mut lab = Lab::start("3141");
    lab.process.kill().expect("SIGKILL");
    lab.process.wait().expect("wait");
    wait_until_gone(lab.forwarder_pid, "3141");
    sweep().expect("sweep");
    assert_eq!(namespaces_of(lab.process.id()), Vec::<String>::new());
}

#[test]
fn terminated_lab_removes_its_namespaces() {
    let mut lab = Lab::start("3142");
    let pid = nix::unistd::Pid::from_raw(lab.process.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("SIGTERM");
    assert_eq!(lab.process.wait().expect("wait").code(), Some(1));
    assert!(!is_forwarder(lab.forwarder_pid, "3142"));
    assert_eq!(namespaces_of(lab.process.id()), Vec::<String>::new());
}

#[test]
fn forwarder_wait_and_stop_report_each_outcome() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let namespace = Namespace::create("process").expect("create");
    let deadline = Duration::from_secs(10);

    let mut failing =
        Forwarder::spawn(&namespace, &["sh", "-c", "echo failed >&2; exit 3"]).expect("spawn");
    match failing.wait_for_line(deadline, |_| true) {
        Err(Error::Ended { status, output, .. }) => {
            assert_eq!((status.code(), output.as_str()), (Some(3), "failed"))
        }
        other => panic!("{other:?}"),
    }
    let mut missing = Forwarder::spawn(&namespace, &["/no/such/program"]).expect("spawn");
    match missing.wait_for_line(deadline, |_| true) {
        Err(Error::Ended { output, .. }) => {
            assert!(output.contains("/no/such/program"), "{output}")
        }
        other => panic!("{other:?}"),
    }

    let script = "trap 'echo bye; exit 0' INT; echo one; echo two; while :; do sleep 0.05; done";
    let mut forwarder = Forwarder::spawn(&namespace, &["sh", "-c", script]).expect("spawn");
    assert_eq!(
        forwarder.wait_for_line(deadline, |line| line == "two").expect("the expected line"),
        "two"
    );
    let ended = forwarder.stop(deadline).expect("stop");
    assert!(ended.status.success() && !ended.killed);
    assert_eq!(forwarder.stdout(), ["one", "two", "bye"]);

    let script = "trap '' INT; echo started; while :; do sleep 0.05; done";
    let mut ignoring = Forwarder::spawn(&namespace, &["sh", "-c", script]).expect("spawn");
    ignoring.wait_for_line(deadline, |line| line == "started").expect("the expected line");
    assert!(matches!(
        ignoring.wait_for_line(Duration::from_millis(50), |_| false),
        Err(Error::Timeout { .. })
    ));
    assert!(ignoring.stop(Duration::from_millis(200)).expect("stop").killed);
}

/// A shell without job control starts a command such as `make test &` with SIGINT and SIGQUIT
/// ignored, and child processes inherit this.
#[test]
fn forwarder_of_process_that_ignores_sigint_gets_default_action() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let run_ignoring = |test: &str| {
        let script = r#"trap "" INT QUIT; exec "$0" "$@""#;
        let binary = std::env::current_exe().expect("this program's path");
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(binary)
            .args(["--exact", test])
            .output()
            .expect("run sh");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && stdout.contains("1 passed"), "{test}: {output:?}");
    };
    run_ignoring("forwarder_ignores_neither_sigint_nor_sigquit");
    run_ignoring("forwarder_wait_and_stop_report_each_outcome");
}

#[test]
fn forwarder_ignores_neither_sigint_nor_sigquit() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let namespace = Namespace::create("signals").expect("create");
    let mut child =
        Forwarder::spawn(&namespace, &["grep", "SigIgn", "/proc/self/status"]).expect("spawn");
    let line = child.wait_for_line(Duration::from_secs(10), |_| true).expect("the expected line");
    let set = line.split_whitespace().last().expect("the set of ignored signals");
    let ignored = u64::from_str_radix(set, 16).expect("a hexadecimal number");
    // Bit n - 1 stands for signal n: SIGINT is 2, SIGQUIT is 3.
    assert_eq!(ignored & 0b110, 0, "{line}");
}

#[test]
fn error_names_invalid_argument() {
    xdpfwd_lab::require_root("tests/root_lab.rs")
        .expect("run these tests as root: sudo -E cargo test -p xdpfwd-lab");
    let namespace = Namespace::create("errors").expect("create");
    let error =
        Traffic::new().start(&namespace, "nosuch0").expect_err("no such interface").to_string();
    assert!(error.contains("nosuch0"), "{error}");
    let error =
        Traffic::new().core(4095).start(&namespace, "lo").expect_err("no such core").to_string();
    assert!(error.contains("core 4095"), "{error}");
    let error = Sink::attach(&namespace, "nosuch0").expect_err("no such interface").to_string();
    assert!(error.contains("nosuch0"), "{error}");
    let error = Chain::builder().queues(0).build().expect_err("no queues").to_string();
    assert!(error.contains("1–64"), "{error}");
}

#[test]
fn namespace_guard_waits_until_the_last_socket_is_closed() {
    let namespace = Namespace::create("guarded").expect("create a namespace");
    let guard = NamespaceGuard::new(&namespace).expect("create a guard");
    let socket = namespace
        .run(|| std::net::UdpSocket::bind("0.0.0.0:0"))
        .expect("enter the namespace")
        .expect("open a socket");
    drop(namespace);
    assert!(
        guard.wait_until_gone(Duration::from_millis(300)).is_err(),
        "the namespace was freed although a socket is open in it"
    );
    drop(socket);
    guard.wait_until_gone(Duration::from_secs(60)).expect("the namespace is freed");
}
