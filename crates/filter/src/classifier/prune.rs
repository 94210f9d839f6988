//! Selects the tuples that can have a rule for a key: those with a rule for its source, its
//! destination, and so on.
//!
//! After the pruned tuple space of Srinivasan et al. (1999): each field of a key is looked up in a
//! small table of tuple sets, and the sets are intersected. The result may contain too many tuples,
//! never too few: addresses count by at most 24 bits, ports from 1024 on by their upper ten.

use std::collections::HashMap;

use super::pattern::Pattern;
use crate::key::{Packed, V4, ports};

/// A set of tuples, by their position in the order.
pub(super) type Tuples = u64;

/// Returns the set with one tuple.
pub(super) fn tuple_set(position: usize) -> Tuples {
    1 << position
}

/// The tables of tuple sets.
#[derive(Clone, Debug)]
pub(super) struct Prune {
    pub(super) source: Addresses,
    pub(super) destination: Addresses,
    pub(super) source_port: Ports,
    pub(super) destination_port: Ports,
    pub(super) protocol: Box<[Tuples; 256]>,
}

impl Prune {
    /// Creates the tables from patterns, each with the position of its tuple.
    pub(super) fn new<const N: usize>(patterns: &[(usize, &Pattern<N>)]) -> Self {
        let rules = || patterns.iter().map(|(position, pattern)| (tuple_set(*position), *pattern));
        let mut protocol = Box::new([0; 256]);
        for (tuple, pattern) in rules() {
            let upper = |word: &Packed<N>| (word[N - 2] >> ports::PROTOCOL & 0xff) as usize;
            if pattern.bits.protocol == 0 {
                protocol.iter_mut().for_each(|tuples| *tuples |= tuple);
            } else {
                protocol[upper(&pattern.value)] |= tuple;
            }
        }
        let half = |first: usize| {
            // IPv4 has both addresses in one word; of IPv6 the upper half of each is precise
            // enough.
            rules().map(move |(tuple, pattern)| match N {
                V4 => (tuple, pattern.value[0] << (32 * first), length(pattern, first).min(32)),
                _ => (tuple, pattern.value[2 * first], length(pattern, first).min(64)),
            })
        };
        Self {
            source: Addresses::new(half(0)),
            destination: Addresses::new(half(1)),
            source_port: Ports::new(rules().map(|(tuple, pattern)| (tuple, pattern.source))),
            destination_port: Ports::new(
                rules().map(|(tuple, pattern)| (tuple, pattern.destination)),
            ),
            protocol,
        }
    }

    /// Returns the tuples that may have a rule for a key.
    #[inline]
    pub(super) fn tuples<const N: usize>(&self, key: &Packed<N>) -> Tuples {
        let (source, destination) = if N == V4 { (key[0], key[0] << 32) } else { (key[0], key[2]) };
        let upper = key[N - 2];
        self.protocol[(upper >> ports::PROTOCOL & 0xff) as usize]
            & self.source.get(source)
            & self.destination.get(destination)
            & self.source_port.get((upper >> ports::SOURCE) as u16)
            & self.destination_port.get((upper >> ports::DESTINATION) as u16)
    }

    pub(super) fn memory(&self) -> usize {
        let ports = |ports: &Ports| size_of_val(&ports.0[..]);
        self.source.memory()
            + self.destination.memory()
            + ports(&self.source_port)
            + ports(&self.destination_port)
            + size_of_val(&*self.protocol)
    }
}

fn length<const N: usize>(pattern: &Pattern<N>, first: usize) -> u8 {
    if first == 0 { pattern.bits.source } else { pattern.bits.destination }
}

/// Tuple sets by address: by 16 bits after the skipped ones, and by the next 8 bits where they make
/// a difference.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// Number of leading bits that are skipped.
    pub(super) skip: u32,
    /// For each 16-bit value, the number of a set, or from `PARTS` on, of a part in `parts`.
    pub(super) first: Vec<u16>,
    pub(super) parts: Vec<[u16; 256]>,
    pub(super) sets: Vec<Tuples>,
}

/// Numbers from here on name a part instead of a set.
const PARTS: u16 = 1 << 15;

/// Maximum number of parts: half a megabyte. Further addresses count by 16 bits.
const MAX_PARTS: usize = 1024;

impl Addresses {
    /// Creates the sets from left-aligned prefixes.
    fn new(prefixes: impl Iterator<Item = (Tuples, u64, u8)> + Clone) -> Self {
        let mut everywhere = 0;
        let mut distinct: Vec<(u64, u8, Tuples)> = Vec::new();
        for (tuple, value, length) in prefixes {
            // Bits beyond the length belong to the other IPv4 address.
            match length {
                0 => everywhere |= tuple,
                _ => distinct.push((
                    value & !(u64::MAX.checked_shr(length.into()).unwrap_or(0)),
                    length,
                    tuple,
                )),
            }
        }
        distinct.sort_unstable();
        distinct.dedup();
        let skip = common(&distinct);
        let mut first = vec![everywhere; 1 << 16];
        let mut parts: HashMap<u16, [Tuples; 256]> = HashMap::new();
        // Short prefixes first: a part starts as a copy of the set that they fill.
        distinct.sort_unstable_by_key(|(_, length, _)| *length);
        for (value, length, tuple) in distinct {
            let value = value << skip;
            let length = u32::from(length).saturating_sub(skip);
            let start = (value >> 48) as usize;
            if length <= 16 {
                let count = 1_usize << (16 - length);
                first[start..start + count].iter_mut().for_each(|tuples| *tuples |= tuple);
                continue;
            }
            let base = first[start];
            if parts.len() >= MAX_PARTS && !parts.contains_key(&(start as u16)) {
                first[start] |= tuple;
                continue;
            }
            let part = parts.entry(start as u16).or_insert([base; 256]);
            let (start, count) = ((value >> 40 & 0xff) as usize, 1_usize << (24 - length.min(24)));
            part[start..start + count].iter_mut().for_each(|tuples| *tuples |= tuple);
        }
        // Store each distinct set once.
        let mut numbers: HashMap<Tuples, u16> = HashMap::new();
        let mut sets = Vec::new();
        let mut number = |tuples: Tuples| {
            *numbers.entry(tuples).or_insert_with(|| {
                // Out of set numbers: use set 0, which contains all tuples.
                if sets.len() + 1 >= usize::from(PARTS) {
                    return 0;
                }
                sets.push(tuples);
                (sets.len() - 1) as u16
            })
        };
        number(Tuples::MAX);
        let mut table: Vec<u16> = Vec::with_capacity(1 << 16);
        let mut part_table: Vec<[u16; 256]> = Vec::new();
        for (start, tuples) in (0..=u16::MAX).zip(first) {
            match parts.get(&start) {
                None => table.push(number(tuples)),
                Some(part) => {
                    table.push(PARTS + part_table.len() as u16);
                    part_table.push(part.map(&mut number));
                }
            }
        }
        Self { skip, first: table, parts: part_table, sets }
    }

    #[inline]
    fn get(&self, address: u64) -> Tuples {
        let address = address << self.skip;
        let mut number = self.first[(address >> 48) as usize];
        if number >= PARTS {
            number = self.parts[usize::from(number - PARTS)][(address >> 40 & 0xff) as usize];
        }
        self.sets[usize::from(number)]
    }

    fn memory(&self) -> usize {
        size_of_val(&self.first[..]) + size_of_val(&self.parts[..]) + size_of_val(&self.sets[..])
    }
}

/// Returns the number of leading bits that all prefixes have in common.
fn common(prefixes: &[(u64, u8, Tuples)]) -> u32 {
    let Some((any, _, _)) = prefixes.first() else { return 0 };
    let shortest = prefixes.iter().map(|(_, length, _)| u32::from(*length)).min().unwrap_or(0);
    let differing = prefixes.iter().fold(0, |differing, (value, _, _)| differing | (value ^ any));
    differing.leading_zeros().min(shortest).min(40)
}

/// Tuple sets by port: one per port below 1024, one per 64 ports above.
#[derive(Clone, Debug)]
pub(super) struct Ports(pub(super) Box<[Tuples; PORT_SETS]>);

const SINGLE_PORTS: usize = 1024;
const SHARED_PORT_BITS: u32 = 6;
pub(super) const PORT_SETS: usize = SINGLE_PORTS + (1 << (16 - SHARED_PORT_BITS));

impl Ports {
    fn position(port: u16) -> usize {
        let port = usize::from(port);
        if port < SINGLE_PORTS { port } else { SINGLE_PORTS + (port >> SHARED_PORT_BITS) }
    }

    /// Creates the sets from ranges. A key without ports has zeros or ICMP fields there, so a rule
    /// without ports counts for all.
    fn new(ranges: impl Iterator<Item = (Tuples, [u16; 2])>) -> Self {
        let mut sets = Box::new([0; PORT_SETS]);
        let mut distinct: Vec<_> = ranges.collect();
        distinct.sort_unstable();
        distinct.dedup();
        for (tuple, [first, last]) in distinct {
            sets[Self::position(first)..=Self::position(last)]
                .iter_mut()
                .for_each(|tuples| *tuples |= tuple);
        }
        Self(sets)
    }

    #[inline]
    fn get(&self, port: u16) -> Tuples {
        self.0[Self::position(port) % PORT_SETS]
    }
}
