//! Limits of SAs, and packets without an SA.

use xdpfwd_lab::Sink;

use crate::support::esp::{Lab, Sender, Setup, Tap, drops, inject, latest, received, spi};
use crate::support::until;
use crate::support::wire::{hex, unhex};
use crate::{SELECT_10_77, drop_counts, drops_during, for_both_sides, reload, stop_both, truncate};

#[test]
fn hard_limit_drops_and_soft_limit_warns_once() {
    const COUNT: u64 = 500;
    let lab = Lab::with_silent_hosts(1);
    let sink = Sink::attach(lab.namespaces.sink(), "sink0").unwrap();
    // The test's IP packets have 86 bytes, so both kinds of limit are equal.
    let packet_limits = "soft_packets = 200\nhard_packets = 300\n";
    let byte_limits = "soft_bytes = 17200\nhard_bytes = 25800\n";
    for (side, lines) in
        [(0, packet_limits), (0, byte_limits), (1, packet_limits), (1, byte_limits)]
    {
        lab.reset();
        let mut setup = Setup { seal_sa: for_both_sides(SELECT_10_77), ..Setup::default() };
        let sas = if side == 0 { &mut setup.seal_sa } else { &mut setup.open_sa };
        sas[side].push_str(lines);
        let before = sink.seen().unwrap().arrived.packets;
        let instances = lab.start(&setup);
        Sender::start(lab.namespaces.gen_(), "gen0", 4_000, 1, Some(COUNT)).finish();
        until("xdpfwd has received all packets", || received(&instances[0], "fwd0") >= COUNT);
        until("the packets above the limit are dropped", || {
            drops(&latest(&instances[side])).values().sum::<u64>() >= COUNT - 300
        });
        let (unit, limit) =
            if lines == packet_limits { ("packets", "200") } else { ("bytes", "17200") };
        let warning = format!("WARN SA {:#x}", spi(0, 1));
        let warnings: Vec<_> = instances[side]
            .forwarder
            .stderr()
            .into_iter()
            .filter(|line| line.contains(&warning))
            .collect();
        assert!(
            warnings.len() == 1 && warnings[0].contains(&format!("soft limit of {limit} {unit}")),
            "{warnings:#?}"
        );
        let reports = stop_both(instances);
        assert_eq!(drops(&reports[side].json), drop_counts([("sa_limit", COUNT - 300)]), "{lines}");
        assert_eq!(drops(&reports[1 - side].json), drop_counts([]), "{lines}");
        assert_eq!(sink.seen().unwrap().arrived.packets - before, 300, "{lines}");
        // The state file stores the counts of outbound SAs only: after a restart, 100 more packets
        // pass an inbound SA.
        let instances = lab.start(&setup);
        Sender::start(lab.namespaces.gen_(), "gen0", 4_000, 1, Some(100)).finish();
        until("xdpfwd has received all packets", || received(&instances[0], "fwd0") >= 100);
        stop_both(instances);
        let expected_total = if side == 0 { 300 } else { 400 };
        assert_eq!(
            sink.seen().unwrap().arrived.packets - before,
            expected_total,
            "{lines}: after a restart"
        );
    }
}

#[test]
fn packets_without_sa_pass_only_with_bypass() {
    // Without the last byte of the EtherType, which is 00 for IPv4 and 06 for ARP.
    let ethernet = "02000000000402000000000108".to_owned();
    let udp = |destination: &str, ports: &str, payload: &str| {
        let packet = format!(
            "{ethernet}00450000240000400040110000c0000201{destination}{ports}00100000{payload}"
        );
        [truncate(&unhex(&packet), 50), vec![0; 10]].concat()
    };
    let neighbor_solicitation = |hop_limit: &str| {
        let addresses = "fe800000000000000000000000000001ff0200000000000000000001ff000002";
        let icmp = "8700000000000000fd770000000000000000000000000002";
        unhex(&format!("02000000000402000000000186dd6000000000183a{hop_limit}{addresses}{icmp}"))
    };
    let arp = "0001080006040001020000000001c0000201000000000000c0000202";
    let frames: [(&str, Vec<u8>); 7] = [
        ("arp", unhex(&format!("{ethernet}06{arp}000000000000000000000000000000000000"))),
        ("nd", neighbor_solicitation("ff")),
        // Not Neighbor Discovery, which requires hop limit 255 (RFC 4861).
        ("nd with hop limit 64", neighbor_solicitation("40")),
        ("ike", udp("c0000202", "01f401f4", "0000000000000001")),
        ("ike", udp("c0000202", "11941194", "0000000000000001")),
        ("not-ip", unhex(&format!("02000000000402000000000188b5{}", "00".repeat(46)))),
        ("other", udp("c0000202", "04000009", "0000000000000001")),
    ];
    let all: Vec<_> = frames.iter().map(|(_, frame)| frame.clone()).collect();
    let lab = Lab::with_silent_hosts(1);
    lab.separate_taps();
    let base = || Setup { bypass: "[]", seal_sa: for_both_sides(SELECT_10_77), ..Setup::default() };
    let instances = lab.start(&base());
    for bypass in ["", "arp", "nd", "ike", "not-ip", "unmatched"] {
        if !bypass.is_empty() {
            let setup = Setup { bypass: format!("[{bypass:?}]").leak(), ..base() };
            for (side, running) in instances.iter().enumerate() {
                reload(&lab, running, &setup, side);
            }
        }
        // For `esp-seal` of xdpfwd 0 and `esp-open` of xdpfwd 1: where the test sends, the port
        // that receives, where passed packets arrive, and the drop reason.
        let stages = [
            (lab.namespaces.gen_(), "gen0", "fwd0", &lab.wire, "tap0", "no_sa"),
            (&lab.wire, "tap1", "wan1", lab.namespaces.sink(), "sink0", "unprotected"),
        ];
        for ((from, entry, interface, to, exit, reason), running) in
            stages.into_iter().zip(&instances)
        {
            // ARP is not IP, so `not-ip` includes it.
            let passes = |name: &str| {
                bypass == "unmatched" || name == bypass || (bypass, name) == ("not-ip", "arp")
            };
            let expected = frames.iter().filter(|(name, _)| passes(name));
            let expected: Vec<_> = expected.map(|(_, frame)| hex(frame)).collect();
            let tap = Tap::start(to, exit);
            let dropped =
                drops_during(running, interface, all.len() as u64, || inject(from, entry, &all));
            let passed: Vec<_> = tap.stop().iter().map(|frame| hex(frame)).collect();
            assert_eq!(passed, expected, "bypass {bypass:?}, {reason}");
            assert_eq!(
                dropped,
                drop_counts([(reason, (all.len() - expected.len()) as u64)]),
                "{bypass}"
            );
        }
    }
    stop_both(instances);
}
