//! Limits of SAs, and packets without an SA.

use xdpfwd_lab::Sink;

use crate::support::esp::{Lab, Sender, Setup, Tap, drops, inject, latest, received, spi};
use crate::support::until;
use crate::support::wire::{hex, unhex};
use crate::{ONLY_10_77, both, drops_during, reasons, reload, stop_both, truncate};

#[test]
fn hard_limit_drops_and_soft_limit_warns_once() {
    const COUNT: u64 = 500;
    let lab = Lab::quiet(1);
    let sink = Sink::attach(lab.chain.sink(), "sink0").unwrap();
    // Of 100 bytes in a frame, 86 are the IP packet.
    let packets = "soft_packets = 200\nhard_packets = 300\n";
    let bytes = "soft_bytes = 17200\nhard_bytes = 25800\n";
    for (side, lines) in [(0, packets), (0, bytes), (1, packets), (1, bytes)] {
        lab.reset();
        let mut setup = Setup { seal_sa: both(ONLY_10_77), ..Setup::default() };
        let sas = if side == 0 { &mut setup.seal_sa } else { &mut setup.open_sa };
        sas[side].push_str(lines);
        let before = sink.seen().unwrap().arrived.packets;
        let ends = lab.start(&setup);
        Sender::start(lab.chain.gen_(), "gen0", 4_000, 1, Some(COUNT)).finish();
        until("xdpfwd has received all packets", || received(&ends[0], "fwd0") >= COUNT);
        until("the packets beyond the limit are dropped", || {
            drops(&latest(&ends[side])).values().sum::<u64>() >= COUNT - 300
        });
        let (unit, limit) = if lines == packets { ("packets", "200") } else { ("bytes", "17200") };
        let soft = format!("WARN SA {:#x}", spi(0, 1));
        let warned: Vec<_> =
            ends[side].forwarder.stderr().into_iter().filter(|line| line.contains(&soft)).collect();
        assert!(
            warned.len() == 1 && warned[0].contains(&format!("soft limit of {limit} {unit}")),
            "{warned:#?}"
        );
        let finals = stop_both(ends);
        assert_eq!(drops(&finals[side].json), reasons([("sa_limit", COUNT - 300)]), "{lines}");
        assert_eq!(drops(&finals[1 - side].json), reasons([]), "{lines}");
        assert_eq!(sink.seen().unwrap().arrived.packets - before, 300, "{lines}");
        // The state file keeps the counts of outbound SAs, not of inbound SAs.
        let ends = lab.start(&setup);
        Sender::start(lab.chain.gen_(), "gen0", 4_000, 1, Some(100)).finish();
        until("xdpfwd has received all packets", || received(&ends[0], "fwd0") >= 100);
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
fn packets_without_sa_pass_only_with_bypass() {
    let ethernet = "02000000000402000000000108".to_owned();
    let udp = |to: &str, ports: &str, payload: &str| {
        let packet =
            format!("{ethernet}00450000240000400040110000c0000201{to}{ports}00100000{payload}");
        [truncate(&unhex(&packet), 50), vec![0; 10]].concat()
    };
    let v6 = |hop_limit: &str| {
        let addresses = "fe800000000000000000000000000001ff0200000000000000000001ff000002";
        let solicitation = "8700000000000000fd770000000000000000000000000002";
        unhex(&format!(
            "02000000000402000000000186dd6000000000183a{hop_limit}{addresses}{solicitation}"
        ))
    };
    let arp = "0001080006040001020000000001c0000201000000000000c0000202";
    let frames: [(&str, Vec<u8>); 7] = [
        ("arp", unhex(&format!("{ethernet}06{arp}000000000000000000000000000000000000"))),
        ("nd", v6("ff")),
        ("nd with hop limit 64", v6("40")),
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
        // At esp-seal and at esp-open.
        let stages = [
            (lab.chain.gen_(), "gen0", "fwd0", &lab.wire, "tap0", "no_sa"),
            (&lab.wire, "tap1", "wan1", lab.chain.sink(), "sink0", "unprotected"),
        ];
        for ((from, entry, port, to, exit, reason), running) in stages.into_iter().zip(&ends) {
            // ARP is not IP, so `not-ip` includes it.
            let passes = |name: &str| {
                bypass == "unmatched" || name == bypass || (bypass, name) == ("not-ip", "arp")
            };
            let expected = frames.iter().filter(|(name, _)| passes(name));
            let expected: Vec<_> = expected.map(|(_, frame)| hex(frame)).collect();
            let tap = Tap::on(to, exit);
            let dropped =
                drops_during(running, port, all.len() as u64, || inject(from, entry, &all));
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
