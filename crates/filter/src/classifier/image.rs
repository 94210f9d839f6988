//! The classifier as bytes: what the XDP program has for tables, laid out as `bpf/classify.h` and
//! `bpf/space.h` read them.

use super::layout::TUPLES;
use super::prune::PLACES;
use super::space::{FEW, Space};
use crate::rule::{Rule, Verdict};

/// The tables of both IP versions, for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// IPv4's.
    pub v4: SpaceImage,
    /// IPv6's.
    pub v6: SpaceImage,
}

/// The tables of one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceImage {
    /// `struct space`: what is of one size whatever the rules are.
    pub space: Vec<u8>,
    /// `struct numbers`: sets by the first 16 bits of an address, source and destination.
    pub first: Table,
    /// `struct numbers`: by the next 8.
    pub parts: Table,
    /// Sets of tuples.
    pub sets: Table,
    /// Groups of four tags.
    pub tags: Table,
    /// `struct firsts`: what the tags stand for.
    pub firsts: Table,
    /// `struct entry`.
    pub entries: Table,
}

/// Values of one size, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Bytes of each.
    pub value_size: usize,
    /// All of them.
    pub bytes: Vec<u8>,
}

impl Table {
    /// How many there are.
    pub fn values(&self) -> usize {
        self.bytes.len() / self.value_size
    }

    fn new(value_size: usize, bytes: Vec<u8>) -> Self {
        Self { value_size, bytes }
    }
}

/// Why rules cannot be judged in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotForKernel {
    /// A bucket is too long.
    #[error(
        "{longest} rules differ in so little that each lookup may compare all of them: at most {most} may"
    )]
    LongBucket {
        /// Rules of the longest.
        longest: usize,
        /// Rules of one at most.
        most: usize,
    },
    /// Too many hashes meet in one place.
    #[error(
        "{longest} groups of the hash table follow each other without a gap: at most {most} may"
    )]
    Crowded {
        /// Groups that a lookup may come through.
        longest: usize,
        /// Those that it may come through at most.
        most: usize,
    },
    /// Too many rules decide nothing.
    #[error("{count} rules say `continue`: at most {most} may")]
    GoOn {
        /// Rules without a verdict.
        count: usize,
        /// Those that there may be.
        most: usize,
    },
    /// A number of a rule does not fit.
    #[error("{0} rules: at most {most} can be numbered", most = MOST_RULES)]
    Many(usize),
}

/// Of `bpf/classify.h` and `bpf/filter.h`.
const LONGEST_BUCKET: usize = 256;
const MOST_GROUPS: usize = 32;
const MOST_GO_ON: usize = 16;
const MOST_RULES: usize = (1 << 30) - 1;

/// What the two lowest bits of a decision say.
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
    /// What the program has to take for granted, too: `in_step` in `bpf/filter.h`.
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
        // Where those of the destination begin: the source's come first.
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
            // Of the words that are hashed, which are all but the last.
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

/// Bytes of `struct numbers`.
const NUMBERS: usize = 256 * size_of::<u16>();

/// Integers, as the machine has them.
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
