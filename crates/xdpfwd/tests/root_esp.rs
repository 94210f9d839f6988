//! Tests `esp-seal` and `esp-open` of two xdpfwds back to back against docs/esp.md, with ping,
//! iperf3, TCP, tshark and captures on the wire. Needs root.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::esp::{
    A, B, Esp, Kind, Lab, OUTER_6, Sender, Server, Setup, Tap, drops, inject, key, kinds, latest,
    pcap, received, spi,
};
use support::socket::Socket;
use support::wire::{hex, unhex};
use support::{Config, Final, LONG, Running, XDPFWD, stderr, until};
use xdpfwd_lab::{Namespace, Sink};
use xdpfwd_testkit::Folder;
use xdpfwd_testkit::lab::{ping, sh, try_ping};
use xdpfwd_testkit::process::run;
use xdpfwd_testkit::random_filter::SplitMix64;

/// Seals only the generator's packets, so that the kernel's own packets use no sequence numbers.
const ONLY_10_77: &str = "selector = [\"10.77.0.0/16\"]\n";

fn both(lines: &str) -> [String; 2] {
    [lines.to_owned(), lines.to_owned()]
}

/// Returns one line for the first side.
fn first(line: &str) -> [String; 2] {
    [line.to_owned(), String::new()]
}

fn second(line: &str) -> [String; 2] {
    [String::new(), line.to_owned()]
}

#[track_caller]
fn stop(running: Running) -> Final {
    let log = running.forwarder.stderr();
    let (ended, last) = running.stop();
    assert!(ended.status.success() && !ended.killed, "{ended:?}: {log:#?}");
    last.assert_conserved();
    last
}

#[track_caller]
fn stop_both(ends: [Running; 2]) -> [Final; 2] {
    ends.map(|running| stop(running))
}

/// Returns a stage's own counter in a final report.
fn counter(report: &Value, stage: &str, name: &str) -> u64 {
    let stages = report["stages"].as_array().unwrap();
    let stage = stages.iter().find(|found| found["name"] == stage).unwrap();
    stage["counters"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {stage}"))
}

/// Both inner IP versions in each encapsulation, with ping, TCP and UDP; captures show no
/// unexpected packets.
#[test]
fn both_versions_pass_in_every_wrapping_and_the_wire_shows_nothing_else() {
    let lab = Lab::new();
    let server = Server::start(&lab);
    let base = Setup::default;
    let nd = r#"["arp", "nd"]"#;
    let setups = [
        base(),
        Setup { udp: true, transform: "aes-256-gcm", bypass: nd, ..base() },
        Setup { outer: OUTER_6, transform: "chacha20-poly1305", ..base() },
        Setup { outer: OUTER_6, udp: true, transform: "null-aes-128-gmac", esn: false, ..base() },
        Setup { transport: true, transform: "null-aes-256-gmac", bypass: nd, ..base() },
        Setup { transport: true, udp: true, esn: false, ..base() },
    ];
    // iperf3's socket may overflow when the machine is busy; these packets were not lost on the
    // way.
    let overflown = || {
        let count = |host| {
            let text = sh(host, "nstat -asz UdpRcvbufErrors Udp6RcvbufErrors");
            text.lines()
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        };
        count(lab.chain.gen_()) + count(lab.chain.sink())
    };
    for setup in setups {
        lab.forget();
        for host in [lab.chain.gen_(), lab.chain.sink()] {
            // A known neighbor would need no request.
            sh(host, "ip neigh flush all");
        }
        let tap = Tap::on(&lab.wire, "tap0");
        let ends = lab.start(&setup);
        for version in [0, 1] {
            for (from, to) in [(lab.chain.gen_(), B), (lab.chain.sink(), A)] {
                ping(from, to[version], &["-c20", "-i0.005", "-s56"]);
                ping(from, to[version], &["-c10", "-i0.005", "-s1200"]);
            }
            for direction in [&[][..], &["--reverse"]] {
                let moved = server.ask(&lab, B[version], &[&["-n", "2M"], direction].concat());
                assert!(
                    moved["sum_sent"]["bytes"].as_u64().unwrap() >= 2 << 20,
                    "{setup:?}: {moved}"
                );
                // 2000 packets per second for half a second.
                let udp = ["--udp", "-l", "1200", "-b", "19.2M", "-k", "1000"];
                let before = overflown();
                let arrived = server.ask(&lab, B[version], &[&udp[..], direction].concat());
                assert!(
                    arrived["sum"]["packets"].as_u64().unwrap() >= 1000,
                    "{setup:?}: {arrived}"
                );
                let lost = arrived["sum"]["lost_packets"].as_u64().unwrap();
                assert!(lost <= overflown() - before, "{setup:?}: {lost} lost: {arrived}");
            }
        }
        let [one, two] = stop_both(ends);
        for last in [&one, &two] {
            let mut drops = drops(&last.json);
            // TCP exceeds that rate, and starts with packets that are too big.
            for of_tcp in ["too_big", "egress_full"] {
                drops.remove(of_tcp);
            }
            assert!(drops.is_empty(), "{setup:?}: {drops:?}");
        }
        let frames = tap.stop();
        let mut seen = kinds(&frames);
        let (wrapped, other) =
            if setup.udp { ("esp in udp", "esp") } else { ("esp", "esp in udp") };
        assert!(
            seen.remove(wrapped).unwrap() > 8 * 1000 && seen.remove("arp").is_some(),
            "{setup:?}: {seen:?}"
        );
        assert_eq!(seen.remove("nd").is_some(), setup.bypass == nd, "{setup:?}: {seen:?}");
        assert!(seen.is_empty(), "{setup:?}: {other} or worse: {seen:?}");
        for frame in &frames {
            if let Kind::Esp(esp) = Kind::of(frame) {
                // The Ethernet addresses identify the sender.
                let side = usize::from(frame[11] == 4);
                assert_eq!(
                    (frame[6..11].to_vec(), esp.spi),
                    (vec![2, 0, 0, 0, 0], spi(side, 1)),
                    "{}",
                    hex(frame)
                );
                let outside = if setup.outer == OUTER_6 { 6 } else { 4 };
                assert!(setup.transport || esp.version == outside, "{setup:?}: {}", hex(frame));
            }
        }
    }
}

/// Returns tshark's fields of each ESP packet of a capture, given the keys of both directions.
fn tshark(path: &Path, setup: &Setup, keys: [String; 2]) -> Vec<Vec<String>> {
    let algorithm = "AES-GCM with 16 octet ICV [RFC4106]";
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-o", "esp.enable_encryption_decode:TRUE"]);
    tshark.args(["-o", "esp.enable_authentication_check:TRUE"]);
    for (side, key) in keys.iter().enumerate() {
        let spi = spi(side, 1);
        let version = if setup.outer == OUTER_6 { "IPv6" } else { "IPv4" };
        let sa = format!(
            r#"uat:esp_sa:"{version}","*","*","{spi:#010x}","{algorithm}","0x{key}","NULL","""#
        );
        tshark.args(["-o", &sa]);
    }
    let fields = [
        "esp.spi",
        "esp.sequence",
        "esp.icv_good",
        "icmp.type",
        "icmp.seq",
        "icmpv6.type",
        "icmpv6.echo.sequence_number",
    ];
    tshark.args(["-Y", "esp", "-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    run(&mut tshark).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Of xdpfwd's algorithms, tshark 4.0 supports AES-GCM, with 32-bit sequence numbers. With extended
/// ones it decrypts, but reports a wrong ICV.
#[test]
fn tshark_reads_what_is_sealed_and_finds_the_icv_good() {
    const PINGS: usize = 10;
    let lab = Lab::new();
    let base = Setup::default;
    for setup in [
        Setup { esn: false, ..base() },
        Setup { esn: false, transform: "aes-256-gcm", outer: OUTER_6, udp: true, ..base() },
        base(),
    ] {
        lab.forget();
        let tap = Tap::on(&lab.wire, "tap0");
        let ends = lab.start(&setup);
        for version in [0, 1] {
            ping(lab.chain.gen_(), B[version], &["-c10", "-i0.005"]);
        }
        stop_both(ends);
        let path = lab.folder.join("wire.pcap");
        let frames = tap.stop();
        pcap(&path, &frames);
        let keys = [0, 1].map(|side| key(spi(side, 1), setup.transform));
        let read = tshark(&path, &setup, keys.clone());
        let esp = frames.iter().filter(|frame| matches!(Kind::of(frame), Kind::Esp(_))).count();
        assert_eq!(read.len(), esp, "{setup:?}");
        let count =
            |wanted: &dyn Fn(&Vec<String>) -> bool| read.iter().filter(|line| wanted(line)).count();
        // Requests forth and replies back, of each IP version.
        for (column, kind, side) in [(3, "8", 0), (3, "0", 1), (5, "128", 0), (5, "129", 1)] {
            let spi = format!("{:#010x}", spi(side, 1));
            assert_eq!(
                count(&|line| line[0] == spi && line[column] == kind),
                PINGS,
                "{setup:?}: {read:#?}"
            );
        }
        let good = count(&|line| line[2] == "1");
        assert_eq!(good, if setup.esn { 0 } else { esp }, "{setup:?}: {read:#?}");
        if setup.udp {
            // tshark must also detect a wrong ICV. It then decrypts random bytes: one packet in 256
            // looks like ICMP.
            let wrong = keys.map(|key| "00".to_owned() + &key[2..]);
            let read = tshark(&path, &setup, wrong);
            assert!(read.iter().all(|line| line[2] != "1"), "{read:#?}");
            assert!(read.iter().filter(|line| line[3] == "8").count() < PINGS, "{read:#?}");
        }
    }
}

/// Seals packets in the first xdpfwd, with the wire cut, and returns the sealed frames.
fn sealed(lab: &Lab, sender: &Running, first: u64, count: u64) -> Vec<Vec<u8>> {
    let before = received(sender, "fwd0");
    let tap = Tap::on(&lab.wire, "tap0");
    Sender::start(lab.chain.gen_(), "gen0", 20_000, first, Some(count)).finish();
    until("all is received", || received(sender, "fwd0") >= before + count);
    until("all is sealed", || tap.count() >= count);
    let frames = tap.stop();
    assert_eq!(frames.len() as u64, count, "{:?}", kinds(&frames));
    for (frame, number) in frames.iter().zip(first..) {
        let sequence = u64::from(Kind::esp(frame).sequence);
        assert_eq!(sequence, number, "each number once, from 1 on: {}", hex(frame));
    }
    frames
}

/// Sends packets to a port of a running xdpfwd, waits until it has received all, and returns the
/// dropped ones by reason.
fn of_injected(
    running: &Running,
    port: &str,
    count: u64,
    inject: impl FnOnce(),
) -> BTreeMap<String, u64> {
    let (had, before) = (received(running, port), drops(&latest(running)));
    inject();
    until("all is received", || received(running, port) >= had + count);
    // An iteration processes the packets that it receives, but a report may be written in between.
    thread::sleep(Duration::from_millis(150));
    let report = latest(running);
    assert_eq!(received(running, port), had + count, "{report}");
    let mut after = drops(&report);
    for (reason, count) in before {
        *after.get_mut(&reason).unwrap() -= count;
    }
    after.retain(|_, count| *count > 0);
    after
}

/// Sends frames to the second xdpfwd.
fn given<'a>(
    lab: &Lab,
    opener: &Running,
    frames: impl IntoIterator<Item = &'a Vec<u8>>,
) -> BTreeMap<String, u64> {
    let frames: Vec<_> = frames.into_iter().collect();
    of_injected(opener, "wan1", frames.len() as u64, || inject(&lab.wire, "tap1", frames))
}

/// Creates a lab with the wire cut, an xdpfwd at each end that receives only the generator's
/// packets, and a sink.
fn cut(setup: &Setup) -> (Lab, [Running; 2], Sink) {
    let lab = Lab::quiet(1);
    lab.cut();
    let ends = lab.start(setup);
    let sink = Sink::builder().check(true).attach(lab.chain.sink(), "sink0").unwrap();
    (lab, ends, sink)
}

fn reasons<const N: usize>(reasons: [(&str, u64); N]) -> BTreeMap<String, u64> {
    reasons
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}

#[test]
fn what_was_received_is_not_received_again() {
    const COUNT: u64 = 400;
    let base = || Setup { seal_sa: both(ONLY_10_77), ..Setup::default() };
    for (window, setup) in [
        (1024, base()),
        (
            64,
            Setup {
                esn: false,
                open_sa: both("window = 64\n"),
                transform: "chacha20-poly1305",
                udp: true,
                ..base()
            },
        ),
        (
            128,
            Setup {
                transport: true,
                open_sa: both("window = 128\n"),
                transform: "null-aes-128-gmac",
                ..base()
            },
        ),
    ] {
        let (lab, [one, two], sink) = cut(&setup);
        let arrived = || sink.seen().unwrap().arrived.packets;
        let frames = sealed(&lab, &one, 1, COUNT);
        assert_eq!(given(&lab, &two, &frames), reasons([]));
        assert_eq!(arrived(), COUNT);
        assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
        // Same order again: numbers in the window are replays, numbers below it are late. With ESN,
        // the receiver infers the next upper half for a number below the window (RFC 4303, appendix
        // A), so the ICV is wrong.
        let late = if setup.esn { "bad_tag" } else { "late" };
        let behind = COUNT.saturating_sub(window);
        assert_eq!(
            given(&lab, &two, &frames),
            reasons([(late, behind), ("replay", COUNT - behind)])
        );
        // Reverse order: accepted within the window.
        let frames: Vec<_> = sealed(&lab, &one, COUNT + 1, 200);
        let behind = 200u64.saturating_sub(window);
        assert_eq!(given(&lab, &two, frames.iter().rev()), reasons([(late, behind)]));
        assert_eq!(arrived(), COUNT + 200 - behind);
        // A restarted xdpfwd restores its window.
        stop(two);
        let two = lab.start_one(&setup, 1);
        let behind_now = 200u64.saturating_sub(window);
        assert_eq!(
            given(&lab, &two, &frames),
            reasons([(late, behind_now), ("replay", 200 - behind_now)])
        );
        assert_eq!(arrived(), COUNT + 200 - behind, "none came out");
        // It accepts new packets.
        let frames = sealed(&lab, &one, COUNT + 201, 10);
        assert_eq!(given(&lab, &two, &frames), reasons([]));
        assert_eq!(arrived(), COUNT + 210 - behind);
        assert_eq!(drops(&stop(one).json), reasons([]));
        stop(two);
    }
}

/// Returns the frame with its IPv4 packet truncated, with correct length and checksum.
fn cut_to(frame: &[u8], length: usize) -> Vec<u8> {
    let mut frame = frame[..length].to_vec();
    let total = (length - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[24..26].fill(0);
    let words =
        frame[14..34].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[test]
fn a_flipped_bit_or_a_lost_byte_lets_nothing_through_and_spoils_nothing() {
    const COUNT: u64 = 200;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = SplitMix64::new(seed);
    let base = || Setup { seal_sa: both(ONLY_10_77), ..Setup::default() };
    for setup in [
        base(),
        Setup { transform: "chacha20-poly1305", outer: OUTER_6, udp: true, ..base() },
        Setup { transform: "null-aes-256-gmac", transport: true, ..base() },
        Setup { transform: "null-aes-128-gmac", esn: false, ..base() },
    ] {
        let (lab, [one, two], sink) = cut(&setup);
        let frames = sealed(&lab, &one, 1, COUNT);
        let mut wrong = vec![];
        for frame in frames.iter().cycle().take(3 * frames.len()) {
            let Esp { at, end, .. } = Kind::esp(frame);
            let bit = random.draw() as usize % (8 * (end - at));
            let mut frame = frame.clone();
            frame[at + bit / 8] ^= 1 << (bit % 8);
            wrong.push(frame);
        }
        let dropped = given(&lab, &two, &wrong);
        assert_eq!(dropped.values().sum::<u64>(), wrong.len() as u64, "{dropped:?}");
        let known = ["bad_tag", "no_sa", "late", "bad_length"];
        assert!(dropped.keys().all(|reason| known.contains(&reason.as_str())), "{dropped:?}");
        // The ICV covers nearly all bytes, or contains them.
        assert!(dropped["bad_tag"] * 10 > 8 * wrong.len() as u64, "{dropped:?}");
        if Kind::esp(&frames[0]).version == 4 && !setup.udp {
            // Every length, down to an IP header without payload.
            let short: Vec<_> =
                (34..frames[0].len()).map(|length| cut_to(&frames[0], length)).collect();
            let dropped = given(&lab, &two, &short);
            assert_eq!(dropped.values().sum::<u64>(), short.len() as u64, "{dropped:?}");
            let known = ["bad_tag", "bad_length", "malformed", "no_sa"];
            assert!(dropped.keys().all(|reason| known.contains(&reason.as_str())), "{dropped:?}");
            assert!(dropped["bad_tag"] > 0 && dropped["bad_length"] > 0, "{dropped:?}");
        }
        assert_eq!(sink.seen().unwrap().arrived.packets, 0, "none came out");
        // The window has not moved.
        assert_eq!(given(&lab, &two, &frames), reasons([]));
        let seen = sink.seen().unwrap();
        assert!(seen.arrived.packets == COUNT && seen.is_clean(), "{seen:?}");
        stop_both([one, two]);
    }
}

/// To a NIC, all packets between two gateways are one flow, received on one queue.
#[test]
fn an_sa_is_opened_by_the_worker_of_its_queue_and_by_no_other() {
    const COUNT: u64 = 100;
    let lab = Lab::quiet(2);
    lab.cut();
    let sink = Sink::builder().check(true).attach(lab.chain.gen_(), "gen0").unwrap();
    let mut outcomes = vec![];
    for queue in [0, 1] {
        lab.forget();
        let setup = Setup {
            queues: 2,
            engine: first("cores = [0, 1]"),
            seal_sa: both(ONLY_10_77),
            open_sa: first(&format!("queue = {queue}\n")),
            ..Setup::default()
        };
        let [one, two] = lab.start(&setup);
        let before = sink.seen().unwrap().arrived.packets;
        let tap = Tap::on(&lab.wire, "tap1");
        // Sends those flows that arrive on the configured queue.
        let sender = Sender::start(lab.chain.sink(), "sink0", 2_000, 1, None);
        tap.wait_for(COUNT);
        sender.stop();
        inject(&lab.wire, "tap0", &tap.stop()[..COUNT as usize]);
        until("all is received", || received(&one, "wan0") >= COUNT);
        let [one, _] = stop_both([one, two]);
        outcomes.push((sink.seen().unwrap().arrived.packets - before, drops(&one.json)));
    }
    outcomes.sort();
    assert_eq!(outcomes, [(0, reasons([("wrong_queue", COUNT)])), (COUNT, reasons([]))]);
}

/// Returns the largest IP packet that fits into a packet of 1500 bytes: the space after the ESP
/// header and IV, rounded down to a multiple of four bytes, minus the two-byte trailer.
fn largest(setup: &Setup, version: usize) -> usize {
    let inner = [20, 40][version];
    let outer = if setup.transport {
        inner
    } else if setup.outer == OUTER_6 {
        40
    } else {
        20
    };
    let udp = if setup.udp { 8 } else { 0 };
    let sealed = (1500 - outer - udp - 8 - 8 - 16) / 4 * 4 - 2;
    if setup.transport { inner + sealed } else { sealed }
}

#[test]
fn what_is_too_big_is_said_to_its_sender_and_tcp_finds_its_way() {
    let lab = Lab::new();
    let server = Server::start(&lab);
    let base = Setup::default;
    for setup in
        [base(), Setup { outer: OUTER_6, udp: true, ..base() }, Setup { transport: true, ..base() }]
    {
        lab.forget();
        let ends = lab.start(&setup);
        for version in [0, 1] {
            let (from, to) = (lab.chain.gen_(), B[version]);
            let mtu = largest(&setup, version);
            let headers = [28, 48][version];
            let size = |packet: usize| format!("-s{}", packet - headers);
            let of_ip = || sh(from, &format!("ip route get {to}"));
            // The largest packet passes without an ICMP message.
            ping(from, to, &["-c3", "-i0.005", "-Mdo", &size(mtu)]);
            assert!(!of_ip().contains("mtu"), "{}", of_ip());
            // One byte more is rejected.
            let output = try_ping(from, to, &["-c1", "-W1", "-Mdo", &size(mtu + 1)]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
            let says = [
                format!("Frag needed and DF set (mtu = {mtu})"),
                format!("Packet too big: mtu={mtu}"),
            ];
            assert!(text.contains(&says[version]), "{setup:?}: {mtu}: {text}");
            assert!(of_ip().contains(&format!("mtu {mtu}")), "{setup:?}: {}", of_ip());
            // A host without path MTU information sends segments for packets of 1500 bytes.
            sh(from, "ip route flush cache; ip -6 route flush cache");
            let tap = Tap::on(&lab.wire, "tap0");
            let moved = server.ask(&lab, to, &["-n", "2M"]);
            assert!(moved["sum_sent"]["bytes"].as_u64().unwrap() >= 2 << 20, "{setup:?}: {moved}");
            assert!(of_ip().contains(&format!("mtu {mtu}")), "{setup:?}: {}", of_ip());
            let longest = tap.stop().iter().map(Vec::len).max().unwrap();
            assert!(
                (1500..=1514).contains(&longest),
                "full segments, and none that is too long: {longest}"
            );
        }
        let [one, two] = stop_both(ends);
        assert!(counter(&one.json, "out", "icmp_sent") >= 4, "{}", one.json);
        assert_eq!(counter(&two.json, "out", "icmp_sent"), 0, "{}", two.json);
    }
    // With ICMP disabled, drops are silent; a smaller MTU allows only smaller packets; the ICMP
    // source address is configurable.
    lab.forget();
    let lines = "icmp_rate = 0\n";
    let ends = lab.start(&Setup { seal: first(lines), ..base() });
    let output = try_ping(lab.chain.gen_(), B[0], &["-c3", "-i0.01", "-W1", "-Mdo", "-s1472"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("100% packet loss"), "{output:?}");
    let [one, _] = stop_both(ends);
    assert_eq!(drops(&one.json), reasons([("too_big", 3)]));
    lab.forget();
    let lines = "mtu = 1000\nicmp_source = [\"192.0.2.77\"]\n";
    let ends = lab.start(&Setup { seal: first(lines), ..base() });
    let output = try_ping(lab.chain.gen_(), B[0], &["-c1", "-W1", "-Mdo", "-s1000"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("From 192.0.2.77 ") && text.contains("(mtu = 946)"), "{text}");
    stop_both(ends);
}

/// Returns the MSS announced in the first received frame with the SYN flag.
fn announced(frames: &[Vec<u8>]) -> Option<u16> {
    frames.iter().find_map(|frame| {
        let at = match frame[12..14] {
            [0x08, 0x00] if frame[23] == 6 => 34,
            [0x86, 0xdd] if frame[20] == 6 => 54,
            _ => return None,
        };
        let options = &frame[at + 20..at + 4 * usize::from(frame[at + 12] >> 4)];
        let syn = frame[at + 13] & 2 != 0;
        // Linux puts the MSS option first.
        (syn && options[..2] == [2, 4]).then(|| u16::from_be_bytes([options[2], options[3]]))
    })
}

#[test]
fn the_mss_of_a_syn_is_lowered_where_it_is_sealed_and_where_it_is_opened() {
    let lab = Lab::new();
    let mss = |line: &str| line.to_owned();
    for (seal, open, forth, back) in [
        // By default TCP announces the MSS of its own interface.
        (both(""), both(""), [1460, 1440], [1460, 1440]),
        (first("tcp_mss = 1300"), first("tcp_mss = 1200"), [1300, 1300], [1200, 1200]),
        (
            [mss("tcp_mss = 9000"), mss("tcp_mss = 900")],
            second("tcp_mss = 1450"),
            [1450, 1440],
            [900, 900],
        ),
    ] {
        lab.forget();
        let ends = lab.start(&Setup { seal, open, ..Setup::default() });
        for version in [0, 1] {
            let address: SocketAddr =
                (B[version].parse::<std::net::IpAddr>().unwrap(), 7777).into();
            let listener = lab.chain.sink().run(|| TcpListener::bind(address).unwrap()).unwrap();
            let taps = [(lab.chain.sink(), "sink0"), (lab.chain.gen_(), "gen0")].map(
                |(host, interface)| {
                    let frames = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
                    let kept = std::sync::Arc::clone(&frames);
                    let keep = move |frame: &[u8], outgoing: bool| {
                        if !outgoing {
                            kept.lock().unwrap().push(frame.to_vec());
                        }
                    };
                    (Tap::with(host, interface, keep), frames)
                },
            );
            // The receiver would ignore a SYN with a wrong checksum.
            let mut stream = lab
                .chain
                .gen_()
                .run(|| TcpStream::connect_timeout(&address, LONG).unwrap())
                .unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            let seen = taps.map(|(tap, frames)| {
                tap.stop();
                announced(&frames.lock().unwrap())
            });
            assert_eq!(
                seen,
                [Some(forth[version]), Some(back[version])],
                "IP version {}",
                [4, 6][version]
            );
        }
        stop_both(ends);
    }
}

#[test]
fn at_a_limit_it_is_over_and_before_it_there_is_one_warning() {
    const COUNT: u64 = 500;
    let lab = Lab::quiet(1);
    let sink = Sink::attach(lab.chain.sink(), "sink0").unwrap();
    // 86 of 100 bytes on the wire are the packet.
    let packets = "soft_packets = 200\nhard_packets = 300\n";
    let bytes = "soft_bytes = 17200\nhard_bytes = 25800\n";
    for (side, lines) in [(0, packets), (0, bytes), (1, packets), (1, bytes)] {
        lab.forget();
        let mut setup = Setup { seal_sa: both(ONLY_10_77), ..Setup::default() };
        let sas = if side == 0 { &mut setup.seal_sa } else { &mut setup.open_sa };
        sas[side].push_str(lines);
        let before = sink.seen().unwrap().arrived.packets;
        let ends = lab.start(&setup);
        Sender::start(lab.chain.gen_(), "gen0", 4_000, 1, Some(COUNT)).finish();
        until("all is there", || received(&ends[0], "fwd0") >= COUNT);
        until("and dropped", || drops(&latest(&ends[side])).values().sum::<u64>() >= COUNT - 300);
        let (what, limit) = if lines == packets { ("packets", "200") } else { ("bytes", "17200") };
        let soft = format!("WARN SA {:#x}", spi(0, 1));
        let warned: Vec<_> =
            ends[side].forwarder.stderr().into_iter().filter(|line| line.contains(&soft)).collect();
        assert!(
            warned.len() == 1 && warned[0].contains(&format!("soft limit of {limit} {what}")),
            "{warned:#?}"
        );
        let lasts = stop_both(ends);
        assert_eq!(drops(&lasts[side].json), reasons([("sa_limit", COUNT - 300)]), "{lines}");
        assert_eq!(drops(&lasts[1 - side].json), reasons([]), "{lines}");
        assert_eq!(sink.seen().unwrap().arrived.packets - before, 300, "{lines}");
        // The state file keeps the counts of outbound SAs, not of inbound SAs.
        let ends = lab.start(&setup);
        Sender::start(lab.chain.gen_(), "gen0", 4_000, 1, Some(100)).finish();
        until("all is there", || received(&ends[0], "fwd0") >= 100);
        stop_both(ends);
        let again = if side == 0 { 300 } else { 400 };
        assert_eq!(
            sink.seen().unwrap().arrived.packets - before,
            again,
            "{lines}: after a restart"
        );
    }
}

/// Packets without a matching SA are dropped, unless configured to pass.
#[test]
fn what_is_not_protected_passes_if_it_is_said_and_only_then() {
    let ethernet = "02000000000402000000000108".to_owned();
    let udp = |to: &str, ports: &str, payload: &str| {
        let packet =
            format!("{ethernet}00450000240000400040110000c0000201{to}{ports}00100000{payload}");
        [cut_to(&unhex(&packet), 50), vec![0; 10]].concat()
    };
    let v6 = |hop_limit: &str| {
        let addresses = "fe800000000000000000000000000001ff0200000000000000000001ff000002";
        let asks = "8700000000000000fd770000000000000000000000000002";
        unhex(&format!("02000000000402000000000186dd6000000000183a{hop_limit}{addresses}{asks}"))
    };
    let arp = "0001080006040001020000000001c0000201000000000000c0000202";
    let frames: [(&str, Vec<u8>); 7] = [
        ("arp", unhex(&format!("{ethernet}06{arp}000000000000000000000000000000000000"))),
        ("nd", v6("ff")),
        ("a far one's nd", v6("40")),
        ("ike", udp("c0000202", "01f401f4", "0000000000000001")),
        ("ike", udp("c0000202", "11941194", "0000000000000001")),
        ("not-ip", unhex(&format!("02000000000402000000000188b5{}", "00".repeat(46)))),
        ("other", udp("c0000202", "04000009", "0000000000000001")),
    ];
    let all: Vec<_> = frames.iter().map(|(_, frame)| frame.clone()).collect();
    let lab = Lab::quiet(1);
    lab.cut();
    let base = || Setup { bypass: "[]", seal_sa: both(ONLY_10_77), ..Setup::default() };
    let ends = lab.start(&base());
    for bypass in ["", "arp", "nd", "ike", "not-ip", "unmatched"] {
        if !bypass.is_empty() {
            let setup = Setup { bypass: format!("[{bypass:?}]").leak(), ..base() };
            for (side, end) in ends.iter().enumerate() {
                reload(&lab, end, &setup, side);
            }
        }
        // At the sealing and the opening stage.
        let ways = [
            (lab.chain.gen_(), "gen0", "fwd0", &lab.wire, "tap0", "no_sa"),
            (&lab.wire, "tap1", "wan1", lab.chain.sink(), "sink0", "unprotected"),
        ];
        for ((from, entry, port, to, exit, reason), running) in ways.into_iter().zip(&ends) {
            // ARP is not IP either.
            let passes = |name: &str| {
                bypass == "unmatched" || name == bypass || (bypass, name) == ("not-ip", "arp")
            };
            let expected = frames.iter().filter(|(name, _)| passes(name));
            let expected: Vec<_> = expected.map(|(_, frame)| hex(frame)).collect();
            let tap = Tap::on(to, exit);
            let dropped =
                of_injected(running, port, all.len() as u64, || inject(from, entry, &all));
            let passed: Vec<_> = tap.stop().iter().map(|frame| hex(frame)).collect();
            assert_eq!(passed, expected, "{bypass} {reason}");
            assert_eq!(
                dropped,
                reasons([(reason, (all.len() - expected.len()) as u64)]),
                "{bypass}"
            );
        }
    }
    stop_both(ends);
}

/// Runs xdpfwd with a configuration and expects it to end soon.
fn attempt(lab: &Lab, config: &str) -> Output {
    let config = Config::new(config);
    lab.chain
        .fwd()
        .command(XDPFWD)
        .args(["--config", config.path(), "--duration", "0.2"])
        .output()
        .unwrap()
}

#[track_caller]
fn refused(lab: &Lab, config: &str, code: i32, says: &[&str]) {
    let output = attempt(lab, config);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{says:?}: {text}");
    for part in says {
        assert!(text.contains(part), "not said: {part:?}: {text}");
    }
}

#[test]
fn what_is_refused_in_a_configuration() {
    let lab = Lab::quiet(1);
    let good = Setup::default().config(&lab, 0);
    assert_eq!(attempt(&lab, &good).status.code(), Some(0), "{}", stderr(&attempt(&lab, &good)));
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}: {good}");
        good.replacen(from, to, 1)
    };
    let spis = ["spi = 4097\n", "spi = 8193\n"];
    let (own, peer) =
        (lab.key_file(spi(0, 1), "aes-128-gcm"), lab.key_file(spi(1, 1), "aes-128-gcm"));
    let (own, peer) = (format!("{own:?}"), format!("{peer:?}"));
    for (config, says) in [
        (changed("lab = true\n", ""), &["missing key `lab`"][..]),
        (changed("lab = true\n", "lab = false\n"), &["lab", "true"]),
        (changed("bypass", "bypas"), &["unknown key `bypas`", "bypass"]),
        (changed(spis[0], "spi = 4097\nnonce = 1\n"), &["unknown key `nonce`"]),
        (changed(spis[1], "spi = 8193\nttl = 3\n"), &["ttl"]),
        (changed(spis[0], "spi = 255\n"), &["255", "256"]),
        (changed("\"aes-128-gcm\"", "\"aes-128-cbc\""), &["aes-128-cbc", "aes-128-gcm"]),
        (changed("mode = \"tunnel\"", "mode = \"transport\""), &["source", "transport"]),
        (changed("source = \"192.0.2.1\"\n", ""), &["source", "tunnel"]),
        (
            changed("source = \"192.0.2.1\"", "source = \"2001:db8::1\""),
            &["192.0.2.2", "2001:db8::1"],
        ),
        (changed(spis[1], "spi = 8193\nwindow = 100\n"), &["100", "64"]),
        (changed("kind = \"esp-seal\"", "kind = \"esp-seal\"\nmtu = 575"), &["575", "576"]),
        (changed("bypass = [\"arp\"]", "bypass = [\"tcp\"]"), &["tcp", "unmatched"]),
        (
            changed("kind = \"esp-seal\"", "kind = \"esp-seal\"\nbackend = \"openssl\""),
            &["openssl", "aws-lc"],
        ),
        (
            changed(&peer, &own),
            &["stage \"in\": the key", "is used by stage \"out\", too", "xdpfwd esp new-key"],
        ),
    ] {
        refused(&lab, &config, 2, says);
    }
    // Two SAs with one SPI, in the direction where the SPI selects the SA.
    let twice = Setup { opening: vec![1, 1], ..Setup::default() }.config(&lab, 0);
    refused(&lab, &twice, 2, &["8193"]);
}

#[test]
fn what_is_refused_of_keys_and_states() {
    let lab = Lab::quiet(1);
    let setup = Setup::default();
    let config = setup.config(&lab, 0);
    let path = lab.key_file(spi(0, 1), "aes-128-gcm");
    let name = path.to_str().unwrap();
    let right = fs::read_to_string(&path).unwrap();
    let restore = || {
        let _ = fs::remove_file(&path);
        lab.folder.secret(path.file_name().unwrap().to_str().unwrap(), &right);
    };

    fs::remove_file(&path).unwrap();
    refused(&lab, &config, 2, &[name, "xdpfwd esp new-key"]);
    restore();
    for mode in [0o644, 0o640, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refused(&lab, &config, 2, &[name, "chmod 600"]);
    }
    restore();
    let real = lab.folder.secret("real.key", &right);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    refused(&lab, &config, 2, &[name, "link"]);
    restore();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    refused(&lab, &config, 2, &[name, "65534"]);
    restore();
    for (wrong, says) in [
        (&right[..38], "38 hexadecimal digits"),
        ("00", "takes 40"),
        ("", "takes 40"),
        ("nonsense", "hex"),
    ] {
        lab.folder.secret(path.file_name().unwrap().to_str().unwrap(), wrong);
        let output = attempt(&lab, &config);
        assert!(
            output.status.code() == Some(2) && stderr(&output).contains(name),
            "{wrong:?}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(says), "{wrong:?}: {}", stderr(&output));
        // Errors must not quote the content of the file.
        assert!(
            wrong.len() < 4 || !stderr(&output).contains(&wrong[..4]),
            "{wrong:?}: {}",
            stderr(&output)
        );
    }
    // In the format of `ip xfrm`, and with surrounding white space.
    lab.folder.secret(
        path.file_name().unwrap().to_str().unwrap(),
        &format!("  0x{}\n\n", right.trim().to_uppercase()),
    );
    assert_eq!(
        attempt(&lab, &config).status.code(),
        Some(0),
        "{}",
        stderr(&attempt(&lab, &config))
    );
    restore();

    let path = lab.state_file(0);
    let name = path.to_str().unwrap();
    let right = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    refused(&lab, &config, 1, &[name, "xdpfwd esp new-state"]);
    for garbage in
        ["", "garbage", &right[..right.len() / 2], &right.replace("version = 1", "version = 2")]
    {
        lab.folder.secret("0.state", garbage);
        refused(&lab, &config, 1, &[name]);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            garbage,
            "what cannot be read is left for who can"
        );
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let epoch = |text: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("epoch = "))
            .unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let with_epoch = |value: u64| {
        right.replace(&format!("epoch = {}", epoch(&right)), &format!("epoch = {value}"))
    };
    lab.folder.secret("0.state", &with_epoch(now + 100_000));
    refused(&lab, &config, 1, &[name, "clock"]);
    // xdpfwd waits for an epoch that is two seconds ahead of the clock.
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2;
    lab.folder.secret("0.state", &with_epoch(ahead));
    assert_eq!(attempt(&lab, &config).status.code(), Some(0));
    let then = epoch(&fs::read_to_string(&path).unwrap());
    assert!(then > ahead, "{then}, after {ahead}");

    // Another xdpfwd uses the file, and continues.
    let mut first = lab.start_one(&setup, 0);
    let other = config.replace("fwd0", "fwd1").replace("wan0", "wan1");
    refused(&lab, &other, 1, &[name, "is in use", &format!("fuser {name}")]);
    first.forwarder.check_running().unwrap();
    stop(first);
    assert_eq!(attempt(&lab, &other).status.code(), Some(0), "{}", stderr(&attempt(&lab, &other)));
}

#[test]
fn new_keys_are_random_and_nothing_is_overwritten() {
    let folder = Folder::new();
    let new = |arguments: &[&str], path: &Path| {
        Command::new(XDPFWD).arg("esp").args(arguments).arg(path).output().unwrap()
    };
    let mut keys = vec![];
    for (transform, bytes) in
        [("aes-128-gcm", 20), ("null-aes-256-gmac", 36), ("chacha20-poly1305", 36)]
    {
        for number in 0..2 {
            let path = folder.join(format!("{transform}-{number}"));
            let output = new(&["new-key", "--transform", transform], &path);
            assert!(output.status.success(), "{output:?}");
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let key = fs::read_to_string(&path).unwrap();
            assert_eq!((mode, unhex(key.trim().trim_start_matches("0x")).len()), (0o600, bytes));
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
            assert!(!said.contains(&key.trim()[2..10]), "{said}");
            let again = new(&["new-key", "--transform", transform], &path);
            assert!(
                !again.status.success() && stderr(&again).contains(path.to_str().unwrap()),
                "{again:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), key);
            keys.push(key);
        }
    }
    let distinct: BTreeSet<_> = keys.iter().map(|key| &key[..20]).collect();
    assert_eq!(distinct.len(), keys.len());
    let path = folder.join("state");
    assert!(new(&["new-state"], &path).status.success());
    let state = fs::read_to_string(&path).unwrap();
    let again = new(&["new-state"], &path);
    assert!(
        !again.status.success() && stderr(&again).contains(path.to_str().unwrap()),
        "{again:?}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), state);
}

/// Returns whether a text contains four consecutive bytes of a key, in hexadecimal or as a list of
/// numbers.
fn shows(text: &str, key: &str) -> bool {
    let bytes = unhex(key);
    let text = text.to_lowercase();
    bytes.windows(4).any(|part| {
        let list = format!("{part:?}");
        text.contains(&hex(part)) || text.contains(list.trim_matches(['[', ']']))
    })
}

#[test]
fn keys_are_in_no_log_report_or_answer_and_leave_no_core() {
    let lab = Lab::quiet(1);
    let socket = Socket::new("esp");
    let setup =
        Setup { engine: first(&format!("control = {:?}", socket.path())), ..Setup::default() };
    let keys = [0, 1].map(|side| key(spi(side, 1), setup.transform));
    assert!(
        shows(&format!("x{}x", keys[0].to_uppercase()), &keys[0])
            && shows(&format!("{:?}", unhex(&keys[0])), &keys[0])
    );
    let config = Config::new(&setup.config(&lab, 0));
    let start = |config: &Config| {
        let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
        // A core dump would be in the working directory.
        let folder = lab.folder.to_path_buf();
        let around = [
            "env",
            "-C",
            folder.to_str().unwrap(),
            "RUST_LOG=trace",
            "prlimit",
            "--core=unlimited",
        ];
        let mut forwarder =
            xdpfwd_lab::Forwarder::spawn(lab.chain.fwd(), &[&around[..], &arguments].concat())
                .unwrap();
        forwarder.wait_for_line(LONG, |line| line.contains(r#""type":"interval""#)).unwrap();
        Running::of(forwarder, Config::new(""))
    };
    let other = lab.start_one(&setup, 1);
    let running = start(&config);
    Sender::start(lab.chain.gen_(), "gen0", 2_000, 1, Some(100)).finish();
    until("all is received", || received(&running, "fwd0") >= 100);
    let sa = socket.asked("sa");
    let out = &sa["sas"][0];
    let keys_of_it = ["stage", "direction", "spi", "transform", "sequence", "packets", "drops"];
    assert_eq!(
        keys_of_it.map(|key| out[key].clone()),
        [
            "out".into(),
            "out".into(),
            spi(0, 1).into(),
            "aes-128-gcm".into(),
            100.into(),
            100.into(),
            json!({})
        ],
        "{sa}"
    );
    assert_eq!(
        (&sa["sas"][1]["spi"], sa["sas"].as_array().unwrap().len()),
        (&spi(1, 1).into(), 2),
        "{sa}"
    );
    let mut texts = vec![sa.to_string(), String::from_utf8(socket.ctl(&["sa"]).stdout).unwrap()];
    for question in ["status", "stats"] {
        texts.push(socket.asked(question).to_string());
    }
    running.reload("INFO reloaded");
    let dump = |mut running: Running| {
        // Not SIGSEGV: Rust's handler takes the first one for a stack overflow, and waits for the
        // next.
        running.signal(Signal::SIGABRT);
        running.wait();
        let output = [running.forwarder.stdout(), running.forwarder.stderr()].concat().join("\n");
        (running.forwarder.stop(LONG).unwrap().status, output)
    };
    let (status, output) = dump(running);
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::SIGABRT as i32), false));
    texts.push(output);
    texts.push(fs::read_to_string(lab.state_file(0)).unwrap());
    for text in &texts {
        assert!(text.len() > 20 && keys.iter().all(|key| !shows(text, key)), "{text}");
    }
    // The output covers these SAs, with fingerprints of the keys.
    let state = texts.last().unwrap();
    let prints: Vec<_> = state
        .lines()
        .filter_map(|line| line.strip_prefix("fingerprint = \"")?.split('"').next())
        .collect();
    assert!(!prints.is_empty(), "{state}");
    for print in prints {
        assert!(
            print.len() == 16 && texts[0].contains(print) && texts[1].contains(print),
            "{print}: {}",
            texts[0]
        );
    }
    // Without keys there is a core dump, so the check above can fail.
    let plain = Config::new(&support::cross_connect_of(["fwd0", "wan0"], 1, ""));
    assert!(dump(start(&plain)).0.core_dumped(), "a core is possible here");
    stop(other);
}

/// Rewrites a side's configuration and reloads it.
#[track_caller]
fn reload(lab: &Lab, running: &Running, setup: &Setup, side: usize) {
    running.config.write(&setup.config(lab, side));
    running.reload("INFO reloaded");
}

#[test]
fn keys_are_changed_under_traffic_and_nothing_is_lost() {
    const GENERATIONS: u32 = 4;
    let lab = Lab::quiet(1);
    let mut setup = Setup { seal_sa: both(ONLY_10_77), ..Setup::default() };
    let ends = lab.start(&setup);
    let tap = Tap::on(&lab.wire, "tap0");
    let forth = Sink::builder().check(true).attach(lab.chain.sink(), "sink0").unwrap();
    let back = Sink::builder().check(true).attach(lab.chain.gen_(), "gen0").unwrap();
    let senders = [(lab.chain.gen_(), "gen0"), (lab.chain.sink(), "sink0")]
        .map(|(host, interface): (&Namespace, _)| Sender::start(host, interface, 2_000, 1, None));
    for generation in 2..=GENERATIONS {
        let (old, new) = (generation - 1, generation);
        let steps = [
            (vec![old], vec![old, new]),
            // Before the old SA, or replacing it.
            (if new % 2 == 0 { vec![new, old] } else { vec![new] }, vec![old, new]),
            (vec![new], vec![new]),
        ];
        for (sealing, opening) in steps {
            setup = Setup { sealing, opening, ..setup };
            for (side, end) in ends.iter().enumerate() {
                thread::sleep(Duration::from_millis(100));
                reload(&lab, end, &setup, side);
            }
        }
    }
    // Changes another key; the SAs stay.
    setup.seal = both("icmp_rate = 7");
    for (side, end) in ends.iter().enumerate() {
        thread::sleep(Duration::from_millis(100));
        reload(&lab, end, &setup, side);
    }
    thread::sleep(Duration::from_millis(100));
    let sent = senders.map(Sender::stop);
    until("all has arrived", || {
        [&forth, &back].map(|sink| sink.seen().unwrap().arrived.packets) == sent
    });
    for sink in [&forth, &back] {
        assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
    }
    let frames = tap.stop();
    assert_eq!(frames.len() as u64, sent[0] + sent[1], "{:?}", kinds(&frames));
    let mut last = [0, 1].map(|side| (spi(side, 1), 0));
    for frame in &frames {
        let esp = Kind::esp(frame);
        let (current, sequence) = &mut last[usize::from(esp.spi >= spi(1, 0))];
        if esp.spi == *current + 1 {
            (*current, *sequence) = (esp.spi, 0);
        }
        // Each SA's sequence numbers have no gap from first to last packet, despite reloads.
        assert_eq!((esp.spi, esp.sequence), (*current, *sequence + 1), "{}", hex(frame));
        *sequence = esp.sequence;
    }
    assert_eq!(last.map(|(spi, _)| spi), [0, 1].map(|side| spi(side, GENERATIONS)));
    // The window survives the reload: all packets since the first of that key are replays.
    lab.cut();
    let of_last: Vec<_> =
        frames.iter().filter(|frame| Kind::esp(frame).spi == spi(0, GENERATIONS)).collect();
    let count = of_last.len() as u64;
    let dropped = given(&lab, &ends[1], of_last);
    // For numbers below the window, the receiver infers the next upper half.
    assert_eq!(
        dropped,
        reasons([("bad_tag", count.saturating_sub(1024)), ("replay", count.min(1024))])
    );
    // The state of a removed key is forgotten.
    let of_first: Vec<_> =
        frames.iter().filter(|frame| Kind::esp(frame).spi == spi(0, 1)).take(10).collect();
    assert_eq!(given(&lab, &ends[1], of_first), reasons([("no_sa", 10)]));
    let [one, two] = stop_both(ends);
    assert_eq!(drops(&one.json), reasons([]));
    assert_eq!(drops(&two.json).values().sum::<u64>(), count + 10, "{}", two.json);
    assert_eq!(forth.seen().unwrap().arrived.packets, sent[0], "nothing of it came out");
    println!("{} and {} packets, {GENERATIONS} keys each way", sent[0], sent[1]);
}

/// Stages release their files and lock them again: sequence numbers and windows continue.
#[test]
fn esp_leaves_with_a_reload_and_comes_back() {
    let lab = Lab::quiet(1);
    let setup = Setup::default();
    let running = lab.start_one(&setup, 0);
    let with = setup.config(&lab, 0);
    let (ports, _) = with.split_once("[stage.").unwrap();
    let without: String = ports
        .lines()
        .filter(|line| !line.starts_with("stages"))
        .map(|line| format!("{line}\n"))
        .collect();
    for config in [&without, &with, &without, &with] {
        running.config.write(config);
        running.reload("INFO reloaded");
    }
    stop(running);
}

#[test]
fn two_workers_share_the_numbers_of_an_sa_and_its_successors() {
    const GENERATIONS: u32 = 4;
    let lab = Lab::quiet(2);
    let mut setup = Setup {
        queues: 2,
        engine: first("cores = [0, 1]"),
        seal_sa: both(ONLY_10_77),
        // The scheduler may delay one xdpfwd for a while.
        open_sa: both("window = 4096\n"),
        ..Setup::default()
    };
    let ends = lab.start(&setup);
    let tap = Tap::on(&lab.wire, "tap0");
    let sink = Sink::builder().check(true).attach(lab.chain.sink(), "sink0").unwrap();
    let sender = Sender::start(lab.chain.gen_(), "gen0", 2_000, 1, None);
    for new in 2..=GENERATIONS {
        let old = new - 1;
        for (sealing, opening) in
            [(vec![old], vec![old, new]), (vec![new], vec![old, new]), (vec![new], vec![new])]
        {
            setup = Setup { sealing, opening, ..setup };
            for (side, end) in ends.iter().enumerate() {
                thread::sleep(Duration::from_millis(100));
                reload(&lab, end, &setup, side);
            }
        }
    }
    let sent = sender.stop();
    until("all has arrived", || sink.seen().unwrap().arrived.packets == sent);
    assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
    let (mut numbers, mut lanes, mut ivs) =
        (BTreeMap::<u32, Vec<u32>>::new(), BTreeSet::new(), BTreeSet::new());
    for esp in tap.stop().iter().map(|frame| Kind::esp(frame)) {
        assert!(ivs.insert(esp.iv), "an IV for the second time: {esp:?}");
        lanes.insert(esp.lane());
        numbers.entry(esp.spi).or_default().push(esp.sequence);
    }
    assert_eq!(
        numbers.keys().copied().collect::<Vec<_>>(),
        (1..=GENERATIONS).map(|n| spi(0, n)).collect::<Vec<_>>()
    );
    assert!(lanes.len() >= 2, "both have sealed");
    for (spi, mut numbers) in numbers {
        numbers.sort_unstable();
        let count = numbers.len() as u32;
        assert!(numbers.iter().copied().eq(1..=count), "{spi:#x}: each number once: {numbers:?}");
    }
    for last in stop_both(ends) {
        assert_eq!(drops(&last.json), reasons([]));
    }
}
