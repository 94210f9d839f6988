//! Reloads that change keys under load, or remove and restore the ESP stages.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use xdpfwd_lab::{Namespace, Sink};

use crate::support::esp::{Kind, Lab, Sender, Setup, Tap, count_kinds, drops, spi};
use crate::support::until;
use crate::support::wire::hex;
use crate::{
    SELECT_10_77, drop_counts, drops_of, for_both_sides, for_side_0, reload, stop, stop_both,
};

#[test]
fn rekeying_under_load_loses_no_packet() {
    /// Number of successive SAs in each direction, numbered from 1.
    const GENERATIONS: u32 = 4;
    let lab = Lab::with_silent_hosts(1);
    let mut setup = Setup { seal_sa: for_both_sides(SELECT_10_77), ..Setup::default() };
    let instances = lab.start(&setup);
    let tap = Tap::start(&lab.wire, "tap0");
    let sink_at_sink0 = Sink::builder().check(true).attach(lab.namespaces.sink(), "sink0").unwrap();
    let sink_at_gen0 = Sink::builder().check(true).attach(lab.namespaces.gen_(), "gen0").unwrap();
    let senders = [(lab.namespaces.gen_(), "gen0"), (lab.namespaces.sink(), "sink0")]
        .map(|(host, interface): (&Namespace, _)| Sender::start(host, interface, 2_000, 1, None));
    for generation in 2..=GENERATIONS {
        let (old, new) = (generation - 1, generation);
        // The outbound and the inbound SAs after each reload.
        let steps = [
            (vec![old], vec![old, new]),
            // The new SA precedes the old SA in the list, or replaces it.
            (if new % 2 == 0 { vec![new, old] } else { vec![new] }, vec![old, new]),
            (vec![new], vec![new]),
        ];
        for (outbound, inbound) in steps {
            setup = Setup { outbound, inbound, ..setup };
            for (side, running) in instances.iter().enumerate() {
                thread::sleep(Duration::from_millis(100));
                reload(&lab, running, &setup, side);
            }
        }
    }
    // Also change a setting of the stages without changing SAs.
    setup.seal = for_both_sides("icmp_rate = 7");
    for (side, running) in instances.iter().enumerate() {
        thread::sleep(Duration::from_millis(100));
        reload(&lab, running, &setup, side);
    }
    thread::sleep(Duration::from_millis(100));
    let sent = senders.map(Sender::stop);
    until("all packets have arrived at the sinks", || {
        [&sink_at_sink0, &sink_at_gen0].map(|sink| sink.seen().unwrap().arrived.packets) == sent
    });
    for sink in [&sink_at_sink0, &sink_at_gen0] {
        assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
    }
    let frames = tap.stop();
    assert_eq!(frames.len() as u64, sent[0] + sent[1], "{:?}", count_kinds(&frames));
    // SPI and sequence number of the last packet from each side.
    let mut latest = [0, 1].map(|side| (spi(side, 1), 0));
    for frame in &frames {
        let esp = Kind::expect_esp(frame);
        // The SPIs of side 1 are the higher ones.
        let (current, sequence) = &mut latest[usize::from(esp.spi >= spi(1, 0))];
        if esp.spi == *current + 1 {
            (*current, *sequence) = (esp.spi, 0);
        }
        // Reloads leave no gap in the sequence numbers.
        assert_eq!((esp.spi, esp.sequence), (*current, *sequence + 1), "{}", hex(frame));
        *sequence = esp.sequence;
    }
    assert_eq!(latest.map(|(spi, _)| spi), [0, 1].map(|side| spi(side, GENERATIONS)));
    // The anti-replay window survives reloads.
    lab.separate_taps();
    let last_sa: Vec<_> =
        frames.iter().filter(|frame| Kind::expect_esp(frame).spi == spi(0, GENERATIONS)).collect();
    let count = last_sa.len() as u64;
    let dropped = drops_of(&lab, &instances[1], last_sa);
    // The receiver takes a number below the window (1024, by default) for one that is 2^32 higher,
    // so the ICV is wrong.
    assert_eq!(
        dropped,
        drop_counts([("bad_tag", count.saturating_sub(1024)), ("replay", count.min(1024))])
    );
    let first_sa: Vec<_> =
        frames.iter().filter(|frame| Kind::expect_esp(frame).spi == spi(0, 1)).take(10).collect();
    assert_eq!(drops_of(&lab, &instances[1], first_sa), drop_counts([("no_sa", 10)]));
    let [report_0, report_1] = stop_both(instances);
    assert_eq!(drops(&report_0.json), drop_counts([]));
    assert_eq!(drops(&report_1.json).values().sum::<u64>(), count + 10, "{}", report_1.json);
    assert_eq!(sink_at_sink0.seen().unwrap().arrived.packets, sent[0], "a replayed packet arrived");
    println!("{} and {} packets, {GENERATIONS} SAs in each direction", sent[0], sent[1]);
}

/// Removed stages must release their state file, because the stages of the next reload lock it.
#[test]
fn reload_removes_and_restores_esp_stages() {
    let lab = Lab::with_silent_hosts(1);
    let setup = Setup::default();
    let running = lab.start_one(&setup, 0);
    let with_esp = setup.config(&lab, 0);
    let (ports_and_paths, _) = with_esp.split_once("[stage.").unwrap();
    let without_esp: String = ports_and_paths
        .lines()
        .filter(|line| !line.starts_with("stages"))
        .map(|line| format!("{line}\n"))
        .collect();
    for config in [&without_esp, &with_esp, &without_esp, &with_esp] {
        running.config.write(config);
        running.reload("INFO reloaded");
    }
    stop(running);
}

#[test]
fn two_workers_share_sequence_numbers_during_rekeying() {
    const GENERATIONS: u32 = 4;
    let lab = Lab::with_silent_hosts(2);
    let mut setup = Setup {
        queues: 2,
        engine: for_side_0("cores = [0, 1]"),
        seal_sa: for_both_sides(SELECT_10_77),
        // An anti-replay window that is large enough for the packets of a worker that the scheduler
        // delays.
        open_sa: for_both_sides("window = 4096\n"),
        ..Setup::default()
    };
    let instances = lab.start(&setup);
    let tap = Tap::start(&lab.wire, "tap0");
    let sink = Sink::builder().check(true).attach(lab.namespaces.sink(), "sink0").unwrap();
    let sender = Sender::start(lab.namespaces.gen_(), "gen0", 2_000, 1, None);
    for new in 2..=GENERATIONS {
        let old = new - 1;
        for (outbound, inbound) in
            [(vec![old], vec![old, new]), (vec![new], vec![old, new]), (vec![new], vec![new])]
        {
            setup = Setup { outbound, inbound, ..setup };
            for (side, running) in instances.iter().enumerate() {
                thread::sleep(Duration::from_millis(100));
                reload(&lab, running, &setup, side);
            }
        }
    }
    let sent = sender.stop();
    until("all packets have arrived at the sink", || sink.seen().unwrap().arrived.packets == sent);
    assert!(sink.seen().unwrap().is_clean(), "{:?}", sink.seen());
    let (mut numbers_by_spi, mut iv_ranges, mut ivs) =
        (BTreeMap::<u32, Vec<u32>>::new(), BTreeSet::new(), BTreeSet::new());
    for esp in tap.stop().iter().map(|frame| Kind::expect_esp(frame)) {
        assert!(ivs.insert(esp.iv), "repeated IV: {esp:?}");
        iv_ranges.insert(esp.iv_range());
        numbers_by_spi.entry(esp.spi).or_default().push(esp.sequence);
    }
    assert_eq!(
        numbers_by_spi.keys().copied().collect::<Vec<_>>(),
        (1..=GENERATIONS).map(|generation| spi(0, generation)).collect::<Vec<_>>()
    );
    // Each worker has its own IV range.
    assert!(iv_ranges.len() >= 2, "only one worker encapsulated packets");
    for (spi, mut numbers) in numbers_by_spi {
        numbers.sort_unstable();
        let count = numbers.len() as u32;
        assert!(
            numbers.iter().copied().eq(1..=count),
            "SPI {spi:#x}: gaps or repeated sequence numbers: {numbers:?}"
        );
    }
    for final_report in stop_both(instances) {
        assert_eq!(drops(&final_report.json), drop_counts([]));
    }
}
