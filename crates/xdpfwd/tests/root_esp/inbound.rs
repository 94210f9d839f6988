//! Replayed, late and corrupted packets, and packets on a queue other than that of their SA.

use std::time::{SystemTime, UNIX_EPOCH};

use xdpfwd_lab::Sink;
use xdpfwd_testkit::random_filter::SplitMix64;

use crate::support::esp::{
    Esp, Kind, Lab, OUTER_6, Sender, Setup, Tap, count_kinds, drops, inject, received,
};
use crate::support::wire::hex;
use crate::support::{Running, until};
use crate::{
    SELECT_10_77, drop_counts, drops_of, for_both_sides, for_side_0, stop, stop_both, truncate,
};

/// Sends `count` packets through xdpfwd 0, and returns the ESP frames, captured on tap0. Call
/// `Lab::separate_taps` before, so that the ESP frames do not reach xdpfwd 1. `first` must be the
/// next sequence number of the SA.
pub(super) fn encapsulate(lab: &Lab, xdpfwd_0: &Running, first: u64, count: u64) -> Vec<Vec<u8>> {
    let before = received(xdpfwd_0, "fwd0");
    let tap = Tap::start(&lab.wire, "tap0");
    Sender::start(lab.namespaces.gen_(), "gen0", 20_000, first, Some(count)).finish();
    until("xdpfwd has received all packets", || received(xdpfwd_0, "fwd0") >= before + count);
    until("all ESP packets are captured", || tap.count() >= count);
    let frames = tap.stop();
    assert_eq!(frames.len() as u64, count, "{:?}", count_kinds(&frames));
    for (frame, number) in frames.iter().zip(first..) {
        let sequence = u64::from(Kind::expect_esp(frame).sequence);
        assert_eq!(sequence, number, "gap in the sequence numbers: {}", hex(frame));
    }
    frames
}

/// Starts both xdpfwds in a lab whose hosts send nothing by themselves. The wire is cut.
fn lab_with_separate_taps(setup: &Setup) -> (Lab, [Running; 2], Sink) {
    let lab = Lab::with_silent_hosts(1);
    lab.separate_taps();
    let instances = lab.start(setup);
    let sink = Sink::builder().check(true).attach(lab.namespaces.sink(), "sink0").unwrap();
    (lab, instances, sink)
}

#[test]
fn replayed_and_late_packets_are_dropped() {
    const COUNT: u64 = 400;
    let base = || Setup { seal_sa: for_both_sides(SELECT_10_77), ..Setup::default() };
    for (window, setup) in [
        (1024, base()),
        (
            64,
            Setup {
                esn: false,
                open_sa: for_both_sides("window = 64\n"),
                transform: "chacha20-poly1305",
                udp: true,
                ..base()
            },
        ),
        (
            128,
            Setup {
                transport: true,
                open_sa: for_both_sides("window = 128\n"),
                transform: "null-aes-128-gmac",
                ..base()
            },
        ),
    ] {
        let (lab, [xdpfwd_0, xdpfwd_1], sink) = lab_with_separate_taps(&setup);
        let arrived = || sink.seen().unwrap().arrived.packets;
        let frames = encapsulate(&lab, &xdpfwd_0, 1, COUNT);
        assert_eq!(drops_of(&lab, &xdpfwd_1, &frames), drop_counts([]));
        assert_eq!(arrived(), COUNT);
        assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
        // Numbers in the window are replays; lower numbers are late. With ESN, the receiver takes a
        // number below the window for one that is 2^32 higher (RFC 4303, appendix A), so the ICV is
        // wrong.
        let late_reason = if setup.esn { "bad_tag" } else { "late" };
        let below_window = COUNT.saturating_sub(window);
        assert_eq!(
            drops_of(&lab, &xdpfwd_1, &frames),
            drop_counts([(late_reason, below_window), ("replay", COUNT - below_window)])
        );
        // In reverse order, packets in the window are accepted.
        let frames: Vec<_> = encapsulate(&lab, &xdpfwd_0, COUNT + 1, 200);
        let below_window = 200u64.saturating_sub(window);
        assert_eq!(
            drops_of(&lab, &xdpfwd_1, frames.iter().rev()),
            drop_counts([(late_reason, below_window)])
        );
        assert_eq!(arrived(), COUNT + 200 - below_window);
        // After a restart, the receiver has the same window.
        stop(xdpfwd_1);
        let xdpfwd_1 = lab.start_one(&setup, 1);
        assert_eq!(
            drops_of(&lab, &xdpfwd_1, &frames),
            drop_counts([(late_reason, below_window), ("replay", 200 - below_window)])
        );
        assert_eq!(
            arrived(),
            COUNT + 200 - below_window,
            "a replayed packet arrived at the sink after the restart"
        );
        let frames = encapsulate(&lab, &xdpfwd_0, COUNT + 201, 10);
        assert_eq!(drops_of(&lab, &xdpfwd_1, &frames), drop_counts([]));
        assert_eq!(arrived(), COUNT + 210 - below_window);
        assert_eq!(drops(&stop(xdpfwd_0).json), drop_counts([]));
        stop(xdpfwd_1);
    }
}

#[test]
fn corrupted_packets_are_dropped_and_do_not_move_window() {
    const COUNT: u64 = 200;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = SplitMix64::new(seed);
    let base = || Setup { seal_sa: for_both_sides(SELECT_10_77), ..Setup::default() };
    for setup in [
        base(),
        Setup { transform: "chacha20-poly1305", outer: OUTER_6, udp: true, ..base() },
        Setup { transform: "null-aes-256-gmac", transport: true, ..base() },
        Setup { transform: "null-aes-128-gmac", esn: false, ..base() },
    ] {
        let (lab, [xdpfwd_0, xdpfwd_1], sink) = lab_with_separate_taps(&setup);
        let frames = encapsulate(&lab, &xdpfwd_0, 1, COUNT);
        let mut corrupted = vec![];
        for frame in frames.iter().cycle().take(3 * frames.len()) {
            let Esp { start, end, .. } = Kind::expect_esp(frame);
            let bit = random.draw() as usize % (8 * (end - start));
            let mut frame = frame.clone();
            frame[start + bit / 8] ^= 1 << (bit % 8);
            corrupted.push(frame);
        }
        let dropped = drops_of(&lab, &xdpfwd_1, &corrupted);
        assert_eq!(dropped.values().sum::<u64>(), corrupted.len() as u64, "{dropped:?}");
        let possible = ["bad_tag", "no_sa", "late", "bad_length"];
        assert!(dropped.keys().all(|reason| possible.contains(&reason.as_str())), "{dropped:?}");
        // The ICV covers nearly every byte.
        assert!(dropped["bad_tag"] * 10 > 8 * corrupted.len() as u64, "{dropped:?}");
        if Kind::expect_esp(&frames[0]).version == 4 && !setup.udp {
            // Truncate the frame to each shorter length, down to the IP header without payload.
            let truncated: Vec<_> =
                (34..frames[0].len()).map(|length| truncate(&frames[0], length)).collect();
            let dropped = drops_of(&lab, &xdpfwd_1, &truncated);
            assert_eq!(dropped.values().sum::<u64>(), truncated.len() as u64, "{dropped:?}");
            let possible = ["bad_tag", "bad_length", "malformed", "no_sa"];
            assert!(
                dropped.keys().all(|reason| possible.contains(&reason.as_str())),
                "{dropped:?}"
            );
            assert!(dropped["bad_tag"] > 0 && dropped["bad_length"] > 0, "{dropped:?}");
        }
        assert_eq!(
            sink.seen().unwrap().arrived.packets,
            0,
            "number of corrupted packets at the sink"
        );
        assert_eq!(drops_of(&lab, &xdpfwd_1, &frames), drop_counts([]));
        let seen = sink.seen().unwrap();
        assert!(seen.arrived.packets == COUNT && seen.is_clean(), "{seen:?}");
        stop_both([xdpfwd_0, xdpfwd_1]);
    }
}

/// A NIC delivers all ESP packets between two gateways to one queue, because they are one flow. So
/// only the worker of this queue has the inbound SA.
#[test]
fn inbound_sa_accepts_packets_only_on_configured_queue() {
    const COUNT: u64 = 100;
    let lab = Lab::with_silent_hosts(2);
    lab.separate_taps();
    let sink = Sink::builder().check(true).attach(lab.namespaces.gen_(), "gen0").unwrap();
    let mut outcomes = vec![];
    for queue in [0, 1] {
        lab.reset();
        let setup = Setup {
            queues: 2,
            engine: for_side_0("cores = [0, 1]"),
            seal_sa: for_both_sides(SELECT_10_77),
            open_sa: for_side_0(&format!("queue = {queue}\n")),
            ..Setup::default()
        };
        let [xdpfwd_0, xdpfwd_1] = lab.start(&setup);
        let before = sink.seen().unwrap().arrived.packets;
        let tap = Tap::start(&lab.wire, "tap1");
        // All packets arrive on one queue. In one of the two runs, it is the configured queue.
        let sender = Sender::start(lab.namespaces.sink(), "sink0", 2_000, 1, None);
        tap.wait_for(COUNT);
        sender.stop();
        inject(&lab.wire, "tap0", &tap.stop()[..COUNT as usize]);
        until("xdpfwd has received all packets", || received(&xdpfwd_0, "wan0") >= COUNT);
        let [report_0, _] = stop_both([xdpfwd_0, xdpfwd_1]);
        outcomes.push((sink.seen().unwrap().arrived.packets - before, drops(&report_0.json)));
    }
    outcomes.sort();
    assert_eq!(outcomes, [(0, drop_counts([("wrong_queue", COUNT)])), (COUNT, drop_counts([]))]);
}
