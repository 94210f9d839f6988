//! Compiles signatures to a [`Scanner`].

use std::collections::HashMap;

use aho_corasick::automaton::Automaton as _;
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind, StartKind};

use super::bound::OverlapBound;
use super::{Automaton, Block, Class, Entry, NONE, Node, Scanner, Slot};
use crate::classifier::Classifier;
use crate::rule::{Match, Rule};
use crate::signature::Signature;

/// The error for signatures that exceed a limit of the [`Scanner`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScannerError {
    /// The automata would take too much memory.
    #[error(
        "the patterns have {bytes} bytes; at most {max} are possible, because each takes up to \
         1 KiB of memory; remove or shorten signatures",
        max = Scanner::MAX_PATTERN_BYTES
    )]
    PatternBytes {
        /// Sum of the lengths of all different patterns.
        bytes: usize,
    },
    /// One packet would be compared with too many conditions.
    #[error(
        "one packet could be compared with {compared} different conditions on headers; at most \
         {max} are possible; signatures with the same conditions count once: give more signatures \
         the same conditions, or replace port ranges by single ports, or give the signatures \
         different prefixes or protocols",
        max = Scanner::MAX_CONDITIONS
    )]
    Conditions {
        /// Upper bound of the conditions that one packet is compared with.
        compared: usize,
    },
    /// One packet could match too many signatures.
    #[error(
        "the signatures overlap so much that one packet could need {steps} steps in addition to \
         two per byte of payload; at most {max} are possible; the signatures with the pattern \
         {pattern} need the most: give fewer signatures the same pattern or a pattern that ends \
         with it, use fewer different offsets for them, or give them conditions that exclude each \
         other",
        max = Scanner::MAX_EXTRA_STEPS
    )]
    Overlap {
        /// Steps for one packet, in addition to two per byte of payload.
        steps: u64,
        /// The pattern that adds the most of them, in the signature language.
        pattern: String,
    },
    /// The patterns exceed a limit of the automaton.
    #[error("cannot build the automaton: {0}")]
    Automaton(String),
}

/// A distinct pattern, with class (index of the conditions) and entry of each of its signatures.
#[derive(Debug)]
struct Pattern {
    bytes: Vec<u8>,
    no_case: bool,
    signatures: Vec<(u32, Entry)>,
}

impl Scanner {
    /// Maximum sum of the lengths of all different patterns.
    pub const MAX_PATTERN_BYTES: usize = 1 << 17;

    /// Maximum number of different conditions on headers that one packet is compared with.
    pub const MAX_CONDITIONS: usize = 512;

    /// Compiles signatures. Keep `seed` secret: see [`Classifier::new`].
    pub fn new(signatures: &[Signature], seed: u64) -> Result<Self, ScannerError> {
        let (conditions, class_of) = classes_of(signatures);
        let patterns = patterns_of(signatures, &class_of);
        let bytes = patterns.iter().map(|pattern| pattern.bytes.len()).sum();
        if bytes > Self::MAX_PATTERN_BYTES {
            return Err(ScannerError::PatternBytes { bytes });
        }
        let classifier = Classifier::new(&conditions, seed);
        let compared = classifier.max_compared();
        if compared > Self::MAX_CONDITIONS {
            return Err(ScannerError::Conditions { compared });
        }
        let mut nodes = Vec::with_capacity(patterns.len());
        let (mut blocks, mut slots, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for pattern in &patterns {
            let first_block = blocks.len() as u32;
            add_signatures(&pattern.signatures, &mut blocks, &mut slots, &mut entries);
            let first = pattern.signatures.iter().map(|(_, entry)| entry.signature).min();
            let single = match pattern.signatures[..] {
                [single] => Some(single),
                _ => None,
            };
            nodes.push(Node {
                parent: NONE,
                single,
                has_offset: pattern.signatures.iter().any(|(_, entry)| entry.has_offset),
                first_signature: first.unwrap_or(NONE),
                blocks: [first_block, blocks.len() as u32],
            });
        }
        let mut automata = [None, None];
        for no_case in [false, true] {
            let numbers: Vec<u32> = (0..)
                .zip(&patterns)
                .filter(|(_, pattern)| pattern.no_case == no_case)
                .map(|(number, _)| number)
                .collect();
            if !numbers.is_empty() {
                automata[usize::from(no_case)] =
                    Some(automaton(&patterns, &numbers, no_case, &mut nodes)?);
            }
        }
        let mut by_length: Vec<usize> = (0..patterns.len()).collect();
        by_length.sort_by_key(|&node| patterns[node].bytes.len());
        // A parent, a suffix of its node, is shorter, so the loop sets the parent's values first.
        let mut depths = vec![1; nodes.len()];
        for &node in &by_length {
            if let Some(parent) = nodes.get(nodes[node].parent as usize) {
                let first = parent.first_signature.min(nodes[node].first_signature);
                let has_offset = parent.has_offset || nodes[node].has_offset;
                depths[node] = depths[nodes[node].parent as usize] + 1;
                nodes[node].first_signature = first;
                nodes[node].has_offset = has_offset;
            }
        }
        let matches: Vec<&Match> = conditions.iter().map(|rule| &rule.matches).collect();
        let bound = OverlapBound { conditions: &matches, nodes: &nodes, by_length: &by_length };
        let (steps, worst) = bound.extra_steps(&blocks, &slots, &entries);
        if steps > Self::MAX_EXTRA_STEPS {
            let Pattern { bytes, no_case, .. } = &patterns[worst];
            let pattern = crate::signature::pattern_text(bytes, *no_case);
            return Err(ScannerError::Overlap { steps, pattern });
        }
        Ok(Self {
            classes: classes(signatures, &class_of, &patterns, conditions.len()),
            conditions: classifier,
            automata,
            nodes,
            blocks,
            slots,
            entries,
            signature_count: signatures.len(),
            longest_chain: depths.into_iter().max().unwrap_or(0),
        })
    }
}

/// Returns the different conditions of the signatures, as rules, and the class of each signature.
fn classes_of(signatures: &[Signature]) -> (Vec<Rule>, Vec<u32>) {
    let mut numbers: HashMap<&Match, u32> = HashMap::new();
    let mut conditions = Vec::new();
    let class_of = signatures.iter().map(|signature| {
        *numbers.entry(&signature.rule.matches).or_insert_with(|| {
            let matches = signature.rule.matches.clone();
            conditions.push(Rule { matches, ..Rule::default() });
            conditions.len() as u32 - 1
        })
    });
    let class_of = class_of.collect();
    (conditions, class_of)
}

/// Returns the different patterns, without signatures that can never change the outcome.
fn patterns_of(signatures: &[Signature], class_of: &[u32]) -> Vec<Pattern> {
    let mut numbers: HashMap<(Vec<u8>, bool), usize> = HashMap::new();
    let mut patterns: Vec<Pattern> = Vec::new();
    for ((number, signature), &class) in (0..).zip(signatures).zip(class_of) {
        let no_case = signature.no_case;
        let mut bytes = signature.bytes.clone();
        if no_case {
            bytes.make_ascii_lowercase();
        }
        // The parser rejects empty patterns; here they match nothing.
        if bytes.is_empty() {
            continue;
        }
        let pattern = *numbers.entry((bytes.clone(), no_case)).or_insert_with(|| {
            patterns.push(Pattern { bytes, no_case, signatures: Vec::new() });
            patterns.len() - 1
        });
        let offset = u32::from(signature.offset);
        let entry = Entry {
            from: offset.saturating_add(signature.bytes.len() as u32),
            to: signature.depth.map_or(NONE, |depth| offset + u32::from(depth)),
            signature: number,
            has_verdict: signature.rule.verdict.is_some(),
            has_offset: offset > 0,
        };
        patterns[pattern].signatures.push((class, entry));
    }
    for pattern in &mut patterns {
        pattern.signatures.sort_by_key(|(class, entry)| (*class, entry.signature));
        remove_shadowed(&mut pattern.signatures);
        pattern.signatures.sort_by_key(|(class, entry)| (*class, entry.from, entry.signature));
    }
    patterns
}

/// Maximum number of earlier signatures that a signature is compared with.
const MAX_COMPARED: usize = 64;

/// Removes shadowed signatures: an earlier signature of the same class has a verdict, and matches
/// whenever the shadowed one matches. All signatures have the same pattern.
fn remove_shadowed(signatures: &mut Vec<(u32, Entry)>) {
    // `deciding`: the signatures of the current class with a verdict.
    let (mut deciding, mut current): (Vec<Entry>, _) = (Vec::new(), NONE);
    signatures.retain(|(class, entry)| {
        if *class != current {
            current = *class;
            deciding.clear();
        }
        let is_shadowed = deciding
            .iter()
            .take(MAX_COMPARED)
            .any(|earlier| earlier.from <= entry.from && earlier.to >= entry.to);
        if !is_shadowed && entry.has_verdict {
            deciding.push(*entry);
        }
        !is_shadowed
    });
}

/// Adds the blocks, slots and entries of one pattern. `signatures` are sorted by class.
fn add_signatures(
    signatures: &[(u32, Entry)],
    blocks: &mut Vec<Block>,
    slots: &mut Vec<Slot>,
    entries: &mut Vec<Entry>,
) {
    let first_block = blocks.len();
    for of_class in signatures.chunk_by(|(a, _), (b, _)| a == b) {
        let word = of_class[0].0 / 64;
        let has_block = blocks.get(first_block..).and_then(<[Block]>::last);
        if has_block.is_none_or(|block| block.word != word) {
            blocks.push(Block { word, first_slot: slots.len() as u32, classes: 0 });
        }
        if let Some(block) = blocks.last_mut() {
            block.classes |= 1 << (of_class[0].0 % 64);
        }
        let first_entry = entries.len() as u32;
        entries.extend(of_class.iter().map(|(_, entry)| *entry));
        slots.push(Slot { entries: [first_entry, entries.len() as u32] });
    }
}

/// Builds the automaton of the patterns `numbers`, and sets their parents in `nodes`.
fn automaton(
    patterns: &[Pattern],
    numbers: &[u32],
    no_case: bool,
    nodes: &mut [Node],
) -> Result<Automaton, ScannerError> {
    let bytes = |number: u32| &patterns[number as usize].bytes;
    let failed = |error: &dyn std::fmt::Display| ScannerError::Automaton(error.to_string());
    let dfa = DFA::builder()
        .match_kind(MatchKind::Standard)
        .start_kind(StartKind::Unanchored)
        .ascii_case_insensitive(no_case)
        .prefilter(false)
        .build(numbers.iter().map(|&number| bytes(number)))
        .map_err(|error| failed(&error))?;
    let start = dfa.start_state(Anchored::No).map_err(|error| failed(&error))?;
    // Each state stands for the beginning of a pattern, so these walks reach all states.
    let mut outputs: HashMap<usize, u32> = HashMap::new();
    for &number in numbers {
        let mut state = start;
        for &byte in bytes(number) {
            state = dfa.next_state(Anchored::No, state, byte);
            if !dfa.is_match(state) || outputs.contains_key(&state.as_usize()) {
                continue;
            }
            // All patterns that match here are suffixes of the bytes so far, so each of them is a
            // suffix of the longer ones.
            let mut suffixes: Vec<u32> = (0..dfa.match_len(state))
                .map(|index| numbers[dfa.match_pattern(state, index).as_usize()])
                .collect();
            suffixes.sort_unstable_by_key(|&node| std::cmp::Reverse(bytes(node).len()));
            for pair in suffixes.windows(2) {
                nodes[pair[0] as usize].parent = pair[1];
            }
            outputs.insert(state.as_usize(), suffixes[0]);
        }
    }
    // State identifiers are multiples of a power of two.
    let shift = outputs.keys().map(|state| state.trailing_zeros()).min().unwrap_or(0);
    let last = outputs.keys().max().map_or(0, |state| state >> shift);
    let mut table = vec![NONE; last + 1];
    for (state, node) in outputs {
        table[state >> shift] = node;
    }
    Ok(Automaton { dfa, start, outputs: table, shift })
}

fn classes(
    signatures: &[Signature],
    class_of: &[u32],
    patterns: &[Pattern],
    count: usize,
) -> Vec<Class> {
    let mut classes = vec![Class { start: usize::MAX, ..Class::default() }; count];
    // `patterns` lacks the signatures that can never change the outcome, and so does `entries`.
    let mut entries: Vec<&Entry> = patterns
        .iter()
        .flat_map(|pattern| pattern.signatures.iter().map(|(_, entry)| entry))
        .collect();
    entries.sort_unstable_by_key(|entry| entry.signature);
    for entry in entries {
        let signature = &signatures[entry.signature as usize];
        let class = &mut classes[class_of[entry.signature as usize] as usize];
        class.start = class.start.min(signature.offset.into());
        class.uses[usize::from(signature.no_case)] = true;
        class.signatures.push(entry.signature);
        class.ends.push(entry.to);
    }
    for class in &mut classes {
        let max = |max: &mut u32, end: &u32| {
            *max = (*max).max(*end);
            Some(*max)
        };
        class.max_end_before = std::iter::once(0).chain(class.ends.iter().scan(0, max)).collect();
        class.max_end_from = class.ends.iter().rev().scan(0, max).collect();
        class.max_end_from.reverse();
    }
    classes
}
