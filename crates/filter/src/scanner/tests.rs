//! Compares the scanner with a search of every position, and counts its steps.

use proptest::prelude::*;

use super::*;
use crate::key::{Addresses, L4};
use crate::rule::{Match, Rule, Verdict};
use crate::signature::Signature;

fn key(destination_port: u16) -> Key {
    let udp = 17;
    Key::new(
        Addresses::V4 { source: 0x0a00_0001, destination: 0x0a00_0002 },
        udp,
        L4::Ports { source: 1, destination: destination_port },
    )
}

fn signatures(lines: impl IntoIterator<Item = String>) -> Vec<Signature> {
    lines
        .into_iter()
        .map(|line| {
            crate::parse_signature(&line).unwrap_or_else(|e| panic!("{line}: {e}")).unwrap()
        })
        .collect()
}

fn contains(signature: &Signature, payload: &[u8]) -> bool {
    let first = usize::from(signature.offset).min(payload.len());
    let depth = signature.depth.map_or(payload.len(), usize::from);
    let end = payload.len().min(first + depth);
    payload[first..end].windows(signature.bytes.len()).any(|window| match signature.no_case {
        true => window.eq_ignore_ascii_case(&signature.bytes),
        false => window == signature.bytes,
    })
}

/// Returns the matching signatures up to the first one with a verdict.
fn naive_scan(signatures: &[Signature], key: &Key, payload: &[u8]) -> Vec<u32> {
    let matching = (0..)
        .zip(signatures)
        .filter(|(_, signature)| signature.rule.matches(key) && contains(signature, payload));
    let mut found = Vec::new();
    for (number, signature) in matching {
        found.push(number);
        if signature.rule.verdict.is_some() {
            break;
        }
    }
    found
}

fn scan(scanner: &Scanner, key: &Key, payload: &[u8], memory: &mut Hits) -> Vec<u32> {
    scanner.scan(key, payload, memory).collect()
}

/// Bytes of a small alphabet, so that patterns overlap and occur.
fn bytes(max_len: usize) -> impl Strategy<Value = Vec<u8>> {
    let alphabet = prop::sample::select(vec![b'a', b'a', b'a', b'A', b'b', 0, 0xff]);
    prop::collection::vec(alphabet, 1..=max_len)
}

fn signature() -> impl Strategy<Value = Signature> {
    let port = prop_oneof![
        3 => Just(None),
        2 => (78..82_u16).prop_map(|port| Some(port..=port)),
        2 => (78..82_u16, 78..82_u16).prop_map(|(a, b)| Some(a.min(b)..=a.max(b))),
    ];
    let verdict = prop_oneof![Just(Some(Verdict::Accept)), Just(Some(Verdict::Drop)), Just(None)];
    let window = (
        prop_oneof![2 => Just(0_u16), 1 => 0..9_u16, 1 => 50..80_u16],
        prop::option::of(prop_oneof![8..12_u16, 8..100_u16]),
    );
    (bytes(8), any::<bool>(), window, port, verdict).prop_map(
        |(bytes, no_case, (offset, depth), destination_port, verdict)| {
            let matches = Match { destination_port, ..Match::default() };
            let rule = Rule { matches, verdict, ..Rule::default() };
            Signature { rule, bytes, no_case, offset, depth }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Some payloads are longer than [`CHUNK`], so the scan checks several times whether it can
    /// end.
    #[test]
    fn scan_equals_naive_search_within_step_bound(
        signatures in prop::collection::vec(signature(), 0..40),
        packets in prop::collection::vec((77..83_u16, prop_oneof![bytes(20), bytes(300)]), 1..6),
        seed: u64,
    ) {
        let scanner = Scanner::new(&signatures, seed).unwrap();
        let mut memory = scanner.hits();
        for (port, payload) in packets {
            let key = key(port);
            let found = scan(&scanner, &key, &payload, &mut memory);
            prop_assert_eq!(found, naive_scan(&signatures, &key, &payload));
            let (steps, max) = (memory.steps(), scanner.max_steps(payload.len()));
            prop_assert!(steps <= max, "{} steps, at most {}", steps, max);
            prop_assert!(scan(&scanner, &key, &[], &mut memory).is_empty());
        }
    }

    /// Without a limit on overlap, some of these signatures would cost thousands of steps per byte.
    #[test]
    fn accepted_signatures_stay_within_step_bound(
        parts in prop::collection::vec(
            (1..200_u32, 1..60_u32, 0..4_u32, any::<bool>(), 0..3_u32, any::<bool>()),
            1..5,
        ),
        payload in prop::collection::vec((0..4_u8, 1..300_usize), 1..5),
    ) {
        let mut lines = Vec::new();
        for (count, base, kind, is_continue, window, has_suffix) in parts {
            lines.extend((0..count).map(|n| {
                let verdict = if is_continue { "continue" } else { "drop" };
                let length = match kind {
                    0 => n % base + 1,
                    1 => base - n % base,
                    _ => 1 + base % 9,
                };
                let window = match window {
                    0 => String::new(),
                    1 => format!("offset {}", n % 70),
                    _ => format!("offset {} depth {}", n, length + n % 5),
                };
                let port = if kind == 3 { format!("dport {n}-{}", n + 50) } else { String::new() };
                let end = if has_suffix { "b" } else { "" };
                let letters = "a".repeat(length as usize);
                format!("{verdict} {port} text \"{letters}{end}\" {window}")
            }));
        }
        // The parser rejects patterns that the suffix makes longer than the depth.
        let signatures: Vec<_> = lines
            .iter()
            .filter_map(|line| crate::parse_signature(line).ok().flatten())
            .collect();
        let payload: Vec<u8> = payload
            .into_iter()
            .flat_map(|(byte, count)| std::iter::repeat_n([b'a', b'a', b'b', b'c'][usize::from(byte)], count))
            .collect();
        let Ok(scanner) = Scanner::new(&signatures, 1) else { return Ok(()) };
        let mut memory = scanner.hits();
        let found = scan(&scanner, &key(60), &payload, &mut memory);
        prop_assert_eq!(found, naive_scan(&signatures, &key(60), &payload));
        let (steps, max) = (memory.steps(), scanner.max_steps(payload.len()));
        prop_assert!(steps <= max, "{} steps, at most {}", steps, max);
    }
}

/// Asserts the result of a scan and its step bound. Returns the steps.
#[track_caller]
fn check(signatures: &[Signature], payload: &[u8]) -> u64 {
    let scanner = Scanner::new(signatures, 1).unwrap();
    let mut memory = scanner.hits();
    let found = scan(&scanner, &key(80), payload, &mut memory);
    assert_eq!(found, naive_scan(signatures, &key(80), payload));
    assert!(memory.steps() <= scanner.max_steps(payload.len()), "{} steps", memory.steps());
    memory.steps()
}

/// This is an attack that a security review found: every byte ends an occurrence of every pattern.
#[test]
fn scan_of_repeated_byte_reports_each_pattern_once() {
    let payload = [b'a'; 1400];
    for verdict in ["continue", "drop"] {
        for count in [1, 2, 10, 100, 500] {
            for is_ascending in [true, false] {
                let nested = signatures((0..count).map(|n| {
                    let length = if is_ascending { n + 1 } else { count - n };
                    format!("{verdict} text \"{}\"", "a".repeat(length))
                }));
                let steps = check(&nested, &payload);
                assert!(steps <= 1400 + 2 * count as u64, "{count} {verdict}: {steps}");
            }
        }
    }
}

#[test]
fn scan_visits_pattern_again_when_next_offset_is_reached() {
    let with_offsets =
        signatures((0..200).map(|n| format!("continue text \"a\" offset {}", 5 * n)));
    let steps = check(&with_offsets, &[b'a'; 1400]);
    assert!(steps <= 1400 + 400, "{steps}");
    let windows =
        signatures((0..200).map(|n| format!("continue text \"a\" offset {} depth 3", 5 * n)));
    check(&windows, &[b'a'; 1400]);
    let different =
        signatures((0..1000).map(|n| format!("drop text \"aa{n:04}\" offset {n} depth {}", n + 6)));
    check(&different, &[b'a'; 1400]);
    let payload: Vec<u8> = (0..1400 / 6).flat_map(|n| format!("aa{n:04}").into_bytes()).collect();
    check(&different, &payload);
}

#[test]
fn scan_reads_no_byte_that_cannot_change_the_outcome() {
    let payload = [b'x'; 1400];
    let steps = |lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned());
        check(&signatures(lines), &payload)
    };
    // A class, the signatures with the same conditions, takes one step before the scan if it
    // matches the packet, and one step at each check whether the scan can end.
    assert_eq!(steps(&["drop dport 81 text \"a\""]), 0);
    assert_eq!(steps(&["drop text \"a\" depth 10", "drop dport 81 text \"a\""]), 10 + 3);
    assert_eq!(steps(&["drop text \"a\" offset 1000 depth 100"]), 100 + 4);
    assert_eq!(steps(&["drop text \"a\" offset 1500"]), 1);
    // The first signature decides, so the second one and the rest of the payload do not matter.
    assert!(steps(&["drop text \"xx\"", "drop text \"a\""]) <= 64 + 3 + 2);
    // The scan ends early because all signatures have matched.
    assert!(steps(&["continue text \"xx\"", "drop text \"x\" offset 3"]) <= 64 + 3 + 4);
    // The second signature matches and decides, unless the first one matches too, which is possible
    // only within the first 200 bytes.
    assert!(
        steps(&["accept text \"a\" depth 200", "drop text \"x\"", "continue text \"b\""])
            <= 200 + 6 + 2
    );
    assert_eq!(steps(&["accept text \"a\"", "drop text \"b\" nocase"]), 2800 + 23);
}

#[test]
fn many_signatures_with_one_pattern_cost_few_steps() {
    let by_port = signatures((0..2000).map(|n| format!("drop proto udp dport {n} text \"aa\"")));
    let steps = check(&by_port, &[b'a'; 1400]);
    assert!(steps <= 200, "{steps}");
    let steps = check(&by_port, &[b'x'; 1400]);
    // One class: visited before the scan, at its beginning, and after each chunk but the last.
    assert_eq!(steps, 1400 + 1 + 22);
    let equal = signatures((0..2000).map(|_| "drop text \"aa\"".to_owned()));
    check(&equal, &[b'a'; 1400]);
}

#[test]
fn patterns_that_are_suffixes_of_each_other_are_each_found() {
    let text = "abcdefghijklmnopqrstuvwxyz0123456789";
    let suffixes =
        signatures((0..text.len()).map(|n| format!("continue text \"{}\" nocase", &text[n..])));
    check(&suffixes, text.to_uppercase().as_bytes());
    check(&suffixes, text.repeat(30).as_bytes());
}

#[test]
fn scanner_rejects_signatures_that_overlap_too_much() {
    let error = |lines: Vec<String>| Scanner::new(&signatures(lines), 1).unwrap_err().to_string();
    let nested_with_offsets =
        (0..200).map(|n| format!("drop text \"{}\" offset {n}", "a".repeat(200 - n))).collect();
    let message = error(nested_with_offsets);
    assert!(
        message.contains("at most 512 are possible; the signatures with the pattern text \"aaaa"),
        "{message}"
    );
    let many = vec!["continue text \"a\\\"\" nocase".to_owned(); 600];
    let message = error(many);
    assert!(message.contains("the pattern text \"a\\\"\" nocase need the most"), "{message}");
    let long = vec![format!("drop hex \"{}\"", "00".repeat(Scanner::MAX_PATTERN_BYTES + 1))];
    let message = error(long);
    assert!(message.starts_with("the patterns have 131073 bytes; at most 131072"), "{message}");
}

/// Each pattern alone adds no step, but one packet can match all port ranges, even without a
/// payload.
#[test]
fn scanner_rejects_too_many_conditions_for_one_packet() {
    let ranges = |count: usize| {
        signatures((1..=count).map(|n| format!("drop proto udp dport {n}-65535 hex \"{n:06x}\"")))
    };
    let error = Scanner::new(&ranges(5_000), 1).unwrap_err();
    assert_eq!(error, ScannerError::Conditions { compared: 5_000 });
    let message = error.to_string();
    assert!(
        message.starts_with(
            "one packet could be compared with 5000 different conditions on headers; at most 512"
        ),
        "{message}"
    );
    let max = Scanner::MAX_CONDITIONS;
    assert!(Scanner::new(&ranges(max + 1), 1).is_err());
    let scanner = Scanner::new(&ranges(max), 1).unwrap();
    let mut memory = scanner.hits();
    for length in [0, 1, 63, 64, 1400, 9000] {
        assert!(scan(&scanner, &key(65535), &vec![0; length], &mut memory).is_empty());
        let (steps, max_steps) = (memory.steps(), scanner.max_steps(length));
        assert!(steps <= max_steps, "{length}: {steps} steps, at most {max_steps}");
        assert!(steps >= max as u64, "{length}: {steps} steps do not count the conditions");
    }
}

/// Conditions count once, however many signatures have them.
#[test]
fn scanner_accepts_many_signatures_with_equal_conditions_or_different_ports_and_hosts() {
    let accepted =
        |line: fn(usize) -> String| Scanner::new(&signatures((0..4000).map(line)), 1).map(|_| ());
    assert_eq!(accepted(|n| format!("drop text \"word {n:05}\"")), Ok(()));
    let http = |n| format!("drop proto tcp dport 80 text \"word {n:05}\"");
    assert_eq!(accepted(http), Ok(()));
    let port = |n| format!("drop proto udp dport {n} text \"word {n:05}\"");
    assert_eq!(accepted(port), Ok(()));
    let host = |n| {
        let (a, b) = (n / 250, n % 250);
        format!("drop dst 10.0.{a}.{b} proto tcp dport {} text \"word {n:05}\"", 80 + n % 7)
    };
    assert_eq!(accepted(host), Ok(()));
    let mixed = |n| {
        let (a, length) = (n % 200, 16 + n % 17);
        let ports = 1000 * (n % 60);
        format!("drop src 10.{a}.0.0/{length} dport {ports}-{} text \"w {n:05}\"", ports + 999)
    };
    assert_eq!(accepted(mixed), Ok(()));
}

/// The limit counts only signatures that one packet can match together.
#[test]
fn scanner_accepts_many_signatures_that_exclude_each_other_or_do_not_nest() {
    let accepted = |lines: Vec<String>| Scanner::new(&signatures(lines), 1).is_ok();
    let ports = |n: u32| format!("continue dport {n} text \"attack\"");
    assert!(accepted((0..2000).map(ports).collect()));
    assert!(accepted((0..3000).map(|n| format!("continue text \"word {n:05}\"")).collect()));
    assert!(accepted((1..=500).map(|n| format!("continue text \"{}\"", "a".repeat(n))).collect()));
}
