//! Checks which frames the XDP program passes to the kernel: `BPF_PROG_TEST_RUN` on frames made by
//! scapy, and on mangled ones.

mod keep;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::process::Command;

use keep::oracle::Oracle;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xdpfwd_engine::{AddressUse, Keep, KeepRule, OwnAddresses, XdpDecision, XdpProgram};
use xdpfwd_wire::MacAddr;

const RULES: [&str; 9] =
    ["arp", "nd", "icmp", "local", "lldp", "stp", "tcp/22", "udp/53", "vlan/100"];

const BOTH: AddressUse = AddressUse { destination: true, target: true };

/// Must match frames.py.
fn own() -> OwnAddresses {
    let (destination, target) =
        (AddressUse { target: false, ..BOTH }, AddressUse { destination: false, ..BOTH });
    let ipv4 = [("192.0.2.1", BOTH), ("10.255.0.1", BOTH), ("172.17.0.1", destination)];
    let ipv6 = [("2001:db8::1", BOTH), ("fe80::1", BOTH), ("2001:db8::7", target)];
    OwnAddresses {
        macs: [MacAddr([2, 0, 0, 0, 0, 1])].into(),
        vlans: [300].into(),
        ipv4: ipv4.map(|(ip, uses)| (ip.parse().unwrap(), uses)).into(),
        ipv6: ipv6.map(|(ip, uses)| (ip.parse().unwrap(), uses)).into(),
    }
}

fn program(rules: &[&str], own: OwnAddresses) -> XdpProgram {
    let keep: Keep = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let mut program = XdpProgram::load(1, &keep, None)
        .unwrap_or_else(|error| panic!("{error}\n(needs root: `make test`)"));
    program.update_addresses(&own).unwrap();
    program
}

/// A frame made by scapy, with the rules that keep it.
struct Sample {
    name: String,
    kept_by: BTreeSet<String>,
    bytes: Vec<u8>,
}

/// Returns the frames of scapy, first fragments first.
fn frames() -> Vec<Sample> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keep/frames.py");
    // Debian packages scapy for Debian's interpreter, but another `python3` may precede it in PATH.
    let output = ["/usr/bin/python3", "python3"].iter().find_map(|python| {
        let output = Command::new(python).arg(script).output().ok()?;
        output.status.success().then_some(output.stdout)
    });
    let output =
        String::from_utf8(output.expect("python3 with scapy: `make test-deps` installs it"))
            .unwrap();
    let byte = |hex: &[u8]| u8::from_str_radix(str::from_utf8(hex).unwrap(), 16).unwrap();
    let frame = |line: &str| {
        let [name, rules, hex] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let kept_by = rules.split_whitespace().map(ToOwned::to_owned).collect();
        Sample {
            name: name.to_owned(),
            kept_by,
            bytes: hex.as_bytes().chunks(2).map(byte).collect(),
        }
    };
    output.lines().map(frame).collect()
}

#[test]
fn each_keep_rule_keeps_exactly_the_expected_frames() {
    let frames = frames();
    assert!(frames.len() > 150, "{}", frames.len());
    let own = own();
    let mut wrong = Vec::new();
    for rule in RULES {
        let mut program = program(&[rule], own.clone());
        let mut oracle = Oracle::new(rule.parse().unwrap(), &own);
        let mut kept = 0;
        for Sample { name, kept_by, bytes } in &frames {
            let is_kept = program.test_run(bytes).unwrap() == XdpDecision::Kept;
            let expected = kept_by.contains(rule);
            kept += u64::from(is_kept);
            if is_kept != expected || oracle.keeps(bytes) != expected {
                wrong.push(format!(
                    "{rule}: {name}: expected {expected}, the program returned {is_kept}"
                ));
            }
        }
        assert_eq!(program.counters().kept, kept);
        assert_eq!(
            program.counters().passed,
            frames.len() as u64 - kept,
            "every other frame passes, because no socket is open"
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_rules_or_no_addresses_keep_no_frame_to_host() {
    let no_addresses = OwnAddresses::default();
    for (mut program, link_local) in
        [(program(&[], own()), false), (program(&RULES, no_addresses), true)]
    {
        for Sample { name, kept_by, bytes } in frames() {
            let to_next_device = kept_by.contains("lldp") || kept_by.contains("stp");
            let expected = if link_local && to_next_device {
                XdpDecision::Kept
            } else {
                XdpDecision::ForStages
            };
            assert_eq!(program.test_run(&bytes).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn all_keep_rules_keep_union_of_single_rules() {
    let mut program = program(&RULES, own());
    for Sample { name, kept_by, bytes } in frames() {
        let kept = program.test_run(&bytes).unwrap() == XdpDecision::Kept;
        assert_eq!(kept, !kept_by.is_empty(), "{name}");
    }
}

#[test]
fn update_addresses_changes_kept_frames() {
    let mut program = program(&["icmp", "arp"], OwnAddresses::default());
    let frames = frames();
    let bytes = |name: &str| &frames.iter().find(|frame| frame.name == name).unwrap().bytes;
    let (ping, ping6, arp) = (bytes("ping"), bytes("ping6"), bytes("arp request for us"));
    let mut kept = |own: OwnAddresses| {
        program.update_addresses(&own).unwrap();
        [ping, ping6, arp].map(|frame| program.test_run(frame).unwrap() == XdpDecision::Kept)
    };
    assert_eq!(kept(own()), [true, true, true]);
    assert_eq!(kept(OwnAddresses { ipv6: [].into(), ..own() }), [true, false, true]);
    assert_eq!(
        kept(OwnAddresses { ipv4: [("10.255.0.1".parse().unwrap(), BOTH)].into(), ..own() }),
        [false, true, false]
    );
    // ARP requests are broadcast, so the MAC address does not matter.
    assert_eq!(
        kept(OwnAddresses { macs: [MacAddr([2, 0, 0, 0, 0, 9])].into(), ..own() }),
        [false, false, true]
    );
    assert_eq!(kept(own()), [true, true, true]);
}

/// Addresses that do not fit into a map are reported, and inserted once there is room.
#[test]
fn excess_addresses_are_inserted_once_map_has_room() {
    let mut program = program(&["icmp"], OwnAddresses::default());
    let many = |from: u32, to: u32| OwnAddresses {
        ipv4: (from..to).map(|number| ((0x0a00_0000 + number).into(), BOTH)).collect(),
        ..own()
    };
    program.update_addresses(&many(0, 65_536)).unwrap();
    let error = program.update_addresses(&many(100, 65_736)).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot update 100 host addresses in the XDP program (at most 65536"),
        "{error}"
    );
    program.update_addresses(&many(200, 65_736)).unwrap();
    let mut ping = frames().into_iter().find(|frame| frame.name == "ping").unwrap().bytes;
    let mut kept = |number: u32| {
        ping[30..34].copy_from_slice(&(0x0a00_0000 + number).to_be_bytes());
        program.test_run(&ping).unwrap() == XdpDecision::Kept
    };
    assert_eq!(
        [199, 200, 65_535, 65_635, 65_735, 65_736].map(&mut kept),
        [false, true, true, true, true, false]
    );
}

/// A truncated frame is kept only if the oracle agrees.
#[test]
fn truncated_frames_match_oracle() {
    let own = own();
    let frames = frames();
    for rule in RULES {
        let mut program = program(&[rule], own.clone());
        let mut oracle = Oracle::new(rule.parse().unwrap(), &own);
        for Sample { name, bytes, .. } in frames.iter().filter(|frame| frame.bytes.len() <= 200) {
            for length in 14..bytes.len() {
                let cut = &bytes[..length];
                let kept = program.test_run(cut).unwrap() == XdpDecision::Kept;
                assert_eq!(
                    kept,
                    oracle.keeps(cut),
                    "{rule}: {name}: {length} bytes of {}",
                    bytes.len()
                );
            }
        }
    }
}

/// A modification of a frame.
#[derive(Clone, Debug)]
enum Mangle {
    /// Replaces a byte, usually of a header.
    Byte(u16, u8),
    /// Replaces a byte with a value common in headers.
    Common(u16, usize),
    /// Truncates the frame.
    Cut(u16),
    /// Duplicates bytes, such as a header.
    Repeat(u8, u8),
    /// Inserts a VLAN tag.
    Tag(u16),
    /// Appends bytes.
    Pad(u8),
}

/// Values with meaning to a parser: protocols, lengths, flags, own addresses.
const COMMON_VALUES: [u8; 28] = [
    0, 1, 2, 4, 6, 8, 17, 20, 22, 43, 44, 50, 51, 53, 58, 59, 60, 0x45, 0x46, 0x4f, 0x60, 0x81,
    0x88, 131, 135, 137, 0xdd, 0xff,
];

fn mangle() -> impl Strategy<Value = Mangle> {
    prop_oneof![
        4 => (0..90u16, any::<u8>()).prop_map(|(at, byte)| Mangle::Byte(at, byte)),
        8 => (12..90u16, 0..COMMON_VALUES.len()).prop_map(|(at, value)| Mangle::Common(at, value)),
        1 => (14..120u16).prop_map(Mangle::Cut),
        2 => (14..70u8, 1..5u8).prop_map(|(at, words)| Mangle::Repeat(at, words * 4)),
        1 => prop_oneof![Just(100u16), 0..=0xffffu16].prop_map(Mangle::Tag),
        1 => (1..40u8).prop_map(Mangle::Pad),
    ]
}

fn mangled(mut frame: Vec<u8>, mangles: &[Mangle]) -> Vec<u8> {
    for mangle in mangles {
        match *mangle {
            Mangle::Byte(at, byte) => {
                frame.get_mut(usize::from(at)).into_iter().for_each(|old| *old = byte)
            }
            Mangle::Common(at, value) => frame
                .get_mut(usize::from(at))
                .into_iter()
                .for_each(|old| *old = COMMON_VALUES[value]),
            Mangle::Cut(length) => frame.truncate(usize::from(length)),
            Mangle::Repeat(at, length) => {
                let (at, end) = (usize::from(at), usize::from(at) + usize::from(length));
                if let Some(bytes) = frame.get(at..end).map(<[u8]>::to_vec) {
                    frame.splice(at..at, bytes);
                }
            }
            Mangle::Tag(control) => {
                let [high, low] = control.to_be_bytes();
                frame.splice(12..12, [0x81, 0, high, low]);
            }
            Mangle::Pad(length) => frame.extend(std::iter::repeat_n(0, usize::from(length))),
        }
    }
    frame
}

#[test]
fn mangled_frames_match_oracle() {
    let own = own();
    let frames = frames();
    let pairs = RULES
        .map(|rule| {
            (program(&[rule], own.clone()), Oracle::new(rule.parse::<KeepRule>().unwrap(), &own))
        })
        .map(RefCell::new);
    let cases =
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4000);
    let config = Config { failure_persistence: None, ..Config::with_cases(cases) };
    let (kept, all) = (Cell::new(0), Cell::new(0));
    let inputs = (0..frames.len(), vec(mangle(), 0..5));
    let result = TestRunner::new(config).run(&inputs, |(frame, mangles)| {
        let bytes = mangled(frames[frame].bytes.clone(), &mangles);
        for pair in &pairs {
            let (program, oracle) = &mut *pair.borrow_mut();
            let is_kept = program.test_run(&bytes).unwrap() == XdpDecision::Kept;
            prop_assert_eq!(
                is_kept,
                oracle.keeps(&bytes),
                "{}: {} {:02x?}",
                oracle.rule,
                &frames[frame].name,
                bytes
            );
            kept.set(kept.get() + u32::from(is_kept));
            all.set(all.get() + 1);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A program that kept all or no frames would make the comparison pointless.
    let (kept, all) = (kept.get(), all.get());
    assert!(kept > all / 50 && kept < all / 2, "{kept} of {all} frames were kept");
}
