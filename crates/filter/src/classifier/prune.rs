//! Which tuples can have anything for a key: those that have a rule for its source, and one for its
//! destination, and so on.
//!
//! After the pruned tuple space of Srinivasan et al. (1999): each field of a key is looked up in a
//! small table of sets of tuples, and their intersection is what is left to be looked into. Tables
//! may say too much, never too little: an address counts by 24 of its bits at most, a port of 1024
//! and above by its upper ten.

use std::collections::HashMap;

use super::pattern::Pattern;
use crate::key::{Packed, V4, ports};

/// A set of tuples, by their place in the order.
pub(super) type Tuples = u64;

/// The set with one tuple.
pub(super) fn one(place: usize) -> Tuples {
    1 << place
}

/// The tables.
#[derive(Clone, Debug)]
pub(super) struct Prune {
    pub(super) source: Addresses,
    pub(super) destination: Addresses,
    pub(super) source_port: Ports,
    pub(super) destination_port: Ports,
    pub(super) protocol: Box<[Tuples; 256]>,
}

impl Prune {
    /// Of patterns, each with the place of its tuple.
    pub(super) fn new<const N: usize>(patterns: &[(usize, &Pattern<N>)]) -> Self {
        let rules = || patterns.iter().map(|(place, pattern)| (one(*place), *pattern));
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
            // Of IPv4 both addresses are in one word, of IPv6 the upper half of each says enough.
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

    /// The tuples that may have something for a key.
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

/// Sets by address: by its first 16 bits (behind those that all rules have in common), and by the
/// next 8 where that tells more.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// Bits that are skipped.
    pub(super) skip: u32,
    /// Of each 16 bits the number of a set, or, from `PARTS` on, of a part of `parts`.
    pub(super) first: Vec<u16>,
    pub(super) parts: Vec<[u16; 256]>,
    pub(super) sets: Vec<Tuples>,
}

/// From here on it is no set but a part.
const PARTS: u16 = 1 << 15;

/// Parts at most: half a megabyte. Addresses beyond count by 16 bits.
const MOST_PARTS: usize = 1024;

impl Addresses {
    /// Of prefixes, which begin with the highest bit.
    fn new(prefixes: impl Iterator<Item = (Tuples, u64, u8)> + Clone) -> Self {
        let mut everywhere = 0;
        let mut distinct: Vec<(u64, u8, Tuples)> = Vec::new();
        for (tuple, value, length) in prefixes {
            // What is beyond the length is the other address of IPv4.
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
        // Short ones first, for parts to begin with what holds for all of them.
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
            let whole = first[start];
            if parts.len() >= MOST_PARTS && !parts.contains_key(&(start as u16)) {
                first[start] |= tuple;
                continue;
            }
            let part = parts.entry(start as u16).or_insert([whole; 256]);
            let (start, count) = ((value >> 40 & 0xff) as usize, 1_usize << (24 - length.min(24)));
            part[start..start + count].iter_mut().for_each(|tuples| *tuples |= tuple);
        }
        // Each set once.
        let mut numbers: HashMap<Tuples, u16> = HashMap::new();
        let mut sets = Vec::new();
        let mut number = |tuples: Tuples| {
            *numbers.entry(tuples).or_insert_with(|| {
                // More sets than can be numbered: one that says nothing.
                if sets.len() + 1 >= usize::from(PARTS) {
                    return 0;
                }
                sets.push(tuples);
                (sets.len() - 1) as u16
            })
        };
        number(Tuples::MAX);
        let mut table: Vec<u16> = Vec::with_capacity(1 << 16);
        let mut laid: Vec<[u16; 256]> = Vec::new();
        for (start, tuples) in (0..=u16::MAX).zip(first) {
            match parts.get(&start) {
                None => table.push(number(tuples)),
                Some(part) => {
                    table.push(PARTS + laid.len() as u16);
                    laid.push(part.map(&mut number));
                }
            }
        }
        Self { skip, first: table, parts: laid, sets }
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

/// Bits that all prefixes have in common, and nobody can be told apart by.
fn common(prefixes: &[(u64, u8, Tuples)]) -> u32 {
    let Some((any, _, _)) = prefixes.first() else { return 0 };
    let shortest = prefixes.iter().map(|(_, length, _)| u32::from(*length)).min().unwrap_or(0);
    let differing = prefixes.iter().fold(0, |differing, (value, _, _)| differing | (value ^ any));
    differing.leading_zeros().min(shortest).min(40)
}

/// Sets by port: each of the first 1024 by itself, 64 at once above.
#[derive(Clone, Debug)]
pub(super) struct Ports(pub(super) Box<[Tuples; PLACES]>);

const SINGLE: usize = 1024;
const TOGETHER: u32 = 6;
pub(super) const PLACES: usize = SINGLE + (1 << (16 - TOGETHER));

impl Ports {
    fn place(port: u16) -> usize {
        let port = usize::from(port);
        if port < SINGLE { port } else { SINGLE + (port >> TOGETHER) }
    }

    /// Of ranges. Where there are no ports a key has zeros, or what ICMP has there: a rule that
    /// does not say counts for all.
    fn new(ranges: impl Iterator<Item = (Tuples, [u16; 2])>) -> Self {
        let mut sets = Box::new([0; PLACES]);
        let mut distinct: Vec<_> = ranges.collect();
        distinct.sort_unstable();
        distinct.dedup();
        for (tuple, [first, last]) in distinct {
            sets[Self::place(first)..=Self::place(last)]
                .iter_mut()
                .for_each(|tuples| *tuples |= tuple);
        }
        Self(sets)
    }

    #[inline]
    fn get(&self, port: u16) -> Tuples {
        self.0[Self::place(port) % PLACES]
    }
}
