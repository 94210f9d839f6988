//! Measures payload scans with several sets of signatures: the time for 1400 random bytes, and for
//! the payloads that need the most steps with the set. docs/filter.md states the maximum number of
//! steps. Also measures a lookup of many overlapping `continue` rules, all of which count the
//! packet.
//!
//! Run with `make bench-payload`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use xdpfwd_filter::{
    Addresses, Classifier, Key, L4, Rule, Scanner, Signature, parse_rule, parse_signature,
};

const PAYLOAD: usize = 1400;

const UDP: u8 = 17;
const KEY: Key = Key::new(
    Addresses::V4 { source: 0x0a00_0001, destination: 0x0a00_0002 },
    UDP,
    L4::Ports { source: 40_000, destination: 80 },
);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn letters(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(b'a' + (self.draw() % 26) as u8)).collect()
    }
}

/// Name and lines of each signature set.
fn sets() -> Vec<(&'static str, Vec<String>)> {
    let mut random = Random(1);
    let text = random.letters(PAYLOAD);
    let words: Vec<String> = (0..4000).map(|_| random.letters(12)).collect();
    let nested = |verdict: &str, tail: &str| {
        (1..=500).map(|n| format!("{verdict} text \"{}\"{tail}", "a".repeat(n))).collect()
    };
    let nested_last_first =
        (1..=500).rev().map(|n| format!("drop text \"{}\"", "a".repeat(n))).collect();
    vec![
        ("one byte", vec!["continue text \"a\"".to_owned()]),
        ("nested", nested("drop", "")),
        ("nested, last first", nested_last_first),
        ("nested, continue", nested("continue", "")),
        ("nested, nocase", nested("continue", " nocase")),
        (
            "offset and depth",
            (0..500)
                .map(|n| format!("continue text \"{}\" offset {n} depth 60", &text[n..n + 4]))
                .collect(),
        ),
        (
            "one pattern, offsets",
            (0..400).map(|n| format!("continue text \"a\" offset {}", 3 * n)).collect(),
        ),
        (
            "one pattern, ports",
            (0..2000).map(|n| format!("drop proto udp dport {n} text \"aaaa\"")).collect(),
        ),
        ("suffixes", (0..100).map(|n| format!("continue text \"{}\"", &text[n..100])).collect()),
        (
            "a pattern per byte",
            (0..PAYLOAD - 8).map(|n| format!("continue text \"{}\"", &text[n..n + 8])).collect(),
        ),
        (
            "two patterns per byte",
            (0..500)
                .flat_map(|n| [&text[n..n + 8], &text[n + 3..n + 8]])
                .map(|pattern| format!("continue text \"{pattern}\""))
                .collect(),
        ),
        ("4000 words", words.iter().map(|word| format!("continue text \"{word}\"")).collect()),
        (
            "4000 words, half with nocase",
            (words.iter().enumerate())
                .map(|(n, word)| {
                    format!("continue text \"{word}\" {}", if n % 2 == 0 { "nocase" } else { "" })
                })
                .collect(),
        ),
    ]
}

/// A random payload, and those that can cost much with these signatures.
fn payloads(signatures: &[Signature]) -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random(2);
    let bytes = (0..PAYLOAD).map(|_| random.draw() as u8).collect();
    let text = Random(1).letters(PAYLOAD);
    let patterns = |skip: usize| -> Vec<u8> {
        let patterns = signatures.iter().skip(skip).chain(signatures);
        patterns.flat_map(|signature| &signature.bytes).copied().take(PAYLOAD).collect()
    };
    let last_patterns = (signatures.iter().rev().flat_map(|signature| &signature.bytes))
        .copied()
        .take(PAYLOAD)
        .collect();
    vec![
        ("random", bytes),
        ("byte", vec![b'a'; PAYLOAD]),
        ("text", text.into_bytes()),
        ("patterns", patterns(0)),
        ("later patterns", patterns(signatures.len() / 2)),
        ("last patterns", last_patterns),
    ]
}

fn scans(criterion: &mut Criterion) {
    for (name, lines) in sets() {
        let signatures: Vec<Signature> = lines
            .iter()
            .map(|line| parse_signature(line).expect("the line is valid").expect("a signature"))
            .collect();
        let scanner = Scanner::new(&signatures, 1).expect("the signatures are within the limits");
        let mut memory = scanner.hits();
        let mut group = criterion.benchmark_group(format!("scan/{name}"));
        group.throughput(Throughput::Bytes(PAYLOAD as u64));
        for (name, payload) in payloads(&signatures) {
            group.bench_function(name, |bencher| {
                bencher.iter(|| scanner.scan(&KEY, black_box(&payload), &mut memory).count());
            });
        }
        group.finish();
    }
}

fn continue_rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("continue");
    for count in [1, 16, 100, 400, 1600] {
        let rules: Vec<Rule> = (0..count)
            .map(|n| parse_rule(&format!("continue proto udp dport {}-90", n % 80)))
            .map(|rule| rule.expect("the line is valid").expect("a rule"))
            .collect();
        let classifier = Classifier::new(&rules, 1);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| classifier.matches(black_box(&KEY), 0).count());
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    scans(&mut criterion);
    continue_rules(&mut criterion);
    criterion.final_summary();
}
