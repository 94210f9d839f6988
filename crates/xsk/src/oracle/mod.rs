//! What rings, frames and ports should do, said once: a model that runs beside the real thing, step
//! by step, and panics where the two differ. Unit tests give it steps by hand, property tests and
//! the fuzz target (`fuzz/`) as random bytes.

pub mod frame;
pub mod port;
pub mod ring;

/// Bytes that a step is made of. Of a fixed size, so that a step which is left out leaves the
/// others as they are: that is how a failing case is made small.
pub type StepBytes = [u8; 4];

/// The steps in any bytes; what is left at the end is none.
pub fn steps(bytes: &[u8]) -> impl Iterator<Item = StepBytes> + '_ {
    bytes.as_chunks().0.iter().copied()
}
