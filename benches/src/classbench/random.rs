//! Reproducible random numbers, and weighted choices.

use anyhow::{Result, ensure};

/// xoshiro256** of Blackman and Vigna, its state filled by splitmix64: <https://prng.di.unimi.it/>.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// Creates a generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let state = &mut self.0;
        let result = state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// Returns a number of at least 0 and below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a number below `bound`, which must not be 0, with a bias below `bound` / 2⁶⁴.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Returns true with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }
}

/// A weighted choice of values.
#[derive(Clone, Debug)]
pub(crate) struct Choice<T> {
    /// Sum of the shares up to and including this value, and the value.
    values: Vec<(f64, T)>,
}

/// Maximum rounding error of the sum of the shares.
const SLACK: f64 = 0.005;

impl<T> Choice<T> {
    /// Creates a choice. Shares are probabilities with the sum 1; they are scaled to correct a
    /// rounding error.
    pub(crate) fn new(values: impl IntoIterator<Item = (f64, T)>) -> Result<Self> {
        let mut sum = 0.0;
        let mut cumulative = Vec::new();
        for (share, value) in values {
            ensure!((0.0..=1.0).contains(&share), "invalid share {share}: use 0 to 1");
            if share > 0.0 {
                sum += share;
                cumulative.push((sum, value));
            }
        }
        ensure!((sum - 1.0).abs() <= SLACK, "the sum of the shares is {sum:.4}, not 1");
        cumulative.iter_mut().for_each(|(end, _)| *end /= sum);
        Ok(Self { values: cumulative })
    }

    pub(crate) fn draw(&self, random: &mut Random) -> &T {
        let point = random.fraction();
        let index = self.values.partition_point(|&(end, _)| end <= point);
        &self.values[index.min(self.values.len() - 1)].1
    }

    pub(crate) fn shares(&self) -> impl Iterator<Item = (f64, &T)> {
        self.values.iter().scan(0.0, |before, (end, value)| {
            let share = end - *before;
            *before = *end;
            Some((share, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_match_published_generators() {
        // The first two numbers of splitmix64 from 0.
        assert_eq!(Random::new(0).0[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        // The first three numbers of xoshiro256** from 1, 2, 3, 4.
        let mut random = Random([1, 2, 3, 4]);
        assert_eq!([random.bits(), random.bits(), random.bits()], [11520, 0, 1_509_978_240]);
    }

    #[test]
    fn choice_draws_follow_shares() {
        let choice = Choice::new([(0.25, 'a'), (0.0, 'b'), (0.75, 'c')]).unwrap();
        assert_eq!(choice.shares().collect::<Vec<_>>(), [(0.25, &'a'), (0.75, &'c')]);
        let mut random = Random::new(7);
        let hits = (0..10_000).filter(|_| *choice.draw(&mut random) == 'a').count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }

    #[test]
    fn choice_rejects_invalid_shares() {
        assert!(Choice::new([(0.5, ())]).is_err());
        assert!(Choice::new([(-0.5, ()), (1.5, ())]).is_err());
        assert!(Choice::<()>::new([]).is_err());
    }
}
