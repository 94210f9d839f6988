//! Replayed, late and corrupted packets, and the queue of an inbound SA.

use std::time::{SystemTime, UNIX_EPOCH};

use xdpfwd_lab::Sink;
use xdpfwd_testkit::random_filter::SplitMix64;

use crate::support::esp::{
    Esp, Kind, Lab, OUTER_6, Sender, Setup, Tap, drops, inject, kinds, received,
};
use crate::support::wire::hex;
use crate::support::{Running, until};
use crate::{ONLY_10_77, both, drops_of, first, reasons, stop, stop_both, truncate};

/// Encapsulates packets in the first xdpfwd, with the wire cut, and returns the ESP frames.
fn encapsulate(lab: &Lab, sender: &Running, first: u64, count: u64) -> Vec<Vec<u8>> {
    let before = received(sender, "fwd0");
    let tap = Tap::on(&lab.wire, "tap0");
    Sender::start(lab.chain.gen_(), "gen0", 20_000, first, Some(count)).finish();
    until("xdpfwd has received all packets", || received(sender, "fwd0") >= before + count);
    until("all ESP packets are captured", || tap.count() >= count);
    let frames = tap.stop();
    assert_eq!(frames.len() as u64, count, "{:?}", kinds(&frames));
    for (frame, number) in frames.iter().zip(first..) {
        let sequence = u64::from(Kind::esp(frame).sequence);
        assert_eq!(sequence, number, "sequence numbers, without gaps: {}", hex(frame));
    }
    frames
}

/// Creates a lab with the wire cut, an xdpfwd at each end, and a sink. The hosts send no packets of
/// their own.
fn lab_with_wire_cut(setup: &Setup) -> (Lab, [Running; 2], Sink) {
    let lab = Lab::quiet(1);
    lab.cut();
    let ends = lab.start(setup);
    let sink = Sink::builder().check(true).attach(lab.chain.sink(), "sink0").unwrap();
    (lab, ends, sink)
}

#[test]
fn replayed_and_late_packets_are_dropped() {
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
        let (lab, [one, two], sink) = lab_with_wire_cut(&setup);
        let arrived = || sink.seen().unwrap().arrived.packets;
        let frames = encapsulate(&lab, &one, 1, COUNT);
        assert_eq!(drops_of(&lab, &two, &frames), reasons([]));
        assert_eq!(arrived(), COUNT);
        assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
        // Replayed in the same order: numbers in the window are replays, numbers below it are late.
        // With ESN, the receiver infers the next upper half for a number below the window (RFC
        // 4303, appendix A), so the ICV is wrong.
        let late = if setup.esn { "bad_tag" } else { "late" };
        let behind = COUNT.saturating_sub(window);
        assert_eq!(
            drops_of(&lab, &two, &frames),
            reasons([(late, behind), ("replay", COUNT - behind)])
        );
        // In reverse order, new packets are accepted within the window.
        let frames: Vec<_> = encapsulate(&lab, &one, COUNT + 1, 200);
        let behind = 200u64.saturating_sub(window);
        assert_eq!(drops_of(&lab, &two, frames.iter().rev()), reasons([(late, behind)]));
        assert_eq!(arrived(), COUNT + 200 - behind);
        // A restarted xdpfwd restores its window.
        stop(two);
        let two = lab.start_one(&setup, 1);
        let behind_now = 200u64.saturating_sub(window);
        assert_eq!(
            drops_of(&lab, &two, &frames),
            reasons([(late, behind_now), ("replay", 200 - behind_now)])
        );
        assert_eq!(arrived(), COUNT + 200 - behind, "packets at the sink after a replay");
        // It accepts new packets.
        let frames = encapsulate(&lab, &one, COUNT + 201, 10);
        assert_eq!(drops_of(&lab, &two, &frames), reasons([]));
        assert_eq!(arrived(), COUNT + 210 - behind);
        assert_eq!(drops(&stop(one).json), reasons([]));
        stop(two);
    }
}

#[test]
fn corrupted_packets_are_dropped_and_window_stays() {
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
        let (lab, [one, two], sink) = lab_with_wire_cut(&setup);
        let frames = encapsulate(&lab, &one, 1, COUNT);
        let mut corrupted = vec![];
        for frame in frames.iter().cycle().take(3 * frames.len()) {
            let Esp { at, end, .. } = Kind::esp(frame);
            let bit = random.draw() as usize % (8 * (end - at));
            let mut frame = frame.clone();
            frame[at + bit / 8] ^= 1 << (bit % 8);
            corrupted.push(frame);
        }
        let dropped = drops_of(&lab, &two, &corrupted);
        assert_eq!(dropped.values().sum::<u64>(), corrupted.len() as u64, "{dropped:?}");
        let known = ["bad_tag", "no_sa", "late", "bad_length"];
        assert!(dropped.keys().all(|reason| known.contains(&reason.as_str())), "{dropped:?}");
        // Nearly every byte is in the ICV or covered by it.
        assert!(dropped["bad_tag"] * 10 > 8 * corrupted.len() as u64, "{dropped:?}");
        if Kind::esp(&frames[0]).version == 4 && !setup.udp {
            // Every length, down to an IP header without payload.
            let short: Vec<_> =
                (34..frames[0].len()).map(|length| truncate(&frames[0], length)).collect();
            let dropped = drops_of(&lab, &two, &short);
            assert_eq!(dropped.values().sum::<u64>(), short.len() as u64, "{dropped:?}");
            let known = ["bad_tag", "bad_length", "malformed", "no_sa"];
            assert!(dropped.keys().all(|reason| known.contains(&reason.as_str())), "{dropped:?}");
            assert!(dropped["bad_tag"] > 0 && dropped["bad_length"] > 0, "{dropped:?}");
        }
        assert_eq!(sink.seen().unwrap().arrived.packets, 0, "corrupted packets at the sink");
        // The window has not moved.
        assert_eq!(drops_of(&lab, &two, &frames), reasons([]));
        let seen = sink.seen().unwrap();
        assert!(seen.arrived.packets == COUNT && seen.is_clean(), "{seen:?}");
        stop_both([one, two]);
    }
}

/// All packets between two gateways are one flow, which a NIC delivers to one queue.
#[test]
fn inbound_sa_belongs_to_worker_of_its_queue() {
    const COUNT: u64 = 100;
    let lab = Lab::quiet(2);
    lab.cut();
    let sink = Sink::builder().check(true).attach(lab.chain.gen_(), "gen0").unwrap();
    let mut outcomes = vec![];
    for queue in [0, 1] {
        lab.reset();
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
        // All ESP packets arrive on the same queue, in one of the two runs on the configured one.
        let sender = Sender::start(lab.chain.sink(), "sink0", 2_000, 1, None);
        tap.wait_for(COUNT);
        sender.stop();
        inject(&lab.wire, "tap0", &tap.stop()[..COUNT as usize]);
        until("xdpfwd has received all packets", || received(&one, "wan0") >= COUNT);
        let [one, _] = stop_both([one, two]);
        outcomes.push((sink.seen().unwrap().arrived.packets - before, drops(&one.json)));
    }
    outcomes.sort();
    assert_eq!(outcomes, [(0, reasons([("wrong_queue", COUNT)])), (COUNT, reasons([]))]);
}
