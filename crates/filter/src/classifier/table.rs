//! A hash table that tests without a branch whether a hash is absent. In a tuple space, most
//! lookups find nothing, but enough of them find an entry that a branch would often be
//! mispredicted.
//!
//! A group is a 64-bit word with four lanes of 16 bits each. A lane can contain a tag (14 bits of a
//! hash), and a lookup compares all four tags at once. If the group of a new entry is full, it is
//! marked as overflowed, and the entry goes to the next group with a free lane.

/// A map from hashes to numbers; several numbers may share a hash.
#[derive(Clone, Debug)]
pub(super) struct HashTable {
    /// Tags; the number of groups is a power of two.
    groups: Vec<u64>,
    /// The number inserted with each tag.
    numbers: Vec<[u32; LANES]>,
    shift: u32,
}

const LANES: usize = 4;
const ONES: u64 = 0x0001_0001_0001_0001;
const HIGH: u64 = 0x8000_8000_8000_8000;
/// Marks a full group if an entry that hashes to this group is in another group.
const OVERFLOWED: u64 = 1 << 63;

impl HashTable {
    /// Creates a table for `entries` entries; [`Self::insert`] accepts more.
    pub(super) fn new(entries: usize) -> Self {
        // An eighth to a quarter of the lanes contains tags. A larger table would not be faster
        // enough to justify its memory.
        let groups = entries.next_power_of_two().max(2);
        Self {
            groups: vec![0; groups],
            numbers: vec![[0; LANES]; groups],
            shift: 64 - groups.trailing_zeros(),
        }
    }

    /// A tag is not zero, and its highest bit is clear.
    #[inline]
    fn tag(hash: u64) -> u64 {
        hash & 0x7ffe | 1
    }

    #[inline]
    fn group_index(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    /// Inserts a number under a hash. Never returns if all lanes are in use; there are at least
    /// four lanes per entry given to [`Self::new`].
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        let mut at = self.group_index(hash);
        loop {
            let group = self.groups[at];
            let free = (0..LANES).find(|lane| group >> (16 * lane) & 0x7fff == 0);
            if let Some(lane) = free {
                self.groups[at] = group | Self::tag(hash) << (16 * lane);
                self.numbers[at][lane] = number;
                return;
            }
            self.groups[at] = group | OVERFLOWED;
            at = (at + 1) & (self.groups.len() - 1);
        }
    }

    /// Returns a mask with the highest bit of each lane that has the tag of a hash. A lane above a
    /// matching lane may be a false positive.
    #[inline]
    fn matching_lanes(group: u64, hash: u64) -> u64 {
        let differing = (group & !OVERFLOWED) ^ Self::tag(hash).wrapping_mul(ONES);
        differing.wrapping_sub(ONES) & !differing & HIGH
    }

    /// Returns `false` only if the hash was not inserted; `true` may be a false positive.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let group = self.groups[self.group_index(hash)];
        Self::matching_lanes(group, hash) | group & OVERFLOWED != 0
    }

    /// Returns the number whose tag matches a hash, if the group has exactly one such tag and did
    /// not overflow. Otherwise, use [`Self::get`].
    #[inline]
    pub(super) fn single_candidate(&self, hash: u64) -> Option<u32> {
        let at = self.group_index(hash);
        let group = self.groups[at];
        let lanes = Self::matching_lanes(group, hash);
        let lane = lanes.trailing_zeros() as usize / 16;
        (lanes.is_power_of_two() && group & OVERFLOWED == 0).then(|| self.numbers[at][lane % LANES])
    }

    /// Returns all numbers of a hash, and possibly those of other hashes.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> Numbers<'_> {
        let at = self.group_index(hash);
        let group = self.groups[at];
        Numbers {
            table: self,
            hash,
            at,
            lanes: Self::matching_lanes(group, hash),
            more: group & OVERFLOWED != 0,
        }
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (u64, [u32; LANES])> {
        self.groups.iter().copied().zip(self.numbers.iter().copied())
    }

    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    /// Returns the length of the longest run of overflowed groups. A lookup visits at most one
    /// group more.
    pub(super) fn longest_run(&self) -> usize {
        let (mut longest, mut run) = (0, 0);
        // Visit all groups twice, because a run may wrap around.
        for group in self.groups.iter().chain(&self.groups) {
            run = if group & OVERFLOWED != 0 { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        longest
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&self.groups[..]) + size_of_val(&self.numbers[..])
    }
}

pub(super) struct Numbers<'a> {
    table: &'a HashTable,
    hash: u64,
    at: usize,
    /// Matching lanes of the current group that are still to be returned.
    lanes: u64,
    /// Whether the current group overflowed.
    more: bool,
}

impl Iterator for Numbers<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        while self.lanes == 0 {
            if !self.more {
                return None;
            }
            self.at = (self.at + 1) & (self.table.groups.len() - 1);
            let group = self.table.groups[self.at];
            self.lanes = HashTable::matching_lanes(group, self.hash);
            self.more = group & OVERFLOWED != 0;
        }
        let lane = self.lanes.trailing_zeros() as usize / 16;
        self.lanes &= self.lanes - 1;
        Some(self.table.numbers[self.at][lane % LANES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn may_contain_finds_inserted_hashes_and_few_absent_ones() {
        // With 10 entries, the hashes differ in few bits, so that groups overflow.
        for entries in [0, 1, 3, 10, 100, 5000] {
            let mut table = HashTable::new(entries);
            let hash = |number: u64| {
                number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    & if entries == 10 { 3 << 62 | 7 } else { u64::MAX }
            };
            (0..entries as u32).for_each(|number| table.insert(hash(number.into()), number));
            for number in 0..entries as u32 {
                assert!(table.may_contain(hash(number.into())), "entry {number} of {entries}");
                assert!(
                    table.get(hash(number.into())).any(|found| found == number),
                    "entry {number} of {entries}"
                );
            }
            if entries != 10 {
                let false_positives = (1 << 32..(1_u64 << 32) + 10_000)
                    .filter(|&number| table.may_contain(hash(number)))
                    .count();
                assert!(
                    false_positives < 20,
                    "{false_positives} false positives for 10000 absent hashes, {entries} entries"
                );
            }
        }
    }
}
