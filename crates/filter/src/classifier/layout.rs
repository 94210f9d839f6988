//! Chooses the tuples and assigns each rule to one.
//!
//! Each tuple costs a lookup per packet, and each rule in a bucket a comparison, so the layout
//! needs few tuples with short buckets. A greedy search takes the candidate that accepts most of
//! the remaining rules, until every rule is assigned. The value of a candidate only falls, so it is
//! recomputed only when the candidate reaches the top of the heap.

use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::pattern::{Bits, Pattern};
use crate::key::Packed;

/// Rules by tuple and bucket, as indexes of patterns.
pub(super) struct Layout {
    pub(super) tuples: Vec<(Bits, Vec<Vec<u32>>)>,
    /// Total number of buckets.
    pub(super) buckets: usize,
}

/// Maximum number of rules in a bucket while another tuple is available.
const MAX_BUCKET: u8 = 1;

/// Number of prefix lengths tried on each side.
const LENGTHS: usize = 6;

/// Maximum number of tuples: the bits of a tuple set.
pub(super) const MAX_TUPLES: usize = 64;

pub(super) fn choose_tuples<const N: usize>(patterns: &[Pattern<N>]) -> Layout {
    let candidates = candidates(patterns);
    // Rules with the fewest possible tuples first, so that they get into a bucket before it is
    // full.
    let mut left: Vec<u32> = (0..patterns.len() as u32).collect();
    left.sort_by_key(|&index| patterns[index as usize].bits.sum());
    let mut counts = Counts::new(patterns.len());
    let mut heap: BinaryHeap<(usize, u32, Bits, usize)> = BinaryHeap::new();
    for bits in candidates {
        heap.push((counts.accepted_by(patterns, &left, bits), bits.sum(), bits, left.len()));
    }
    let mut chosen: Vec<(Bits, Vec<u32>)> = Vec::new();
    while !left.is_empty() && chosen.len() + 1 < MAX_TUPLES {
        let Some((accepts, sum, bits, of)) = heap.pop() else { break };
        if of != left.len() {
            heap.push((counts.accepted_by(patterns, &left, bits), sum, bits, left.len()));
            continue;
        }
        if accepts * 64 < left.len() && accepts <= usize::from(MAX_BUCKET) {
            break;
        }
        let mask = bits.mask();
        counts.clear();
        let mut members = Vec::with_capacity(accepts);
        left.retain(|&index| {
            let pattern = &patterns[index as usize];
            let accepted = pattern.bits.covers(bits) && counts.add(&pattern.value, &mask);
            if accepted {
                members.push(index);
            }
            !accepted
        });
        chosen.push((bits, members));
    }
    // The remaining rules overlap too much for short buckets: assign each to the fitting tuple with
    // the most bits.
    for index in left {
        let bits = patterns[index as usize].bits;
        let fitting =
            chosen.iter_mut().filter(|(of, _)| bits.covers(*of)).max_by_key(|(of, _)| of.sum());
        match fitting {
            Some((_, members)) => members.push(index),
            // Add a tuple that accepts any rule. The loop above left room for one.
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
    let buckets = tuples.iter().map(|(_, buckets)| buckets.len()).sum();
    Layout { tuples, buckets }
}

/// Groups the members of a tuple into buckets by the bits that the tuple compares. Each bucket is
/// in rule order.
fn buckets<const N: usize>(
    patterns: &[Pattern<N>],
    bits: Bits,
    mut members: Vec<u32>,
) -> Vec<Vec<u32>> {
    let mask = bits.mask();
    members.sort_by_key(|&index| patterns[index as usize].rule);
    let mut bucket_of: HashMap<Packed<N>, usize> = HashMap::with_capacity(members.len());
    let mut buckets: Vec<Vec<u32>> = Vec::new();
    for index in members {
        let key = masked(&patterns[index as usize].value, &mask);
        let bucket = *bucket_of.entry(key).or_insert_with(|| {
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

/// Returns all combinations of some lengths of each field.
fn candidates<const N: usize>(patterns: &[Pattern<N>]) -> Vec<Bits> {
    let field = |of: fn(&Bits) -> u8| lengths(patterns.iter().map(|pattern| of(&pattern.bits)));
    let (sources, destinations) = (field(|bits| bits.source), field(|bits| bits.destination));
    // Of ports, use all bits or none.
    let all_or_none = |of: fn(&Bits) -> u8, all: u8| {
        let any = patterns.iter().any(|pattern| of(&pattern.bits) == all);
        if any { vec![0, all] } else { vec![0] }
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

/// Returns 0 and the lengths that divide the rules into parts of equal size.
fn lengths(all: impl Iterator<Item = u8>) -> BTreeSet<u8> {
    let mut all: Vec<u8> = all.filter(|&length| length > 0).collect();
    all.sort_unstable();
    let mut chosen = BTreeSet::from([0]);
    let parts = LENGTHS - 1;
    chosen.extend((0..parts).filter_map(|part| all.get(part * all.len() / parts).copied()));
    chosen
}

/// Number of rules per bucket, by a hash of the compared bits. Two buckets may share a count.
struct Counts {
    counts: Vec<u8>,
    shift: u32,
}

impl Counts {
    fn new(rules: usize) -> Self {
        let size = (4 * rules).next_power_of_two();
        Self { counts: vec![0; size], shift: 64 - size.trailing_zeros() }
    }

    fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// Adds a rule and returns whether its bucket had room.
    #[inline]
    fn add<const N: usize>(&mut self, value: &Packed<N>, mask: &Packed<N>) -> bool {
        let mut hash = 0_u64;
        for (value, mask) in value.iter().zip(mask) {
            hash = (hash.rotate_left(29) ^ (value & mask)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let count = &mut self.counts[(hash >> self.shift) as usize];
        let fits = *count < MAX_BUCKET;
        *count += u8::from(fits);
        fits
    }

    /// Returns how many of the remaining rules a tuple would accept.
    fn accepted_by<const N: usize>(
        &mut self,
        patterns: &[Pattern<N>],
        left: &[u32],
        bits: Bits,
    ) -> usize {
        self.clear();
        let mask = bits.mask();
        let members = left
            .iter()
            .map(|&index| &patterns[index as usize])
            .filter(|pattern| pattern.bits.covers(bits));
        members.filter(|pattern| self.add(&pattern.value, &mask)).count()
    }
}
