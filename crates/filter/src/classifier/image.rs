//! The classifier's tables as bytes for the XDP program, in the layout of `bpf/classify.h` and
//! `bpf/space.h`.

use super::layout::MAX_TUPLES;
use super::prune::PORT_SETS;
use super::space::{MAX_LINEAR_RULES, Space};
use crate::rule::{Rule, Verdict};

/// The tables of both IP versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Tables of IPv4.
    pub v4: SpaceImage,
    /// Tables of IPv6.
    pub v6: SpaceImage,
}

/// The tables of one IP version. `bpf/classify.h` explains tuples, buckets, tags and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceImage {
    /// `struct space`: the part of the tables whose size does not depend on the rules.
    pub space: Vec<u8>,
    /// `struct numbers`: a table for the source address, then one for the destination address. Its
    /// index is 16 bits of the address, after the leading bits that all rules share. An element is
    /// the number of a set in `sets` or, if rules have prefixes that end after these 16 bits, of a
    /// part in `parts`.
    pub first: Table,
    /// `struct numbers`: for each part, a table with a set number for each value of the next 8
    /// address bits.
    pub parts: Table,
    /// Sets of tuples: 64-bit words with one bit per tuple.
    pub sets: Table,
    /// Groups of tags: 64-bit words with four tags each.
    pub tags: Table,
    /// `struct firsts`, one for each group: for each tag, the index in `entries` of its bucket's
    /// first entry. Not related to `first`.
    pub firsts: Table,
    /// `struct entry_v4` or `struct entry_v6`: the rules, bucket by bucket.
    pub entries: Table,
}

/// The values of a BPF array map, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Bytes per value.
    pub value_size: usize,
    /// All values.
    pub bytes: Vec<u8>,
}

impl Table {
    /// Returns the number of values.
    pub fn values(&self) -> usize {
        self.bytes.len() / self.value_size
    }

    fn new(value_size: usize, bytes: Vec<u8>) -> Self {
        Self { value_size, bytes }
    }
}

/// The error for rules that exceed a limit of the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelLimitError {
    /// A bucket has too many rules.
    #[error(
        "{longest} rules are so similar that a lookup may compare all of them; \
         the XDP program compares at most {max}"
    )]
    LongBucket {
        /// Rules in the longest bucket.
        longest: usize,
        /// Maximum rules per bucket.
        max: usize,
    },
    /// Too many hashes collide. Another seed can help.
    #[error(
        "the hash table has {longest} full groups in a row; \
         the XDP program supports fewer than {limit}"
    )]
    LongRun {
        /// Full groups in the longest run.
        longest: usize,
        /// Full groups in the shortest run that the XDP program does not support.
        limit: usize,
    },
    /// Too many rules have no verdict.
    #[error("{count} rules begin with `continue`; the XDP program supports at most {max}")]
    ContinueRules {
        /// Number of such rules.
        count: usize,
        /// Maximum number of such rules.
        max: usize,
    },
    /// Too many rules: the XDP program has only 30 bits for a rule number.
    #[error("{0} rules; the XDP program supports at most {max}", max = MAX_RULES)]
    TooManyRules(usize),
}

// Limits in `bpf/classify.h` and `bpf/filter.h`.
const MAX_BUCKET_LENGTH: usize = 256;
/// Maximum groups that a lookup visits.
const MAX_GROUPS: usize = 32;
const MAX_CONTINUE_RULES: usize = 16;
const MAX_RULES: usize = (1 << 30) - 1;

// A decision of the XDP program is a rule number, shifted left by `DECISION_BITS`, with one of
// these actions in the lowest bits.
const DECISION_BITS: u32 = 2;
const CONTINUE: u32 = 0;
const ACCEPT: u32 = 1;
const DROP: u32 = 2;

fn verdict_bits(verdict: Option<Verdict>) -> u32 {
    match verdict {
        None => CONTINUE,
        Some(Verdict::Accept) => ACCEPT,
        Some(Verdict::Drop) => DROP,
    }
}

impl Image {
    /// Constants that must equal those of the XDP program: the array `in_step` in `bpf/filter.h`.
    pub const SHARED_CONSTANTS: [u32; 9] = [
        MAX_TUPLES as u32,
        MAX_LINEAR_RULES as u32,
        MAX_BUCKET_LENGTH as u32,
        MAX_GROUPS as u32,
        MAX_CONTINUE_RULES as u32,
        PORT_SETS as u32,
        CONTINUE,
        ACCEPT,
        DROP,
    ];

    pub(super) fn new<const A: usize, const B: usize>(
        v4: &Space<A>,
        v6: &Space<B>,
        rules: &[Rule],
    ) -> Result<Self, KernelLimitError> {
        if rules.len() > MAX_RULES {
            return Err(KernelLimitError::TooManyRules(rules.len()));
        }
        let count = rules.iter().filter(|rule| rule.verdict.is_none()).count();
        if count > MAX_CONTINUE_RULES {
            return Err(KernelLimitError::ContinueRules { count, max: MAX_CONTINUE_RULES });
        }
        Ok(Self { v4: SpaceImage::new(v4, rules)?, v6: SpaceImage::new(v6, rules)? })
    }
}

impl SpaceImage {
    fn new<const N: usize>(space: &Space<N>, rules: &[Rule]) -> Result<Self, KernelLimitError> {
        let longest =
            space.tuples.iter().map(|tuple| tuple.shape.longest_bucket).max().unwrap_or(0);
        if longest > MAX_BUCKET_LENGTH {
            return Err(KernelLimitError::LongBucket { longest, max: MAX_BUCKET_LENGTH });
        }
        let longest_run = space.table.longest_run();
        if longest_run >= MAX_GROUPS {
            return Err(KernelLimitError::LongRun { longest: longest_run, limit: MAX_GROUPS });
        }
        let decision = |rule: u32| {
            let verdict = rules.get(rule as usize).and_then(|rule| rule.verdict);
            rule << DECISION_BITS | verdict_bits(verdict)
        };
        let mut entries = NativeBytes::default();
        for entry in &space.entries {
            entries.push_u64s(&entry.value);
            entries.push_u64s(&entry.mask);
            entries.push_u16s(entry.source_ports.into_iter().chain(entry.destination_ports));
            entries.push_u32s([decision(entry.rule), u32::from(entry.is_last)]);
        }
        let (mut tags, mut firsts) = (NativeBytes::default(), NativeBytes::default());
        for (group, first_entries) in space.table.groups() {
            tags.push_u64s(&[group]);
            firsts.push_u32s(first_entries);
        }
        let (mut first, mut parts, mut sets) =
            (NativeBytes::default(), NativeBytes::default(), NativeBytes::default());
        // For source and destination: the number of skipped address bits, and the indexes of the
        // first part and of the first set.
        let (mut skips, mut first_parts, mut first_sets) = ([0; 2], [0; 2], [0; 2]);
        for (side, addresses) in
            space.prune.iter().flat_map(|prune| [&prune.source, &prune.destination]).enumerate()
        {
            skips[side] = addresses.skip;
            first_parts[side] = (parts.0.len() / NUMBERS_SIZE) as u32;
            first_sets[side] = (sets.0.len() / size_of::<u64>()) as u32;
            first.push_u16s(addresses.first.iter().copied());
            parts.push_u16s(addresses.parts.iter().flatten().copied());
            sets.push_u64s(&addresses.sets);
        }
        let linear_rules = if space.prune.is_none() { space.entries.len() } else { 0 };
        let mut fixed_part = NativeBytes::default();
        fixed_part.push_u64s(&[space.seed]);
        fixed_part.push_u32s([
            linear_rules as u32,
            u32::from(space.prune.is_some()),
            space.table.shift(),
            space.table.group_count() as u32,
        ]);
        fixed_part.push_u32s(skips.into_iter().chain(first_parts).chain(first_sets));
        for index in 0..MAX_TUPLES {
            let tuple = space.tuples.get(index);
            // The hash covers all words of a key except the last one.
            let mask = tuple.map_or([0; N], |tuple| tuple.mask);
            fixed_part.push_u64s(&std::array::from_fn::<u64, 5, _>(|word| {
                if word + 1 < N { mask[word] } else { 0 }
            }));
            fixed_part.push_u64s(&[tuple.map_or(0, |tuple| tuple.seed)]);
            let best = tuple.map_or(u32::MAX, |tuple| tuple.best_rule << DECISION_BITS);
            fixed_part.push_u32s([best, 0, 0, 0]);
        }
        match &space.prune {
            Some(prune) => {
                fixed_part.push_u64s(&*prune.protocol);
                fixed_part.push_u64s(&*prune.source_port.0);
                fixed_part.push_u64s(&*prune.destination_port.0);
            }
            None => fixed_part.push_u64s(&[0; 256 + 2 * PORT_SETS]),
        }
        Ok(Self {
            space: fixed_part.0,
            first: Table::new(NUMBERS_SIZE, first.0),
            parts: Table::new(NUMBERS_SIZE, parts.0),
            sets: Table::new(size_of::<u64>(), sets.0),
            tags: Table::new(size_of::<u64>(), tags.0),
            firsts: Table::new(4 * size_of::<u32>(), firsts.0),
            entries: Table::new(2 * N * size_of::<u64>() + 16, entries.0),
        })
    }
}

/// Size of `struct numbers` in bytes.
const NUMBERS_SIZE: usize = 256 * size_of::<u16>();

#[derive(Default)]
struct NativeBytes(Vec<u8>);

impl NativeBytes {
    fn push_u64s(&mut self, words: &[u64]) {
        self.0.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn push_u32s(&mut self, ints: impl IntoIterator<Item = u32>) {
        self.0.extend(ints.into_iter().flat_map(u32::to_ne_bytes));
    }

    fn push_u16s(&mut self, shorts: impl IntoIterator<Item = u16>) {
        self.0.extend(shorts.into_iter().flat_map(u16::to_ne_bytes));
    }
}
