//! The largest number of steps that a packet can cost. The module `scanner` explains the terms.
//!
//! A scan makes one transition per byte and automaton. At each byte it may also visit a chain of
//! patterns, each a suffix of the one before. Visiting a pattern costs one step for each of its
//! blocks except the first, and one step for each signature that is checked, in total at least one.
//! The first step of a chain is free; all its other steps are *extra* steps. One packet can contain
//! all patterns. However often a pattern occurs, the scan visits it at most once, and once more for
//! each `offset` of its signatures or of those of its suffixes. So the limit applies to the extra
//! steps of all these visits together:
//!
//! steps ≤ 2 · automata · bytes + [`Scanner::MAX_EXTRA_STEPS`]
//!
//! Visits of the classes that match the packet come on top: see [`Scanner::max_steps`].

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{Block, Entry, Node, Scanner, Slot};
use crate::rule::Match;

impl Scanner {
    /// Maximum steps of a scan beyond two per automaton and byte of payload.
    pub const MAX_EXTRA_STEPS: u64 = 512;
}

/// Free steps of a chain: the limit allows two steps per byte, one of which is the transition.
const FREE_STEPS: u64 = 1;

pub(super) struct OverlapBound<'a> {
    /// The conditions of each class.
    pub(super) conditions: &'a [&'a Match],
    pub(super) nodes: &'a [Node],
    /// Indexes in `nodes`, shortest pattern first.
    pub(super) by_length: &'a [usize],
}

impl OverlapBound<'_> {
    /// Returns an upper bound of the extra steps, and the node that adds the most.
    pub(super) fn extra_steps(
        &self,
        blocks: &[Block],
        slots: &[Slot],
        entries: &[Entry],
    ) -> (u64, usize) {
        let (mut total, mut worst) = (0_u64, (0, 0));
        // For each node, two sums over the node and its suffixes: the maximum number of steps, and
        // the number of entries with an offset, each of which can cause another visit.
        let mut chains = vec![(0_u64, 0_u64); self.nodes.len()];
        for &index in self.by_length {
            let node = &self.nodes[index];
            let [first, end] = node.blocks.map(|block| block as usize);
            let blocks = &blocks[first..end];
            let slots_of = |block: &Block| {
                let first = block.first_slot as usize;
                slots[first..first + block.classes.count_ones() as usize].iter()
            };
            let mut lengths: Vec<u64> = blocks
                .iter()
                .flat_map(slots_of)
                .map(|slot| u64::from(slot.entries[1] - slot.entries[0]))
                .collect();
            let classes: Vec<u32> = blocks
                .iter()
                .flat_map(|block| super::ones(block.classes, 64 * block.word))
                .collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.truncate(self.max_overlap(&classes));
            // Every visit checks at least one entry of each slot. It checks the other entries of a
            // slot only once per packet.
            let visit = (blocks.len() + lengths.len()).saturating_sub(1).max(1) as u64;
            let other_entries: u64 = lengths.iter().map(|length| length.saturating_sub(1)).sum();
            let first_slot = blocks.first().map_or(0, |block| block.first_slot as usize);
            let own = slots.get(first_slot..first_slot + classes.len()).unwrap_or_default();
            let with_offset = own
                .iter()
                .flat_map(|slot| &entries[slot.entries[0] as usize..slot.entries[1] as usize])
                .filter(|entry| entry.has_offset)
                .count() as u64;
            let (parent_steps, parent_offsets) =
                chains.get(node.parent as usize).copied().unwrap_or_default();
            let offsets = parent_offsets.saturating_add(with_offset);
            let beyond_free = |steps: u64| steps.saturating_sub(FREE_STEPS);
            let visit_extra = beyond_free(parent_steps + visit) - beyond_free(parent_steps);
            let after_visit = parent_steps + visit;
            let entries_extra = beyond_free(after_visit + other_entries) - beyond_free(after_visit);
            let extra = visit_extra.saturating_mul(1 + offsets).saturating_add(entries_extra);
            chains[index] = (after_visit.saturating_add(other_entries), offsets);
            total = total.saturating_add(extra);
            worst = worst.max((extra, index));
        }
        (total, worst.1)
    }

    /// Returns an upper bound of how many of these classes one packet can match.
    fn max_overlap(&self, classes: &[u32]) -> usize {
        // Comparing more classes with each other would take too long. Assume that all overlap: then
        // the bound exceeds `MAX_EXTRA_STEPS`, and `Scanner::new` rejects the signatures.
        const MAX_COMPARED: usize = 4096;
        if classes.len() > MAX_COMPARED {
            return classes.len();
        }
        let conditions = || classes.iter().map(|&class| self.conditions[class as usize]);
        conditions()
            .map(|one| conditions().filter(|other| may_overlap(one, other)).count())
            .max()
            .unwrap_or(0)
    }
}

/// Returns `false` only if no packet can match both.
fn may_overlap(a: &Match, b: &Match) -> bool {
    fn both<T>(a: Option<T>, b: Option<T>, overlap: impl Fn(T, T) -> bool) -> bool {
        a.zip(b).is_none_or(|(a, b)| overlap(a, b))
    }
    let prefixes = |a: IpNet, b: IpNet| a.contains(&b) || b.contains(&a);
    let ports = |a: &RangeInclusive<u16>, b: &RangeInclusive<u16>| {
        a.start() <= b.end() && b.start() <= a.end()
    };
    // A packet with an IPv6 extension header can also match a rule for another protocol.
    let is_extension = |protocol: u8| matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140);
    both(a.version(), b.version(), |a, b| a == b)
        && both(a.source, b.source, prefixes)
        && both(a.destination, b.destination, prefixes)
        && both(a.protocol, b.protocol, |a, b| a == b || is_extension(a) || is_extension(b))
        && both(a.source_port.as_ref(), b.source_port.as_ref(), ports)
        && both(a.destination_port.as_ref(), b.destination_port.as_ref(), ports)
        && both(a.icmp_type, b.icmp_type, |a, b| a == b)
        && both(a.icmp_code, b.icmp_code, |a, b| a == b)
        && both(a.vlan, b.vlan, |a, b| a == b)
        && both(a.dscp, b.dscp, |a, b| a == b)
}
