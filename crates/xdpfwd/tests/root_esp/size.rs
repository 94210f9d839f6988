//! Packets that are too big for the MTU after encapsulation, and the TCP MSS.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use xdpfwd_testkit::lab::{ping, sh, try_ping};

use crate::support::esp::{Iperf3Server, Lab, OUTER_6, SINK_ADDRESSES, Setup, Tap, drops};
use crate::support::{TIMEOUT, stderr};
use crate::{drop_counts, for_both_sides, for_side_0, for_side_1, stage_counter, stop_both};

/// Returns the length of the longest inner packet for an outer packet of 1500 bytes: the space
/// between IV and ICV, rounded down to a multiple of four bytes, minus the two-byte trailer.
/// `version` is 0 for IPv4 and 1 for IPv6.
fn max_packet_len(setup: &Setup, version: usize) -> usize {
    const ESP_HEADER_LEN: usize = 8;
    const IV_LEN: usize = 8;
    const ICV_LEN: usize = 16;
    let inner_header = [20, 40][version];
    let outer_header = if setup.transport {
        inner_header
    } else if setup.outer == OUTER_6 {
        40
    } else {
        20
    };
    let udp = if setup.udp { 8 } else { 0 };
    let protected = (1500 - outer_header - udp - ESP_HEADER_LEN - IV_LEN - ICV_LEN) / 4 * 4 - 2;
    if setup.transport { inner_header + protected } else { protected }
}

#[test]
fn too_big_packet_gets_icmp_error_and_tcp_adapts() {
    let lab = Lab::new();
    let server = Iperf3Server::start(&lab);
    let base = Setup::default;
    for setup in
        [base(), Setup { outer: OUTER_6, udp: true, ..base() }, Setup { transport: true, ..base() }]
    {
        lab.reset();
        let instances = lab.start(&setup);
        for version in [0, 1] {
            let (from, to) = (lab.namespaces.gen_(), SINK_ADDRESSES[version]);
            let mtu = max_packet_len(&setup, version);
            // Length of the IP header and the ICMP header.
            let headers_len = [28, 48][version];
            let size_argument = |packet_len: usize| format!("-s{}", packet_len - headers_len);
            let route = || sh(from, &format!("ip route get {to}"));
            ping(from, to, &["-c3", "-i0.005", "-Mdo", &size_argument(mtu)]);
            assert!(!route().contains("mtu"), "{}", route());
            let output = try_ping(from, to, &["-c1", "-W1", "-Mdo", &size_argument(mtu + 1)]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
            let errors = [
                format!("Frag needed and DF set (mtu = {mtu})"),
                format!("Packet too big: mtu={mtu}"),
            ];
            assert!(text.contains(&errors[version]), "{setup:?}: {mtu}: {text}");
            assert!(route().contains(&format!("mtu {mtu}")), "{setup:?}: {}", route());
            // Without a known path MTU, a host first sends TCP packets of 1500 bytes.
            sh(from, "ip route flush cache; ip -6 route flush cache");
            let tap = Tap::start(&lab.wire, "tap0");
            let tcp = server.run_client(&lab, to, &["-n", "2M"]);
            assert!(tcp["sum_sent"]["bytes"].as_u64().unwrap() >= 2 << 20, "{setup:?}: {tcp}");
            assert!(route().contains(&format!("mtu {mtu}")), "{setup:?}: {}", route());
            let longest = tap.stop().iter().map(Vec::len).max().unwrap();
            assert!(
                (1500..=1514).contains(&longest),
                "the longest frame has {longest} bytes, expected 1500 to 1514"
            );
        }
        let [report_0, report_1] = stop_both(instances);
        // Per IP version, at least one error for ping and one for TCP.
        assert!(stage_counter(&report_0.json, "out", "icmp_sent") >= 4, "{}", report_0.json);
        assert_eq!(stage_counter(&report_1.json, "out", "icmp_sent"), 0, "{}", report_1.json);
    }
    lab.reset();
    let lines = "icmp_rate = 0\n";
    let instances = lab.start(&Setup { seal: for_side_0(lines), ..base() });
    let output = try_ping(
        lab.namespaces.gen_(),
        SINK_ADDRESSES[0],
        &["-c3", "-i0.01", "-W1", "-Mdo", "-s1472"],
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("100% packet loss"), "{output:?}");
    let [report_0, _] = stop_both(instances);
    assert_eq!(drops(&report_0.json), drop_counts([("too_big", 3)]));
    // `mtu` lowers the maximum packet length; `icmp_source` is the source of the ICMP error.
    lab.reset();
    let lines = "mtu = 1000\nicmp_source = [\"192.0.2.77\"]\n";
    let instances = lab.start(&Setup { seal: for_side_0(lines), ..base() });
    let output =
        try_ping(lab.namespaces.gen_(), SINK_ADDRESSES[0], &["-c1", "-W1", "-Mdo", "-s1000"]);
    let text = String::from_utf8_lossy(&output.stdout);
    // 946 = 1000 bytes minus outer IP header, ESP header, IV, ICV and trailer.
    assert!(text.contains("From 192.0.2.77 ") && text.contains("(mtu = 946)"), "{text}");
    stop_both(instances);
}

/// Returns the MSS in the first TCP frame that has the SYN flag and announces one.
fn announced_mss(frames: &[Vec<u8>]) -> Option<u16> {
    frames.iter().find_map(|frame| {
        let tcp = match frame[12..14] {
            [0x08, 0x00] if frame[23] == 6 => 34,
            [0x86, 0xdd] if frame[20] == 6 => 54,
            _ => return None,
        };
        let options = &frame[tcp + 20..tcp + 4 * usize::from(frame[tcp + 12] >> 4)];
        let is_syn = frame[tcp + 13] & 2 != 0;
        // Linux writes the MSS as the first option.
        (is_syn && options[..2] == [2, 4]).then(|| u16::from_be_bytes([options[2], options[3]]))
    })
}

#[test]
fn esp_seal_and_esp_open_lower_mss_of_syn() {
    let lab = Lab::new();
    // The MSS over IPv4 and over IPv6 that the SYN packets announce on arrival.
    for (seal, open, mss_at_sink, mss_at_gen) in [
        // By default, the stages do not change the MSS.
        (for_both_sides(""), for_both_sides(""), [1460, 1440], [1460, 1440]),
        (for_side_0("tcp_mss = 1300"), for_side_0("tcp_mss = 1200"), [1300, 1300], [1200, 1200]),
        (
            ["tcp_mss = 9000".to_owned(), "tcp_mss = 900".to_owned()],
            for_side_1("tcp_mss = 1450"),
            [1450, 1440],
            [900, 900],
        ),
    ] {
        lab.reset();
        let instances = lab.start(&Setup { seal, open, ..Setup::default() });
        for version in [0, 1] {
            let address: SocketAddr =
                (SINK_ADDRESSES[version].parse::<std::net::IpAddr>().unwrap(), 7777).into();
            let listener =
                lab.namespaces.sink().run(|| TcpListener::bind(address).unwrap()).unwrap();
            let taps = [(lab.namespaces.sink(), "sink0"), (lab.namespaces.gen_(), "gen0")].map(
                |(host, interface)| {
                    let frames = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
                    let captured = std::sync::Arc::clone(&frames);
                    let capture_incoming = move |frame: &[u8], is_outgoing: bool| {
                        if !is_outgoing {
                            captured.lock().unwrap().push(frame.to_vec());
                        }
                    };
                    (Tap::start_with(host, interface, capture_incoming), frames)
                },
            );
            // The connection succeeds only if the stages correct the checksums of both SYN packets.
            let mut stream = lab
                .namespaces
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
                [Some(mss_at_sink[version]), Some(mss_at_gen[version])],
                "IP version {}",
                [4, 6][version]
            );
        }
        stop_both(instances);
    }
}
