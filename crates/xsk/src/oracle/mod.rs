//! Models of rings, frames and ports that run beside the real objects, step by step, and panic
//! where the two differ. Unit tests supply fixed steps, property tests and the fuzz target
//! (`fuzz/`) random bytes.

pub mod frame;
pub mod port;
pub mod ring;

/// The bytes of a step. The size is fixed so that removing a step leaves the others unchanged,
/// which allows a failing case to be reduced.
pub type StepBytes = [u8; 4];

/// Splits bytes into steps; an incomplete last step is ignored.
pub fn steps(bytes: &[u8]) -> impl Iterator<Item = StepBytes> + '_ {
    bytes.as_chunks().0.iter().copied()
}
