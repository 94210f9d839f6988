//! The lookup of an SA by its SPI.

/// A hash table of SPIs. Senders of packets choose the SPIs to look up, but cannot add any. So no
/// lookup is longer than the longest run of occupied slots.
#[derive(Debug)]
pub(super) struct SpiTable {
    /// SPIs, each with the index of its SA. The number of slots is a power of two; at least half
    /// are empty.
    slots: Vec<Option<(u32, u16)>>,
    shift: u32,
}

impl SpiTable {
    /// Creates a table. `spis` are in the order of the SA indices.
    pub(super) fn new(spis: impl ExactSizeIterator<Item = u32>) -> Self {
        let slots = (2 * spis.len()).next_power_of_two().max(2);
        let mut table = Self { slots: vec![None; slots], shift: 32 - slots.trailing_zeros() };
        for (index, spi) in (0..=u16::MAX).zip(spis) {
            let mut slot = table.first_slot(spi);
            while table.slots[slot].is_some() {
                slot = table.next_slot(slot);
            }
            table.slots[slot] = Some((spi, index));
        }
        table
    }

    /// Returns the index of the first SA with this SPI for which `is_match` returns true.
    #[inline]
    pub(super) fn find(&self, spi: u32, mut is_match: impl FnMut(u16) -> bool) -> Option<u16> {
        let mut slot = self.first_slot(spi);
        while let Some((slot_spi, index)) = self.slots[slot] {
            if slot_spi == spi && is_match(index) {
                return Some(index);
            }
            slot = self.next_slot(slot);
        }
        None
    }

    #[inline]
    fn first_slot(&self, spi: u32) -> usize {
        // Fibonacci hashing with the upper bits of the product spreads SPIs that are consecutive or
        // a constant step apart.
        (spi.wrapping_mul(0x9e37_79b1) >> self.shift) as usize
    }

    #[inline]
    fn next_slot(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_spreads_spis_that_differ_by_power_of_two() {
        for step in 0..22 {
            let table = SpiTable::new(
                (1..=1024_u32)
                    .map(|number| number.wrapping_mul(1 << step))
                    .collect::<Vec<_>>()
                    .into_iter(),
            );
            let longest = table.slots.split(Option::is_none).map(<[_]>::len).max().unwrap();
            assert!(longest < 64, "SPIs in steps of 2^{step} occupy {longest} slots in a row");
        }
    }

    #[test]
    fn find_returns_first_matching_sa() {
        let spis: Vec<u32> =
            (0..1000).map(|number| 256 + number * 7).chain([256, 263, 256]).collect();
        let table = SpiTable::new(spis.iter().copied());
        for (index, spi) in spis.iter().enumerate() {
            let first = spis.iter().position(|other| other == spi).unwrap();
            assert_eq!(table.find(*spi, |_| true), Some(first as u16));
            assert_eq!(table.find(*spi, |found| usize::from(found) == index), Some(index as u16));
            assert_eq!(
                table.find(spi + 1, |_| true),
                spis.iter().position(|other| *other == spi + 1).map(|index| index as u16)
            );
            assert_eq!(table.find(*spi, |_| false), None);
        }
        assert_eq!(SpiTable::new([].into_iter()).find(1, |_| true), None);
    }
}
