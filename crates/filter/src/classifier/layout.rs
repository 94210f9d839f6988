//! Which tuples there are, and which rule lives in which.
//!
//! Each tuple costs every packet a lookup, each rule in a bucket a comparison. So as few tuples as
//! possible whose buckets are short: greedily, the candidate that takes most of the rules that are
//! left, until all have a place. A candidate's worth only falls while others take rules, so it is
//! computed anew only when it comes to the top.

use std::collections::{BTreeSet, BinaryHeap, HashMap};

use super::pattern::{Bits, Pattern};
use crate::key::Packed;

/// Rules by tuple and bucket, by their index among the patterns.
pub(super) struct Laid {
    pub(super) tuples: Vec<(Bits, Vec<Vec<u32>>)>,
    /// Buckets in all.
    pub(super) buckets: usize,
}

/// Rules that a bucket may have if there is another place for them.
const BUCKET: u8 = 1;

/// Lengths of prefixes that are tried on each side.
const LENGTHS: usize = 6;

/// Tuples at most: as many as a set of them has bits.
pub(super) const TUPLES: usize = 64;

pub(super) fn lay_out<const N: usize>(patterns: &[Pattern<N>]) -> Laid {
    let candidates = candidates(patterns);
    // Those with the least choice first: they keep their place in a bucket that is full.
    let mut left: Vec<u32> = (0..patterns.len() as u32).collect();
    left.sort_by_key(|&index| patterns[index as usize].bits.sum());
    let mut counts = Counts::new(patterns.len());
    let mut heap: BinaryHeap<(usize, u32, Bits, usize)> = BinaryHeap::new();
    for bits in candidates {
        heap.push((counts.taken(patterns, &left, bits), bits.sum(), bits, left.len()));
    }
    let mut chosen: Vec<(Bits, Vec<u32>)> = Vec::new();
    while !left.is_empty() && chosen.len() + 1 < TUPLES {
        let Some((worth, sum, bits, of)) = heap.pop() else { break };
        if of != left.len() {
            heap.push((counts.taken(patterns, &left, bits), sum, bits, left.len()));
            continue;
        }
        if worth * 64 < left.len() && worth <= usize::from(BUCKET) {
            break;
        }
        let mask = bits.mask();
        counts.clear();
        let mut members = Vec::with_capacity(worth);
        left.retain(|&index| {
            let pattern = &patterns[index as usize];
            let takes = pattern.bits.covers(bits) && counts.add(&pattern.value, &mask);
            if takes {
                members.push(index);
            }
            !takes
        });
        chosen.push((bits, members));
    }
    // What is left overlaps so much that no bucket is short: to the most telling tuple that there
    // is.
    for index in left {
        let bits = patterns[index as usize].bits;
        let fitting =
            chosen.iter_mut().filter(|(of, _)| bits.covers(*of)).max_by_key(|(of, _)| of.sum());
        match fitting {
            Some((_, members)) => members.push(index),
            // One more, which takes anything: there is room for it, as the loop ends before.
            None => {
                let nothing = Bits {
                    source: 0,
                    destination: 0,
                    source_port: 0,
                    destination_port: 0,
                    protocol: 0,
                };
                chosen.push((nothing, vec![index]));
            }
        }
    }
    let tuples: Vec<_> = chosen
        .into_iter()
        .map(|(bits, members)| (bits, buckets(patterns, bits, members)))
        .collect();
    let buckets = tuples.iter().map(|(_, buckets)| buckets.len()).sum();
    Laid { tuples, buckets }
}

/// Members of a tuple by what they have in the bits that it looks at, each bucket in the order of
/// the rules.
fn buckets<const N: usize>(
    patterns: &[Pattern<N>],
    bits: Bits,
    mut members: Vec<u32>,
) -> Vec<Vec<u32>> {
    let mask = bits.mask();
    members.sort_by_key(|&index| patterns[index as usize].rule);
    let mut places: HashMap<Packed<N>, usize> = HashMap::with_capacity(members.len());
    let mut buckets: Vec<Vec<u32>> = Vec::new();
    for index in members {
        let key = masked(&patterns[index as usize].value, &mask);
        let place = *places.entry(key).or_insert_with(|| {
            buckets.push(Vec::new());
            buckets.len() - 1
        });
        buckets[place].push(index);
    }
    buckets
}

fn masked<const N: usize>(value: &Packed<N>, mask: &Packed<N>) -> Packed<N> {
    std::array::from_fn(|word| value[word] & mask[word])
}

/// Every mix of some lengths of each field.
fn candidates<const N: usize>(patterns: &[Pattern<N>]) -> Vec<Bits> {
    let field = |of: fn(&Bits) -> u8| lengths(patterns.iter().map(|pattern| of(&pattern.bits)));
    let (sources, destinations) = (field(|bits| bits.source), field(|bits| bits.destination));
    // Of ports all bits or none.
    let whole = |of: fn(&Bits) -> u8, all: u8| {
        let any = patterns.iter().any(|pattern| of(&pattern.bits) == all);
        if any { vec![0, all] } else { vec![0] }
    };
    let (source_ports, destination_ports) =
        (whole(|bits| bits.source_port, 16), whole(|bits| bits.destination_port, 16));
    let protocols = whole(|bits| bits.protocol, 8);
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

/// 0 and the lengths that cut the rules into parts of equal size.
fn lengths(all: impl Iterator<Item = u8>) -> BTreeSet<u8> {
    let mut all: Vec<u8> = all.filter(|&length| length > 0).collect();
    all.sort_unstable();
    let mut chosen = BTreeSet::from([0]);
    let parts = LENGTHS - 1;
    chosen.extend((0..parts).filter_map(|part| all.get(part * all.len() / parts).copied()));
    chosen
}

/// How many rules fall into a bucket, by a hash of what they have in common: two buckets may be
/// taken for one.
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

    /// Whether there is room for one more.
    #[inline]
    fn add<const N: usize>(&mut self, value: &Packed<N>, mask: &Packed<N>) -> bool {
        let mut hash = 0_u64;
        for (value, mask) in value.iter().zip(mask) {
            hash = (hash.rotate_left(29) ^ (value & mask)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let count = &mut self.counts[(hash >> self.shift) as usize];
        let fits = *count < BUCKET;
        *count += u8::from(fits);
        fits
    }

    /// How many of those that are left a tuple would take.
    fn taken<const N: usize>(
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
