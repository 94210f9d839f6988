//! The lengths of the generator's frames.

use crate::{Error, frame::MIN_SIZE, veth::MAX_MTU};

/// `MAX_SIZES` in bpf/generator.bpf.c.
pub(crate) const MAX_SIZES: usize = 16;

/// A simple Internet mix ("IMIX"): of twelve frames, seven have 60 bytes, four 590 and one 1514, in
/// memory without FCS. Equal lengths are as far apart as possible. The mean is 357.8 bytes.
pub const IMIX: [u16; 12] = [60, 590, 60, 60, 590, 60, 1514, 590, 60, 60, 590, 60];

/// A repeated sequence of frame lengths, in bytes without FCS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameSizes(Vec<u16>);

impl FrameSizes {
    pub(crate) fn new(pattern: &[u16]) -> Self {
        Self(pattern.to_vec())
    }

    /// Returns the length of a frame. `number` counts from 0.
    pub(crate) fn of(&self, number: u64) -> u16 {
        self.0.get((number % self.0.len().max(1) as u64) as usize).copied().unwrap_or(MIN_SIZE)
    }

    pub(crate) fn largest(&self) -> u16 {
        self.0.iter().copied().max().unwrap_or(MIN_SIZE)
    }

    /// Returns the sum of the lengths of the first `packets` frames.
    pub(crate) fn bytes(&self, packets: u64) -> u64 {
        let sum = |sizes: &[u16]| sizes.iter().map(|&size| u64::from(size)).sum::<u64>();
        let length = self.0.len().max(1) as u64;
        packets / length * sum(&self.0) + sum(&self.0[..(packets % length) as usize])
    }

    pub(crate) fn mean(&self) -> f64 {
        self.bytes(self.0.len() as u64) as f64 / self.0.len().max(1) as f64
    }

    pub(crate) fn is_mixed(&self) -> bool {
        self.0.iter().any(|&size| size != self.of(0))
    }

    /// Returns the length of the pattern. All its lengths are valid after [`Self::check`].
    pub(crate) fn pattern(&self) -> &[u16] {
        &self.0
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let range = MIN_SIZE..=MAX_MTU + 14;
        if let Some(size) = self.0.iter().find(|&size| !range.contains(size)) {
            return Err(Error::Value {
                parameter: "frame size",
                value: size.to_string(),
                accepted: format!("use {MIN_SIZE}–{} bytes, without FCS", MAX_MTU + 14),
            });
        }
        if !(1..=MAX_SIZES).contains(&self.0.len()) {
            return Err(Error::Value {
                parameter: "number of frame sizes",
                value: self.0.len().to_string(),
                accepted: format!("use 1–{MAX_SIZES}"),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_has_seven_four_and_one_of_twelve_frames() {
        let count = |size| IMIX.iter().filter(|&&other| other == size).count();
        assert_eq!([60, 590, 1514].map(count), [7, 4, 1]);
        assert_eq!(FrameSizes::new(&IMIX).mean(), 4294.0 / 12.0);
    }

    #[test]
    fn imix_spreads_equal_lengths_evenly() {
        let starts = (0..IMIX.len()).map(|start| {
            let three = (0..3).map(|offset| IMIX[(start + offset) % IMIX.len()]);
            three.collect::<Vec<u16>>()
        });
        for three in starts {
            let count = |size| three.iter().filter(|&&other| other == size).count();
            assert_eq!(count(590), 1, "{three:?}");
            assert!(count(60) >= 1, "{three:?}");
        }
    }

    #[test]
    fn bytes_equals_sum_of_lengths() {
        let sizes = FrameSizes::new(&IMIX);
        let mut sum = 0;
        for packets in 0..30 {
            assert_eq!(sizes.bytes(packets), sum, "{packets} packets");
            sum += u64::from(sizes.of(packets));
        }
    }

    #[test]
    fn check_rejects_empty_long_and_invalid_patterns() {
        for pattern in [&[][..], &[60; MAX_SIZES + 1], &[60, 59], &[60, MAX_MTU + 15]] {
            let sizes = FrameSizes::new(pattern);
            assert!(matches!(sizes.check(), Err(Error::Value { .. })), "{pattern:?}");
        }
        assert!(FrameSizes::new(&IMIX).check().is_ok());
    }
}
