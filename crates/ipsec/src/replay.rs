//! The anti-replay window of an inbound SA (RFC 4303, section 3.4.3; Appendix A for extended
//! sequence numbers).
//!
//! The window has one bit per sequence number, in a ring of blocks that is longer than the window
//! (RFC 6479). When the window moves, no bits are shifted; only the blocks that it enters are
//! cleared.

/// The anti-replay window of an inbound SA.
#[derive(Clone, Debug)]
pub struct Window {
    /// A bit is set if its number was received. The number of blocks is a power of two.
    blocks: Box<[u64]>,
    /// Size of the window in sequence numbers.
    size: u64,
    highest: u64,
    /// Whether sequence numbers have 64 bits; packets contain the lower 32.
    extended: bool,
}

/// Why a packet is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The sequence number was received before.
    #[error("sequence number was received before")]
    Replay,
    /// The sequence number is 0, or below the window.
    #[error("sequence number is below the anti-replay window")]
    Late,
}

/// The error for an invalid window size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an anti-replay window of {_0}: must be a multiple of 64, from {min} to {max}",
    min = Window::SMALLEST,
    max = Window::LARGEST
)]
pub struct WindowError(pub u32);

const BLOCK: u64 = 64;

impl Window {
    /// Minimum size, in sequence numbers. (RFC 4303 requires at least 32, and recommends 64.)
    pub const SMALLEST: u32 = 64;
    /// Maximum size, in sequence numbers.
    pub const LARGEST: u32 = 4096;

    /// Creates a window of `size` sequence numbers, which have 64 bits if `extended` (RFC 4304).
    pub fn new(size: u32, extended: bool) -> Result<Self, WindowError> {
        if !(Self::SMALLEST..=Self::LARGEST).contains(&size) || !size.is_multiple_of(BLOCK as u32) {
            return Err(WindowError(size));
        }
        // One block more than `size` needs, because the window can begin and end inside a block.
        let blocks = (u64::from(size) / BLOCK + 1).next_power_of_two() as usize;
        Ok(Self { blocks: vec![0; blocks].into(), size: size.into(), highest: 0, extended })
    }

    /// Marks sequence numbers up to and including `number` as received. Does nothing if `number` is
    /// not above [`Self::highest`].
    pub fn mark_received_up_to(&mut self, number: u64) {
        if number > self.highest {
            self.highest = number;
            self.blocks.fill(u64::MAX);
            // Clear the bits above `number` in its block. Later blocks are cleared when the window
            // enters them.
            let index = self.block_index(number);
            self.blocks[index] = u64::MAX >> (BLOCK - 1 - number % BLOCK);
        }
    }

    /// Returns the size, in sequence numbers.
    pub fn size(&self) -> u32 {
        self.size as u32
    }

    /// Returns the highest number marked as received; 0 before the first.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Infers the full sequence number of a packet from its lower 32 bits, or returns why the
    /// packet must be rejected. Does not change the window. Call this before decryption, because
    /// the tag covers the full number.
    #[inline]
    pub fn check(&self, low_bits: u32) -> Result<u64, ReplayError> {
        let number = self.full_number(low_bits).ok_or(ReplayError::Late)?;
        if number > self.highest {
            return Ok(number);
        }
        if number == 0 || self.highest - number >= self.size {
            return Err(ReplayError::Late);
        }
        if self.blocks[self.block_index(number)] & bit(number) != 0 {
            Err(ReplayError::Replay)
        } else {
            Ok(number)
        }
    }

    /// Marks the sequence number of a verified packet as received. Fails if it was marked before or
    /// is now below the window: a batch can contain a packet twice, and [`Self::check`] runs for
    /// both copies before either is verified.
    #[inline]
    pub fn mark_received(&mut self, number: u64) -> Result<(), ReplayError> {
        if number > self.highest {
            // Clear the blocks that the window enters, each at most once.
            let (last, new) = (self.highest / BLOCK, number / BLOCK);
            for block in 0..(new - last).min(self.blocks.len() as u64) {
                let index = self.block_index((new - block) * BLOCK);
                self.blocks[index] = 0;
            }
            self.highest = number;
        } else if number == 0 || self.highest - number >= self.size {
            return Err(ReplayError::Late);
        }
        let index = self.block_index(number);
        if self.blocks[index] & bit(number) != 0 {
            return Err(ReplayError::Replay);
        }
        self.blocks[index] |= bit(number);
        Ok(())
    }

    #[inline]
    fn block_index(&self, number: u64) -> usize {
        (number / BLOCK) as usize & (self.blocks.len() - 1)
    }

    /// Returns the only number with these lower bits in the window or at most `2^32 - size` above
    /// it (RFC 4303, Appendix A2.2). Returns `None` if its upper half would be negative or exceed
    /// 32 bits.
    #[inline]
    fn full_number(&self, low_bits: u32) -> Option<u64> {
        if !self.extended {
            return Some(low_bits.into());
        }
        let (high, low) = (self.highest >> 32, self.highest as u32);
        let bottom = low.wrapping_sub(self.size as u32 - 1);
        let high = if u64::from(low) >= self.size - 1 {
            // All numbers of the window have the same upper half. Lower bits below those of the
            // window belong to the next upper half.
            if low_bits >= bottom {
                high
            } else {
                high.checked_add(1).filter(|high| *high <= u64::from(u32::MAX))?
            }
        } else if low_bits >= bottom {
            // The first numbers of the window, and this one, have the previous upper half.
            high.checked_sub(1)?
        } else {
            high
        };
        Some(high << 32 | u64::from(low_bits))
    }
}

#[inline]
fn bit(number: u64) -> u64 {
    1 << (number % BLOCK)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const EXTENDED: bool = true;

    /// A simple implementation of the window, which stores all received numbers.
    struct Model {
        received: BTreeSet<u64>,
        size: u64,
    }

    impl Model {
        fn mark_received(&mut self, number: u64) -> Result<(), ReplayError> {
            let highest = self.received.last().copied().unwrap_or(0);
            if number == 0 || number + self.size <= highest {
                return Err(ReplayError::Late);
            }
            if self.received.insert(number) { Ok(()) } else { Err(ReplayError::Replay) }
        }
    }

    /// Generates differences between the highest received number and the next received number. Most
    /// are small.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![
            6 => -70_i64..70,
            2 => -4200_i64..4200,
            1 => prop_oneof![Just(-64_i64), Just(-63), Just(64), Just(-4096), Just(-4095), Just(100_000)],
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn window_accepts_same_numbers_as_model(
            size in prop_oneof![Just(64_u32), Just(128), Just(192), Just(1024), Just(4096)],
            extended in any::<bool>(),
            start in prop_oneof![Just(0_u64), Just(1), Just(u64::from(u32::MAX) - 200), Just((7 << 32) - 100), Just(5 << 32)],
            steps in steps(),
        ) {
            let start = if extended { start } else { start.min(u64::from(u32::MAX) - 200) };
            let mut window = Window::new(size, extended).unwrap();
            let mut model = Model { received: BTreeSet::new(), size: size.into() };
            if start > 0 {
                // Skip `check`, which could not infer the upper half of `start`.
                prop_assert_eq!(window.mark_received(start), model.mark_received(start));
            }
            for step in steps {
                let highest = window.highest();
                let Some(number) = highest.checked_add_signed(step) else { continue };
                if !extended && number > u64::from(u32::MAX) {
                    continue;
                }
                let expected = model.mark_received(number);
                // Below the window, `check` infers the number plus 2^32. An attacker cannot exploit
                // this: the ICV of the old packet does not match the inferred number.
                if extended && expected == Err(ReplayError::Late) {
                    match window.check(number as u32) {
                        Ok(other) => prop_assert_eq!(other, number + (1 << 32)),
                        Err(error) => prop_assert_eq!(error, ReplayError::Late),
                    }
                    continue;
                }
                let result = window.check(number as u32).and_then(|full| {
                    assert_eq!(full, number, "check after highest number {highest}");
                    window.mark_received(full)
                });
                prop_assert_eq!(result, expected, "{} after {}", number, highest);
            }
        }
    }

    #[test]
    fn only_extended_window_crosses_32_bit_boundary() {
        let mut window = Window::new(64, EXTENDED).unwrap();
        let wrap = 1_u64 << 32;
        for number in [wrap - 3, wrap - 1, wrap + 1] {
            window.mark_received(number).unwrap();
        }
        assert_eq!(window.check(0), Ok(wrap));
        assert_eq!(window.check(u32::MAX - 1), Ok(wrap - 2));
        assert_eq!(window.check(u32::MAX), Err(ReplayError::Replay));
        assert_eq!(window.check(1), Err(ReplayError::Replay));
        assert_eq!(window.check(2), Ok(wrap + 2));
        let mut window = Window::new(64, !EXTENDED).unwrap();
        window.mark_received(u64::from(u32::MAX)).unwrap();
        assert_eq!(window.check(1), Err(ReplayError::Late));
    }

    /// Once 0 is below the window, its lower bits belong to 2^32, as those of any other number.
    #[test]
    fn check_of_lower_bits_0_infers_next_upper_half_above_window() {
        let mut window = Window::new(64, EXTENDED).unwrap();
        window.mark_received(63).unwrap();
        assert_eq!(window.check(0), Err(ReplayError::Late));
        window.mark_received(64).unwrap();
        assert_eq!(window.check(0), Ok(1 << 32));
    }

    #[test]
    fn mark_received_rejects_second_copy_after_check_accepted_both() {
        let mut window = Window::new(64, EXTENDED).unwrap();
        let (one, other) = (window.check(9).unwrap(), window.check(9).unwrap());
        assert_eq!(
            (window.mark_received(one), window.mark_received(other)),
            (Ok(()), Err(ReplayError::Replay))
        );
    }

    #[test]
    fn check_of_new_window_rejects_numbers_below_1() {
        for extended in [false, true] {
            let window = Window::new(64, extended).unwrap();
            assert_eq!(window.check(0), Err(ReplayError::Late));
            assert_eq!(window.check(1), Ok(1));
        }
        assert_eq!(
            Window::new(64, EXTENDED).unwrap().check(u32::MAX),
            Err(ReplayError::Late),
            "`check` must reject a number with a negative upper half"
        );
    }

    #[test]
    fn window_marked_up_to_n_rejects_all_numbers_up_to_n() {
        for number in [1, 63, 64, 65, 127, 1000, (1 << 32) - 1, 1 << 32, (7 << 32) + 5] {
            for size in [64, 128, 1024] {
                let mut window = Window::new(size, EXTENDED).unwrap();
                window.mark_received_up_to(number);
                assert_eq!(window.highest(), number);
                for before in number.saturating_sub(u64::from(size) - 1).max(1)..=number {
                    assert_eq!(
                        window.check(before as u32),
                        Err(ReplayError::Replay),
                        "window of {size} marked up to {number}: number {before}"
                    );
                }
                for after in number + 1..number + 2 * u64::from(size) {
                    assert_eq!(window.check(after as u32), Ok(after));
                    assert_eq!(
                        (window.mark_received(after), window.mark_received(after)),
                        (Ok(()), Err(ReplayError::Replay))
                    );
                }
                // Does nothing: `number` is below the highest number.
                window.mark_received_up_to(number);
                assert_eq!(window.highest(), number + 2 * u64::from(size) - 1);
            }
        }
    }

    #[test]
    fn new_rejects_invalid_size() {
        for size in [0, 32, 63, 65, 100, 4097, 8192, u32::MAX] {
            assert_eq!(Window::new(size, EXTENDED).unwrap_err(), WindowError(size));
        }
        assert_eq!(
            WindowError(65).to_string(),
            "an anti-replay window of 65: must be a multiple of 64, from 64 to 4096"
        );
        assert!(Window::new(4096, EXTENDED).is_ok());
    }
}
