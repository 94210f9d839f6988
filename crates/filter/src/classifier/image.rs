//! The classifier's tables as bytes for the XDP program, in the layout of `bpf/classify.h` and
//! `bpf/space.h`.

use super::layout::MAX_TUPLES;
use super::prune::PORT_SETS;
use super::space::{MAX_UNHASHED, Space};
use crate::rule::{Rule, Verdict};

/// The tables of both IP versions for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Tables of IPv4.
    pub v4: SpaceImage,
    /// Tables of IPv6.
    pub v6: SpaceImage,
}

/// The tables of one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceImage {
    /// `struct space`: the part whose size does not depend on the rules.
    pub space: Vec<u8>,
    /// `struct numbers`: tuple sets by the first 16 bits of source and destination address.
    pub first: Table,
    /// `struct numbers`: tuple sets by the next 8 bits.
    pub parts: Table,
    /// Sets of tuples.
    pub sets: Table,
    /// Groups of four tags.
    pub tags: Table,
    /// `struct firsts`: the first entry for each tag.
    pub firsts: Table,
    /// `struct entry`.
    pub entries: Table,
}

/// Consecutive values of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Length of a value in bytes.
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

/// A limit of the XDP program that rules exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelLimitError {
    /// A bucket is too long.
    #[error(
        "{longest} rules are so similar that a lookup may compare all of them; \
         the XDP program compares at most {max}"
    )]
    LongBucket {
        /// Number of rules in the longest bucket.
        longest: usize,
        /// Maximum per bucket.
        max: usize,
    },
    /// Too many hashes collide.
    #[error(
        "the hash table has {longest} full groups in a row; \
         the XDP program supports fewer than {limit}"
    )]
    LongRun {
        /// Number of full groups in the longest run.
        longest: usize,
        /// Smallest run that is not accepted.
        limit: usize,
    },
    /// Too many rules have no verdict.
    #[error("{count} rules begin with `continue`; the XDP program supports at most {max}")]
    ContinueRules {
        /// Number of rules without a verdict.
        count: usize,
        /// Accepted maximum.
        max: usize,
    },
    /// The number of rules exceeds the rule number field.
    #[error("{0} rules; the XDP program supports at most {max}", max = MAX_RULES)]
    TooManyRules(usize),
}

/// Limits of `bpf/classify.h` and `bpf/filter.h`.
const LONGEST_BUCKET: usize = 256;
const MAX_GROUPS: usize = 32;
const MAX_CONTINUE_RULES: usize = 16;
const MAX_RULES: usize = (1 << 30) - 1;

/// Values of the two lowest bits of a decision.
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
    /// Constants that must equal those of the XDP program: `in_step` in `bpf/filter.h`.
    pub const SHARED_CONSTANTS: [u32; 9] = [
        MAX_TUPLES as u32,
        MAX_UNHASHED as u32,
        LONGEST_BUCKET as u32,
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
        let longest = space.tuples.iter().map(|tuple| tuple.shape.longest).max().unwrap_or(0);
        if longest > LONGEST_BUCKET {
            return Err(KernelLimitError::LongBucket { longest, max: LONGEST_BUCKET });
        }
        let longest = space.table.longest_run();
        if longest >= MAX_GROUPS {
            return Err(KernelLimitError::LongRun { longest, limit: MAX_GROUPS });
        }
        let decision = |rule: u32| {
            rule << 2 | verdict_bits(rules.get(rule as usize).and_then(|rule| rule.verdict))
        };
        let mut entries = Bytes::default();
        for entry in &space.entries {
            entries.words(&entry.value);
            entries.words(&entry.mask);
            entries.shorts(entry.source.into_iter().chain(entry.destination));
            entries.ints([decision(entry.rule), u32::from(entry.last)]);
        }
        let (mut tags, mut firsts) = (Bytes::default(), Bytes::default());
        for (own, numbers) in space.table.groups() {
            tags.words(&[own]);
            firsts.ints(numbers);
        }
        let (mut first, mut parts, mut sets) =
            (Bytes::default(), Bytes::default(), Bytes::default());
        // Offsets of the destination's tables, which follow the source's.
        let (mut skips, mut parts_from, mut sets_from) = ([0; 2], [0; 2], [0; 2]);
        for (side, addresses) in
            space.prune.iter().flat_map(|prune| [&prune.source, &prune.destination]).enumerate()
        {
            skips[side] = addresses.skip;
            parts_from[side] = (parts.0.len() / NUMBERS) as u32;
            sets_from[side] = (sets.0.len() / size_of::<u64>()) as u32;
            first.shorts(addresses.first.iter().copied());
            parts.shorts(addresses.parts.iter().flatten().copied());
            sets.words(&addresses.sets);
        }
        let unhashed = if space.prune.is_none() { space.entries.len() } else { 0 };
        let mut fixed = Bytes::default();
        fixed.words(&[space.seed]);
        fixed.ints([
            unhashed as u32,
            u32::from(space.prune.is_some()),
            space.table.shift(),
            space.table.size() as u32,
        ]);
        fixed.ints(skips.into_iter().chain(parts_from).chain(sets_from));
        for index in 0..MAX_TUPLES {
            let tuple = space.tuples.get(index);
            // Only the hashed words: all but the last.
            let mask = tuple.map_or([0; N], |tuple| tuple.mask);
            fixed.words(&std::array::from_fn::<u64, 5, _>(|word| {
                if word + 1 < N { mask[word] } else { 0 }
            }));
            fixed.words(&[tuple.map_or(0, |tuple| tuple.seed)]);
            fixed.ints([tuple.map_or(u32::MAX, |tuple| tuple.best << 2), 0, 0, 0]);
        }
        match &space.prune {
            Some(prune) => {
                fixed.words(&*prune.protocol);
                fixed.words(&*prune.source_port.0);
                fixed.words(&*prune.destination_port.0);
            }
            None => fixed.words(&[0; 256 + 2 * PORT_SETS]),
        }
        Ok(Self {
            space: fixed.0,
            first: Table::new(NUMBERS, first.0),
            parts: Table::new(NUMBERS, parts.0),
            sets: Table::new(size_of::<u64>(), sets.0),
            tags: Table::new(size_of::<u64>(), tags.0),
            firsts: Table::new(4 * size_of::<u32>(), firsts.0),
            entries: Table::new(2 * N * size_of::<u64>() + 16, entries.0),
        })
    }
}

/// Length of `struct numbers` in bytes.
const NUMBERS: usize = 256 * size_of::<u16>();

/// Integers in native byte order.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn words(&mut self, words: &[u64]) {
        self.0.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn ints(&mut self, ints: impl IntoIterator<Item = u32>) {
        self.0.extend(ints.into_iter().flat_map(u32::to_ne_bytes));
    }

    fn shorts(&mut self, shorts: impl IntoIterator<Item = u16>) {
        self.0.extend(shorts.into_iter().flat_map(u16::to_ne_bytes));
    }
}
