//! Chooses the tuples (sets of compared leading bits) and assigns each rule to one of them.
//!
//! Each tuple costs a lookup per packet, and each rule in a bucket a comparison. A greedy search
//! repeatedly chooses the candidate tuple that accepts the most remaining rules. This number never
//! rises for any candidate, so the search recomputes it only when the candidate reaches the top of
//! the heap.

use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::pattern::{Bits, Pattern};
use crate::key::Packed;

pub(super) struct Layout {
    /// For each tuple, the bits that it compares, and its buckets: indexes of patterns (rule
    /// conditions).
    pub(super) tuples: Vec<(Bits, Vec<Vec<u32>>)>,
    pub(super) bucket_count: usize,
}

/// Maximum rules per bucket in the greedy search. The rules that it leaves over can make buckets
/// longer.
const GREEDY_BUCKET_LENGTH: u8 = 1;

/// Maximum number of different prefix lengths, including 0, that candidate tuples have for each of
/// the two addresses.
const MAX_LENGTHS: usize = 6;

/// Maximum number of tuples: a set of tuples is a `u64` with one bit per tuple.
pub(super) const MAX_TUPLES: usize = 64;

pub(super) fn choose_tuples<const N: usize>(patterns: &[Pattern<N>]) -> Layout {
    let candidates = candidates(patterns);
    // Assign rules with few bits first, because they fit few tuples.
    let mut remaining: Vec<u32> = (0..patterns.len() as u32).collect();
    remaining.sort_by_key(|&index| patterns[index as usize].bits.sum());
    let mut counts = BucketCounts::new(patterns.len());
    // For each candidate: the number of remaining rules that it accepts, its number of bits, its
    // bits, and how many rules remained when the number of accepted rules was computed.
    let mut heap: BinaryHeap<(usize, u32, Bits, usize)> = BinaryHeap::new();
    for bits in candidates {
        heap.push((
            counts.accepted_by(patterns, &remaining, bits),
            bits.sum(),
            bits,
            remaining.len(),
        ));
    }
    let mut chosen: Vec<(Bits, Vec<u32>)> = Vec::new();
    while !remaining.is_empty() && chosen.len() + 1 < MAX_TUPLES {
        let Some((accepted, sum, bits, remaining_then)) = heap.pop() else { break };
        // Recompute an outdated number, and choose again.
        if remaining_then != remaining.len() {
            heap.push((counts.accepted_by(patterns, &remaining, bits), sum, bits, remaining.len()));
            continue;
        }
        // Stop if the tuple would accept at most one rule and less than 1/64 of the remaining
        // rules.
        if accepted * 64 < remaining.len() && accepted <= usize::from(GREEDY_BUCKET_LENGTH) {
            break;
        }
        let mask = bits.mask();
        counts.clear();
        let mut members = Vec::with_capacity(accepted);
        remaining.retain(|&index| {
            let pattern = &patterns[index as usize];
            let accepted = pattern.bits.covers(bits) && counts.add(&pattern.value, &mask);
            if accepted {
                members.push(index);
            }
            !accepted
        });
        chosen.push((bits, members));
    }
    // The remaining rules overlap too much for short buckets, or all tuples are in use. Choose the
    // fitting tuple with the most bits.
    for index in remaining {
        let bits = patterns[index as usize].bits;
        let fitting = chosen
            .iter_mut()
            .filter(|(tuple, _)| bits.covers(*tuple))
            .max_by_key(|(tuple, _)| tuple.sum());
        match fitting {
            Some((_, members)) => members.push(index),
            // A tuple without bits accepts every rule. The loop above leaves room for it.
            None => {
                let no_bits = Bits {
                    source: 0,
                    destination: 0,
                    source_port: 0,
                    destination_port: 0,
                    protocol: 0,
                };
                chosen.push((no_bits, vec![index]));
            }
        }
    }
    let tuples: Vec<_> = chosen
        .into_iter()
        .map(|(bits, members)| (bits, buckets(patterns, bits, members)))
        .collect();
    let bucket_count = tuples.iter().map(|(_, buckets)| buckets.len()).sum();
    Layout { tuples, bucket_count }
}

/// Groups the members of a tuple by their values in the compared bits. Each bucket is in rule
/// order.
fn buckets<const N: usize>(
    patterns: &[Pattern<N>],
    bits: Bits,
    mut members: Vec<u32>,
) -> Vec<Vec<u32>> {
    let mask = bits.mask();
    members.sort_by_key(|&index| patterns[index as usize].rule);
    let mut bucket_indexes: HashMap<Packed<N>, usize> = HashMap::with_capacity(members.len());
    let mut buckets: Vec<Vec<u32>> = Vec::new();
    for index in members {
        let key = masked(&patterns[index as usize].value, &mask);
        let bucket = *bucket_indexes.entry(key).or_insert_with(|| {
            buckets.push(Vec::new());
            buckets.len() - 1
        });
        buckets[bucket].push(index);
    }
    buckets
}

fn masked<const N: usize>(value: &Packed<N>, mask: &Packed<N>) -> Packed<N> {
    std::array::from_fn(|word| value[word] & mask[word])
}

/// Returns all combinations of a few prefix lengths for each address, and of all or no bits for
/// each port and for the protocol.
fn candidates<const N: usize>(patterns: &[Pattern<N>]) -> Vec<Bits> {
    let lengths_of = |bits_of: fn(&Bits) -> u8| {
        few_lengths(patterns.iter().map(|pattern| bits_of(&pattern.bits)))
    };
    let (sources, destinations) =
        (lengths_of(|bits| bits.source), lengths_of(|bits| bits.destination));
    let all_or_none = |bits_of: fn(&Bits) -> u8, all: u8| {
        let is_used = patterns.iter().any(|pattern| bits_of(&pattern.bits) == all);
        if is_used { vec![0, all] } else { vec![0] }
    };
    let (source_ports, destination_ports) =
        (all_or_none(|bits| bits.source_port, 16), all_or_none(|bits| bits.destination_port, 16));
    let protocols = all_or_none(|bits| bits.protocol, 8);
    let mut all = Vec::new();
    for &source in &sources {
        for &destination in &destinations {
            for &source_port in &source_ports {
                for &destination_port in &destination_ports {
                    all.extend(protocols.iter().map(|&protocol| Bits {
                        source,
                        destination,
                        source_port,
                        destination_port,
                        protocol,
                    }));
                }
            }
        }
    }
    all
}

/// Returns 0, and up to `MAX_LENGTHS - 1` quantiles of the other lengths.
fn few_lengths(all: impl Iterator<Item = u8>) -> BTreeSet<u8> {
    let mut all: Vec<u8> = all.filter(|&length| length > 0).collect();
    all.sort_unstable();
    let mut chosen = BTreeSet::from([0]);
    let parts = MAX_LENGTHS - 1;
    chosen.extend((0..parts).filter_map(|part| all.get(part * all.len() / parts).copied()));
    chosen
}

/// The number of rules in each bucket of one tuple. Buckets with equal hashes share a count.
struct BucketCounts {
    counts: Vec<u8>,
    shift: u32,
}

impl BucketCounts {
    fn new(rules: usize) -> Self {
        let size = (4 * rules).next_power_of_two();
        Self { counts: vec![0; size], shift: 64 - size.trailing_zeros() }
    }

    fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// Adds a rule to its bucket. Returns `false` if the bucket is full.
    #[inline]
    fn add<const N: usize>(&mut self, value: &Packed<N>, mask: &Packed<N>) -> bool {
        let mut hash = 0_u64;
        for (value, mask) in value.iter().zip(mask) {
            hash = (hash.rotate_left(29) ^ (value & mask)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let count = &mut self.counts[(hash >> self.shift) as usize];
        let fits = *count < GREEDY_BUCKET_LENGTH;
        *count += u8::from(fits);
        fits
    }

    /// Returns how many remaining rules a tuple with these bits would accept.
    fn accepted_by<const N: usize>(
        &mut self,
        patterns: &[Pattern<N>],
        remaining: &[u32],
        bits: Bits,
    ) -> usize {
        self.clear();
        let mask = bits.mask();
        let members = remaining
            .iter()
            .map(|&index| &patterns[index as usize])
            .filter(|pattern| pattern.bits.covers(bits));
        members.filter(|pattern| self.add(&pattern.value, &mask)).count()
    }
}
