//! A scanner that searches a payload for the patterns of many signatures at once. A scan takes at
//! most [`Scanner::max_steps`] steps, whatever the signatures and the packet are.
//!
//! The automaton of Aho and Corasick (1975), as a DFA, makes one transition per byte. Its output at
//! one byte can be long: all patterns that end there are suffixes of each other, and each pattern
//! can belong to many signatures. Four measures bound the work on outputs:
//!
//! - **Header first.** Signatures with the same conditions form a class. Before the scan, a
//!   [`Classifier`] finds the classes that match the packet. If no class matches, the payload is
//!   not scanned. A packet is compared with the conditions of at most [`Scanner::MAX_CONDITIONS`]
//!   classes.
//! - **Once per packet.** A pattern is a node, whose parent is the longest pattern that is a proper
//!   suffix. The scan visits only nodes that can still give a result. After a node, the scan visits
//!   its parent if that can still give a result, and so on. An occurrence that starts before the
//!   `offset` of a signature does not count for this signature. So the scan visits a node once more
//!   when it reaches the next offset of the node's signatures, or of those of its suffixes.
//! - **Nothing that is already decided.** After a match of a signature with a verdict, later
//!   signatures cannot change the outcome. The scan ends when no earlier signature can match.
//! - **A limit on overlap** ([`bound`]). [`Scanner::new`] rejects signatures with which a packet
//!   could cost more than [`Scanner::max_steps`].

mod bit_set;
mod bound;
mod compile;
#[cfg(test)]
mod tests;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::dfa::DFA;

use crate::classifier::Classifier;
use crate::key::Key;
use bit_set::{BitSet, ones};
pub use compile::ScannerError;

/// Searches payloads for the patterns of many signatures in one pass.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Finds the classes that match a packet. Its rule numbers are indexes in `classes`.
    conditions: Classifier,
    classes: Vec<Class>,
    /// One automaton for case-sensitive patterns, and one for patterns with `nocase`.
    automata: [Option<Automaton>; 2],
    nodes: Vec<Node>,
    blocks: Vec<Block>,
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    signature_count: usize,
    longest_chain: usize,
}

/// The signatures with the same conditions on headers.
#[derive(Clone, Debug, Default)]
struct Class {
    /// The smallest `offset` of the signatures.
    start: usize,
    /// For each of the two automata, whether a signature uses it.
    uses: [bool; 2],
    /// Signature numbers, ascending.
    signatures: Vec<u32>,
    /// For each signature, the last byte position at which its pattern can end.
    ends: Vec<u32>,
    /// At `n`, the largest of the first `n` values of `ends`.
    max_end_before: Vec<u32>,
    /// At `n`, the largest value of `ends` from index `n` on.
    max_end_from: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Automaton {
    dfa: DFA,
    start: StateID,
    /// For each match state, the node of the longest pattern that ends there.
    outputs: Vec<u32>,
    /// Right shift that turns a state into an index in `outputs`.
    shift: u32,
}

/// A distinct pattern.
#[derive(Clone, Debug)]
struct Node {
    /// The longest pattern that is a proper suffix of this one, or [`NONE`].
    parent: u32,
    /// Smallest number of a signature with this pattern or with one of its suffixes.
    first_signature: u32,
    /// Indexes of the first block and of the one after the last.
    blocks: [u32; 2],
    /// The class and entry of the signature, if the pattern has only one. Saves reading block, slot
    /// and entry, each of which can miss the cache.
    single: Option<(u32, Entry)>,
    /// Whether a signature of this pattern or of its suffixes has an offset.
    has_offset: bool,
}

/// Up to 64 slots of a node, whose class numbers differ only in the lowest six bits.
#[derive(Clone, Debug)]
struct Block {
    /// The class numbers divided by 64.
    word: u32,
    first_slot: u32,
    /// A bit for the class of each slot.
    classes: u64,
}

/// The signatures with the same pattern and class: the index of the first entry, and of the one
/// after the last.
#[derive(Clone, Copy, Debug)]
struct Slot {
    entries: [u32; 2],
}

/// A signature in a slot. The entries of a slot are sorted by `from`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// First and last position at which the pattern can end, counted from the start of the payload.
    from: u32,
    to: u32,
    signature: u32,
    has_verdict: bool,
    has_offset: bool,
}

const NONE: u32 = u32::MAX;

/// Bytes between two checks whether the scan can end.
const CHUNK: usize = 64;

/// Minimum distance of two such checks, in bytes per class that matches the packet.
const BYTES_PER_CLASS: usize = 8;

/// Working memory and results of [`Scanner::scan`], reused for each payload.
#[derive(Clone, Debug)]
pub struct Hits {
    /// Each class that matches the packet, and how many of its signatures, from the first one on,
    /// are done: they have matched, or can no longer match.
    eligible: Vec<(u32, u32)>,
    eligible_set: BitSet,
    /// Signatures without a verdict that have matched.
    found: BitSet,
    /// The first signature with a verdict that has matched, or [`NONE`].
    best: u32,
    /// For each node, the position from which a visit can give a result: 0 before the first visit.
    wakes: Vec<u32>,
    /// The visited nodes.
    visited: Vec<u32>,
    /// For each slot of a visited node, the first entry that is still to be checked.
    cursors: Vec<u32>,
    /// The nodes of the current visit whose `has_offset` is set, longest pattern first.
    path: Vec<u32>,
    steps: u64,
}

impl Scanner {
    /// Maximum steps of a scan of a payload of `length` bytes.
    ///
    /// A step is a transition of an automaton, the check of one signature whose pattern occurs, or
    /// a visit of a class that matches the packet. Each class is visited once before the scan and
    /// once when the scan begins. Later visits of all classes together take at most one step per
    /// eight bytes.
    pub fn max_steps(&self, length: usize) -> u64 {
        let automata = self.automata.iter().flatten().count() as u64;
        let classes = self.conditions.max_compared() as u64;
        let class_visits = 2 * classes + (length / BYTES_PER_CLASS) as u64;
        2 * automata * length as u64 + Self::MAX_EXTRA_STEPS + class_visits
    }

    /// Allocates memory for [`Self::scan`].
    pub fn hits(&self) -> Hits {
        Hits {
            eligible: Vec::with_capacity(self.classes.len()),
            eligible_set: BitSet::new(self.classes.len()),
            found: BitSet::new(self.signature_count),
            best: NONE,
            wakes: vec![0; self.nodes.len()],
            visited: Vec::with_capacity(self.nodes.len()),
            cursors: vec![0; self.slots.len()],
            path: Vec::with_capacity(self.longest_chain),
            steps: 0,
        }
    }

    /// Returns the indexes of the signatures that match a packet, ascending, up to the first one
    /// with a verdict. A signature matches if its rule matches `key` and its pattern lies in the
    /// allowed range of `payload`.
    pub fn scan<'h>(
        &self,
        key: &Key,
        payload: &[u8],
        memory: &'h mut Hits,
    ) -> impl Iterator<Item = u32> + use<'h> {
        memory.begin();
        for class in self.conditions.matches(key, 0) {
            memory.steps += 1;
            memory.eligible.push((class, 0));
            memory.eligible_set.insert(class);
        }
        self.search(payload, memory);
        let best = memory.best;
        memory
            .found
            .iter()
            .take_while(move |&signature| signature < best)
            .chain((best != NONE).then_some(best))
    }

    fn search(&self, payload: &[u8], memory: &mut Hits) {
        let classes = || memory.eligible.iter().map(|&(class, _)| &self.classes[class as usize]);
        let start = classes().map(|class| class.start).min().unwrap_or(0);
        let uses = [0, 1].map(|kind| classes().any(|class| class.uses[kind]));
        let mut states = [0, 1].map(|kind| {
            let automaton = self.automata[kind].as_ref().filter(|_| uses[kind])?;
            Some((automaton, automaton.start))
        });
        // `Self::end` takes a few steps per class, so call it less often with many classes.
        let chunk = CHUNK.max(BYTES_PER_CLASS * memory.eligible.len());
        let mut position = start;
        while position < payload.len() {
            let end = self.end(position, memory).min(payload.len());
            if position >= end {
                return;
            }
            let next = end.min(position + chunk);
            for (automaton, state) in states.iter_mut().flatten() {
                *state = self.search_chunk(
                    automaton,
                    *state,
                    &payload[position..next],
                    position,
                    memory,
                );
            }
            position = next;
        }
    }

    /// Returns the position in the payload from which no byte can change the outcome. The scan has
    /// reached `position`.
    fn end(&self, position: usize, memory: &mut Hits) -> usize {
        let Hits { eligible, found, best, steps, .. } = memory;
        *steps += eligible.len() as u64;
        let mut end = 0;
        for (class, done) in eligible {
            let class = &self.classes[*class as usize];
            let earlier = class.signatures.partition_point(|signature| signature < best);
            // Limit the iterations: otherwise, one packet could cost a step per signature.
            for _ in 0..CHUNK / 8 {
                let at = *done as usize;
                let is_done = at < earlier
                    && (found.contains(class.signatures[at])
                        || class.ends[at] as usize <= position);
                *done += u32::from(is_done);
            }
            if (*done as usize) < earlier {
                let max_end = class.max_end_before[earlier].min(class.max_end_from[*done as usize]);
                end = end.max(max_end as usize);
            }
        }
        end
    }

    /// Searches `chunk`, which begins at the byte `position` of the payload. Returns the new state.
    #[inline]
    fn search_chunk(
        &self,
        automaton: &Automaton,
        mut state: StateID,
        chunk: &[u8],
        position: usize,
        memory: &mut Hits,
    ) -> StateID {
        let Automaton { dfa, outputs, shift, .. } = automaton;
        memory.steps += chunk.len() as u64;
        for (end, &byte) in (position as u32 + 1..).zip(chunk) {
            state = dfa.next_state(Anchored::No, state, byte);
            if dfa.is_match(state) {
                let node = outputs[state.as_usize() >> shift];
                if memory.needs_visit(node, end) {
                    self.visit(node, end, memory);
                }
            }
        }
        state
    }

    /// Checks the signatures of a pattern that ends at the position `end`, and of its suffixes.
    fn visit(&self, mut node: u32, end: u32, memory: &mut Hits) {
        // If the loop stops before it visits a parent, the position from which that parent needs a
        // visit.
        let mut wake = NONE;
        loop {
            let current = &self.nodes[node as usize];
            let is_first_visit = memory.wakes[node as usize] == 0;
            if is_first_visit {
                memory.visited.push(node);
            }
            memory.wakes[node as usize] = NONE;
            // No signature of this pattern or of its suffixes comes before the best match.
            if current.first_signature >= memory.best {
                memory.steps += 1;
                break;
            }
            if let Some((class, entry)) = current.single {
                memory.steps += 1;
                if memory.eligible_set.contains(class) {
                    if end < entry.from {
                        memory.wakes[node as usize] = entry.from;
                    } else {
                        memory.record(&entry, end);
                    }
                }
            } else {
                let pending = self.check(current, is_first_visit, end, memory);
                memory.wakes[node as usize] = pending;
            }
            if current.has_offset {
                memory.path.push(node);
            }
            node = current.parent;
            if node == NONE {
                break;
            }
            if !memory.needs_visit(node, end) {
                wake = memory.wakes[node as usize];
                break;
            }
        }
        // A node needs a visit as soon as one of its suffixes needs one.
        while let Some(node) = memory.path.pop() {
            let own = &mut memory.wakes[node as usize];
            wake = wake.min(*own);
            *own = wake;
        }
    }

    /// Checks the signatures of one pattern. Returns the smallest position after `end` at which one
    /// of them can match, or [`NONE`].
    fn check(&self, node: &Node, is_first_visit: bool, end: u32, memory: &mut Hits) -> u32 {
        let [first_block, end_block] = node.blocks.map(|block| block as usize);
        let blocks = &self.blocks[first_block..end_block];
        let mut pending = NONE;
        let mut steps = blocks.len() as u64;
        for block in blocks {
            let eligible = memory.eligible_set.word(block.word) & block.classes;
            for class in ones(eligible, 0) {
                let index = block.first_slot + (block.classes & ((1 << class) - 1)).count_ones();
                let [first, last] = self.slots[index as usize].entries;
                let start = if is_first_visit { first } else { memory.cursors[index as usize] };
                let mut cursor = start;
                for entry in &self.entries[start as usize..last as usize] {
                    if entry.from > end {
                        pending = pending.min(entry.from);
                        break;
                    }
                    cursor += 1;
                    memory.record(entry, end);
                }
                memory.cursors[index as usize] = cursor;
                steps += u64::from(cursor - start).max(1);
            }
        }
        // The first block costs no step, as in `bound`.
        memory.steps += steps.saturating_sub(1).max(1);
        pending
    }

    /// Returns the memory of the automata and tables in bytes.
    pub fn memory(&self) -> usize {
        let automata = self.automata.iter().flatten();
        let automata: usize = automata
            .map(|automaton| automaton.dfa.memory_usage() + size_of_val(&automaton.outputs[..]))
            .sum();
        let per_signature = 3 * size_of::<u32>();
        automata
            + self.conditions.shape().memory
            + size_of_val(&self.nodes[..])
            + size_of_val(&self.blocks[..])
            + size_of_val(&self.slots[..])
            + size_of_val(&self.entries[..])
            + self.signature_count * per_signature
    }
}

impl Hits {
    fn begin(&mut self) {
        while let Some(node) = self.visited.pop() {
            self.wakes[node as usize] = 0;
        }
        self.steps = 0;
        self.best = NONE;
        self.found.clear();
        self.eligible.clear();
        self.eligible_set.clear();
    }

    /// Returns whether the pattern of `node`, which ends at the position `end`, or one of its
    /// suffixes can give a result.
    #[inline]
    fn needs_visit(&self, node: u32, end: u32) -> bool {
        end >= self.wakes[node as usize]
    }

    /// Records a match of a signature whose pattern ends at the position `end`, unless `end` is
    /// after the range of the signature, or an earlier signature with a verdict has matched. `end`
    /// must not be before the range.
    #[inline]
    fn record(&mut self, entry: &Entry, end: u32) {
        if end > entry.to || entry.signature >= self.best {
            return;
        }
        if entry.has_verdict {
            self.best = entry.signature;
        } else {
            self.found.insert(entry.signature);
        }
    }

    /// Returns the steps of the last scan: see [`Scanner::max_steps`].
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
