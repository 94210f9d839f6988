//! Checks which frames the XDP program passes to the kernel by `keep` rules, with
//! `BPF_PROG_TEST_RUN` on frames made by scapy, and on mangled frames. Needs root.

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

/// The same rules as in frames.py.
const RULES: [&str; 9] =
    ["arp", "nd", "icmp", "local", "lldp", "stp", "tcp/22", "udp/53", "vlan/100"];

/// The use of an address of the host as destination of packets, and as target of ARP and Neighbor
/// Discovery.
const ALL_USES: AddressUse = AddressUse { destination: true, target: true };

/// Returns the addresses of the host that frames.py describes.
fn own_addresses() -> OwnAddresses {
    let destination_only = AddressUse { target: false, ..ALL_USES };
    let target_only = AddressUse { destination: false, ..ALL_USES };
    let ipv4 =
        [("192.0.2.1", ALL_USES), ("10.255.0.1", ALL_USES), ("172.17.0.1", destination_only)];
    let ipv6 = [("2001:db8::1", ALL_USES), ("fe80::1", ALL_USES), ("2001:db8::7", target_only)];
    OwnAddresses {
        macs: [MacAddr([2, 0, 0, 0, 0, 1])].into(),
        vlans: [300].into(),
        ipv4: ipv4.map(|(ip, uses)| (ip.parse().unwrap(), uses)).into(),
        ipv6: ipv6.map(|(ip, uses)| (ip.parse().unwrap(), uses)).into(),
    }
}

fn load_program(rules: &[&str], addresses: OwnAddresses) -> XdpProgram {
    let keep: Keep = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let (queues, no_stage) = (1, None);
    let mut program = XdpProgram::load(queues, &keep, no_stage)
        .unwrap_or_else(|error| panic!("{error}\n(needs root: `make test`)"));
    program.update_addresses(&addresses).unwrap();
    program
}

struct ScapyFrame {
    name: String,
    /// The rules of [`RULES`] that keep the frame.
    kept_by: BTreeSet<String>,
    bytes: Vec<u8>,
}

/// Returns the frames that frames.py prints. The first fragment of a datagram comes before its
/// later fragments.
fn scapy_frames() -> Vec<ScapyFrame> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keep/frames.py");
    // Debian installs scapy for /usr/bin/python3, but another `python3` may precede it in PATH.
    let output = ["/usr/bin/python3", "python3"].iter().find_map(|python| {
        let output = Command::new(python).arg(script).output().ok()?;
        output.status.success().then_some(output.stdout)
    });
    let output =
        String::from_utf8(output.expect("python3 with scapy: `make test-deps` installs it"))
            .unwrap();
    let parse_byte = |hex: &[u8]| u8::from_str_radix(str::from_utf8(hex).unwrap(), 16).unwrap();
    let parse_line = |line: &str| {
        let [name, rules, hex] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let kept_by = rules.split_whitespace().map(ToOwned::to_owned).collect();
        ScapyFrame {
            name: name.to_owned(),
            kept_by,
            bytes: hex.as_bytes().chunks(2).map(parse_byte).collect(),
        }
    };
    output.lines().map(parse_line).collect()
}

#[test]
fn each_keep_rule_keeps_exactly_expected_frames() {
    let frames = scapy_frames();
    assert!(frames.len() > 150, "frames.py printed only {} frames", frames.len());
    let addresses = own_addresses();
    let mut failures = Vec::new();
    for rule in RULES {
        let mut program = load_program(&[rule], addresses.clone());
        let mut oracle = Oracle::new(rule.parse().unwrap(), &addresses);
        let mut kept = 0;
        for ScapyFrame { name, kept_by, bytes } in &frames {
            let is_kept = program.test_run(bytes).unwrap() == XdpDecision::Kept;
            let expected = kept_by.contains(rule);
            kept += u64::from(is_kept);
            let oracle_keeps = oracle.keeps(bytes);
            if is_kept != expected || oracle_keeps != expected {
                failures.push(format!(
                    "{rule}: {name}: expected {expected}, program {is_kept}, oracle {oracle_keeps}"
                ));
            }
        }
        assert_eq!(program.counters().kept, kept, "wrong counter of kept frames");
        assert_eq!(
            program.counters().passed,
            frames.len() as u64 - kept,
            "every frame that is not kept must count as passed, because no queue has a socket"
        );
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn program_without_rules_or_addresses_keeps_no_frame_to_host() {
    let no_addresses = OwnAddresses::default();
    // The rules `lldp` and `stp` need no addresses.
    for (mut program, keeps_link_control) in
        [(load_program(&[], own_addresses()), false), (load_program(&RULES, no_addresses), true)]
    {
        for ScapyFrame { name, kept_by, bytes } in scapy_frames() {
            let is_link_control = kept_by.contains("lldp") || kept_by.contains("stp");
            let expected = if keeps_link_control && is_link_control {
                XdpDecision::Kept
            } else {
                XdpDecision::ForStages
            };
            assert_eq!(program.test_run(&bytes).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn program_with_all_rules_keeps_every_frame_that_one_rule_keeps() {
    let mut program = load_program(&RULES, own_addresses());
    for ScapyFrame { name, kept_by, bytes } in scapy_frames() {
        let kept = program.test_run(&bytes).unwrap() == XdpDecision::Kept;
        assert_eq!(kept, !kept_by.is_empty(), "{name}");
    }
}

#[test]
fn update_addresses_changes_kept_frames() {
    let mut program = load_program(&["icmp", "arp"], OwnAddresses::default());
    let frames = scapy_frames();
    let bytes = |name: &str| &frames.iter().find(|frame| frame.name == name).unwrap().bytes;
    let (ping, ping6, arp) = (bytes("ping"), bytes("ping6"), bytes("arp request for us"));
    let mut kept = |addresses: OwnAddresses| {
        program.update_addresses(&addresses).unwrap();
        [ping, ping6, arp].map(|frame| program.test_run(frame).unwrap() == XdpDecision::Kept)
    };
    assert_eq!(kept(own_addresses()), [true, true, true]);
    assert_eq!(kept(OwnAddresses { ipv6: [].into(), ..own_addresses() }), [true, false, true]);
    assert_eq!(
        kept(OwnAddresses {
            ipv4: [("10.255.0.1".parse().unwrap(), ALL_USES)].into(),
            ..own_addresses()
        }),
        [false, true, false]
    );
    // With another MAC address of the host, only the ARP request is kept: it is a broadcast.
    assert_eq!(
        kept(OwnAddresses { macs: [MacAddr([2, 0, 0, 0, 0, 9])].into(), ..own_addresses() }),
        [false, false, true]
    );
    assert_eq!(kept(own_addresses()), [true, true, true]);
}

/// An address map has room for 65,536 entries.
#[test]
fn update_with_too_many_addresses_fails_until_map_has_room() {
    let mut program = load_program(&["icmp"], OwnAddresses::default());
    // The IPv4 addresses 10.0.0.0 + `from` to 10.0.0.0 + `end` - 1.
    let many = |from: u32, end: u32| OwnAddresses {
        ipv4: (from..end).map(|number| ((0x0a00_0000 + number).into(), ALL_USES)).collect(),
        ..own_addresses()
    };
    program.update_addresses(&many(0, 65_536)).unwrap();
    let error = program.update_addresses(&many(100, 65_736)).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot update 100 host addresses in the XDP program (at most 65536"),
        "{error}"
    );
    program.update_addresses(&many(200, 65_736)).unwrap();
    let mut ping = scapy_frames().into_iter().find(|frame| frame.name == "ping").unwrap().bytes;
    let mut kept = |number: u32| {
        ping[30..34].copy_from_slice(&(0x0a00_0000 + number).to_be_bytes());
        program.test_run(&ping).unwrap() == XdpDecision::Kept
    };
    assert_eq!(
        [199, 200, 65_535, 65_635, 65_735, 65_736].map(&mut kept),
        [false, true, true, true, true, false]
    );
}

/// Truncates each frame of at most 200 bytes to every length from 14 bytes on.
#[test]
fn program_and_oracle_agree_on_truncated_frames() {
    let addresses = own_addresses();
    let frames = scapy_frames();
    for rule in RULES {
        let mut program = load_program(&[rule], addresses.clone());
        let mut oracle = Oracle::new(rule.parse().unwrap(), &addresses);
        for ScapyFrame { name, bytes, .. } in frames.iter().filter(|frame| frame.bytes.len() <= 200)
        {
            for length in 14..bytes.len() {
                let truncated = &bytes[..length];
                let kept = program.test_run(truncated).unwrap() == XdpDecision::Kept;
                assert_eq!(
                    kept,
                    oracle.keeps(truncated),
                    "{rule}: {name}: the first {length} of {} bytes",
                    bytes.len()
                );
            }
        }
    }
}

/// A random change to a frame.
#[derive(Clone, Debug)]
enum Mangle {
    /// Overwrites the byte at an offset with a value.
    Byte(u16, u8),
    /// Overwrites the byte at an offset with a value of [`COMMON_VALUES`], given by its index.
    CommonByte(u16, usize),
    /// Truncates the frame to a length in bytes.
    Truncate(u16),
    /// Duplicates the bytes at an offset; the second field is their number.
    Duplicate(u8, u8),
    /// Inserts a VLAN tag with this TCI.
    Tag(u16),
    /// Appends this number of zero bytes.
    Pad(u8),
}

/// Values with a meaning in headers: protocols, lengths, flags, types.
const COMMON_VALUES: [u8; 28] = [
    0, 1, 2, 4, 6, 8, 17, 20, 22, 43, 44, 50, 51, 53, 58, 59, 60, 0x45, 0x46, 0x4f, 0x60, 0x81,
    0x88, 131, 135, 137, 0xdd, 0xff,
];

fn random_mangle() -> impl Strategy<Value = Mangle> {
    prop_oneof![
        4 => (0..90u16, any::<u8>()).prop_map(|(offset, byte)| Mangle::Byte(offset, byte)),
        8 => (12..90u16, 0..COMMON_VALUES.len())
            .prop_map(|(offset, value)| Mangle::CommonByte(offset, value)),
        1 => (14..120u16).prop_map(Mangle::Truncate),
        2 => (14..70u8, 1..5u8).prop_map(|(offset, words)| Mangle::Duplicate(offset, words * 4)),
        1 => prop_oneof![Just(100u16), 0..=0xffffu16].prop_map(Mangle::Tag),
        1 => (1..40u8).prop_map(Mangle::Pad),
    ]
}

fn mangled(mut frame: Vec<u8>, mangles: &[Mangle]) -> Vec<u8> {
    for mangle in mangles {
        match *mangle {
            Mangle::Byte(offset, byte) => {
                frame.get_mut(usize::from(offset)).into_iter().for_each(|old| *old = byte)
            }
            Mangle::CommonByte(offset, value) => frame
                .get_mut(usize::from(offset))
                .into_iter()
                .for_each(|old| *old = COMMON_VALUES[value]),
            Mangle::Truncate(length) => frame.truncate(usize::from(length)),
            Mangle::Duplicate(offset, length) => {
                let (offset, end) =
                    (usize::from(offset), usize::from(offset) + usize::from(length));
                if let Some(bytes) = frame.get(offset..end).map(<[u8]>::to_vec) {
                    frame.splice(offset..offset, bytes);
                }
            }
            Mangle::Tag(tci) => {
                let [high, low] = tci.to_be_bytes();
                frame.splice(12..12, [0x81, 0, high, low]);
            }
            Mangle::Pad(length) => frame.extend(std::iter::repeat_n(0, usize::from(length))),
        }
    }
    frame
}

#[test]
fn program_and_oracle_agree_on_mangled_frames() {
    let addresses = own_addresses();
    let frames = scapy_frames();
    let pairs = RULES
        .map(|rule| {
            (
                load_program(&[rule], addresses.clone()),
                Oracle::new(rule.parse::<KeepRule>().unwrap(), &addresses),
            )
        })
        .map(RefCell::new);
    let cases =
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4000);
    let config = Config { failure_persistence: None, ..Config::with_cases(cases) };
    let (kept, decisions) = (Cell::new(0), Cell::new(0));
    let inputs = (0..frames.len(), vec(random_mangle(), 0..5));
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
            decisions.set(decisions.get() + 1);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // If nearly all or nearly no frames were kept, the comparison would prove little.
    let (kept, decisions) = (kept.get(), decisions.get());
    assert!(
        kept > decisions / 50 && kept < decisions / 2,
        "the share of kept frames is not between 2 % and 50 %: {kept} of {decisions}"
    );
}
