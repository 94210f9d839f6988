//! Packets that `esp-open` decapsulates: valid ones, once, at the right worker. Further drop
//! reasons are in `esp_against_scapy.rs`.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xdpfwd_pipeline::BuildCx;

use super::support::*;

#[test]
fn packet_is_accepted_once_and_within_window() {
    const PACKETS: usize = 400;
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(some_v4).collect();
    for (transform, window, esn) in [
        ("aes-128-gcm", 64, true),
        ("chacha20-poly1305", 64, false),
        ("null-aes-128-gmac", 192, true),
    ] {
        let seal = SEAL.replace("aes-128-gcm", transform) + &format!(", esn = {esn}");
        let sealed =
            line(&plan("esp-seal", &table(&folder, &format!("{transform}.state"), &[&seal], "")))
                .pass(&packets);
        let open =
            format!("spi = 0x12345678, transform = '{transform}', window = {window}, esn = {esn}");
        let step = prop_oneof![4 => -8_i32..12, 1 => -300_i32..300, 1 => Just(-(window - 1)), 1 => Just(-window)];
        let mut runner =
            TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&prop::collection::vec(step, 1..300), |steps| {
            folder.state("open.state");
            let mut line = line(&opening(&folder, &open, ""));
            let mut taken = BTreeSet::new();
            for step in steps {
                let highest = taken.last().map_or(0, |highest| *highest);
                let number = (highest + step).clamp(1, PACKETS as i32);
                let index = number as usize - 1;
                let expected = if number <= highest - window {
                    // With ESN, a number below the window is taken as one ahead, and the ICV fails
                    // (RFC 4303, A2.2).
                    Disposition::Dropped(if esn { "bad_tag" } else { "late" })
                } else if taken.insert(number) {
                    Disposition::Passed(packets[index].clone())
                } else {
                    Disposition::Dropped("replay")
                };
                prop_assert_eq!(
                    line.one(&sealed[index]),
                    expected,
                    "{} behind {}",
                    number,
                    highest
                );
            }
            line.balance();
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn duplicate_in_batch_is_dropped_as_replay() {
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..20).map(some_v4).collect();
    let sealed = line(&sealing(&folder, SEAL, "")).pass(&packets);
    let mut line = line(&opening(&folder, OPEN, ""));
    let twice: Vec<Vec<u8>> =
        sealed.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
    assert_eq!(line.send(&twice).0, packets);
    assert_eq!(line.drops(), [("replay", 20)]);
    line.balance();
}

#[test]
fn packet_at_other_worker_is_dropped_as_wrong_queue() {
    let folder = Folder::new();
    let packets = [some_v4(20), some_v6(20)];
    let sealed = line(&sealing(&folder, SEAL, "")).pass(&packets);
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
                let mut line = Line::new(vec![stage]);
                if worker == queue {
                    assert_eq!(line.pass(&sealed), packets);
                    opened += 1;
                } else {
                    assert_eq!(
                        line.each(&sealed),
                        [Disposition::Dropped("wrong_queue"), Disposition::Dropped("wrong_queue")]
                    );
                }
                line.balance();
            }
            assert_eq!(opened, 1);
        }
    }
}

#[test]
fn decapsulated_source_outside_selector_is_dropped_as_policy() {
    let folder = Folder::new();
    let source = |last: u8| ipv4(UDP, [10, 1, 0, last], ELEVEN, 0, &udp(1, 2, b"payload"));
    let source_v6 = |low: u128| ipv6(UDP, 0xfd00 << 112 | low, SEVEN, 64, &udp(1, 2, b"payload"));
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
            line(&plan("esp-seal", &table(&folder, &format!("{mode}-seal.state"), &[&seal], "")))
                .pass(&packets);
        let mut line =
            line(&plan("esp-open", &table(&folder, &format!("{mode}-open.state"), &[&open], "")));
        let dispositions = line.each(&sealed);
        for (index, passes) in
            [true, true, false, true, true, true, false, false].into_iter().enumerate()
        {
            let expected = if passes {
                Disposition::Passed(packets[index].clone())
            } else {
                Disposition::Dropped("policy")
            };
            assert_eq!(dispositions[index], expected, "{mode}: {index}");
        }
        line.balance();
    }
}

#[test]
fn tunnel_mode_requires_inner_ip_packet() {
    let folder = Folder::new();
    let packets = [some_v4(9), some_v6(9)];
    let transport = format!("{OPEN}, mode = 'transport'");
    let in_tunnel = line(&sealing(&folder, SEAL, "")).pass(&packets);
    let as_it_is = line(&plan("esp-seal", &table(&folder, "transport.state", &[&transport], "")))
        .pass(&packets);
    let mut tunnel = line(&opening(&folder, OPEN, ""));
    assert_eq!(
        tunnel.each(&as_it_is),
        [Disposition::Dropped("policy"), Disposition::Dropped("policy")]
    );
    // A whole packet may be the payload of transport mode: IP in IP (RFC 2003).
    let mut transport =
        line(&plan("esp-open", &table(&folder, "transport-open.state", &[&transport], "")));
    for (disposition, packet) in transport.each(&in_tunnel).into_iter().zip(&packets) {
        let Disposition::Passed(opened) = disposition else { panic!("{disposition:?}") };
        let inner = &packet[14..];
        assert_eq!(&opened[opened.len() - inner.len()..], inner);
        assert_eq!(opened.len(), 14 + 20 + inner.len());
        assert_eq!(opened[14 + 9], if inner[0] >> 4 == 4 { 4 } else { 41 });
    }
}

#[test]
fn flipped_bit_drops_only_its_packet() {
    let folder = Folder::new();
    for (at, transform) in TRANSFORMS.into_iter().enumerate() {
        for (more, open_more) in [
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
                plan("esp-seal", &table(&folder, "seal.state", &[&format!("{sa}{more}")], ""));
            let open = opening(&folder, &format!("{sa}{open_more}"), "");
            let (mut seal, mut open) = (line(&seal), line(&open));
            let packet = some_v4(9);
            let good = seal.pass(&vec![packet.clone(); 200]);
            let (mut good, target) = (good[1..].iter(), &good[0]);
            let begins = esp_begins(target);
            for byte in begins..target.len() {
                let mut batch: Vec<Vec<u8>> = (0..8)
                    .map(|bit| {
                        let mut flipped = target.clone();
                        flipped[byte] ^= 1 << bit;
                        flipped
                    })
                    .collect();
                batch.insert(byte % 9, good.next().unwrap().clone());
                assert_eq!(
                    open.send(&batch),
                    (vec![packet.clone()], vec![]),
                    "byte {} of {transform}{more}",
                    byte - begins
                );
            }
            let expected = 8 * (target.len() - begins) as u64;
            assert_eq!(open.worker.report().drops.total(), expected);
            let known = ["no_sa", "bad_tag", "late", "replay"];
            assert!(
                open.drops().iter().all(|(reason, _)| known.contains(reason)),
                "{:?}",
                open.drops()
            );
            assert!(open.drops().contains(&("no_sa", 32)), "{:?}", open.drops());
            // The changed packets have not moved the window.
            assert_eq!(open.one(target), Disposition::Passed(packet), "{at}");
            seal.balance();
            open.balance();
        }
    }
}

#[test]
fn random_packets_are_never_decapsulated() {
    let folder = Folder::new();
    let opens = ["", ", udp_port = 4500"].map(|udp| {
        TRANSFORMS
            .into_iter()
            .enumerate()
            .map(|(at, transform)| {
                (at, format!("spi = 0x12345678, transform = '{transform}'{udp}"))
            })
            .flat_map(|(at, sa)| {
                [
                    (at * 2, sa.clone()),
                    (at * 2 + 1, format!("{sa}, mode = 'transport', esn = false")),
                ]
            })
            .collect::<Vec<_>>()
    });
    let mut drops = BTreeSet::new();
    for (at, sa) in opens.iter().flatten() {
        let line = line(&plan("esp-open", &table(&folder, &format!("{at}.state"), &[sa], "")));
        let line = RefCell::new(line);
        let mut runner =
            TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&prop::collection::vec(anything(), 1..48), |frames| {
            let (passed, answered) = line.borrow_mut().send(&frames);
            prop_assert!(passed.is_empty() && answered.is_empty(), "{passed:02x?} {answered:02x?}");
            Ok(())
        });
        outcome.unwrap();
        let mut line = line.into_inner();
        let counted: u64 = line.drops().iter().map(|(_, count)| count).sum();
        assert_eq!(counted, line.books.delivered);
        drops.extend(line.drops().into_iter().map(|(reason, _)| reason));
        line.balance();
    }
    for reason in ["malformed", "unprotected", "no_sa", "bad_length", "bad_tag", "esp_fragment"] {
        assert!(drops.contains(reason), "{reason} is not in {drops:?}");
    }
}
