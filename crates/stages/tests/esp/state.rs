//! Tests of sequence numbers, IVs and anti-replay windows across restarts, crashes and reloads.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;
use xdpfwd_pipeline::{BuildCx, StagePlan};

use super::support::*;

#[derive(Default)]
struct Seen {
    ivs: HashSet<u64>,
    numbers: HashSet<u32>,
}

impl Seen {
    /// Fails if a frame repeats an IV or sequence number.
    #[track_caller]
    fn check_and_add(&mut self, sealed: &[Vec<u8>]) {
        for frame in sealed {
            assert!(self.ivs.insert(iv(frame)), "IV {:x} used twice", iv(frame));
            assert!(
                self.numbers.insert(sequence_number(frame)),
                "sequence number {} used twice",
                sequence_number(frame)
            );
        }
    }
}

#[test]
fn paths_and_workers_never_share_iv_or_number() {
    let folder = Folder::new();
    let mut seen = Seen::default();
    let workers = 2;
    // The epochs (upper 32 bits of IVs) of the runs must differ, even within the same second.
    for run in 0..3 {
        let plan =
            plan_for("esp-seal", &table(&folder, "seal.state", &[SEAL], ""), workers).unwrap();
        acquire(&plan, &[]).unwrap();
        let sealed: Vec<Vec<Vec<u8>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    let plan = &plan;
                    scope.spawn(move || {
                        let stage =
                            || build_for(plan, BuildCx { worker, workers, ..BuildCx::default() });
                        let mut bench = EspBench::with_both_paths(vec![stage()], vec![stage()]);
                        let mut sealed = vec![];
                        for round in 0..50 {
                            for _ in 0..20 + round % 3 {
                                bench.wires.lan.deliver(&udp_v4(3)).unwrap();
                                bench.wires.wan.deliver(&udp_v6(3)).unwrap();
                            }
                            while bench.worker.poll_once() > 0 {}
                            sealed.extend(bench.wires.wan.take_sent());
                            sealed.extend(bench.wires.lan.take_sent());
                        }
                        assert_eq!(bench.worker.report().drops.total(), 0);
                        sealed
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        sealed.iter().for_each(|sealed| seen.check_and_add(sealed));
        let count = seen.numbers.len();
        assert_eq!(count, (run + 1) * sealed.iter().map(Vec::len).sum::<usize>());
        // Closing the state file leaves no gap in the sequence numbers.
        drop(plan);
        let highest = *seen.numbers.iter().max().unwrap();
        assert_eq!(highest as usize, count);
    }
}

#[test]
fn run_after_crash_repeats_no_number_or_iv() {
    let folder = Folder::new();
    let mut seen = Seen::default();
    let packets = vec![udp_v4(3); 40];
    let mut open = bench(&plan_open(&folder, OPEN, ""));
    for crash in 0..4 {
        let plan = plan_seal(&folder, SEAL, "");
        let mut bench = bench(&plan);
        let state = folder.read("seal.state");
        let sealed = bench.forward(&packets);
        seen.check_and_add(&sealed);
        // Sequence numbers are above those that the peer has received.
        assert_eq!(open.forward(&sealed), packets, "after {crash} crashes");
        // The state file reserves 2^20 sequence numbers at a time.
        assert_eq!(sequence_number(&sealed[0]), crash << 20 | 1);
        drop(bench);
        drop(plan);
        // A crash would have left the file as it was during the run.
        std::fs::write(folder.join("seal.state"), state).unwrap();
    }
    assert!(
        *seen.numbers.iter().max().unwrap() < 5 << 20,
        "expected each crash to skip at most 2^20 numbers"
    );
}

#[test]
fn window_after_restart_rejects_all_up_to_highest_received_number() {
    let folder = Folder::new();
    let packets = vec![udp_v4(3); 60];
    let sealed = bench(&plan_seal(&folder, SEAL, "")).forward(&packets);
    let open = plan_open(&folder, OPEN, "");
    let mut bench = bench(&open);
    // Receive sequence numbers 11 to 50, except number 46.
    let received: Vec<_> = (10..50).filter(|n| *n != 45).map(|n| sealed[n].clone()).collect();
    bench.forward(&received);
    bench.assert_balanced();
    drop(open);
    assert!(folder.read("open.state").contains("highest = 50"), "{}", folder.read("open.state"));
    let mut bench = self::bench(&plan_open(&folder, OPEN, ""));
    for (index, frame) in sealed.iter().enumerate() {
        match bench.send_one(frame) {
            Disposition::Passed(got) => {
                assert!(index >= 50 && got == packets[0], "number {} passed", index + 1)
            }
            Disposition::Dropped(reason) => {
                let is_expected = index < 50 && ["late", "replay"].contains(&reason);
                assert!(is_expected, "number {} was dropped as {reason}", index + 1)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn reload_keeps_numbers_and_window_of_same_sa() {
    let folder = Folder::new();
    let packets = vec![udp_v4(3); 20];
    let tables = |selector: &str| {
        let seal = format!("{SEAL}{selector}");
        let open = format!("{OPEN}{selector}");
        [table(&folder, "seal.state", &[&seal], ""), table(&folder, "open.state", &[&open], "")]
    };
    let [seal, open] = tables("");
    let old = [plan("esp-seal", &seal), plan("esp-open", &open)];
    let mut sealing = EspBench::new(vec![build(&old[0])]);
    let mut opening = EspBench::new(vec![build(&old[1])]);
    let mut seen = Seen::default();
    let before_reload = sealing.forward(&packets);
    seen.check_and_add(&before_reload);
    // This frame arrives only after the reload. Before ESP, its packet equals all other packets.
    let late = before_reload[15].clone();
    let in_time: Vec<_> = before_reload.iter().filter(|frame| **frame != late).cloned().collect();
    assert_eq!(opening.forward(&in_time), &packets[1..]);
    // The same SAs with another selector.
    let [seal, open] = tables(", selector = ['10.0.0.0/8']");
    let new =
        [("esp-seal", seal, &old[..1]), ("esp-open", open, &old[1..])].map(|(kind, table, old)| {
            let plan = plan_for(kind, &table, 1).unwrap();
            acquire(&plan, old).unwrap_or_else(|error| panic!("{kind}: {error}"));
            plan
        });
    sealing.worker.swap_named(xdpfwd_testkit::wires::LAN, vec![build(&new[0])]).unwrap();
    opening.worker.swap_named(xdpfwd_testkit::wires::LAN, vec![build(&new[1])]).unwrap();
    drop(old);
    assert!(
        opening
            .send_each(&in_time)
            .iter()
            .all(|disposition| *disposition == Disposition::Dropped("replay"))
    );
    assert_eq!(opening.send_one(&late), Disposition::Passed(packets[0].clone()));
    let after_reload = sealing.forward(&packets);
    seen.check_and_add(&after_reload);
    assert_eq!(sequence_number(&after_reload[0]), 21);
    assert_eq!(opening.forward(&after_reload), packets);
    let (sealed, opened) = (&sas(&new[0])[0], &sas(&new[1])[0]);
    assert_eq!(
        json!([sealed["packets"], opened["packets"], opened["drops"]["replay"]]),
        json!([40, 40, 19])
    );
    drop((sealing, opening));
    drop(new);
    assert!(folder.read("seal.state").contains("next = 41"), "{}", folder.read("seal.state"));
    assert!(folder.read("open.state").contains("highest = 40"), "{}", folder.read("open.state"));
}

#[test]
fn reload_cannot_move_key_to_other_state_file_or_direction() {
    let folder = Folder::new();
    for (kind, sa) in [("esp-seal", SEAL), ("esp-open", OPEN)] {
        let old = [plan(kind, &table(&folder, &format!("{kind}-1.state"), &[sa], ""))];
        // The same SA, and its key with another transform and SPI.
        for sa in [
            sa.to_owned(),
            sa.replace("'aes-128-gcm'", "'null-aes-128-gmac'").replace("0x12345678", "0x9abc"),
        ] {
            let moved =
                plan_for(kind, &table(&folder, &format!("{kind}-2.state"), &[&sa], ""), 1).unwrap();
            let error = acquire(&moved, &old).unwrap_err().to_string();
            assert!(
                error.contains("is in use with the state file") && error.contains("-1.state"),
                "{error}"
            );
        }
        let unmoved =
            plan_for(kind, &table(&folder, &format!("{kind}-1.state"), &[sa], ""), 1).unwrap();
        // In the opposite direction, the peer may have used this key's IVs.
        let (opposite_kind, sa) =
            if kind == "esp-seal" { ("esp-open", OPEN) } else { ("esp-seal", SEAL) };
        let reversed = plan_for(
            opposite_kind,
            &table(&folder, &format!("{opposite_kind}-3.state"), &[sa], ""),
            1,
        )
        .unwrap();
        let error = acquire(&reversed, &old).unwrap_err().to_string();
        assert!(error.contains("is in use in the other direction"), "{error}");
        // The key may stay with its state file and direction.
        acquire(&unmoved, &old).unwrap();
    }
}

/// The procedure in docs/esp.md: add the new key, switch, remove the old key.
#[test]
fn rekeying_by_reloads_loses_no_packet() {
    let folder = Folder::new();
    let (old, new) = (SEAL.to_owned(), SEAL.replace("0x12345678", "0x9abc") + ", esn = false");
    let (old_open, new_open) =
        (OPEN.to_owned(), OPEN.replace("0x12345678", "0x9abc") + ", esn = false");
    // `table` chooses the key of an SA by its index. So the new SA always has index 0, and the old
    // SA index 1; before the new SA is in `esp-open`, `other` has index 0.
    let other = "spi = 256, transform = 'aes-128-gcm'";
    let seals = [
        table(&folder, "seal.state", &[&format!("{new}, selector = ['192.168.0.1/32']"), &old], ""),
        table(&folder, "seal.state", &[&new, &old], ""),
        table(&folder, "seal.state", &[&new], ""),
    ];
    let opens = [
        table(&folder, "open.state", &[other, &old_open], ""),
        table(&folder, "open.state", &[&new_open, &old_open], ""),
        table(&folder, "open.state", &[&new_open], ""),
    ];
    let packets: Vec<Vec<u8>> = (0..10).map(udp_v4).collect();
    let mut plans = [plan("esp-seal", &seals[0]), plan("esp-open", &opens[0])];
    let mut sealing = EspBench::new(vec![build(&plans[0])]);
    let mut opening = EspBench::new(vec![build(&plans[1])]);
    let reload = |bench: &mut EspBench, plan: &mut Arc<dyn StagePlan>, kind: &str, table: &str| {
        let next = plan_for(kind, table, 1).unwrap();
        acquire(&next, &[Arc::clone(plan)]).unwrap();
        bench.worker.swap_named(xdpfwd_testkit::wires::LAN, vec![build(&next)]).unwrap();
        *plan = next;
    };
    let by_old = sealing.forward(&packets);
    assert_eq!((spi(&by_old[0]), opening.forward(&by_old[..5])), (SPI, packets[..5].to_vec()));
    reload(&mut opening, &mut plans[1], "esp-open", &opens[1]);
    reload(&mut sealing, &mut plans[0], "esp-seal", &seals[1]);
    let by_new = sealing.forward(&packets);
    assert_eq!((spi(&by_new[0]), sequence_number(&by_new[0])), (0x9abc, 1));
    // The old SA still decapsulates packets sent before the switch.
    assert_eq!(opening.forward(&by_new[..5]), packets[..5]);
    assert_eq!(opening.forward(&by_old[5..9]), packets[5..9]);
    reload(&mut sealing, &mut plans[0], "esp-seal", &seals[2]);
    reload(&mut opening, &mut plans[1], "esp-open", &opens[2]);
    assert_eq!(opening.send_one(&by_old[9]), Disposition::Dropped("no_sa"));
    assert_eq!(opening.forward(&by_new[5..]), packets[5..]);
    // The old SA, added again, drops packets received before its removal.
    reload(&mut opening, &mut plans[1], "esp-open", &opens[1]);
    for frame in &by_old[..9] {
        let disposition = opening.send_one(frame);
        assert!(
            [Disposition::Dropped("late"), Disposition::Dropped("replay")].contains(&disposition),
            "{disposition:?}"
        );
    }
    reload(&mut sealing, &mut plans[0], "esp-seal", &seals[0]);
    let by_old_again = sealing.forward(&packets);
    assert_eq!(spi(&by_old_again[0]), SPI);
    assert!(sequence_number(&by_old_again[0]) > 10);
    assert_eq!(opening.forward(&by_old_again), packets);
    sealing.assert_balanced();
    opening.assert_balanced();
}
