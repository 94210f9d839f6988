//! The state file: epochs of IVs and numbers of SAs, written to disk before they are used.
//!
//! A process that opens a [`StateFile`] locks it. A separate thread writes it: it creates a new
//! file, synchronizes and locks it, renames it over the old one, and synchronizes the folder. Only
//! then may workers use the stored values. They learn of them through atomics, never wait, and ask
//! for more long before they run out.

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
