//! Scans an arbitrary payload for arbitrary signatures. The result must equal that of a search of
//! every position, and the steps must stay within the scanner's bound.
//!
//! For each fraction of the bound that a scan exceeds, the macro `branches` takes one more branch.
//! So the fuzzer keeps inputs that need more steps than all before, and searches for the most
//! expensive ones.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use xdpfwd_filter::{Addresses, Key, L4, Match, Rule, Scanner, Signature, Verdict};

#[derive(Debug, Arbitrary)]
struct Pattern {
    /// Position of the pattern's bytes in the payload, unless they repeat one byte.
    start: u16,
    length: u8,
    is_repeated: bool,
    no_case: bool,
    verdict: Option<bool>,
    offset: u8,
    depth: Option<u8>,
    ports: Option<(u8, u8)>,
    /// The same pattern again, this many times, each one byte longer and with a larger offset.
    copies: u8,
}

#[derive(Debug, Arbitrary)]
struct Input {
    patterns: Vec<Pattern>,
    port: u8,
    payload: Vec<u8>,
}

fn signatures(input: &Input) -> Vec<Signature> {
    let mut signatures = Vec::new();
    for pattern in &input.patterns {
        for copy in 0..=usize::from(pattern.copies) {
            let length = usize::from(pattern.length) + copy + 1;
            let start = usize::from(pattern.start) % input.payload.len().max(1);
            let bytes: Vec<u8> = if pattern.is_repeated {
                vec![b'a'; length]
            } else {
                input.payload.iter().skip(start).take(length).copied().collect()
            };
            if bytes.is_empty() {
                continue;
            }
            let verdict = pattern.verdict.map(|accepts| match accepts {
                true => Verdict::Accept,
                false => Verdict::Drop,
            });
            let destination_port =
                pattern.ports.map(|(a, b)| u16::from(a.min(b))..=u16::from(a.max(b)));
            let matches = Match { destination_port, ..Match::default() };
            signatures.push(Signature {
                rule: Rule { matches, verdict, ..Rule::default() },
                depth: pattern.depth.map(|depth| u16::from(depth).max(bytes.len() as u16)),
                bytes,
                no_case: pattern.no_case,
                offset: u16::from(pattern.offset) * (1 + copy as u16),
            });
        }
    }
    signatures
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

/// Takes a branch of its own for each value below `reached`.
macro_rules! branches {
    ($reached:expr, $($value:literal)*) => {
        $(if $reached > $value { black_box($value); })*
    };
}

libfuzzer_sys::fuzz_target!(|input: Input| {
    let signatures = signatures(&input);
    if signatures.len() > 2000 {
        return;
    }
    let hash_seed = 1;
    let Ok(scanner) = Scanner::new(&signatures, hash_seed) else { return };
    let udp = 17;
    let key = Key::new(
        Addresses::V4 { source: 1, destination: 2 },
        udp,
        L4::Ports { source: 1, destination: input.port.into() },
    );
    let mut memory = scanner.hits(); // working memory, still without hits
    let found: Vec<u32> = scanner.scan(&key, &input.payload, &mut memory).collect();
    let mut expected = Vec::new();
    for (number, signature) in (0..).zip(&signatures) {
        if signature.rule.matches(&key) && contains(signature, &input.payload) {
            expected.push(number);
            if signature.rule.verdict.is_some() {
                break;
            }
        }
    }
    assert_eq!(found, expected, "{signatures:?}");
    let (steps, max) = (memory.steps(), scanner.max_steps(input.payload.len()));
    assert!(steps <= max, "{steps} steps, at most {max}: {signatures:?}");
    branches!(64 * steps / max, 8 16 24 32 36 40 44 48 50 52 54 56 57 58 59 60 61 62 63);
});
