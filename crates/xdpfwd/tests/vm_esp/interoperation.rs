//! Traffic between xdpfwd and Linux with each transform and mode.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use xdpfwd_testkit::process::run;

use crate::case::Version::{V4, V6};
use crate::case::{AES_128, AES_256, CHACHA20, Case, GMAC_128, GMAC_256};
use crate::lab::Lab;
use crate::packets::{UdpPair, message};
use crate::support::{Running, TIMEOUT, XDPFWD};
use crate::{
    LEFT, RIGHT, SETTLE_TIME, SPI_FROM_LINUX, SPI_TO_LINUX, latest, received,
    sequence_number_before_wrap,
};

/// Sends 1 MiB from one host to the other, and compares each byte.
fn assert_tcp_transfers(lab: &Lab, sender: usize) {
    const BYTES: usize = 1 << 20;
    let address =
        SocketAddr::new(lab.case.inner.host_addresses()[1 - sender].parse().unwrap(), 7002);
    let listener = lab.host(1 - sender).run(|| TcpListener::bind(address).unwrap()).unwrap();
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(BYTES / 8)
    .flatten()
    .collect();
    let mut stream =
        lab.host(sender).run(|| TcpStream::connect_timeout(&address, TIMEOUT).unwrap()).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(&bytes).unwrap();
    drop(stream);
    let received = receiver.join().unwrap();
    let equal_len = received.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
    assert_eq!(
        (received.len(), equal_len),
        (BYTES, BYTES),
        "{}: number of received bytes, and of bytes before the first difference",
        lab.case.name()
    );
}

fn assert_interoperates(case: Case) -> Lab {
    let lab = Lab::new(case);
    assert_traffic_passes(&lab);
    lab
}

/// Checks ping, UDP with every padding length, the path MTU, TCP, and the counters of both sides.
fn assert_traffic_passes(lab: &Lab) {
    let name = lab.case.name();
    lab.configure_linux();
    let running = lab.start();
    let [left, right] = lab.case.inner.host_addresses();
    for (side, to) in [(LEFT, right), (RIGHT, left)] {
        let arguments = ["-c3", "-i0.01", "-s100", "-W20", to];
        let output = lab.host(side).command("ping").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let counters = || format!("{}, {:?}", latest(&running), lab.xfrm_stat());
        assert!(text.contains(" 0% packet loss"), "{name}: {text}{}", counters());
    }
    // These lengths need every length of ESP padding.
    let max_payload_len = lab.case.max_packet_len() - lab.case.inner.header_len() - 8;
    let hosts = UdpPair::new(lab);
    for length in (0..12).chain(500..504).chain(max_payload_len - 4..=max_payload_len) {
        for side in [LEFT, RIGHT] {
            hosts.send(side, [length as u32], length);
            let arrived = hosts.receive(1 - side, TIMEOUT);
            assert_eq!(
                arrived,
                Some(message(length as u32, length)),
                "{name}: {length} bytes from side {side}"
            );
        }
    }
    // One byte more is too much, which ICMP errors report to ping. On the right host, Linux sends
    // the error (except over IPv6 in transport mode); on the left host, xdpfwd sends it.
    let linux_reports = lab.case.outer.is_some() || lab.case.inner == V4;
    for (side, to) in [(RIGHT, left)].into_iter().filter(|_| linux_reports).chain([(LEFT, right)]) {
        let arguments = ["-c1", "-W20", "-Mdo", "-s", &(max_payload_len + 1).to_string(), to];
        let output = lab.host(side).command("ping").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let mtu = text.split("mtu").nth(1).unwrap_or_else(|| panic!("{name}: side {side}: {text}"));
        let mtu: String = mtu
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        assert_eq!(mtu, lab.case.max_packet_len().to_string(), "{name}: side {side}: {text}");
    }
    for side in [LEFT, RIGHT] {
        assert_tcp_transfers(lab, side);
    }
    wait_until_settled(&running);
    let linux_counters = [SPI_TO_LINUX, SPI_FROM_LINUX].map(|spi| lab.linux_sa_counters(spi));
    assert_eq!(
        [SPI_TO_LINUX, SPI_FROM_LINUX].map(|spi| lab.xdpfwd_sa_counters(spi)),
        linux_counters,
        "{name}: xdpfwd and Linux count different numbers of bytes or packets"
    );
    let final_report = lab.assert_dropped(running, &[]);
    lab.assert_xfrm_stat(&[]);
    let packets = linux_counters.map(|(_, packets)| packets);
    if !lab.case.has_ipv6() {
        // Without IPv6, all packets between xdpfwd and Linux are encapsulated.
        let wan = &final_report.parsed.ports[1];
        assert_eq!([wan.tx_packets, wan.rx_packets], packets, "{name}: {}", final_report.json);
    }
    println!("case: {name}: {packets:?} packets");
}

/// Waits until xdpfwd receives no packet for [`SETTLE_TIME`].
fn wait_until_settled(running: &Running) {
    let received = || received(&latest(running));
    let mut previous = received();
    let mut since = Instant::now();
    while since.elapsed() < SETTLE_TIME {
        thread::sleep(Duration::from_millis(20));
        let now = received();
        if now != previous {
            (previous, since) = (now, Instant::now());
        }
    }
}

#[test]
fn aes_gcm_interoperates_with_and_without_esn() {
    for transform in [AES_128, AES_256] {
        assert_interoperates(Case::new(transform, V4, Some(V4)));
        assert_interoperates(Case::new(transform, V4, Some(V4)).without_esn());
    }
}

#[test]
fn chacha20_and_gmac_interoperate() {
    for transform in [CHACHA20, GMAC_128, GMAC_256] {
        assert_interoperates(Case::new(transform, V4, Some(V4)));
    }
    // GMAC authenticates different data from GCM, so test it without ESN too.
    assert_interoperates(Case::new(GMAC_128, V4, Some(V4)).without_esn());
}

#[test]
fn tunnels_interoperate_in_each_ip_version_pair() {
    assert_interoperates(Case::new(AES_128, V6, Some(V6)));
    assert_interoperates(Case::new(AES_128, V4, Some(V6)));
    assert_interoperates(Case::new(AES_128, V6, Some(V4)));
}

#[test]
fn transport_mode_interoperates() {
    assert_interoperates(Case::new(AES_128, V4, None));
    assert_interoperates(Case::new(AES_256, V6, None));
}

#[test]
fn udp_encapsulation_interoperates() {
    assert_interoperates(Case::ipv4_tunnel().in_udp());
    assert_interoperates(Case::new(AES_128, V6, Some(V6)).in_udp());
}

#[test]
fn key_and_state_files_that_xdpfwd_created_interoperate() {
    let mut lab = Lab::new(Case::new(AES_256, V4, Some(V4)));
    for (index, name) in ["out.key", "in.key"].into_iter().enumerate() {
        let path = lab.file(name);
        fs::remove_file(&path).unwrap();
        run(Command::new(XDPFWD)
            .args(["esp", "new-key", "--transform", lab.case.transform.name])
            .arg(&path));
        let key = fs::read_to_string(&path).unwrap().trim().trim_start_matches("0x").to_owned();
        assert_eq!(key.len(), 2 * lab.case.transform.key_len, "{name}");
        lab.keys[index] = key;
    }
    assert_ne!(lab.keys[0], lab.keys[1]);
    fs::remove_file(lab.file("state")).unwrap();
    run(Command::new(XDPFWD).args(["esp", "new-state"]).arg(lab.file("state")));
    assert_traffic_passes(&lab);
}

#[test]
fn sequence_numbers_beyond_32_bits_interoperate() {
    for (transform, upper) in [(AES_128, 0), (GMAC_128, 5)] {
        // The wrap is 316 sequence numbers after `start`. The test traffic uses more numbers.
        let start = sequence_number_before_wrap(upper) - 300;
        let mut case = Case::new(transform, V4, Some(V4));
        let lower = (start - 1) & 0xffff_ffff;
        case.linux_in = format!("replay-seq {lower} replay-seq-hi {upper}");
        case.linux_out = format!("replay-oseq {lower} replay-oseq-hi {upper}");
        let lab = Lab::new(case);
        lab.write_state(&[("next", start), ("highest", start - 1)]);
        assert_traffic_passes(&lab);
        let packets = [SPI_TO_LINUX, SPI_FROM_LINUX].map(|spi| lab.linux_sa_counters(spi).1);
        assert!(
            packets.iter().all(|count| start + count > (upper + 1) << 32),
            "{packets:?} packets do not cross the 32-bit wrap"
        );
        assert_eq!(lab.state_value("next"), start + packets[0], "{}", lab.case.name());
        assert_eq!(lab.state_value("highest"), start - 1 + packets[1], "{}", lab.case.name());
        println!("case: {}: from {start:#x} on, {packets:?} packets", lab.case.name());
    }
}
