//! Selects the tuples (groups of rules) that can contain a matching rule for a key.
//!
//! This is the pruned tuple space of Srinivasan et al. (1999). A small table per field has, for
//! each value, the set of tuples with a rule for this value. A lookup intersects the sets for all
//! fields. The result may contain too many tuples, but never too few: the tables distinguish
//! addresses by at most 24 bits, and ports from 1024 on by their upper ten bits.

use std::collections::HashMap;

use super::pattern::Pattern;
use crate::key::{Packed, V4_WORDS, l4_word};

/// Bit n stands for the tuple at position n of the search order.
pub(super) type TupleSet = u64;

pub(super) fn tuple_set(position: usize) -> TupleSet {
    1 << position
}

/// One table of tuple sets per field.
#[derive(Clone, Debug)]
pub(super) struct Prune {
    pub(super) source: AddressSets,
    pub(super) destination: AddressSets,
    pub(super) source_port: PortSets,
    pub(super) destination_port: PortSets,
    pub(super) protocol: Box<[TupleSet; 256]>,
}

impl Prune {
    /// Each pattern comes with the position of its tuple in the search order.
    pub(super) fn new<const N: usize>(patterns: &[(usize, &Pattern<N>)]) -> Self {
        let rules = || patterns.iter().map(|(position, pattern)| (tuple_set(*position), *pattern));
        let mut protocol = Box::new([0; 256]);
        for (tuple, pattern) in rules() {
            let protocol_of = |key: &Packed<N>| (key[N - 2] >> l4_word::PROTOCOL & 0xff) as usize;
            if pattern.bits.protocol == 0 {
                protocol.iter_mut().for_each(|tuples| *tuples |= tuple);
            } else {
                protocol[protocol_of(&pattern.value)] |= tuple;
            }
        }
        let prefixes = |side: usize| {
            // One word of an IPv4 key contains both addresses. For IPv6, the upper half is precise
            // enough.
            rules().map(move |(tuple, pattern)| match N {
                V4_WORDS => {
                    (tuple, pattern.value[0] << (32 * side), prefix_length(pattern, side).min(32))
                }
                _ => (tuple, pattern.value[2 * side], prefix_length(pattern, side).min(64)),
            })
        };
        Self {
            source: AddressSets::new(prefixes(0)),
            destination: AddressSets::new(prefixes(1)),
            source_port: PortSets::new(
                rules().map(|(tuple, pattern)| (tuple, pattern.source_ports)),
            ),
            destination_port: PortSets::new(
                rules().map(|(tuple, pattern)| (tuple, pattern.destination_ports)),
            ),
            protocol,
        }
    }

    #[inline]
    pub(super) fn tuples<const N: usize>(&self, key: &Packed<N>) -> TupleSet {
        let (source, destination) =
            if N == V4_WORDS { (key[0], key[0] << 32) } else { (key[0], key[2]) };
        let l4 = key[N - 2];
        self.protocol[(l4 >> l4_word::PROTOCOL & 0xff) as usize]
            & self.source.get(source)
            & self.destination.get(destination)
            & self.source_port.get((l4 >> l4_word::SOURCE_PORT) as u16)
            & self.destination_port.get((l4 >> l4_word::DESTINATION_PORT) as u16)
    }

    pub(super) fn memory(&self) -> usize {
        let ports = |ports: &PortSets| size_of_val(&ports.0[..]);
        self.source.memory()
            + self.destination.memory()
            + ports(&self.source_port)
            + ports(&self.destination_port)
            + size_of_val(&*self.protocol)
    }
}

/// `side` is 0 for the source prefix and 1 for the destination prefix.
fn prefix_length<const N: usize>(pattern: &Pattern<N>, side: usize) -> u8 {
    if side == 0 { pattern.bits.source } else { pattern.bits.destination }
}

/// Tuple sets by address. After `skip` bits, 16 bits select a set or, if rules have longer
/// prefixes, a part. In a part, the next 8 bits select a set.
#[derive(Clone, Debug)]
pub(super) struct AddressSets {
    /// Leading bits that are the same in all prefixes.
    pub(super) skip: u32,
    /// For each value of the 16 bits, a set number, or `FIRST_PART` plus a part number.
    pub(super) first: Vec<u16>,
    /// For each part and each value of the next 8 bits, a set number.
    pub(super) parts: Vec<[u16; 256]>,
    /// The sets, by number. Set 0 contains all tuples.
    pub(super) sets: Vec<TupleSet>,
}

/// Smallest value in [`AddressSets::first`] that stands for a part.
const FIRST_PART: u16 = 1 << 15;

/// Together, these parts use 512 KiB. If no part is left, only the first 16 bits of a longer prefix
/// are used.
const MAX_PARTS: usize = 1024;

impl AddressSets {
    /// Each item of `prefixes` consists of a set that contains only the prefix's tuple, the
    /// left-aligned address, and the prefix length.
    fn new(prefixes: impl Iterator<Item = (TupleSet, u64, u8)> + Clone) -> Self {
        // Tuples with a rule for all addresses.
        let mut everywhere = 0;
        let mut distinct: Vec<(u64, u8, TupleSet)> = Vec::new();
        for (tuple, value, length) in prefixes {
            match length {
                0 => everywhere |= tuple,
                // Clear the bits after the prefix, which contain the other address in an IPv4 word.
                _ => distinct.push((
                    value & !(u64::MAX.checked_shr(length.into()).unwrap_or(0)),
                    length,
                    tuple,
                )),
            }
        }
        distinct.sort_unstable();
        distinct.dedup();
        let skip = shared_bits(&distinct);
        let mut first = vec![everywhere; 1 << 16];
        let mut parts: HashMap<u16, [TupleSet; 256]> = HashMap::new();
        // Add short prefixes first: they change sets in `first`, which new parts copy.
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
        let mut set_numbers: HashMap<TupleSet, u16> = HashMap::new();
        let mut sets = Vec::new();
        let mut set_number = |tuples: TupleSet| {
            *set_numbers.entry(tuples).or_insert_with(|| {
                // No set number is left: use set 0, which contains all tuples.
                if sets.len() + 1 >= usize::from(FIRST_PART) {
                    return 0;
                }
                sets.push(tuples);
                (sets.len() - 1) as u16
            })
        };
        set_number(TupleSet::MAX);
        let mut table: Vec<u16> = Vec::with_capacity(1 << 16);
        let mut part_table: Vec<[u16; 256]> = Vec::new();
        for (start, tuples) in (0..=u16::MAX).zip(first) {
            match parts.get(&start) {
                None => table.push(set_number(tuples)),
                Some(part) => {
                    table.push(FIRST_PART + part_table.len() as u16);
                    part_table.push(part.map(&mut set_number));
                }
            }
        }
        Self { skip, first: table, parts: part_table, sets }
    }

    #[inline]
    fn get(&self, address: u64) -> TupleSet {
        let address = address << self.skip;
        let mut number = self.first[(address >> 48) as usize];
        if number >= FIRST_PART {
            number = self.parts[usize::from(number - FIRST_PART)][(address >> 40 & 0xff) as usize];
        }
        self.sets[usize::from(number)]
    }

    fn memory(&self) -> usize {
        size_of_val(&self.first[..]) + size_of_val(&self.parts[..]) + size_of_val(&self.sets[..])
    }
}

/// Returns the number of leading bits that all prefixes share, at most 40: 24 of the 64 bits must
/// remain for the tables.
fn shared_bits(prefixes: &[(u64, u8, TupleSet)]) -> u32 {
    let Some((first, _, _)) = prefixes.first() else { return 0 };
    let shortest = prefixes.iter().map(|(_, length, _)| u32::from(*length)).min().unwrap_or(0);
    let differing = prefixes.iter().fold(0, |differing, (value, _, _)| differing | (value ^ first));
    differing.leading_zeros().min(shortest).min(40)
}

/// Tuple sets by port. Ports from [`SINGLE_PORTS`] on share a set if they differ only in the lowest
/// [`SHARED_PORT_BITS`] bits.
#[derive(Clone, Debug)]
pub(super) struct PortSets(pub(super) Box<[TupleSet; PORT_SETS]>);

const SINGLE_PORTS: usize = 1024;
const SHARED_PORT_BITS: u32 = 6;
pub(super) const PORT_SETS: usize = SINGLE_PORTS + (1 << (16 - SHARED_PORT_BITS));

impl PortSets {
    fn position(port: u16) -> usize {
        let port = usize::from(port);
        if port < SINGLE_PORTS { port } else { SINGLE_PORTS + (port >> SHARED_PORT_BITS) }
    }

    /// A rule without a condition on the port must have the full range: a key without ports
    /// contains zeros or ICMP fields instead, and the rule must be found for any of these values.
    fn new(ranges: impl Iterator<Item = (TupleSet, [u16; 2])>) -> Self {
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
    fn get(&self, port: u16) -> TupleSet {
        self.0[Self::position(port) % PORT_SETS]
    }
}
