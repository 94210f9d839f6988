//! Forwarding in each encapsulation, and capture contents.

use std::path::Path;
use std::process::Command;

use xdpfwd_testkit::lab::{ping, sh};
use xdpfwd_testkit::process::run;

use crate::stop_both;
use crate::support::esp::{
    A, B, Kind, Lab, OUTER_6, Server, Setup, Tap, drops, key, kinds, pcap, spi,
};
use crate::support::wire::hex;

/// Both inner IP versions in each encapsulation, with ping, TCP and UDP. Captures contain only ESP,
/// ARP and, with `bypass`, Neighbor Discovery.
#[test]
fn both_ip_versions_pass_in_each_encapsulation() {
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
    // iperf3's socket may overflow on a busy machine; xdpfwd did not lose these packets.
    let receive_overflows = || {
        let count = |host| {
            let text = sh(host, "nstat -asz UdpRcvbufErrors Udp6RcvbufErrors");
            text.lines()
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        };
        count(lab.chain.gen_()) + count(lab.chain.sink())
    };
    for setup in setups {
        lab.reset();
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
                let moved =
                    server.run_client(&lab, B[version], &[&["-n", "2M"], direction].concat());
                assert!(
                    moved["sum_sent"]["bytes"].as_u64().unwrap() >= 2 << 20,
                    "{setup:?}: {moved}"
                );
                // 2000 packets per second for half a second.
                let udp = ["--udp", "-l", "1200", "-b", "19.2M", "-k", "1000"];
                let before = receive_overflows();
                let arrived = server.run_client(&lab, B[version], &[&udp[..], direction].concat());
                assert!(
                    arrived["sum"]["packets"].as_u64().unwrap() >= 1000,
                    "{setup:?}: {arrived}"
                );
                let lost = arrived["sum"]["lost_packets"].as_u64().unwrap();
                assert!(lost <= receive_overflows() - before, "{setup:?}: {lost} lost: {arrived}");
            }
        }
        let [one, two] = stop_both(ends);
        for last in [&one, &two] {
            let mut drops = drops(&last.json);
            // TCP exceeds the rate of the UDP test, and starts with packets that are too big.
            for of_tcp in ["too_big", "egress_full"] {
                drops.remove(of_tcp);
            }
            assert!(drops.is_empty(), "{setup:?}: {drops:?}");
        }
        let frames = tap.stop();
        let mut seen = kinds(&frames);
        let expected = if setup.udp { "esp in udp" } else { "esp" };
        assert!(
            seen.remove(expected).unwrap() > 8 * 1000 && seen.remove("arp").is_some(),
            "{setup:?}: {seen:?}"
        );
        assert_eq!(seen.remove("nd").is_some(), setup.bypass == nd, "{setup:?}: {seen:?}");
        assert!(seen.is_empty(), "{setup:?}: unexpected packets: {seen:?}");
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

/// Returns tshark's fields of each ESP packet of a capture, with the keys of both directions.
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

/// Of xdpfwd's transforms, tshark 4.0 supports AES-GCM with 32-bit sequence numbers. With extended
/// ones, it decrypts but reports a wrong ICV.
#[test]
fn tshark_decrypts_packets_and_verifies_icv() {
    const PINGS: usize = 10;
    let lab = Lab::new();
    let base = Setup::default;
    for setup in [
        Setup { esn: false, ..base() },
        Setup { esn: false, transform: "aes-256-gcm", outer: OUTER_6, udp: true, ..base() },
        base(),
    ] {
        lab.reset();
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
