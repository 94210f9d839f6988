//! A set of numbers that is cleared and read in time proportional to its members.

/// A set with a bit per number in `words`. Each bit of `summary` states whether a word of `words`
/// is not zero.
#[derive(Clone, Debug)]
pub(super) struct BitSet {
    words: Vec<u64>,
    summary: Vec<u64>,
}

impl BitSet {
    /// Creates a set for numbers below `len`.
    pub(super) fn new(len: usize) -> Self {
        let words = len.div_ceil(64);
        Self { words: vec![0; words], summary: vec![0; words.div_ceil(64)] }
    }

    #[inline]
    pub(super) fn insert(&mut self, number: u32) {
        let word = number as usize / 64;
        self.words[word] |= 1 << (number % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    #[inline]
    pub(super) fn contains(&self, number: u32) -> bool {
        self.words[number as usize / 64] >> (number % 64) & 1 != 0
    }

    /// Returns the bits of the numbers from `64 * word` on.
    #[inline]
    pub(super) fn word(&self, word: u32) -> u64 {
        self.words[word as usize]
    }

    pub(super) fn clear(&mut self) {
        for (at, summary) in self.summary.iter_mut().enumerate() {
            while *summary != 0 {
                self.words[64 * at + summary.trailing_zeros() as usize] = 0;
                *summary &= *summary - 1;
            }
        }
    }

    #[inline]
    pub(super) fn iter(&self) -> Members<'_> {
        Members { set: self, next_summary: 0, summary: 0, word: 0, bits: 0 }
    }
}

/// The members of a set, ascending.
pub(super) struct Members<'s> {
    set: &'s BitSet,
    next_summary: usize,
    /// The remaining bits of `set.summary[next_summary - 1]`: those of the words after `word`.
    summary: u64,
    word: usize,
    /// The members in `word` that are still to be returned.
    bits: u64,
}

impl Iterator for Members<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        while self.bits == 0 {
            while self.summary == 0 {
                self.summary = *self.set.summary.get(self.next_summary)?;
                self.next_summary += 1;
            }
            self.word = 64 * (self.next_summary - 1) + self.summary.trailing_zeros() as usize;
            self.summary &= self.summary - 1;
            self.bits = self.set.words[self.word];
        }
        let member = 64 * self.word as u32 + self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some(member)
    }
}

/// Returns `base` plus the position of each bit that is set.
#[inline]
pub(super) fn ones(mut bits: u64, base: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let position = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(base + position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_set_returns_members_in_order_until_cleared() {
        let members = [0, 63, 64, 4095, 4096, 9_999];
        let mut set = BitSet::new(10_000);
        for _ in 0..2 {
            members.iter().rev().for_each(|&member| set.insert(member));
            assert_eq!(set.iter().collect::<Vec<_>>(), members);
            assert!(set.contains(64) && !set.contains(65));
            assert_eq!((set.word(0), set.word(2)), (1 | 1 << 63, 0));
            set.clear();
            assert_eq!(set.iter().next(), None);
            assert!(!set.contains(64));
        }
    }
}
