//! The state file: the epoch (upper 32 bits) of IVs and the sequence numbers of SAs, written to
//! disk before use.
//!
//! A process locks the [`StateFile`] that it opens. A thread writes the state to the two slots of
//! the file in turn, in place, so that no write needs space on the disk. After each write, the
//! thread publishes the written values through atomics. Workers use only published values, so they
//! never wait. A worker requests the next write when half of the values are used. Inbound SAs
//! refuse packets if the thread does not write their progress (the highest received number) in
//! time.
//!
//! The module `layout` defines the format of the file, `slots` the order of writes; `disk` makes
//! the system calls.

mod disk;
mod epoch;
mod error;
mod file;
mod iv_range;
mod layout;
mod numbers;
mod shared;
mod slots;
mod writer;

pub use error::{StateFileError, StateFileProblem};
pub use file::{ClosedState, StateFile};
pub use iv_range::IvRange;
pub use numbers::{InboundProgress, OutboundNumbers};

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fake_disk;
#[cfg(test)]
mod tests;
