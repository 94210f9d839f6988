//! Signatures (byte patterns in payloads) and a scanner that searches for all of them at once.

use std::fmt::{self, Display, Write as _};

use aho_corasick::{AhoCorasick, BuildError, MatchKind};

use crate::rule::Rule;

/// A byte pattern, where to search for it in a payload, and the rule to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Further conditions, and the action on a match.
    pub rule: Rule,
    /// The pattern.
    pub bytes: Vec<u8>,
    /// Whether ASCII letters match in either case.
    pub no_case: bool,
    /// Number of payload bytes to skip before the search.
    pub offset: u16,
    /// Number of bytes after `offset` that must contain the whole pattern; `None` means all.
    pub depth: Option<u16>,
}

/// Searches a payload for many signatures in one pass.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// One automaton for the case-sensitive patterns and one for the others. Each comes with the
    /// signature numbers of its patterns.
    automata: Vec<(AhoCorasick, Vec<u32>)>,
    /// First and end offset of the payload bytes that must contain each signature's pattern.
    windows: Vec<[usize; 2]>,
}

/// The signatures found in a payload. The memory can be reused for further payloads.
#[derive(Clone, Debug)]
pub struct Hits {
    /// Numbers of the signatures found.
    found: Vec<u32>,
    /// Whether each signature was found, by its number.
    is_found: Vec<bool>,
}

impl Scanner {
    /// Creates a scanner. Returns an error if the patterns exceed the limits of the automaton.
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
        let window = |signature: &Signature| {
            let first = usize::from(signature.offset);
            [first, signature.depth.map_or(usize::MAX, |depth| first + usize::from(depth))]
        };
        Ok(Self { automata, windows: signatures.iter().map(window).collect() })
    }

    /// Allocates memory for the results of [`Self::scan`].
    pub fn hits(&self) -> Hits {
        Hits {
            found: Vec::with_capacity(self.windows.len()),
            is_found: vec![false; self.windows.len()],
        }
    }

    /// Returns the numbers of the signatures whose pattern the payload contains at an allowed
    /// position, in ascending order.
    pub fn scan<'h>(&self, payload: &[u8], hits: &'h mut Hits) -> &'h [u32] {
        hits.found.drain(..).for_each(|number| hits.is_found[number as usize] = false);
        for (automaton, signatures) in &self.automata {
            for found in automaton.find_overlapping_iter(payload) {
                let number = signatures[found.pattern().as_usize()];
                let [first, end] = self.windows[number as usize];
                if found.start() >= first && found.end() <= end && !hits.is_found[number as usize] {
                    hits.is_found[number as usize] = true;
                    hits.found.push(number);
                }
            }
        }
        hits.found.sort_unstable();
        &hits.found
    }

    /// Returns the memory of the automata in bytes.
    pub fn memory(&self) -> usize {
        self.automata.iter().map(|(automaton, _)| automaton.memory_usage()).sum()
    }
}

/// Formats the signature in the language of signatures; parsing the text returns an equal one.
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

    /// Returns the numbers of the signatures found by comparing the pattern at every position.
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
            let mut hits = scanner.hits();
            for payload in payloads {
                let expected = naive_search(&signatures, &payload);
                prop_assert_eq!(scanner.scan(&payload, &mut hits), expected);
            }
            prop_assert!(scanner.scan(&[], &mut hits).is_empty());
        }
    }
}
