//! The classifier's tables as bytes for the XDP program, in the layout of `bpf/classify.h` and
//! `bpf/space.h`.

use super::layout::TUPLES;
use super::prune::PLACES;
use super::space::{FEW, Space};
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

/// The reason why the kernel cannot apply rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotForKernel {
    /// A bucket is too long.
    #[error(
        "{longest} rules differ in so little that each lookup may compare all of them: at most {most} may"
    )]
    LongBucket {
        /// Number of rules in the longest bucket.
        longest: usize,
        /// Maximum per bucket.
        most: usize,
    },
    /// Too many hashes collide.
    #[error(
        "{longest} groups of the hash table follow each other without a gap: at most {most} may"
    )]
    Crowded {
        /// Maximum number of groups that a lookup visits with these rules.
        longest: usize,
        /// Accepted maximum.
        most: usize,
    },
    /// Too many rules have no verdict.
    #[error("{count} rules say `continue`: at most {most} may")]
    GoOn {
        /// Number of rules without a verdict.
        count: usize,
        /// Accepted maximum.
        most: usize,
    },
    /// The number of rules exceeds the rule number field.
    #[error("{0} rules: at most {most} can be numbered", most = MOST_RULES)]
    Many(usize),
}

/// Limits of `bpf/classify.h` and `bpf/filter.h`.
const LONGEST_BUCKET: usize = 256;
const MOST_GROUPS: usize = 32;
const MOST_GO_ON: usize = 16;
const MOST_RULES: usize = (1 << 30) - 1;

/// Values of the two lowest bits of a decision.
const GO_ON: u32 = 0;
const ACCEPT: u32 = 1;
const DROP: u32 = 2;

fn word(verdict: Option<Verdict>) -> u32 {
    match verdict {
        None => GO_ON,
        Some(Verdict::Accept) => ACCEPT,
        Some(Verdict::Drop) => DROP,
    }
}

impl Image {
    /// Constants that must equal those of the XDP program: `in_step` in `bpf/filter.h`.
    pub const IN_STEP: [u32; 9] = [
        TUPLES as u32,
        FEW as u32,
        LONGEST_BUCKET as u32,
        MOST_GROUPS as u32,
        MOST_GO_ON as u32,
        PLACES as u32,
        GO_ON,
        ACCEPT,
        DROP,
    ];

    pub(super) fn new<const A: usize, const B: usize>(
        v4: &Space<A>,
        v6: &Space<B>,
        rules: &[Rule],
    ) -> Result<Self, NotForKernel> {
        if rules.len() > MOST_RULES {
            return Err(NotForKernel::Many(rules.len()));
        }
        let count = rules.iter().filter(|rule| rule.verdict.is_none()).count();
        if count > MOST_GO_ON {
            return Err(NotForKernel::GoOn { count, most: MOST_GO_ON });
        }
        Ok(Self { v4: SpaceImage::new(v4, rules)?, v6: SpaceImage::new(v6, rules)? })
    }
}

impl SpaceImage {
    fn new<const N: usize>(space: &Space<N>, rules: &[Rule]) -> Result<Self, NotForKernel> {
        let longest = space.tuples.iter().map(|tuple| tuple.shape.longest).max().unwrap_or(0);
        if longest > LONGEST_BUCKET {
            return Err(NotForKernel::LongBucket { longest, most: LONGEST_BUCKET });
        }
        let longest = space.table.longest_run();
        if longest >= MOST_GROUPS {
            return Err(NotForKernel::Crowded { longest, most: MOST_GROUPS });
        }
        let decision =
            |rule: u32| rule << 2 | word(rules.get(rule as usize).and_then(|rule| rule.verdict));
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
        let few = if space.prune.is_none() { space.entries.len() } else { 0 };
        let mut fixed = Bytes::default();
        fixed.words(&[space.seed]);
        fixed.ints([
            few as u32,
            u32::from(space.prune.is_some()),
            space.table.shift(),
            space.table.size() as u32,
        ]);
        fixed.ints(skips.into_iter().chain(parts_from).chain(sets_from));
        for place in 0..TUPLES {
            let tuple = space.tuples.get(place);
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
            None => fixed.words(&[0; 256 + 2 * PLACES]),
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
