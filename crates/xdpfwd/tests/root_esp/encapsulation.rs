//! Forwards packets in each encapsulation, and checks the packets captured on the wire.

use std::path::Path;
use std::process::Command;

use xdpfwd_testkit::lab::{ping, sh};
use xdpfwd_testkit::process::run;

use crate::stop_both;
use crate::support::esp::{
    GEN_ADDRESSES, Iperf3Server, Kind, Lab, OUTER_6, SINK_ADDRESSES, Setup, Tap, count_kinds,
    drops, key, spi, write_pcap,
};
use crate::support::wire::hex;

/// The wire carries only ESP and ARP, and Neighbor Discovery if `bypass` allows it.
#[test]
fn both_ip_versions_pass_in_each_encapsulation() {
    let lab = Lab::new();
    let server = Iperf3Server::start(&lab);
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
    // Returns the packets that overflowed the sockets of iperf3, as happens on a busy machine.
    let receive_overflows = || {
        let count = |host| {
            let text = sh(host, "nstat -asz UdpRcvbufErrors Udp6RcvbufErrors");
            text.lines()
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        };
        count(lab.namespaces.gen_()) + count(lab.namespaces.sink())
    };
    for setup in setups {
        lab.reset();
        for host in [lab.namespaces.gen_(), lab.namespaces.sink()] {
            // Makes the hosts send ARP and Neighbor Discovery requests.
            sh(host, "ip neigh flush all");
        }
        let tap = Tap::start(&lab.wire, "tap0");
        let instances = lab.start(&setup);
        // 0 for IPv4, 1 for IPv6.
        for version in [0, 1] {
            for (from, to) in
                [(lab.namespaces.gen_(), SINK_ADDRESSES), (lab.namespaces.sink(), GEN_ADDRESSES)]
            {
                ping(from, to[version], &["-c20", "-i0.005", "-s56"]);
                ping(from, to[version], &["-c10", "-i0.005", "-s1200"]);
            }
            for direction in [&[][..], &["--reverse"]] {
                let tcp = server.run_client(
                    &lab,
                    SINK_ADDRESSES[version],
                    &[&["-n", "2M"], direction].concat(),
                );
                assert!(tcp["sum_sent"]["bytes"].as_u64().unwrap() >= 2 << 20, "{setup:?}: {tcp}");
                // 2000 packets per second for half a second.
                let udp_arguments = ["--udp", "-l", "1200", "-b", "19.2M", "-k", "1000"];
                let before = receive_overflows();
                let udp = server.run_client(
                    &lab,
                    SINK_ADDRESSES[version],
                    &[&udp_arguments[..], direction].concat(),
                );
                assert!(udp["sum"]["packets"].as_u64().unwrap() >= 1000, "{setup:?}: {udp}");
                let lost = udp["sum"]["lost_packets"].as_u64().unwrap();
                assert!(lost <= receive_overflows() - before, "{setup:?}: {lost} lost: {udp}");
            }
        }
        let [report_0, report_1] = stop_both(instances);
        for final_report in [&report_0, &report_1] {
            let mut drops = drops(&final_report.json);
            // Expected: TCP first sends packets that are too big, and fills queues.
            for reason in ["too_big", "egress_full"] {
                drops.remove(reason);
            }
            assert!(drops.is_empty(), "{setup:?}: {drops:?}");
        }
        let frames = tap.stop();
        let mut counts = count_kinds(&frames);
        let expected = if setup.udp { "esp in udp" } else { "esp" };
        assert!(
            counts.remove(expected).unwrap() > 8 * 1000 && counts.remove("arp").is_some(),
            "{setup:?}: {counts:?}"
        );
        assert_eq!(counts.remove("nd").is_some(), setup.bypass == nd, "{setup:?}: {counts:?}");
        assert!(counts.is_empty(), "{setup:?}: unexpected packets: {counts:?}");
        for frame in &frames {
            if let Kind::Esp(esp) = Kind::of(frame) {
                // The source MAC address ends with 1 (gen0) or 4 (sink0). Each side has one SA.
                let side = usize::from(frame[11] == 4);
                assert_eq!(
                    (frame[6..11].to_vec(), esp.spi),
                    (vec![2, 0, 0, 0, 0], spi(side, 1)),
                    "{}",
                    hex(frame)
                );
                let outer_version = if setup.outer == OUTER_6 { 6 } else { 4 };
                assert!(
                    setup.transport || esp.version == outer_version,
                    "{setup:?}: {}",
                    hex(frame)
                );
            }
        }
    }
}

/// Decodes a capture with tshark. Returns the values of `fields` for each ESP packet.
fn decode_with_tshark(path: &Path, setup: &Setup, keys: [String; 2]) -> Vec<Vec<String>> {
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

/// Uses AES-GCM, which tshark 4.0 supports only with 32-bit sequence numbers. With longer ones, it
/// decrypts packets but reports a wrong ICV.
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
        let tap = Tap::start(&lab.wire, "tap0");
        let instances = lab.start(&setup);
        for version in [0, 1] {
            ping(lab.namespaces.gen_(), SINK_ADDRESSES[version], &["-c10", "-i0.005"]);
        }
        stop_both(instances);
        let path = lab.folder.join("wire.pcap");
        let frames = tap.stop();
        write_pcap(&path, &frames);
        let keys = [0, 1].map(|side| key(spi(side, 1), setup.transform));
        let packets = decode_with_tshark(&path, &setup, keys.clone());
        let esp_count =
            frames.iter().filter(|frame| matches!(Kind::of(frame), Kind::Esp(_))).count();
        assert_eq!(packets.len(), esp_count, "{setup:?}");
        let count = |matches: &dyn Fn(&Vec<String>) -> bool| {
            packets.iter().filter(|fields| matches(fields)).count()
        };
        // Echo requests from side 0 and replies from side 1, of each IP version.
        for (column, icmp_type, side) in [(3, "8", 0), (3, "0", 1), (5, "128", 0), (5, "129", 1)] {
            let spi = format!("{:#010x}", spi(side, 1));
            assert_eq!(
                count(&|fields| fields[0] == spi && fields[column] == icmp_type),
                PINGS,
                "{setup:?}: {packets:#?}"
            );
        }
        let valid_icv_count = count(&|fields| fields[2] == "1");
        assert_eq!(
            valid_icv_count,
            if setup.esn { 0 } else { esp_count },
            "{setup:?}: {packets:#?}"
        );
        if setup.udp {
            // With wrong keys, the decrypted bytes are random: one packet in 256 has protocol ICMP.
            let wrong_keys = keys.map(|key| "00".to_owned() + &key[2..]);
            let packets = decode_with_tshark(&path, &setup, wrong_keys);
            assert!(packets.iter().all(|fields| fields[2] != "1"), "{packets:#?}");
            assert!(
                packets.iter().filter(|fields| fields[3] == "8").count() < PINGS,
                "{packets:#?}"
            );
        }
    }
}
