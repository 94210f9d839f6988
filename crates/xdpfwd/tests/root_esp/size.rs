//! Packets that are too big, and the TCP MSS.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use xdpfwd_testkit::lab::{ping, sh, try_ping};

use crate::support::esp::{B, Lab, OUTER_6, Server, Setup, Tap, drops};
use crate::support::{TIMEOUT, stderr};
use crate::{both, counter, first, reasons, second, stop_both};

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
    let protected = (1500 - outer - udp - 8 - 8 - 16) / 4 * 4 - 2;
    if setup.transport { inner + protected } else { protected }
}

#[test]
fn too_big_packet_gets_icmp_error_and_tcp_adapts() {
    let lab = Lab::new();
    let server = Server::start(&lab);
    let base = Setup::default;
    for setup in
        [base(), Setup { outer: OUTER_6, udp: true, ..base() }, Setup { transport: true, ..base() }]
    {
        lab.reset();
        let ends = lab.start(&setup);
        for version in [0, 1] {
            let (from, to) = (lab.chain.gen_(), B[version]);
            let mtu = largest(&setup, version);
            let headers = [28, 48][version];
            let size = |packet: usize| format!("-s{}", packet - headers);
            let route = || sh(from, &format!("ip route get {to}"));
            // The largest packet passes without an ICMP message.
            ping(from, to, &["-c3", "-i0.005", "-Mdo", &size(mtu)]);
            assert!(!route().contains("mtu"), "{}", route());
            // One byte more is rejected.
            let output = try_ping(from, to, &["-c1", "-W1", "-Mdo", &size(mtu + 1)]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
            let errors = [
                format!("Frag needed and DF set (mtu = {mtu})"),
                format!("Packet too big: mtu={mtu}"),
            ];
            assert!(text.contains(&errors[version]), "{setup:?}: {mtu}: {text}");
            assert!(route().contains(&format!("mtu {mtu}")), "{setup:?}: {}", route());
            // A host without path MTU information sends segments for packets of 1500 bytes.
            sh(from, "ip route flush cache; ip -6 route flush cache");
            let tap = Tap::on(&lab.wire, "tap0");
            let moved = server.run_client(&lab, to, &["-n", "2M"]);
            assert!(moved["sum_sent"]["bytes"].as_u64().unwrap() >= 2 << 20, "{setup:?}: {moved}");
            assert!(route().contains(&format!("mtu {mtu}")), "{setup:?}: {}", route());
            let longest = tap.stop().iter().map(Vec::len).max().unwrap();
            assert!(
                (1500..=1514).contains(&longest),
                "the longest frame is {longest} bytes, not full or too long"
            );
        }
        let [one, two] = stop_both(ends);
        assert!(counter(&one.json, "out", "icmp_sent") >= 4, "{}", one.json);
        assert_eq!(counter(&two.json, "out", "icmp_sent"), 0, "{}", two.json);
    }
    // With ICMP disabled, drops are silent; a smaller MTU allows only smaller packets; the ICMP
    // source address is configurable.
    lab.reset();
    let lines = "icmp_rate = 0\n";
    let ends = lab.start(&Setup { seal: first(lines), ..base() });
    let output = try_ping(lab.chain.gen_(), B[0], &["-c3", "-i0.01", "-W1", "-Mdo", "-s1472"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("100% packet loss"), "{output:?}");
    let [one, _] = stop_both(ends);
    assert_eq!(drops(&one.json), reasons([("too_big", 3)]));
    lab.reset();
    let lines = "mtu = 1000\nicmp_source = [\"192.0.2.77\"]\n";
    let ends = lab.start(&Setup { seal: first(lines), ..base() });
    let output = try_ping(lab.chain.gen_(), B[0], &["-c1", "-W1", "-Mdo", "-s1000"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("From 192.0.2.77 ") && text.contains("(mtu = 946)"), "{text}");
    stop_both(ends);
}

/// Returns the MSS announced in the first received frame with the SYN flag.
fn announced_mss(frames: &[Vec<u8>]) -> Option<u16> {
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
fn both_stages_lower_mss_of_syn() {
    let lab = Lab::new();
    let mss = |line: &str| line.to_owned();
    for (seal, open, forth, back) in [
        // By default, the MSS of the host's interface stays.
        (both(""), both(""), [1460, 1440], [1460, 1440]),
        (first("tcp_mss = 1300"), first("tcp_mss = 1200"), [1300, 1300], [1200, 1200]),
        (
            [mss("tcp_mss = 9000"), mss("tcp_mss = 900")],
            second("tcp_mss = 1450"),
            [1450, 1440],
            [900, 900],
        ),
    ] {
        lab.reset();
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
                .run(|| TcpStream::connect_timeout(&address, TIMEOUT).unwrap())
                .unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            let seen = taps.map(|(tap, frames)| {
                tap.stop();
                announced_mss(&frames.lock().unwrap())
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
