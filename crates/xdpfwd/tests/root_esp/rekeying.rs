//! Reloads that change keys under load, and that remove the stages.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use xdpfwd_lab::{Namespace, Sink};

use crate::support::esp::{Kind, Lab, Sender, Setup, Tap, drops, kinds, spi};
use crate::support::until;
use crate::support::wire::hex;
use crate::{ONLY_10_77, both, drops_of, first, reasons, reload, stop, stop_both};

#[test]
fn rekeying_under_load_loses_no_packet() {
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
            // The new SA comes before the old one, or replaces it.
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
    // Change something other than the SAs.
    setup.seal = both("icmp_rate = 7");
    for (side, end) in ends.iter().enumerate() {
        thread::sleep(Duration::from_millis(100));
        reload(&lab, end, &setup, side);
    }
    thread::sleep(Duration::from_millis(100));
    let sent = senders.map(Sender::stop);
    until("all packets have arrived at the sinks", || {
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
        // Each SA's sequence numbers start at 1 and have no gap, despite reloads.
        assert_eq!((esp.spi, esp.sequence), (*current, *sequence + 1), "{}", hex(frame));
        *sequence = esp.sequence;
    }
    assert_eq!(last.map(|(spi, _)| spi), [0, 1].map(|side| spi(side, GENERATIONS)));
    // The window survives reloads: no packet of the last SA is accepted again.
    lab.cut();
    let last_sa: Vec<_> =
        frames.iter().filter(|frame| Kind::esp(frame).spi == spi(0, GENERATIONS)).collect();
    let count = last_sa.len() as u64;
    let dropped = drops_of(&lab, &ends[1], last_sa);
    // For numbers below the window, the receiver infers the next upper half, so the ICV is wrong.
    assert_eq!(
        dropped,
        reasons([("bad_tag", count.saturating_sub(1024)), ("replay", count.min(1024))])
    );
    // Packets of a removed SA are dropped.
    let first_sa: Vec<_> =
        frames.iter().filter(|frame| Kind::esp(frame).spi == spi(0, 1)).take(10).collect();
    assert_eq!(drops_of(&lab, &ends[1], first_sa), reasons([("no_sa", 10)]));
    let [one, two] = stop_both(ends);
    assert_eq!(drops(&one.json), reasons([]));
    assert_eq!(drops(&two.json).values().sum::<u64>(), count + 10, "{}", two.json);
    assert_eq!(forth.seen().unwrap().arrived.packets, sent[0], "a replayed packet arrived");
    println!("{} and {} packets, {GENERATIONS} SAs each way", sent[0], sent[1]);
}

/// Removed stages release their state file, so that later stages can lock it.
#[test]
fn reload_removes_and_restores_esp_stages() {
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
fn two_workers_share_sequence_numbers_across_rekeying() {
    const GENERATIONS: u32 = 4;
    let lab = Lab::quiet(2);
    let mut setup = Setup {
        queues: 2,
        engine: first("cores = [0, 1]"),
        seal_sa: both(ONLY_10_77),
        // The scheduler may delay one worker, whose packets then arrive late.
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
    until("all packets have arrived at the sink", || sink.seen().unwrap().arrived.packets == sent);
    assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
    let (mut numbers, mut ranges, mut ivs) =
        (BTreeMap::<u32, Vec<u32>>::new(), BTreeSet::new(), BTreeSet::new());
    for esp in tap.stop().iter().map(|frame| Kind::esp(frame)) {
        assert!(ivs.insert(esp.iv), "repeated IV: {esp:?}");
        ranges.insert(esp.iv_range());
        numbers.entry(esp.spi).or_default().push(esp.sequence);
    }
    assert_eq!(
        numbers.keys().copied().collect::<Vec<_>>(),
        (1..=GENERATIONS).map(|n| spi(0, n)).collect::<Vec<_>>()
    );
    assert!(ranges.len() >= 2, "only one worker encapsulated packets");
    for (spi, mut numbers) in numbers {
        numbers.sort_unstable();
        let count = numbers.len() as u32;
        assert!(
            numbers.iter().copied().eq(1..=count),
            "{spi:#x}: gaps or repeated numbers: {numbers:?}"
        );
    }
    for last in stop_both(ends) {
        assert_eq!(drops(&last.json), reasons([]));
    }
}
