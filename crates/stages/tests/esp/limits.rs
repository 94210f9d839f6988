//! Tests of the counters of SAs, and of their limits: packets, bytes, 32-bit sequence numbers, and
//! the sequence numbers that the state file reserves.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::json;
use xdpfwd_pipeline::StagePlan;

use super::support::*;

struct LimitCase {
    limit: &'static str,
    /// Packets in each run. The stage restarts between runs.
    runs: &'static [usize],
    /// Packets that pass in all runs together.
    passes: RangeInclusive<usize>,
}

#[test]
fn hard_limit_ends_encapsulation_even_after_restart() {
    // Inner packets have 128 bytes: 1000 bytes are 7 packets and a part of the eighth, which may
    // pass or not.
    let cases = [
        LimitCase {
            limit: "soft_packets = 1, hard_packets = 7",
            runs: &[3, 3, 3, 3],
            passes: 7..=7,
        },
        LimitCase { limit: "hard_packets = 7", runs: &[40, 1], passes: 7..=7 },
        LimitCase { limit: "soft_bytes = 1, hard_bytes = 1000", runs: &[6, 6, 6], passes: 7..=8 },
        LimitCase { limit: "hard_bytes = 1000", runs: &[40], passes: 7..=8 },
    ];
    let folder = Folder::new();
    for LimitCase { limit, runs, passes } in cases {
        folder.state("seal.state");
        let mut passed = 0;
        for &packets in runs {
            let mut bench = bench(&plan_seal(&folder, &format!("{SEAL}, {limit}"), ""));
            let got = bench.send(&vec![udp_v4(100); packets]).0.len();
            assert_eq!(bench.drops(), limit_drops(packets - got), "{limit}");
            passed += got;
            bench.assert_balanced();
        }
        assert!(passes.contains(&passed), "{passed} packets passed with {limit}, not {passes:?}");
    }
}

#[test]
fn hard_limit_ends_decapsulation_until_restart() {
    let cases = [
        LimitCase { limit: "hard_packets = 7", runs: &[20, 20], passes: 14..=14 },
        LimitCase { limit: "soft_packets = 1, hard_packets = 7", runs: &[40], passes: 7..=7 },
        LimitCase { limit: "hard_bytes = 1000", runs: &[40], passes: 7..=8 },
    ];
    let folder = Folder::new();
    let sealed = bench(&plan_seal(&folder, SEAL, "")).forward(&vec![udp_v4(100); 40]);
    for LimitCase { limit, runs, passes } in cases {
        folder.state("open.state");
        let (mut passed, mut sealed) = (0, &sealed[..]);
        for &packets in runs {
            let (now, later) = sealed.split_at(packets);
            let mut bench = bench(&plan_open(&folder, &format!("{OPEN}, {limit}"), ""));
            let got = bench.send(now).0.len();
            assert_eq!(bench.drops(), limit_drops(packets - got), "{limit}");
            assert!(got == 7 || got == 8, "{got} packets passed in a run with {limit}, not 7 or 8");
            (passed, sealed) = (passed + got, later);
            bench.assert_balanced();
        }
        assert!(passes.contains(&passed), "{passed} packets passed with {limit}, not {passes:?}");
    }
}

fn limit_drops(count: usize) -> Vec<(&'static str, u64)> {
    if count == 0 { vec![] } else { vec![("sa_limit", count as u64)] }
}

#[test]
fn byte_limit_drops_every_packet_after_first_drop() {
    let folder = Folder::new();
    let packets = vec![udp_v4(100); 6];
    let limited_sa = format!("{SEAL}, soft_bytes = 1, hard_bytes = 1000");
    let mut sealed = 0;
    for _ in 0..3 {
        let mut bench = bench(&plan_seal(&folder, &limited_sa, ""));
        let dispositions = bench.send_each(&packets);
        let passed = dispositions
            .iter()
            .take_while(|disposition| matches!(disposition, Disposition::Passed(_)))
            .count();
        assert!(
            dispositions[passed..]
                .iter()
                .all(|disposition| *disposition == Disposition::Dropped("sa_limit")),
            "{dispositions:?}"
        );
        sealed += passed;
        bench.assert_balanced();
    }
    assert!(sealed == 7 || sealed == 8, "{} bytes passed, limit 1000", sealed * 128);
}

#[test]
fn sa_without_esn_drops_packets_after_last_32_bit_number() {
    let folder = Folder::new();
    let packets = vec![udp_v4(9); 8];
    let sa = format!("{SEAL}, esn = false");
    drop(plan_seal(&folder, &sa, ""));
    folder.set_number("seal.state", "next", (1 << 32) - 5);
    let mut bench = bench(&plan_seal(&folder, &sa, ""));
    let (sealed, _) = bench.send(&packets);
    assert_eq!(
        sealed.iter().map(|frame| sequence_number(frame)).collect::<Vec<_>>(),
        (u32::MAX - 4..=u32::MAX).collect::<Vec<_>>()
    );
    assert_eq!(bench.drops(), [("sa_limit", 3)]);
    bench.assert_balanced();
    let mut bench = self::bench(&plan_seal(&folder, &sa, ""));
    assert_eq!(bench.send_one(&packets[0]), Disposition::Dropped("sa_limit"));
}

#[test]
fn encapsulation_ends_when_state_file_cannot_reserve_sequence_numbers() {
    let folder = Folder::new();
    let plan = plan_seal(&folder, SEAL, "");
    let mut bench = bench(&plan);
    // Without its folder, the state file cannot be written.
    std::fs::remove_dir_all(&*folder).unwrap();
    bench.wires.wan.set_recording(false);
    let frame = udp_v4(0);
    let (mut delivered, mut dropped) = (0_u64, 0);
    while dropped == 0 && delivered < 5 << 20 {
        for _ in 0..4096 / 64 {
            (0..64).for_each(|_| bench.wires.lan.deliver(&frame).unwrap());
            delivered += 64;
            bench.worker.poll_once();
        }
        maintain(&plan);
        dropped = bench.worker.report().drops.total();
    }
    let passed = delivered - dropped;
    assert_eq!(bench.drops(), [("state_file", dropped)], "{delivered} packets delivered");
    assert!(
        dropped > 0 && (1 << 16..=2 << 20).contains(&passed),
        "{passed} passed, {dropped} dropped"
    );
    // After the first dropped packet, all packets are dropped.
    assert_eq!(bench.send_one(&frame), Disposition::Dropped("state_file"));
    xdpfwd_testkit::wires::assert_conserved(&mut bench.worker);
}

#[test]
fn sa_counts_packets_bytes_and_drops() {
    let folder = Folder::new();
    let limited_sa = format!("{SEAL}, hard_packets = 30, soft_packets = 20");
    let (seal, open) = (plan_seal(&folder, &limited_sa, ""), plan_open(&folder, OPEN, ""));
    let (mut sealing, mut opening) = (bench(&seal), bench(&open));
    let packets: Vec<Vec<u8>> = (0..32).map(udp_v4).collect();
    let sealed = sealing.send(&packets).0;
    opening.forward(&sealed[..20]);
    opening.send(&sealed[..5]);
    let mut damaged = sealed[25].clone();
    damaged[60] ^= 1;
    assert_eq!(opening.send_one(&damaged), Disposition::Dropped("bad_tag"));
    let status = |plan: &Arc<dyn StagePlan>| {
        let sas = sas(plan);
        assert_eq!(sas.len(), 1);
        let sa = &sas[0];
        json!([sa["direction"], sa["spi"], sa["sequence"], sa["packets"], sa["bytes"], sa["drops"]])
    };
    // The headers of an inner packet have 28 bytes.
    let bytes = |count: u64| (0..count).map(|size| size + 28).sum::<u64>();
    assert_eq!(status(&seal), json!(["out", SPI, 30, 30, bytes(30), { "sa_limit": 2 }]));
    assert_eq!(status(&open), json!(["in", SPI, 20, 20, bytes(20), { "bad_tag": 1, "replay": 5 }]));
    assert_eq!((sealing.counter("sealed"), opening.counter("opened")), (30, 20));
    assert_eq!(
        json!([
            sas(&seal)[0]["soft_packets"],
            sas(&seal)[0]["hard_packets"],
            sas(&open)[0]["window"]
        ]),
        json!([20, 30, 1024])
    );
}
