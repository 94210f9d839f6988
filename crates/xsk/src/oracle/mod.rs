//! Models of rings, frames and ports. Each step is executed on the real object and on the model,
//! which panics if the two differ. Property tests and the fuzz targets (`fuzz/`) decode steps from
//! random bytes.

pub mod frame;
pub mod port;
pub mod ring;

/// An encoded step. All steps have the same size, so that one can be removed from a failing case
/// without changing the others.
pub type StepBytes = [u8; 4];

/// Splits bytes into steps; an incomplete last step is ignored.
pub fn steps(bytes: &[u8]) -> impl Iterator<Item = StepBytes> + '_ {
    bytes.as_chunks().0.iter().copied()
}
