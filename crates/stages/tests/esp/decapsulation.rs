//! Tests that `esp-open` decapsulates only valid packets, only once, and only at the worker that
//! owns the SA. `esp_against_scapy.rs` tests further drop reasons.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xdpfwd_pipeline::BuildCx;

use super::support::*;

#[test]
fn number_is_accepted_once_and_only_if_in_or_above_window() {
    const PACKETS: usize = 400;
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(udp_v4).collect();
    for (transform, window, esn) in [
        ("aes-128-gcm", 64, true),
        ("chacha20-poly1305", 64, false),
        ("null-aes-128-gmac", 192, true),
    ] {
        let seal = SEAL.replace("aes-128-gcm", transform) + &format!(", esn = {esn}");
        let sealed =
            bench(&plan("esp-seal", &table(&folder, &format!("{transform}.state"), &[&seal], "")))
                .forward(&packets);
        let open =
            format!("spi = 0x12345678, transform = '{transform}', window = {window}, esn = {esn}");
        let step = prop_oneof![4 => -8_i32..12, 1 => -300_i32..300, 1 => Just(-(window - 1)), 1 => Just(-window)];
        let mut runner =
            TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&prop::collection::vec(step, 1..300), |steps| {
            folder.state("open.state");
            let mut bench = bench(&plan_open(&folder, &open, ""));
            let mut accepted = BTreeSet::new();
            for step in steps {
                let highest = accepted.last().map_or(0, |highest| *highest);
                let number = (highest + step).clamp(1, PACKETS as i32);
                let index = number as usize - 1;
                let expected = if number <= highest - window {
                    // With ESN, a sequence number below the window is taken for one above it with
                    // the same lower 32 bits, so the ICV is invalid (RFC 4303, A2.2).
                    Disposition::Dropped(if esn { "bad_tag" } else { "late" })
                } else if accepted.insert(number) {
                    Disposition::Passed(packets[index].clone())
                } else {
                    Disposition::Dropped("replay")
                };
                prop_assert_eq!(
                    bench.send_one(&sealed[index]),
                    expected,
                    "number {}, highest {}",
                    number,
                    highest
                );
            }
            bench.assert_balanced();
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn duplicate_in_batch_is_dropped_as_replay() {
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..20).map(udp_v4).collect();
    let sealed = bench(&plan_seal(&folder, SEAL, "")).forward(&packets);
    let mut bench = bench(&plan_open(&folder, OPEN, ""));
    let twice: Vec<Vec<u8>> =
        sealed.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
    assert_eq!(bench.send(&twice).0, packets);
    assert_eq!(bench.drops(), [("replay", 20)]);
    bench.assert_balanced();
}

#[test]
fn packet_at_other_worker_is_dropped_as_wrong_queue() {
    let folder = Folder::new();
    let packets = [udp_v4(20), udp_v6(20)];
    let sealed = bench(&plan_seal(&folder, SEAL, "")).forward(&packets);
    for workers in [2, 3] {
        for queue in 0..workers {
            folder.state("open.state");
            let sa = format!("{OPEN}, queue = {queue}");
            let plan =
                plan_for("esp-open", &table(&folder, "open.state", &[&sa], ""), workers).unwrap();
            acquire(&plan, &[]).unwrap();
            let mut opened = 0;
            for worker in 0..workers {
                let stage = build_for(&plan, BuildCx { worker, workers, ..BuildCx::default() });
                let mut bench = EspBench::new(vec![stage]);
                if worker == queue {
                    assert_eq!(bench.forward(&sealed), packets);
                    opened += 1;
                } else {
                    assert_eq!(
                        bench.send_each(&sealed),
                        [Disposition::Dropped("wrong_queue"), Disposition::Dropped("wrong_queue")]
                    );
                }
                bench.assert_balanced();
            }
            assert_eq!(opened, 1);
        }
    }
}

#[test]
fn packet_with_inner_source_outside_selector_is_dropped_as_policy() {
    let folder = Folder::new();
    let source = |last: u8| ipv4(UDP, [10, 1, 0, last], DESTINATION_V4, 0, &udp(1, 2, b"payload"));
    let source_v6 =
        |low: u128| ipv6(UDP, 0xfd00 << 112 | low, DESTINATION_V6, 64, &udp(1, 2, b"payload"));
    let packets = [
        source(0),
        source(15),
        source(16),
        source(255),
        source_v6(0),
        source_v6(1),
        source_v6(2),
        source_v6(1 << 64),
    ];
    for mode in ["tunnel", "transport"] {
        let seal =
            if mode == "tunnel" { SEAL.to_owned() } else { format!("{OPEN}, mode = 'transport'") };
        let open = format!(
            "{OPEN}, mode = '{mode}', selector = ['10.1.0.0/28', '10.1.0.255/32', 'fd00::/127']"
        );
        let sealed =
            bench(&plan("esp-seal", &table(&folder, &format!("{mode}-seal.state"), &[&seal], "")))
                .forward(&packets);
        let mut bench =
            bench(&plan("esp-open", &table(&folder, &format!("{mode}-open.state"), &[&open], "")));
        let dispositions = bench.send_each(&sealed);
        for (index, is_passed) in
            [true, true, false, true, true, true, false, false].into_iter().enumerate()
        {
            let expected = if is_passed {
                Disposition::Passed(packets[index].clone())
            } else {
                Disposition::Dropped("policy")
            };
            assert_eq!(dispositions[index], expected, "{mode}: {index}");
        }
        bench.assert_balanced();
    }
}

#[test]
fn tunnel_mode_requires_inner_ip_packet() {
    let folder = Folder::new();
    let packets = [udp_v4(9), udp_v6(9)];
    let transport = format!("{OPEN}, mode = 'transport'");
    let tunnel_packets = bench(&plan_seal(&folder, SEAL, "")).forward(&packets);
    let transport_packets =
        bench(&plan("esp-seal", &table(&folder, "transport.state", &[&transport], "")))
            .forward(&packets);
    let mut tunnel = bench(&plan_open(&folder, OPEN, ""));
    assert_eq!(
        tunnel.send_each(&transport_packets),
        [Disposition::Dropped("policy"), Disposition::Dropped("policy")]
    );
    // In transport mode, the payload may be IP in IP (RFC 2003).
    let mut transport =
        bench(&plan("esp-open", &table(&folder, "transport-open.state", &[&transport], "")));
    for (disposition, packet) in transport.send_each(&tunnel_packets).into_iter().zip(&packets) {
        let Disposition::Passed(opened) = disposition else { panic!("{disposition:?}") };
        let inner = &packet[14..];
        assert_eq!(&opened[opened.len() - inner.len()..], inner);
        assert_eq!(opened.len(), 14 + 20 + inner.len());
        assert_eq!(opened[14 + 9], if inner[0] >> 4 == 4 { 4 } else { 41 });
    }
}

#[test]
fn packet_with_flipped_bit_is_dropped_without_effect_on_other_packets() {
    let folder = Folder::new();
    for transform in TRANSFORMS {
        for (seal_keys, open_keys) in [
            (", source = '192.0.2.1', destination = '192.0.2.2'", ""),
            (", source = '2001:db8::1', destination = '2001:db8::2', esn = false", ", esn = false"),
            (
                ", source = '192.0.2.1', destination = '192.0.2.2', udp_ports = [9, 4500]",
                ", udp_port = 4500",
            ),
            (", mode = 'transport'", ", mode = 'transport'"),
        ] {
            let sa = format!("spi = 0x12345678, transform = '{transform}'");
            for name in ["seal.state", "open.state"] {
                folder.state(name);
            }
            let seal =
                plan("esp-seal", &table(&folder, "seal.state", &[&format!("{sa}{seal_keys}")], ""));
            let open = plan_open(&folder, &format!("{sa}{open_keys}"), "");
            let (mut seal, mut open) = (bench(&seal), bench(&open));
            let packet = udp_v4(9);
            let sealed = seal.forward(&vec![packet.clone(); 200]);
            let (mut unchanged, target) = (sealed[1..].iter(), &sealed[0]);
            let esp_start = esp_offset(target);
            for byte in esp_start..target.len() {
                let mut batch: Vec<Vec<u8>> = (0..8)
                    .map(|bit| {
                        let mut flipped = target.clone();
                        flipped[byte] ^= 1 << bit;
                        flipped
                    })
                    .collect();
                batch.insert(byte % 9, unchanged.next().unwrap().clone());
                assert_eq!(
                    open.send(&batch),
                    (vec![packet.clone()], vec![]),
                    "byte {} of {transform}{seal_keys}",
                    byte - esp_start
                );
            }
            let expected = 8 * (target.len() - esp_start) as u64;
            assert_eq!(open.worker.report().drops.total(), expected);
            let expected_reasons = ["no_sa", "bad_tag", "late", "replay"];
            assert!(
                open.drops().iter().all(|(reason, _)| expected_reasons.contains(reason)),
                "{:?}",
                open.drops()
            );
            // Each of the 32 flipped bits of the SPI made it unknown.
            assert!(open.drops().contains(&("no_sa", 32)), "{:?}", open.drops());
            // The window is unaffected: the original packet still passes.
            assert_eq!(
                open.send_one(target),
                Disposition::Passed(packet),
                "{transform}{seal_keys}"
            );
            seal.assert_balanced();
            open.assert_balanced();
        }
    }
}

#[test]
fn random_packets_are_dropped() {
    let folder = Folder::new();
    let sas = ["", ", udp_port = 4500"].map(|udp| {
        TRANSFORMS
            .into_iter()
            .enumerate()
            .map(|(index, transform)| {
                (index, format!("spi = 0x12345678, transform = '{transform}'{udp}"))
            })
            .flat_map(|(index, sa)| {
                [
                    (index * 2, sa.clone()),
                    (index * 2 + 1, format!("{sa}, mode = 'transport', esn = false")),
                ]
            })
            .collect::<Vec<_>>()
    });
    let mut drops = BTreeSet::new();
    for (index, sa) in sas.iter().flatten() {
        let bench = bench(&plan("esp-open", &table(&folder, &format!("{index}.state"), &[sa], "")));
        let bench = RefCell::new(bench);
        let mut runner =
            TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&prop::collection::vec(random_frame(), 1..48), |frames| {
            let (wan, lan) = bench.borrow_mut().send(&frames);
            prop_assert!(wan.is_empty() && lan.is_empty(), "{wan:02x?} {lan:02x?}");
            Ok(())
        });
        outcome.unwrap();
        let mut bench = bench.into_inner();
        let dropped: u64 = bench.drops().iter().map(|(_, count)| count).sum();
        assert_eq!(dropped, bench.accounting.delivered);
        drops.extend(bench.drops().into_iter().map(|(reason, _)| reason));
        bench.assert_balanced();
    }
    for reason in ["malformed", "unprotected", "no_sa", "bad_length", "bad_tag", "esp_fragment"] {
        assert!(drops.contains(reason), "{reason} is not in {drops:?}");
    }
}
