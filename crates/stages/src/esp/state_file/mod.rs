//! The state file: the epoch (upper 32 bits) of IVs and the sequence numbers of SAs, written to
//! disk before use.
//!
//! A process locks the [`StateFile`] that it opens. For each write, a thread creates a new file,
//! synchronizes and locks it, renames it over the old one, and synchronizes the folder. Only then
//! may workers use the stored values, which the thread publishes through atomics, so workers never
//! wait. A worker requests the next write when half of the values are used.

mod disk;
mod epoch;
mod error;
mod file;
mod iv_range;
mod numbers;
mod shared;
mod writer;

pub use error::{StateFileError, StateFileProblem};
pub use file::StateFile;
pub use iv_range::IvRange;
pub use numbers::{InboundProgress, OutboundNumbers};

#[cfg(test)]
mod tests;
