//! Signatures (rules with a byte pattern), and a scanner that searches for all of them at once.

use std::fmt::{self, Display, Write as _};

use aho_corasick::{AhoCorasick, BuildError, MatchKind};

use crate::rule::Rule;

/// A rule with a byte pattern that the payload must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Conditions besides the pattern, and the action on a match.
    pub rule: Rule,
    /// The pattern.
    pub bytes: Vec<u8>,
    /// Whether ASCII letters match in upper and lower case.
    pub no_case: bool,
    /// Bytes at the start of the payload that are not searched.
    pub offset: u16,
    /// Bytes from `offset` on within which the whole pattern must lie; `None` for the rest of the
    /// payload.
    pub depth: Option<u16>,
}

/// Searches a payload for many signatures in one pass.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// One automaton for the case-sensitive patterns, and one for the others, each with the index
    /// of the signature of each pattern.
    automata: Vec<(AhoCorasick, Vec<u32>)>,
    /// For each signature, the payload range (end exclusive) in which the whole pattern must lie.
    ranges: Vec<[usize; 2]>,
}

/// Memory for the results of [`Scanner::scan`], reused for each payload.
#[derive(Clone, Debug)]
pub struct Hits {
    /// Indexes of the signatures found in the last payload.
    found: Vec<u32>,
    /// For each signature, whether `found` contains it.
    is_found: Vec<bool>,
}

impl Scanner {
    /// Returns an error if the patterns exceed the limits of the automaton.
    pub fn new(signatures: &[Signature]) -> Result<Self, BuildError> {
        let mut automata = Vec::new();
        for no_case in [false, true] {
            let numbers: Vec<u32> = (0..)
                .zip(signatures)
                .filter(|(_, signature)| signature.no_case == no_case)
                .map(|(n, _)| n)
                .collect();
            if numbers.is_empty() {
                continue;
            }
            let patterns = numbers.iter().map(|&number| &signatures[number as usize].bytes);
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::Standard)
                .ascii_case_insensitive(no_case)
                .build(patterns)?;
            automata.push((automaton, numbers));
        }
        let range = |signature: &Signature| {
            let start = usize::from(signature.offset);
            [start, signature.depth.map_or(usize::MAX, |depth| start + usize::from(depth))]
        };
        Ok(Self { automata, ranges: signatures.iter().map(range).collect() })
    }

    /// Allocates memory for the results of [`Self::scan`].
    pub fn hits(&self) -> Hits {
        Hits {
            found: Vec::with_capacity(self.ranges.len()),
            is_found: vec![false; self.ranges.len()],
        }
    }

    /// Returns the indexes of the signatures whose pattern the payload contains in the allowed
    /// range, ascending.
    pub fn scan<'h>(&self, payload: &[u8], memory: &'h mut Hits) -> &'h [u32] {
        let Hits { found, is_found } = memory;
        found.drain(..).for_each(|number| is_found[number as usize] = false);
        for (automaton, numbers) in &self.automata {
            for occurrence in automaton.find_overlapping_iter(payload) {
                let number = numbers[occurrence.pattern().as_usize()];
                let [start, end] = self.ranges[number as usize];
                let is_in_range = occurrence.start() >= start && occurrence.end() <= end;
                if is_in_range && !is_found[number as usize] {
                    is_found[number as usize] = true;
                    found.push(number);
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Returns the memory of the automata in bytes.
    pub fn memory(&self) -> usize {
        self.automata.iter().map(|(automaton, _)| automaton.memory_usage()).sum()
    }
}

/// Displays the signature in the syntax of [`parse_signature`](crate::parse_signature). Parsing the
/// text returns an equal signature.
impl Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        let printable = self.bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
        f.write_str(if printable { " text \"" } else { " hex \"" })?;
        for (index, byte) in self.bytes.iter().enumerate() {
            match byte {
                b'"' | b'\\' if printable => write!(f, "\\{}", char::from(*byte))?,
                byte if printable => f.write_char(char::from(*byte))?,
                byte => write!(f, "{}{byte:02x}", if index > 0 { " " } else { "" })?,
            }
        }
        f.write_char('"')?;
        if self.no_case {
            f.write_str(" nocase")?;
        }
        if self.offset > 0 {
            write!(f, " offset {}", self.offset)?;
        }
        self.depth.map_or(Ok(()), |depth| write!(f, " depth {depth}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compares the patterns at every position.
    fn naive_search(signatures: &[Signature], payload: &[u8]) -> Vec<u32> {
        let is_found = |signature: &Signature| {
            let first = usize::from(signature.offset).min(payload.len());
            let end = signature
                .depth
                .map_or(payload.len(), |depth| (first + usize::from(depth)).min(payload.len()));
            payload[first..end].windows(signature.bytes.len()).any(|window| {
                match signature.no_case {
                    true => window.eq_ignore_ascii_case(&signature.bytes),
                    false => window == signature.bytes,
                }
            })
        };
        (0..)
            .zip(signatures)
            .filter(|(_, signature)| is_found(signature))
            .map(|(number, _)| number)
            .collect()
    }

    fn bytes(max_len: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![b'a', b'A', b'b', 0, 0xff]), 1..=max_len)
    }

    proptest! {
        #[test]
        fn scan_returns_same_signatures_as_naive_search(
            parameters in prop::collection::vec(
                (bytes(4), any::<bool>(), 0..6_u16, prop::option::of(4..12_u16)),
                0..12,
            ),
            payloads in prop::collection::vec(bytes(40), 1..4),
        ) {
            let signatures: Vec<Signature> = parameters
                .into_iter()
                .map(|(bytes, no_case, offset, depth)| Signature {
                    rule: Rule::default(),
                    bytes,
                    no_case,
                    offset,
                    depth,
                })
                .collect();
            let scanner = Scanner::new(&signatures).unwrap();
            let mut memory = scanner.hits();
            for payload in payloads {
                let expected = naive_search(&signatures, &payload);
                prop_assert_eq!(scanner.scan(&payload, &mut memory), expected);
            }
            prop_assert!(scanner.scan(&[], &mut memory).is_empty());
        }
    }
}
