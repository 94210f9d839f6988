//! The stages `esp-seal` and `esp-open`, as docs/esp.md describes them: every reason to drop a packet, what passes as it is, numbers and
//! IVs over restarts, and that nothing comes out of `esp-open` but what was sealed. What is on the wire, scapy judges:
//! `esp_against_scapy.rs`.

#[path = "support/esp.rs"]
mod esp;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use esp::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use xdpfwd_pipeline::{BuildCx, Cx, NamedStage, Stage, StagePlan, View};
use xdpfwd_xsk::fake_kernel::Behaviour;

const SPI: u32 = 0x1234_5678;
const SEAL: &str = "spi = 0x12345678, transform = 'aes-128-gcm', source = '192.0.2.1', destination = '192.0.2.2'";
const OPEN: &str = "spi = 0x12345678, transform = 'aes-128-gcm'";
const TRANSFORMS: [&str; 5] =
    ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305", "null-aes-128-gmac", "null-aes-256-gmac"];

/// A stage's table: SAs with a key each, the same for the same place in the list, and a state file of this name.
fn table(folder: &Folder, state: &str, sas: &[&str], more: &str) -> String {
    if !folder.join(state).exists() {
        folder.state(state);
    }
    let state = folder.join(state).display().to_string();
    let sas: Vec<String> = sas
        .iter()
        .enumerate()
        .map(|(index, sa)| {
            let transform = TRANSFORMS.into_iter().find(|transform| sa.contains(transform)).unwrap();
            let digits = format!("{index:02x}{}", &key_of(transform)[2..]);
            format!("{{ {sa}, key_file = '{}' }}", folder.key(&format!("{transform}-{index}.key"), &digits))
        })
        .collect();
    format!("{{ lab = true, state_file = '{state}', sa = [{}] {more} }}", sas.join(", "))
}

fn sealing(folder: &Folder, sa: &str, more: &str) -> Arc<dyn StagePlan> {
    plan("esp-seal", &table(folder, "seal.state", &[sa], more))
}

fn opening(folder: &Folder, sa: &str, more: &str) -> Arc<dyn StagePlan> {
    plan("esp-open", &table(folder, "open.state", &[sa], more))
}

fn line(plan: &Arc<dyn StagePlan>) -> Line {
    Line::new(vec![build(plan)])
}

fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    let tags: &[u8] = [&b""[..], b"\x81\0\0\x09", b"\x88\xa8\0\x07\x81\0\0\x09"][tags];
    [&frame[..12], tags, &frame[12..]].concat()
}

fn to(destination: Ipv4Addr) -> Vec<u8> {
    ipv4(UDP, TEN, destination.octets(), 0, &udp(1, 2, b"payload"))
}

fn to_v6(destination: Ipv6Addr) -> Vec<u8> {
    ipv6(UDP, SIX, destination.to_bits(), 64, &udp(1, 2, b"payload"))
}

// What becomes of packets: no_sa, unprotected, bypass.

#[test]
fn what_passes_as_it_is_is_what_bypass_says_and_nothing_else_passes() {
    let icmp6 = |kind: u8, hop_limit: u8| ipv6(58, SIX, SEVEN, hop_limit, &[&[kind, 0, 0, 0][..], &[0; 20]].concat());
    let arp = [&b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06"[..], &[0; 46]].concat();
    let matched = |payload: &[u8]| ipv4(UDP, TEN, ELEVEN, 0, payload);
    let marker = [&[0; 4][..], b"a message of IKE"].concat();
    // A frame; what has it pass; whether there is an SA to seal it.
    let cases: Vec<(&str, Vec<u8>, &[&str], bool)> = vec![
        ("ARP", arp, &["arp", "not-ip", "unmatched"], false),
        ("router solicitation", icmp6(133, 255), &["nd", "unmatched"], false),
        ("neighbour solicitation", icmp6(135, 255), &["nd", "unmatched"], false),
        ("neighbour advertisement", icmp6(136, 255), &["nd", "unmatched"], false),
        ("redirect", icmp6(137, 255), &["nd", "unmatched"], false),
        ("neighbour solicitation from afar", icmp6(135, 254), &["unmatched"], false),
        ("echo request", icmp6(128, 255), &["unmatched"], false),
        ("not IP", ethernet(0x88b5, &[0; 50]), &["not-ip", "unmatched"], false),
        ("UDP to where no SA leads", to(Ipv4Addr::new(10, 3, 0, 1)), &["unmatched"], false),
        ("IKE to 500", matched(&udp(9, 500, b"a message of IKE")), &["ike"], true),
        ("IKE from 500", matched(&udp(500, 9, b"a message of IKE")), &["ike"], true),
        ("IKE to 4500", matched(&udp(9, 4500, &marker)), &["ike"], true),
        ("IKE from 4500", matched(&udp(4500, 9, &marker)), &["ike"], true),
        ("4500 without a marker", matched(&udp(4500, 4500, b"a message of IKE")), &[], true),
        ("4500, three bytes", matched(&udp(4500, 4500, &[0; 3])), &[], true),
        ("UDP to 501", matched(&udp(9, 501, &marker)), &[], true),
        ("TCP to 500", ipv4(6, TEN, ELEVEN, 0, &udp(9, 500, &marker)), &[], true),
    ];
    let folder = Folder::new();
    for bypass in [None, Some("arp"), Some("nd"), Some("ike"), Some("not-ip"), Some("unmatched")] {
        let more = format!(", bypass = [{}]", bypass.map(|bypass| format!("'{bypass}'")).unwrap_or_default());
        let selected = format!("{SEAL}, selector = ['10.2.0.0/16']");
        let mut seal = line(&sealing(&folder, &selected, &more));
        let mut open = line(&opening(&folder, OPEN, &more));
        for (what, frame, passes, has_sa) in &cases {
            for tags in 0..3 {
                let frame = tagged(frame, tags);
                let as_it_is = bypass.is_some_and(|bypass| passes.contains(&bypass));
                match seal.one(&frame) {
                    Fate::Passed(got) if as_it_is => assert_eq!(got, frame, "{what} with {bypass:?}"),
                    Fate::Passed(got) => assert!(*has_sa && got.len() > frame.len(), "{what} with {bypass:?}"),
                    other => assert_eq!(
                        (other, as_it_is, *has_sa),
                        (Fate::Dropped("no_sa"), false, false),
                        "{what} with {bypass:?}"
                    ),
                }
                // No SA is for what is not ESP.
                let as_it_is = as_it_is || bypass == Some("unmatched");
                let expected = if as_it_is { Fate::Passed(frame.clone()) } else { Fate::Dropped("unprotected") };
                assert_eq!(open.one(&frame), expected, "{what} with {bypass:?}");
            }
        }
        let unknown = ipv4(50, TEN, ELEVEN, 0, &[9; 60]);
        let expected = if bypass == Some("unmatched") { Fate::Passed(unknown.clone()) } else { Fate::Dropped("no_sa") };
        assert_eq!(open.one(&unknown), expected, "{bypass:?}");
        seal.balance();
        open.balance();
    }
}

#[test]
fn the_first_sa_whose_selector_has_the_destination_seals() {
    let folder = Folder::new();
    // Prefixes of few addresses, so that they overlap.
    let prefix = prop_oneof![
        (0_u32..16, 24_u8..=32)
            .prop_map(|(low, bits)| format!("{}/{bits}", Ipv4Addr::from_bits((0x0a02_0000 | low) & !mask(bits)))),
        (0_u128..16, 124_u8..=128).prop_map(|(low, bits)| {
            format!(
                "{}/{bits}",
                Ipv6Addr::from_bits((0xfd00 << 112 | low) & !(u128::MAX.checked_shr(bits.into()).unwrap_or(0)))
            )
        }),
        Just("0.0.0.0/0".to_owned()),
        Just("::/0".to_owned()),
    ];
    let selectors = prop::collection::vec(prop::option::weighted(0.9, prop::collection::vec(prefix, 1..4)), 1..5);
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let strategy = (selectors, prop::collection::vec((any::<bool>(), 0_u8..20), 1..40));
    let outcome = runner.run(&strategy, |(selectors, packets)| {
        let sas: Vec<String> = selectors
            .iter()
            .enumerate()
            .map(|(index, selector)| {
                let selector =
                    selector.as_ref().map(|prefixes| format!(", selector = {prefixes:?}")).unwrap_or_default();
                format!(
                    "spi = {}, transform = 'aes-128-gcm', source = '192.0.2.1', destination = '192.0.2.2'{selector}",
                    1000 + index
                )
            })
            .collect();
        let sas: Vec<&str> = sas.iter().map(String::as_str).collect();
        // A start right after another one waits for the clock.
        folder.state("selectors.state");
        let mut line = line(&plan("esp-seal", &table(&folder, "selectors.state", &sas, "")));
        for (is_v6, low) in packets {
            let (frame, destination) = if is_v6 {
                let destination = Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(low));
                (to_v6(destination), std::net::IpAddr::from(destination))
            } else {
                let destination = Ipv4Addr::from_bits(0x0a02_0000 | u32::from(low));
                (to(destination), std::net::IpAddr::from(destination))
            };
            let has = |prefixes: &Option<Vec<String>>| {
                prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(|prefix| contains(prefix, destination)))
            };
            match (line.one(&frame), selectors.iter().position(has)) {
                (Fate::Passed(sealed), Some(index)) => prop_assert_eq!(spi(&sealed), 1000 + index as u32),
                (Fate::Dropped("no_sa"), None) => {}
                (fate, expected) => prop_assert!(false, "{fate:?}, not by {expected:?}: {selectors:?} {destination}"),
            }
        }
        line.balance();
        Ok(())
    });
    outcome.unwrap();
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shr(bits.into()).unwrap_or(0)
}

/// A second reading of prefixes: the bits one by one.
fn contains(prefix: &str, address: std::net::IpAddr) -> bool {
    let (base, bits) = prefix.split_once('/').unwrap();
    let of = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => (4, v4.octets().to_vec()),
        std::net::IpAddr::V6(v6) => (6, v6.octets().to_vec()),
    };
    let ((version, base), (own, address)) = (of(base.parse().unwrap()), of(address));
    version == own
        && (0..bits.parse().unwrap()).all(|bit: usize| (base[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8) & 1 == 0)
}

#[test]
fn an_sa_is_found_by_spi_destination_and_encapsulation() {
    let folder = Folder::new();
    let outer = |destination: &str, udp: &str, spi: u32| {
        format!("spi = {spi}, transform = 'aes-128-gcm', source = '192.0.2.9', destination = '{destination}'{udp}")
    };
    // Each of these in turn seals what the SA at the same place of the other list opens.
    let seals = [
        outer("192.0.2.1", "", 4096),
        outer("192.0.2.2", "", 4096),
        outer("192.0.2.3", ", udp_ports = [7, 4500]", 4097),
        outer("192.0.2.3", "", 4098),
    ];
    let opens = [
        "spi = 4096, transform = 'aes-128-gcm', destination = '192.0.2.1'",
        "spi = 4096, transform = 'aes-128-gcm', destination = '192.0.2.2'",
        "spi = 4097, transform = 'aes-128-gcm', udp_port = 4500",
        "spi = 4098, transform = 'aes-128-gcm'",
    ];
    let mut open = line(&plan("esp-open", &table(&folder, "open.state", &opens, "")));
    let packet = some_v4(20);
    let sealed: Vec<Vec<u8>> = (0..seals.len())
        .map(|index| {
            // Only the one at its place: the keys go by place.
            let all: Vec<String> = (0..=index)
                .map(|at| {
                    if at == index {
                        seals[at].clone()
                    } else {
                        format!("{}, selector = ['192.168.{at}.0/24']", outer("192.0.2.7", "", 5000 + at as u32))
                    }
                })
                .collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut seal = line(&plan("esp-seal", &table(&folder, &format!("{index}.state"), &all, "")));
            seal.pass(std::slice::from_ref(&packet)).remove(0)
        })
        .collect();
    for sealed in &sealed {
        assert_eq!(open.one(sealed), Fate::Passed(packet.clone()));
    }
    // To where there is no such SA; with the key of the other; in UDP where it should not be, and the other way round.
    let altered = |index: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = sealed[index].clone();
        change(&mut frame);
        frame[24..26].fill(0);
        let sum = !sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let elsewhere = altered(0, &|frame| frame[33] = 3);
    assert_eq!(open.one(&elsewhere), Fate::Dropped("no_sa"));
    // Number 1 was there already; a later one is decrypted, and not by this key.
    let by_another = altered(0, &|frame| (frame[33], frame[41]) = (2, 2));
    assert_eq!(open.one(&by_another), Fate::Dropped("bad_tag"));
    let anywhere = altered(3, &|frame| frame[33] = 77);
    assert_eq!(open.one(&anywhere), Fate::Dropped("replay"), "its SA is for any destination");
    let bare = ipv4(50, [192, 0, 2, 9], [192, 0, 2, 3], 0, &sealed[2][42..]);
    assert_eq!(open.one(&bare), Fate::Dropped("no_sa"));
    let in_udp = ipv4(UDP, [192, 0, 2, 9], [192, 0, 2, 3], 0, &udp(7, 4500, &sealed[3][34..]));
    assert_eq!(open.one(&in_udp), Fate::Dropped("no_sa"));
    open.balance();
}

/// A SYN, which announces an MSS of 1460; its checksum is wrong, and stays so.
fn syn() -> Vec<u8> {
    let tcp = [&[0, 1, 0, 2][..], &[0; 8], &[0x60, 2, 0, 0, 0, 0, 0, 0], &[2, 4, 0x05, 0xb4]].concat();
    ipv4(6, TEN, ELEVEN, 0, &tcp)
}

#[test]
fn what_passes_as_it_is_announces_what_it_did() {
    let folder = Folder::new();
    let more = ", bypass = ['unmatched'], tcp_mss = 500";
    let mut open = line(&opening(&folder, OPEN, more));
    assert_eq!(open.one(&syn()), Fate::Passed(syn()));
    let mut seal = line(&sealing(&folder, &format!("{SEAL}, selector = ['10.3.0.0/16']"), more));
    assert_eq!(seal.one(&syn()), Fate::Passed(syn()));
    // What is opened does not.
    let sealed = line(&plan("esp-seal", &table(&folder, "all.state", &[SEAL], ""))).pass(&[syn()]);
    let Fate::Passed(opened) = open.one(&sealed[0]) else { panic!("{:?}", open.drops()) };
    assert_eq!((&opened[..50], &opened[56..]), (&syn()[..50], &500_u16.to_be_bytes()[..]));
}

/// What ESP does not protect, it must not make look right.
#[test]
fn a_header_checksum_that_is_wrong_stays_wrong() {
    let folder = Folder::new();
    for mode in ["tunnel", "transport"] {
        let seal = if mode == "tunnel" { SEAL.to_owned() } else { format!("{OPEN}, mode = 'transport'") };
        let open = format!("{OPEN}, mode = '{mode}'");
        let mut seal = line(&plan("esp-seal", &table(&folder, &format!("{mode}-seal.state"), &[&seal], "")));
        let mut open = line(&plan("esp-open", &table(&folder, &format!("{mode}-open.state"), &[&open], "")));
        // A bit of the TTL, before it is sealed and while it is on its way.
        let mut before = some_v4(20);
        before[22] ^= 4;
        let sealed = seal.pass(&[before.clone(), some_v4(20)]);
        let right = |frame: &[u8]| sum(&frame[14..34]) == 0;
        assert_eq!(sealed.iter().map(|frame| right(frame)).collect::<Vec<_>>(), [mode == "tunnel", true]);
        let mut on_the_way = sealed[1].clone();
        on_the_way[22] ^= 4;
        let opened = open.pass(&[sealed[0].clone(), on_the_way]);
        assert_eq!(opened[0], before);
        assert_eq!(right(&opened[1]), mode == "tunnel", "{mode}");
    }
}

// What becomes of packets: replay, late, wrong_queue, policy.

#[test]
fn a_packet_is_opened_once_and_within_the_window() {
    const PACKETS: usize = 400;
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(some_v4).collect();
    for (transform, window, esn) in
        [("aes-128-gcm", 64, true), ("chacha20-poly1305", 64, false), ("null-aes-128-gmac", 192, true)]
    {
        let seal = SEAL.replace("aes-128-gcm", transform) + &format!(", esn = {esn}");
        let sealed =
            line(&plan("esp-seal", &table(&folder, &format!("{transform}.state"), &[&seal], ""))).pass(&packets);
        let open = format!("spi = 0x12345678, transform = '{transform}', window = {window}, esn = {esn}");
        let step = prop_oneof![4 => -8_i32..12, 1 => -300_i32..300, 1 => Just(-(window - 1)), 1 => Just(-window)];
        let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&prop::collection::vec(step, 1..300), |steps| {
            folder.state("open.state");
            let mut line = line(&opening(&folder, &open, ""));
            let mut taken = BTreeSet::new();
            for step in steps {
                let highest = taken.last().map_or(0, |highest| *highest);
                let number = (highest + step).clamp(1, PACKETS as i32);
                let index = number as usize - 1;
                let expected = if number <= highest - window {
                    // Of 32 bits, what is behind the window may as well be ahead of it: the ICV tells (RFC 4303, A2.2).
                    Fate::Dropped(if esn { "bad_tag" } else { "late" })
                } else if taken.insert(number) {
                    Fate::Passed(packets[index].clone())
                } else {
                    Fate::Dropped("replay")
                };
                prop_assert_eq!(line.one(&sealed[index]), expected, "{} behind {}", number, highest);
            }
            line.balance();
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn the_same_packet_twice_in_a_batch_is_opened_once() {
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..20).map(some_v4).collect();
    let sealed = line(&sealing(&folder, SEAL, "")).pass(&packets);
    let mut line = line(&opening(&folder, OPEN, ""));
    let twice: Vec<Vec<u8>> = sealed.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
    assert_eq!(line.send(&twice).0, packets);
    assert_eq!(line.drops(), [("replay", 20)]);
    line.balance();
}

#[test]
fn an_sa_belongs_to_the_worker_that_serves_its_queue() {
    let folder = Folder::new();
    let packets = [some_v4(20), some_v6(20)];
    let sealed = line(&sealing(&folder, SEAL, "")).pass(&packets);
    for workers in [2, 3] {
        for queue in 0..workers {
            folder.state("open.state");
            let sa = format!("{OPEN}, queue = {queue}");
            let plan = plan_for("esp-open", &table(&folder, "open.state", &[&sa], ""), workers).unwrap();
            acquire(&plan, &[]).unwrap();
            let mut opened = 0;
            for worker in 0..workers {
                let stage = build_for(&plan, BuildCx { worker, workers, ..BuildCx::default() });
                let mut line = Line::new(vec![stage]);
                if worker == queue {
                    assert_eq!(line.pass(&sealed), packets);
                    opened += 1;
                } else {
                    assert_eq!(line.each(&sealed), [Fate::Dropped("wrong_queue"), Fate::Dropped("wrong_queue")]);
                }
                line.balance();
            }
            assert_eq!(opened, 1);
        }
    }
}

#[test]
fn what_is_opened_has_a_source_address_that_the_selector_has() {
    let folder = Folder::new();
    let source = |last: u8| ipv4(UDP, [10, 1, 0, last], ELEVEN, 0, &udp(1, 2, b"payload"));
    let source_v6 = |low: u128| ipv6(UDP, 0xfd00 << 112 | low, SEVEN, 64, &udp(1, 2, b"payload"));
    let packets =
        [source(0), source(15), source(16), source(255), source_v6(0), source_v6(1), source_v6(2), source_v6(1 << 64)];
    for mode in ["tunnel", "transport"] {
        let seal = if mode == "tunnel" { SEAL.to_owned() } else { format!("{OPEN}, mode = 'transport'") };
        let open = format!("{OPEN}, mode = '{mode}', selector = ['10.1.0.0/28', '10.1.0.255/32', 'fd00::/127']");
        let sealed =
            line(&plan("esp-seal", &table(&folder, &format!("{mode}-seal.state"), &[&seal], ""))).pass(&packets);
        let mut line = line(&plan("esp-open", &table(&folder, &format!("{mode}-open.state"), &[&open], "")));
        let fates = line.each(&sealed);
        for (index, passes) in [true, true, false, true, true, true, false, false].into_iter().enumerate() {
            let expected = if passes { Fate::Passed(packets[index].clone()) } else { Fate::Dropped("policy") };
            assert_eq!(fates[index], expected, "{mode}: {index}");
        }
        line.balance();
    }
}

#[test]
fn a_tunnel_has_whole_packets_in_it_and_transport_mode_whatever_it_has() {
    let folder = Folder::new();
    let packets = [some_v4(9), some_v6(9)];
    let transport = format!("{OPEN}, mode = 'transport'");
    let in_tunnel = line(&sealing(&folder, SEAL, "")).pass(&packets);
    let as_it_is = line(&plan("esp-seal", &table(&folder, "transport.state", &[&transport], ""))).pass(&packets);
    let mut tunnel = line(&opening(&folder, OPEN, ""));
    assert_eq!(tunnel.each(&as_it_is), [Fate::Dropped("policy"), Fate::Dropped("policy")]);
    // A whole packet may be the payload of transport mode: IP in IP (RFC 2003), as it has come.
    let mut transport = line(&plan("esp-open", &table(&folder, "transport-open.state", &[&transport], "")));
    for (fate, packet) in transport.each(&in_tunnel).into_iter().zip(&packets) {
        let Fate::Passed(opened) = fate else { panic!("{fate:?}") };
        let inner = &packet[14..];
        assert_eq!(&opened[opened.len() - inner.len()..], inner);
        assert_eq!(opened.len(), 14 + 20 + inner.len());
        assert_eq!(opened[14 + 9], if inner[0] >> 4 == 4 { 4 } else { 41 });
    }
}

// What becomes of packets: sa_limit, state_file.

#[test]
fn at_its_hard_limit_an_sa_seals_no_more_not_even_after_a_restart() {
    let folder = Folder::new();
    let packets = vec![some_v4(100); 10];
    let limited = format!("{SEAL}, soft_packets = 1, hard_packets = 7");
    let mut sealed = 0;
    for _ in 0..4 {
        let mut line = line(&sealing(&folder, &limited, ""));
        let got = line.send(&packets[..3]).0.len();
        let dropped = line.drops();
        assert_eq!(dropped, if got < 3 { vec![("sa_limit", 3 - got as u64)] } else { vec![] });
        sealed += got;
        line.balance();
    }
    assert_eq!(sealed, 7);
    // Bytes of inner packets: 128 each.
    folder.state("seal.state");
    let limited = format!("{SEAL}, soft_bytes = 1, hard_bytes = 1000");
    let mut sealed = 0;
    for _ in 0..3 {
        let mut line = line(&sealing(&folder, &limited, ""));
        let fates = line.each(&packets[..6]);
        let passed = fates.iter().take_while(|fate| matches!(fate, Fate::Passed(_))).count();
        assert!(fates[passed..].iter().all(|fate| *fate == Fate::Dropped("sa_limit")), "{fates:?}");
        sealed += passed;
        line.balance();
    }
    assert!(sealed == 7 || sealed == 8, "{} bytes of 1000", sealed * 128);
    // In a batch, too.
    folder.state("seal.state");
    let mut line = line(&sealing(&folder, &limited, ""));
    let sealed = line.send(&vec![some_v4(100); 40]).0.len();
    assert!(sealed == 7 || sealed == 8, "{sealed} in a batch");
    line.balance();
}

#[test]
fn at_its_hard_limit_an_sa_opens_no_more_until_the_next_start() {
    let folder = Folder::new();
    let packets = vec![some_v4(100); 40];
    let sealed = line(&sealing(&folder, SEAL, "")).pass(&packets);
    let limited = format!("{OPEN}, hard_packets = 7");
    for start in 0..2 {
        let mut line = line(&opening(&folder, &limited, ""));
        let (got, _) = line.send(&sealed[start * 20..][..20]);
        assert_eq!((got.len(), line.drops()), (7, vec![("sa_limit", 13)]));
        line.balance();
    }
    folder.state("open.state");
    let limited = format!("{OPEN}, hard_bytes = 1000");
    let mut line = line(&opening(&folder, &limited, ""));
    let got = line.send(&sealed).0.len();
    assert!(got == 7 || got == 8, "{got}");
    assert_eq!(line.drops(), [("sa_limit", 40 - got as u64)]);
    line.balance();
}

#[test]
fn without_extended_numbers_an_sa_ends_with_the_last_of_32_bits() {
    let folder = Folder::new();
    let packets = vec![some_v4(9); 8];
    let plain = format!("{SEAL}, esn = false");
    drop(sealing(&folder, &plain, ""));
    folder.renumber("seal.state", "next", (1 << 32) - 5);
    let mut line = line(&sealing(&folder, &plain, ""));
    let (sealed, _) = line.send(&packets);
    assert_eq!(
        sealed.iter().map(|frame| number(frame)).collect::<Vec<_>>(),
        (u32::MAX - 4..=u32::MAX).collect::<Vec<_>>()
    );
    assert_eq!(line.drops(), [("sa_limit", 3)]);
    line.balance();
    // Nor does it begin anew with the next start.
    let mut line = self::line(&sealing(&folder, &plain, ""));
    assert_eq!(line.one(&packets[0]), Fate::Dropped("sa_limit"));
}

/// A disk that is gone, for a whole reservation of numbers.
#[test]
fn what_cannot_be_written_down_is_not_used() {
    let folder = Folder::new();
    let plan = sealing(&folder, SEAL, "");
    let mut line = line(&plan);
    std::fs::remove_dir_all(&*folder).unwrap();
    line.wires.wan.set_recording(false);
    let frame = some_v4(0);
    let (mut delivered, mut dropped) = (0_u64, 0);
    while dropped == 0 && delivered < 5 << 20 {
        for _ in 0..4096 / 64 {
            (0..64).for_each(|_| line.wires.lan.deliver(&frame).unwrap());
            delivered += 64;
            line.worker.poll_once();
        }
        maintain(&plan);
        dropped = line.worker.report().drops.total();
    }
    let passed = delivered - dropped;
    assert_eq!(line.drops(), [("state_file", dropped)], "of {delivered}");
    assert!(dropped > 0 && (1 << 16..=2 << 20).contains(&passed), "{passed} passed, {dropped} dropped");
    // And it stays so.
    assert_eq!(line.one(&frame), Fate::Dropped("state_file"));
    xdpfwd_testkit::wires::assert_conserved(&mut line.worker);
}

// What becomes of packets: too_big.

/// Ways to the peer, each with what it takes.
fn ways() -> Vec<String> {
    let mut ways = vec![];
    for transform in ["aes-128-gcm", "null-aes-256-gmac"] {
        for udp in ["", ", udp_ports = [4500, 4500]"] {
            let sa = format!("spi = 0x12345678, transform = '{transform}'{udp}");
            ways.push(format!("{sa}, source = '192.0.2.1', destination = '192.0.2.2', df = 'clear'"));
            ways.push(format!("{sa}, source = '2001:db8::1', destination = '2001:db8::2'"));
            ways.push(format!("{sa}, mode = 'transport'"));
        }
    }
    ways
}

/// A packet of so many bytes that must not be fragmented.
fn of_size(size: usize, is_v6: bool) -> Vec<u8> {
    let payload = vec![0x55; size - if is_v6 { 48 } else { 28 }];
    if is_v6 {
        ipv6(UDP, SIX, SEVEN, 64, &udp(1, 2, &payload))
    } else {
        ipv4(UDP, TEN, ELEVEN, 0x4000, &udp(1, 2, &payload))
    }
}

/// An address of IPv4 and one of IPv6.
type OneOfEach = [Option<&'static str>; 2];

#[test]
fn who_sends_what_is_too_big_is_told_what_is_not() {
    let folder = Folder::new();
    // Whose word it is: the configuration's, the port's, the destination's.
    let sources: [(&str, OneOfEach, OneOfEach); 4] = [
        (
            ", icmp_source = ['192.0.2.77', '2001:db8::77']",
            [Some("192.0.2.5"), Some("2001:db8::5")],
            [Some("192.0.2.77"), Some("2001:db8::77")],
        ),
        ("", [Some("192.0.2.5"), Some("2001:db8::5")], [Some("192.0.2.5"), Some("2001:db8::5")]),
        (", icmp_source = ['192.0.2.77']", [None, Some("2001:db8::5")], [Some("192.0.2.77"), Some("2001:db8::5")]),
        ("", [None, None], [None, None]),
    ];
    let mut questions = String::new();
    let mut answered = vec![];
    for (at, way) in ways().iter().enumerate() {
        for mtu in [1400, 1500] {
            let (source, port, said) = &sources[at % sources.len()];
            let more = format!(", mtu = {mtu}, icmp_rate = 1000000{source}");
            let state = format!("{at}-{mtu}.state");
            let plan = plan("esp-seal", &table(&folder, &state, &[way], &more));
            let stage = build_for(
                &plan,
                BuildCx {
                    workers: 1,
                    ipv4: port[0].map(|address| address.parse().unwrap()),
                    ipv6: port[1].map(|address| address.parse().unwrap()),
                    ..BuildCx::default()
                },
            );
            let mut line = Line::new(vec![stage]);
            for (is_v6, said) in [false, true].into_iter().zip(said) {
                for (tags, size) in [(0, mtu + 1), (1, mtu), (2, mtu + 100)] {
                    let frame = tagged(&of_size(size, is_v6), tags);
                    let Fate::Answered(answer) = line.one(&frame) else {
                        panic!("{size} over {mtu}: {way}: {:?}", line.drops())
                    };
                    let question =
                        json!({ "plain": hex(&frame), "answer": hex(&answer), "tags": tags, "source": said });
                    questions += &format!("{question}\n");
                }
                answered.push((line.counter("icmp_sent"), is_v6, mtu));
            }
            assert_eq!((line.counter("icmp_sent"), line.drops()), (6, vec![]));
            line.balance();
        }
    }
    // What it says is true: this much passes, and not a byte more.
    let answers = scapy("icmp", &questions);
    let mtus: Vec<usize> = answers.lines().map(|line| line.parse().unwrap()).collect();
    let mut mtus = mtus.chunks(3).map(|three| {
        assert!(three.iter().all(|mtu| *mtu == three[0]), "{three:?}");
        three[0]
    });
    for (at, way) in ways().iter().enumerate() {
        for mtu in [1400, 1500] {
            let state = format!("{at}-{mtu}.state");
            let mut line = line(&plan(
                "esp-seal",
                &table(&folder, &state, &[way], &format!(", mtu = {mtu}, icmp_rate = 1000000")),
            ));
            for is_v6 in [false, true] {
                let fits = mtus.next().unwrap();
                let Fate::Passed(sealed) = line.one(&of_size(fits, is_v6)) else { panic!("{fits} of {mtu}: {way}") };
                assert!(sealed.len() - 14 <= mtu, "{} bytes over {mtu}: {way}", sealed.len() - 14);
                assert!(
                    matches!(line.one(&of_size(fits + 1, is_v6)), Fate::Answered(_)),
                    "{} of {mtu}: {way}",
                    fits + 1
                );
            }
            line.balance();
        }
    }
    assert_eq!((mtus.next(), answered.len()), (None, 12 * 2 * 2));
}

#[test]
fn nobody_is_told_what_must_not_be_said() {
    let folder = Folder::new();
    let payload = vec![0; 1500];
    let v4 = |source: [u8; 4], destination: [u8; 4]| ipv4(UDP, source, destination, 0x4000, &udp(1, 2, &payload));
    let icmp = |kind: u8| ipv4(1, TEN, ELEVEN, 0x4000, &[&[kind, 0, 0, 0][..], &payload].concat());
    let v6 = |source: u128| ipv6(UDP, source, SEVEN, 64, &udp(1, 2, &payload));
    let icmp6 = |kind: u8| ipv6(58, SIX, SEVEN, 64, &[&[kind, 0, 0, 0][..], &payload].concat());
    let untold = [
        // RFC 1122, 3.2.2; RFC 1812, 4.3.2.7: errors, fragments that are not the first, many, nobody.
        icmp(3),
        icmp(4),
        icmp(5),
        icmp(11),
        icmp(12),
        ipv4(UDP, TEN, ELEVEN, 0x4000 | 7, &payload),
        v4(TEN, [224, 0, 0, 9]),
        v4(TEN, [239, 1, 2, 3]),
        v4(TEN, [255; 4]),
        v4([0; 4], ELEVEN),
        v4([127, 0, 0, 1], ELEVEN),
        v4([224, 0, 0, 1], ELEVEN),
        v4([255; 4], ELEVEN),
        // RFC 4443, 2.4 (e).
        icmp6(1),
        icmp6(2),
        icmp6(3),
        icmp6(4),
        icmp6(127),
        icmp6(137),
        v6(0),
        v6(0xff02 << 112 | 1),
    ];
    let more = ", icmp_rate = 1000000";
    let mut line = line(&sealing(&folder, SEAL, more));
    for (index, frame) in untold.iter().enumerate() {
        assert_eq!(line.one(frame), Fate::Dropped("too_big"), "{index}");
    }
    let sent_to_many = |frame: Vec<u8>, mac: &[u8; 6]| [&mac[..], &frame[6..]].concat();
    assert_eq!(line.one(&sent_to_many(v4(TEN, ELEVEN), &[0xff; 6])), Fate::Dropped("too_big"), "a broadcast");
    // It is told for these, of the same kinds.
    for told in [icmp(8), icmp(0), icmp6(128), icmp6(129), v4(TEN, ELEVEN), v6(SIX)] {
        assert!(matches!(line.one(&told), Fate::Answered(_)));
    }
    assert_eq!(line.counter("icmp_sent"), 6);
    // What may be fragmented on the way is not sealed either: it would not arrive.
    let fragmentable = ipv4(UDP, TEN, ELEVEN, 0, &udp(1, 2, &payload));
    assert!(!matches!(line.one(&fragmentable), Fate::Passed(_)));
    line.balance();
}

#[test]
fn messages_are_limited_in_number() {
    let folder = Folder::new();
    let frames = vec![of_size(1500, false); 200];
    for (rate, at_most) in [(0, 0), (1, 4), (1_000_000, 200)] {
        let mut line = line(&sealing(&folder, SEAL, &format!(", icmp_rate = {rate}")));
        let (wan, lan) = line.send(&frames);
        assert_eq!((wan.len(), line.counter("icmp_sent")), (0, lan.len() as u64));
        assert!(lan.len() <= at_most && (rate == 0 || !lan.is_empty()), "{} of 200 at {rate}", lan.len());
        let dropped = 200 - lan.len() as u64;
        assert_eq!(line.drops(), if dropped > 0 { vec![("too_big", dropped)] } else { vec![] });
        line.balance();
    }
}

// What becomes of packets: esp_fragment, malformed, no_room. Those of esp-open are in `esp_against_scapy.rs`.

#[test]
fn fragments_are_sealed_in_tunnels_only() {
    let folder = Folder::new();
    let fragment = |offset: u16, more: u16| {
        let field = (offset << 3 | more).to_be_bytes();
        ipv6(44, SIX, SEVEN, 64, &[&[UDP, 0, field[0], field[1], 0, 0, 0, 9][..], &udp(1, 2, b"payload")].concat())
    };
    let behind_options = |mut frame: Vec<u8>| {
        frame[20] = 0;
        frame.splice(54..54, [44, 0, 1, 4, 0, 0, 0, 0]);
        frame[19] += 8;
        frame
    };
    let fragments = [
        ipv4(UDP, TEN, ELEVEN, 0x2000, &udp(1, 2, b"payload")),
        ipv4(UDP, TEN, ELEVEN, 0x2007, b"payload"),
        ipv4(UDP, TEN, ELEVEN, 7, b"payload"),
        fragment(0, 1),
        fragment(7, 1),
        fragment(7, 0),
        behind_options(fragment(7, 0)),
    ];
    let mut transport = line(&sealing(&folder, &format!("{OPEN}, mode = 'transport'"), ""));
    assert!(transport.each(&fragments).iter().all(|fate| *fate == Fate::Dropped("esp_fragment")));
    let stages = vec![
        build(&plan("esp-seal", &table(&folder, "tunnel.state", &[SEAL], ""))),
        build(&opening(&folder, OPEN, "")),
    ];
    assert_eq!(Line::new(stages).pass(&fragments), fragments);
    transport.balance();
}

#[test]
fn what_cannot_be_read_is_not_sealed() {
    let folder = Folder::new();
    let (v4, v6) = (some_v4(20), some_v6(20));
    let with = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    let mut frames = vec![
        with(&v4, 14, 0x44),
        with(&v4, 14, 0x55),
        with(&v4, 14, 0x65),
        with(&v4, 17, 19),
        with(&v4, 16, 9),
        with(&v6, 14, 0x40),
        with(&v6, 14, 0x50),
        with(&v6, 18, 9),
    ];
    frames.extend([15, 20, 33, v4.len() - 1].map(|len| v4[..len].to_vec()));
    frames.extend([15, 40, 53, v6.len() - 1].map(|len| v6[..len].to_vec()));
    for (at, sa) in [SEAL.to_owned(), format!("{OPEN}, mode = 'transport'")].iter().enumerate() {
        for bypass in ["", ", bypass = ['not-ip', 'unmatched', 'nd', 'ike', 'arp']"] {
            let mut line = line(&plan("esp-seal", &table(&folder, &format!("{at}.state"), &[sa], bypass)));
            for (index, frame) in frames.iter().enumerate() {
                assert_eq!(line.one(frame), Fate::Dropped("malformed"), "{index}: {sa} {bypass}");
            }
            line.balance();
        }
    }
}

/// Moves each packet to the front of its frame, where this much room is left, without changing it.
struct Forward(usize);

impl Stage for Forward {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            let bytes = packet.frame.to_vec();
            let by = packet.frame.headroom() - self.0;
            packet.frame.prepend(by).unwrap();
            packet.frame[..bytes.len()].copy_from_slice(&bytes);
            packet.frame.truncate(bytes.len());
        }
    }
}

#[test]
fn what_has_not_the_room_is_dropped_and_what_has_just_the_room_is_sealed() {
    let folder = Folder::new();
    let moved = |room: usize| NamedStage::new("moved", Forward(room));
    // In front: the outer header, UDP, SPI, number and IV. GMAC with extended numbers borrows four bytes, which the frame has.
    for (at, way) in ways().iter().enumerate() {
        let outer = if way.contains("transport") {
            0
        } else if way.contains("2001") {
            40
        } else {
            20
        };
        let needed = outer + if way.contains("udp") { 8 } else { 0 } + 16;
        for (room, fits) in [(0, false), (needed - 1, false), (needed, true), (needed + 1, true)] {
            let stage = build(&plan("esp-seal", &table(&folder, &format!("{at}-{room}.state"), &[way], "")));
            let mut line = Line::new(vec![moved(room), stage]);
            for frame in [some_v4(40), some_v6(40), tagged(&some_v4(40), 2)] {
                match line.one(&frame) {
                    Fate::Passed(_) => assert!(fits, "{room}: {way}"),
                    other => assert_eq!((other, fits), (Fate::Dropped("no_room"), false), "{room}: {way}"),
                }
            }
            line.balance();
        }
    }
    // Behind: padding, trailer and ICV. A frame has 2048 bytes, of which 256 are in front.
    let stage = build(&plan("esp-seal", &table(&folder, "behind.state", &[SEAL], ", mtu = 9216")));
    let mut line = Line::new(vec![stage]);
    for size in 1740..=1778 {
        let frame = of_size(size, false);
        let behind = (4 - (size + 2) % 4) % 4 + 2 + 16;
        let fits = 256 + frame.len() + behind <= 2048;
        match line.one(&frame) {
            Fate::Passed(sealed) => assert_eq!((sealed.len(), fits), (frame.len() + 36 + behind, true), "{size}"),
            other => assert_eq!((other, fits), (Fate::Dropped("no_room"), false), "{size}"),
        }
    }
    line.balance();
}

// Nothing comes out of esp-open but what was sealed.

#[test]
fn a_bit_that_is_another_drops_its_packet_and_nothing_else() {
    let folder = Folder::new();
    for (at, transform) in TRANSFORMS.into_iter().enumerate() {
        for (more, open_more) in [
            (", source = '192.0.2.1', destination = '192.0.2.2'", ""),
            (", source = '2001:db8::1', destination = '2001:db8::2', esn = false", ", esn = false"),
            (", source = '192.0.2.1', destination = '192.0.2.2', udp_ports = [9, 4500]", ", udp_port = 4500"),
            (", mode = 'transport'", ", mode = 'transport'"),
        ] {
            let sa = format!("spi = 0x12345678, transform = '{transform}'");
            for name in ["seal.state", "open.state"] {
                folder.state(name);
            }
            let seal = plan("esp-seal", &table(&folder, "seal.state", &[&format!("{sa}{more}")], ""));
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
            assert!(open.drops().iter().all(|(reason, _)| known.contains(reason)), "{:?}", open.drops());
            assert!(open.drops().contains(&("no_sa", 32)), "{:?}", open.drops());
            // What was changed was not taken for received.
            assert_eq!(open.one(target), Fate::Passed(packet), "{at}");
            seal.balance();
            open.balance();
        }
    }
}

/// Bytes of any kind, some of them behind headers that lead to an SA.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let spi = prop_oneof![3 => Just(SPI), 1 => any::<u32>(), 1 => Just(0)];
    let lie = prop_oneof![4 => Just(0_i16), 1 => -60_i16..60, 1 => any::<i16>()];
    (0..9, spi, lie, bytes, any::<(u32, u8)>()).prop_map(|(kind, spi, lie, bytes, (number, at))| {
        let esp = [&spi.to_be_bytes()[..], &(number % 3000).to_be_bytes(), &bytes].concat();
        let mut frame = match kind {
            0 => [&[2; 14][..], &bytes].concat(),
            1 => ethernet(0x0800, &bytes),
            2 => ethernet(0x86dd, &bytes),
            3 => ipv4(50, TEN, ELEVEN, 0, &esp),
            4 => ipv4(UDP, TEN, ELEVEN, 0, &udp(4500, 4500, &esp)),
            5 => ipv6(50, SIX, SEVEN, 64, &esp),
            6 => ipv6(UDP, SIX, SEVEN, 64, &udp(4500, 4500, &esp)),
            7 => ipv6(0, SIX, SEVEN, 64, &[&[50, 0, 1, 4, 0, 0, 0, 0][..], &esp].concat()),
            _ => ipv6(44, SIX, SEVEN, 64, &[&[50, 0, 0, 0, 0, 0, 0, 9][..], &esp].concat()),
        };
        if kind > 2 {
            let length = if kind == 3 || kind == 4 { 16 } else { 18 };
            let was = i16::from_be_bytes([frame[length], frame[length + 1]]);
            frame[length..length + 2].copy_from_slice(&was.wrapping_add(lie).to_be_bytes());
            // Now and then another byte of the headers.
            if at < 80 {
                let at = usize::from(at).min(frame.len() - 1);
                frame[at] ^= number as u8;
            }
        }
        tagged(&frame, if at > 200 { usize::from(at) % 3 } else { 0 })
    })
}

#[test]
fn no_bytes_come_out_that_were_not_sealed() {
    let folder = Folder::new();
    let opens = ["", ", udp_port = 4500"].map(|udp| {
        TRANSFORMS
            .into_iter()
            .enumerate()
            .map(|(at, transform)| (at, format!("spi = 0x12345678, transform = '{transform}'{udp}")))
            .flat_map(|(at, sa)| [(at * 2, sa.clone()), (at * 2 + 1, format!("{sa}, mode = 'transport', esn = false"))])
            .collect::<Vec<_>>()
    });
    let mut drops = BTreeSet::new();
    for (at, sa) in opens.iter().flatten() {
        let line = line(&plan("esp-open", &table(&folder, &format!("{at}.state"), &[sa], "")));
        let line = RefCell::new(line);
        let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
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

/// Whatever is sealed is opened to what it was, or it is dropped.
#[test]
fn no_bytes_come_out_otherwise_than_they_went_in() {
    let folder = Folder::new();
    let ways = ways();
    for (at, way) in ways.iter().enumerate() {
        let open = way.split(", source").next().unwrap().replace("udp_ports = [4500, 4500]", "udp_port = 4500");
        let stages = [("esp-seal", way), ("esp-open", &open)].map(|(kind, sa)| {
            build(&plan(kind, &table(&folder, &format!("{at}-{kind}.state"), &[sa], ", bypass = ['not-ip']")))
        });
        let line = RefCell::new(Line::new(stages.into()));
        let passed = Cell::new(0);
        let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&anything(), |frame| {
            if let Fate::Passed(got) = line.borrow_mut().one(&frame) {
                prop_assert!(frame.starts_with(&got), "{got:02x?} is not {frame:02x?}");
                passed.set(passed.get() + 1);
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(passed.get() > 200, "{passed:?} of 1500");
        line.into_inner().balance();
    }
}

#[test]
fn each_backend_opens_what_the_other_has_sealed() {
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> = (0..100).flat_map(|size| [some_v4(size), some_v6(1400 - size)]).collect();
    for (at, way) in ways().iter().enumerate() {
        for transform in TRANSFORMS {
            let way = way.replace("aes-128-gcm", transform).replace("null-aes-256-gmac", transform);
            let open = way.split(", source").next().unwrap().replace("udp_ports = [4500, 4500]", "udp_port = 4500");
            for backends in [["aws-lc", "rustcrypto"], ["rustcrypto", "aws-lc"]] {
                let mut backends = backends.iter();
                let stages = [("esp-seal", &way), ("esp-open", &open)].map(|(kind, sa)| {
                    let backend = backends.next().unwrap();
                    let state = format!("{at}-{transform}-{kind}-{backend}.state");
                    let mtu = if kind == "esp-seal" { ", mtu = 9216" } else { "" };
                    let more = format!(", backend = '{backend}'{mtu}");
                    build(&plan(kind, &table(&folder, &state, &[sa], &more)))
                });
                assert_eq!(Line::new(stages.into()).pass(&packets), packets, "{way}");
            }
        }
    }
}

// Numbers and IVs.

/// Numbers and IVs of what was sealed, each of them new.
#[derive(Default)]
struct Seen {
    ivs: HashSet<u64>,
    numbers: HashSet<u32>,
}

impl Seen {
    #[track_caller]
    fn take(&mut self, sealed: &[Vec<u8>]) {
        for frame in sealed {
            assert!(self.ivs.insert(iv(frame)), "IV {:x} twice", iv(frame));
            assert!(self.numbers.insert(number(frame)), "number {} twice", number(frame));
        }
    }
}

#[test]
fn two_paths_and_two_workers_never_use_an_iv_or_a_number_twice() {
    let folder = Folder::new();
    let mut seen = Seen::default();
    // And not over restarts, in which the clock stands still as far as an epoch is concerned.
    for start in 0..3 {
        let plan = plan_for("esp-seal", &table(&folder, "seal.state", &[SEAL], ""), 2).unwrap();
        acquire(&plan, &[]).unwrap();
        let sealed: Vec<Vec<Vec<u8>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let plan = &plan;
                    scope.spawn(move || {
                        let stage = || build_for(plan, BuildCx { worker, workers: 2, ..BuildCx::default() });
                        let mut line = Line::between(vec![stage()], vec![stage()]);
                        let mut sealed = vec![];
                        for round in 0..50 {
                            for _ in 0..20 + round % 3 {
                                line.wires.lan.deliver(&some_v4(3)).unwrap();
                                line.wires.wan.deliver(&some_v6(3)).unwrap();
                            }
                            while line.worker.poll_once() > 0 {}
                            sealed.extend(line.wires.wan.take_sent());
                            sealed.extend(line.wires.lan.take_sent());
                        }
                        assert_eq!(line.worker.report().drops.total(), 0);
                        sealed
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        sealed.iter().for_each(|sealed| seen.take(sealed));
        let count = seen.numbers.len();
        assert_eq!(count, (start + 1) * sealed.iter().map(Vec::len).sum::<usize>());
        // An orderly end leaves no gap.
        drop(plan);
        let highest = *seen.numbers.iter().max().unwrap();
        assert_eq!(highest as usize, count);
    }
}

#[test]
fn after_a_crash_numbers_and_ivs_go_on_behind_what_may_have_been_used() {
    let folder = Folder::new();
    let mut seen = Seen::default();
    let packets = vec![some_v4(3); 40];
    let mut open = line(&opening(&folder, OPEN, ""));
    for crash in 0..4 {
        let plan = sealing(&folder, SEAL, "");
        let mut line = line(&plan);
        let left = folder.read("seal.state");
        let sealed = line.pass(&packets);
        seen.take(&sealed);
        // The peer takes them: they are ahead of its window.
        assert_eq!(open.pass(&sealed), packets, "{crash}");
        assert!(number(&sealed[0]) <= crash << 20 | 1 || crash > 0);
        drop(line);
        drop(plan);
        // The file as it was while it ran, as if its end had never come.
        std::fs::write(folder.join("seal.state"), left).unwrap();
    }
    assert!(*seen.numbers.iter().max().unwrap() < 5 << 20, "a crash costs up to 2^20 numbers");
}

/// RFC 6864, 4.1: of what may be fragmented on the way, no two have one identification.
#[test]
fn what_may_be_fragmented_is_told_apart() {
    let folder = Folder::new();
    let sealed = line(&sealing(&folder, &format!("{SEAL}, df = 'clear'"), "")).pass(&vec![of_size(100, false); 1000]);
    let idents: HashSet<&[u8]> = sealed.iter().map(|frame| &frame[18..20]).collect();
    assert_eq!((idents.len(), sealed[0][20]), (1000, 0));
}

/// `xdpfwd ctl sa` says so.
#[test]
fn what_an_sa_has_done_is_counted() {
    let folder = Folder::new();
    let limited = format!("{SEAL}, hard_packets = 30, soft_packets = 20");
    let (seal, open) = (sealing(&folder, &limited, ""), opening(&folder, OPEN, ""));
    let (mut sealing, mut opening) = (line(&seal), line(&open));
    let packets: Vec<Vec<u8>> = (0..32).map(some_v4).collect();
    let sealed = sealing.send(&packets).0;
    opening.pass(&sealed[..20]);
    opening.send(&sealed[..5]);
    let mut damaged = sealed[25].clone();
    damaged[60] ^= 1;
    assert_eq!(opening.one(&damaged), Fate::Dropped("bad_tag"));
    let said = |plan: &Arc<dyn StagePlan>| {
        let sas = sas(plan);
        assert_eq!(sas.len(), 1);
        let sa = &sas[0];
        json!([sa["direction"], sa["spi"], sa["sequence"], sa["packets"], sa["bytes"], sa["drops"]])
    };
    // Of inner packets: 28 bytes and more.
    let bytes = |count: u64| (0..count).map(|size| size + 28).sum::<u64>();
    assert_eq!(said(&seal), json!(["out", SPI, 30, 30, bytes(30), { "sa_limit": 2 }]));
    assert_eq!(said(&open), json!(["in", SPI, 20, 20, bytes(20), { "bad_tag": 1, "replay": 5 }]));
    assert_eq!((sealing.counter("sealed"), opening.counter("opened")), (30, 20));
    assert_eq!(
        json!([sas(&seal)[0]["soft_packets"], sas(&seal)[0]["hard_packets"], sas(&open)[0]["window"]]),
        json!([20, 30, 1024])
    );
}

#[test]
fn a_window_goes_on_over_restarts() {
    let folder = Folder::new();
    let packets = vec![some_v4(3); 60];
    let sealed = line(&sealing(&folder, SEAL, "")).pass(&packets);
    let open = opening(&folder, OPEN, "");
    let mut line = line(&open);
    // Not the first ten, and not 45.
    let some: Vec<_> = (10..50).filter(|n| *n != 45).map(|n| sealed[n].clone()).collect();
    line.pass(&some);
    line.balance();
    drop(open);
    assert!(folder.read("open.state").contains("highest = 50"), "{}", folder.read("open.state"));
    let mut line = self::line(&opening(&folder, OPEN, ""));
    for (index, frame) in sealed.iter().enumerate() {
        match line.one(frame) {
            Fate::Passed(got) => assert!(index >= 50 && got == packets[0], "{index}"),
            Fate::Dropped(reason) => assert!(index < 50 && ["late", "replay"].contains(&reason), "{index}: {reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn after_a_reload_the_same_sa_keeps_its_numbers_and_window() {
    let folder = Folder::new();
    let packets = vec![some_v4(3); 20];
    let tables = |selector: &str, hard: &str| {
        let seal = format!("{SEAL}{selector}{hard}");
        let open = format!("{OPEN}{selector}");
        [table(&folder, "seal.state", &[&seal], ""), table(&folder, "open.state", &[&open], "")]
    };
    let [seal, open] = tables("", "");
    let old = [plan("esp-seal", &seal), plan("esp-open", &open)];
    let mut sealing = Line::new(vec![build(&old[0])]);
    let mut opening = Line::new(vec![build(&old[1])]);
    let mut seen = Seen::default();
    let mut all = sealing.pass(&packets);
    seen.take(&all);
    // One is on its way yet.
    let late = all[15].clone();
    let in_time: Vec<_> = all.iter().filter(|frame| **frame != late).cloned().collect();
    assert_eq!(opening.pass(&in_time), &packets[1..]);
    // The same SAs, with other words around them.
    let [seal, open] = tables(", selector = ['10.0.0.0/8']", "");
    let new = [("esp-seal", seal, &old[..1]), ("esp-open", open, &old[1..])].map(|(kind, table, old)| {
        let plan = plan_for(kind, &table, 1).unwrap();
        // Each on a machine of its own.
        acquire(&plan, old).unwrap_or_else(|error| panic!("{kind}: {error}"));
        plan
    });
    sealing.worker.swap_named(xdpfwd_testkit::wires::LAN, vec![build(&new[0])]).unwrap();
    opening.worker.swap_named(xdpfwd_testkit::wires::LAN, vec![build(&new[1])]).unwrap();
    drop(old);
    assert!(opening.each(&in_time).iter().all(|fate| *fate == Fate::Dropped("replay")));
    assert_eq!(opening.one(&late), Fate::Passed(packets[0].clone()));
    let more = sealing.pass(&packets);
    seen.take(&more);
    assert_eq!(number(&more[0]), 21);
    assert_eq!(opening.pass(&more), packets);
    all.extend(more);
    let (sealed, opened) = (&sas(&new[0])[0], &sas(&new[1])[0]);
    assert_eq!(json!([sealed["packets"], opened["packets"], opened["drops"]["replay"]]), json!([40, 40, 19]));
    drop((sealing, opening));
    drop(new);
    assert!(folder.read("seal.state").contains("next = 41"), "{}", folder.read("seal.state"));
    assert!(folder.read("open.state").contains("highest = 40"), "{}", folder.read("open.state"));
}

/// Its state file has its numbers: under another one they would begin anew.
#[test]
fn a_key_stays_with_its_state_file() {
    let folder = Folder::new();
    for (kind, sa) in [("esp-seal", SEAL), ("esp-open", OPEN)] {
        let old = [plan(kind, &table(&folder, &format!("{kind}-1.state"), &[sa], ""))];
        // As another transform it is the same key.
        for sa in [sa.to_owned(), sa.replace("'aes-128-gcm'", "'null-aes-128-gmac'").replace("0x12345678", "0x9abc")] {
            let moved = plan_for(kind, &table(&folder, &format!("{kind}-2.state"), &[&sa], ""), 1).unwrap();
            let error = acquire(&moved, &old).unwrap_err().to_string();
            assert!(error.contains("is in use with the state file") && error.contains("-1.state"), "{error}");
        }
        let stays = plan_for(kind, &table(&folder, &format!("{kind}-1.state"), &[sa], ""), 1).unwrap();
        // Nor does it change its direction: the peer has the numbers of that.
        let (back, sa) = if kind == "esp-seal" { ("esp-open", OPEN) } else { ("esp-seal", SEAL) };
        let turned = plan_for(back, &table(&folder, &format!("{back}-3.state"), &[sa], ""), 1).unwrap();
        let error = acquire(&turned, &old).unwrap_err().to_string();
        assert!(error.contains("is in use in the other direction"), "{error}");
        // The file was written anew by `table`: it is the one that is open all the same.
        acquire(&stays, &old).unwrap();
    }
}

/// Between two tunnels: who sent it is behind the first, and what goes back to it would go in clear.
#[test]
fn what_came_out_of_esp_is_not_quoted_in_clear() {
    let folder = Folder::new();
    let packets = [of_size(1440, false), of_size(1440, true)];
    let far = plan("esp-seal", &table(&folder, "far.state", &[SEAL], ""));
    let sealed = line(&far).pass(&packets);
    let open = plan("esp-open", &table(&folder, "open.state", &[OPEN], ""));
    let narrow = plan("esp-seal", &table(&folder, "narrow.state", &[SEAL], ", mtu = 1300, icmp_rate = 1000000"));
    let mut between = Line::new(vec![
        build(&open),
        NamedStage::build("narrow", &*narrow, &BuildCx { workers: 1, ..BuildCx::default() }),
    ]);
    assert_eq!(between.each(&sealed), [Fate::Dropped("too_big"), Fate::Dropped("too_big")]);
    // What had come in clear is answered.
    assert!(matches!(line(&narrow).one(&packets[0]), Fate::Answered(_)));
    between.balance();
}

/// Make before break, as docs/esp.md has it: nothing is lost between two reloads, and a key that is back is not new.
#[test]
fn keys_are_changed_while_packets_flow() {
    let folder = Folder::new();
    let (old, new) = (SEAL.to_owned(), SEAL.replace("0x12345678", "0x9abc") + ", esn = false");
    let (old_open, new_open) = (OPEN.to_owned(), OPEN.replace("0x12345678", "0x9abc") + ", esn = false");
    // Keys go by the place in the list: the new one has the first.
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
    let packets: Vec<Vec<u8>> = (0..10).map(some_v4).collect();
    let mut plans = [plan("esp-seal", &seals[0]), plan("esp-open", &opens[0])];
    let mut sealing = Line::new(vec![build(&plans[0])]);
    let mut opening = Line::new(vec![build(&plans[1])]);
    let reload = |line: &mut Line, plan: &mut Arc<dyn StagePlan>, kind: &str, table: &str| {
        let next = plan_for(kind, table, 1).unwrap();
        acquire(&next, &[Arc::clone(plan)]).unwrap();
        line.worker.swap_named(xdpfwd_testkit::wires::LAN, vec![build(&next)]).unwrap();
        *plan = next;
    };
    let by_old = sealing.pass(&packets);
    assert_eq!((spi(&by_old[0]), opening.pass(&by_old[..5])), (SPI, packets[..5].to_vec()));
    reload(&mut opening, &mut plans[1], "esp-open", &opens[1]);
    reload(&mut sealing, &mut plans[0], "esp-seal", &seals[1]);
    let by_new = sealing.pass(&packets);
    assert_eq!((spi(&by_new[0]), number(&by_new[0])), (0x9abc, 1));
    // What was on its way is opened among the new ones.
    assert_eq!(opening.pass(&by_new[..5]), packets[..5]);
    assert_eq!(opening.pass(&by_old[5..9]), packets[5..9]);
    reload(&mut sealing, &mut plans[0], "esp-seal", &seals[2]);
    reload(&mut opening, &mut plans[1], "esp-open", &opens[2]);
    assert_eq!(opening.one(&by_old[9]), Fate::Dropped("no_sa"));
    assert_eq!(opening.pass(&by_new[5..]), packets[5..]);
    // The old key once more: what was received was received.
    reload(&mut opening, &mut plans[1], "esp-open", &opens[1]);
    for frame in &by_old[..9] {
        let fate = opening.one(frame);
        assert!([Fate::Dropped("late"), Fate::Dropped("replay")].contains(&fate), "{fate:?}");
    }
    reload(&mut sealing, &mut plans[0], "esp-seal", &seals[0]);
    let again = sealing.pass(&packets);
    assert_eq!(spi(&again[0]), SPI);
    assert!(number(&again[0]) > 10);
    assert_eq!(opening.pass(&again), packets);
    sealing.balance();
    opening.balance();
}

// Frames.

#[test]
fn no_frame_is_lost_whatever_the_kernel_does() {
    let folder = Folder::new();
    let stages = |end: &str| {
        let sas = [format!("{SEAL}, selector = ['10.2.0.0/16']"), OPEN.to_owned()];
        vec![
            build(&plan(
                "esp-seal",
                &table(&folder, &format!("{end}-seal.state"), &[&sas[0]], ", icmp_rate = 1000000"),
            )),
            build(&plan("esp-open", &table(&folder, &format!("{end}-open.state"), &[&sas[1]], ""))),
        ]
    };
    let mut line = Line::between(stages("lan"), stages("wan"));
    let mut kinds = [some_v4(5), of_size(1500, false), some_v6(5), ethernet(0x0806, &[0; 46])].into_iter().cycle();
    for round in 0..600_u32 {
        line.wires.wan.set(match round / 20 % 5 {
            0 => Behaviour::default(),
            1 => Behaviour { budget: 0, ..Behaviour::default() },
            2 => Behaviour { errors: [16, 11, 105, 100].into(), ..Behaviour::default() },
            3 => Behaviour { completion_delay: None, ..Behaviour::default() },
            _ => Behaviour { ignored_wakeups: 3, ..Behaviour::default() },
        });
        for wire in [&line.wires.lan, &line.wires.wan] {
            for _ in 0..round % 50 {
                line.books.delivered += u64::from(wire.deliver(&kinds.next().unwrap()).is_ok());
            }
        }
        line.worker.poll_once();
        line.books.balance(&mut line.worker, &line.wires);
    }
    assert!(line.counter("icmp_sent") > 100);
    assert!(line.drops().iter().any(|(reason, _)| *reason == "no_sa"), "{:?}", line.drops());
    assert!(line.books.sent > 1000, "{:?}", line.books);
}

// Configurations.

#[test]
fn a_table_that_is_no_good_says_what_would_be() {
    let folder = Folder::new();
    let good = table(&folder, "seal.state", &[SEAL], "");
    let good_open = table(&folder, "open.state", &[OPEN], "");
    assert!(plan_for("esp-seal", &good, 1).is_ok() && plan_for("esp-open", &good_open, 1).is_ok());
    let key = good.split('\'').find(|part| part.ends_with(".key")).unwrap();
    let seal: [(&str, &str, &[&str]); 21] = [
        ("lab = true, ", "", &["lab"]),
        ("lab = true", "lab = false", &["lab", "true"]),
        ("spi = 0x12345678", "spi = 255", &["255", "256"]),
        ("spi = 0x12345678", "spi = 4294967296", &["4294967296", "4294967295"]),
        ("spi = 0x12345678, ", "", &["spi"]),
        ("aes-128-gcm'", "aes-128-cbc'", &["aes-128-cbc", "aes-128-gcm", "chacha20-poly1305", "null-aes-256-gmac"]),
        ("aes-128-gcm'", "aes-256-gcm'", &["40", "72"]),
        ("source = '192.0.2.1', ", "", &["source", "tunnel"]),
        ("source = '192.0.2.1'", "source = '2001:db8::1'", &["2001:db8::1", "192.0.2.2"]),
        ("source = '192.0.2.1'", "mode = 'transport', source = '192.0.2.1'", &["transport"]),
        ("source = '192.0.2.1'", "source = 'here'", &["here"]),
        ("spi = ", "udp_ports = [4500], spi = ", &["udp_ports"]),
        ("spi = ", "udp_ports = [0, 4500], spi = ", &["0"]),
        ("spi = ", "dscp = 64, spi = ", &["64", "63"]),
        ("spi = ", "ttl = 0, spi = ", &["0", "255"]),
        ("spi = ", "df = 'keep', spi = ", &["keep", "copy", "set", "clear"]),
        ("spi = ", "selector = ['10.0.0.0/33'], spi = ", &["10.0.0.0/33"]),
        ("spi = ", "window = 64, spi = ", &["window"]),
        ("lab = true", "lab = true, mtu = 575", &["575", "576", "9216"]),
        ("lab = true", "lab = true, bypass = ['icmp']", &["icmp", "arp", "nd", "ike", "not-ip", "unmatched"]),
        ("lab = true", "lab = true, backend = 'openssl'", &["openssl", "aws-lc", "rustcrypto"]),
    ];
    let open: [(&str, &str, &[&str]); 5] = [
        ("spi = ", "window = 65, spi = ", &["65", "64", "4096"]),
        ("spi = ", "window = 4160, spi = ", &["4160", "4096"]),
        ("spi = ", "udp_port = 0, spi = ", &["0", "65535"]),
        ("lab = true", "lab = true, mtu = 1500", &["mtu"]),
        ("spi = ", "dscp = 1, spi = ", &["dscp"]),
    ];
    let cases =
        seal.iter().map(|case| ("esp-seal", &good, case)).chain(open.iter().map(|case| ("esp-open", &good_open, case)));
    for (kind, good, (from, to, words)) in cases {
        assert!(good.contains(from), "{from}");
        let error =
            plan_for(kind, &good.replacen(from, to, 1), 1).err().unwrap_or_else(|| panic!("{from} → {to}")).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{from} → {to}: {error}");
    }
    // Key files.
    let refused = |words: &[&str]| {
        let error = plan_for("esp-seal", &good, 1).err().unwrap_or_else(|| panic!("{words:?}")).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        assert!(!error.contains(&KEY_128[8..20]), "a key in {error}");
    };
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |mode| std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).unwrap();
    for (given, sign) in [(0o640, "chmod 600"), (0o604, "chmod 600"), (0o660, "chmod 600")] {
        mode(given);
        refused(&[key, sign]);
    }
    for (digits, words) in
        [("00112233", &[key, "40"][..]), (KEY_256, &[key, "40"]), ("not digits at all, but forty characters!", &[key])]
    {
        std::fs::write(key, digits).unwrap();
        mode(0o600);
        refused(words);
    }
    for digits in [format!("0x{KEY_128}\n"), format!("  {KEY_128} \n"), KEY_128.to_uppercase()] {
        std::fs::write(key, digits).unwrap();
        assert!(plan_for("esp-seal", &good, 1).is_ok());
    }
    std::fs::rename(key, format!("{key}.elsewhere")).unwrap();
    refused(&[key]);
    std::os::unix::fs::symlink(format!("{key}.elsewhere"), key).unwrap();
    refused(&[key]);
}

#[test]
fn no_state_file_no_start() {
    let folder = Folder::new();
    let table = table(&folder, "seal.state", &[SEAL], "");
    let state = folder.join("seal.state");
    let name = state.to_str().unwrap();
    let refused = |words: &[&str]| {
        let error = acquire(&plan_for("esp-seal", &table, 1).unwrap(), &[])
            .err()
            .unwrap_or_else(|| panic!("{words:?}"))
            .to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    };
    std::fs::remove_file(&state).unwrap();
    refused(&[name, "xdpfwd esp new-state"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for text in [
        "",
        "version = 1\n",
        "epoch = 5\n",
        "version = 2\nepoch = 5\n",
        "version = 1\nepoch = -5\n",
        "version = 1\nep",
        "\0\0\0",
    ] {
        std::fs::write(&state, text).unwrap();
        refused(&[name]);
    }
    let later = now + 3600;
    std::fs::write(&state, format!("version = 1\nepoch = {later}\n# end\n")).unwrap();
    refused(&["clock"]);
    // An epoch is later than any before it, and written down before the first packet.
    std::fs::write(&state, format!("version = 1\nepoch = {}\n# end\n", now - 5)).unwrap();
    let plan = plan("esp-seal", &table);
    let epoch = |text: String| -> u64 {
        text.lines().find_map(|line| line.strip_prefix("epoch = ")).unwrap().trim().parse().unwrap()
    };
    let written = epoch(folder.read("seal.state"));
    assert!(written >= now, "{written}");
    assert_eq!(iv(&line(&plan).pass(&[some_v4(0)])[0]) >> 32, written);
}
