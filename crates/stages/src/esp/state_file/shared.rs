//! State shared between threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;
use xdpfwd_ipsec::{Epoch, Fingerprint, Ivs};

use super::error::WriteFailure;
use super::numbers::{InboundProgress, OutboundNumbers};
use crate::esp::state::{Direction, SequenceState, State};

/// The state that a [`StateFile`](super::StateFile) shares with its writer thread and IV ranges.
///
/// Workers use only the atomics and `free_ivs`, and therefore never wait. Only the control thread
/// and the writer thread lock `entries`.
#[derive(Debug)]
pub(super) struct Shared {
    /// The epoch (upper 32 bits of IVs) in the file. Workers may use its IVs.
    epoch: AtomicU32,
    pub(super) epoch_wanted: AtomicU32,
    /// Whether the writer thread must write a last time and end.
    pub(super) stopping: AtomicBool,
    pub(super) free_ivs: ArrayQueue<Ivs>,
    entries: Mutex<Entries>,
    /// Notified after each write, for callers that wait for a write.
    pub(super) write_done: Condvar,
}

/// The SAs in the file, and the requested writes.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) sas: BTreeMap<(Direction, u32, Fingerprint), Entry>,
    /// Number of the last write that a caller has requested; the first is 1.
    pub(super) requested: u64,
    /// Number of the last requested write that has succeeded or failed.
    pub(super) completed: u64,
    /// The failure of the last write; `None` if it succeeded.
    pub(super) failure: Option<WriteFailure>,
}

#[derive(Debug)]
pub(super) enum Entry {
    /// No stage has used the SA in this run, so its entry is written unchanged.
    Unused(SequenceState),
    Out(Arc<OutboundNumbers>),
    In(Arc<InboundProgress>),
}

impl Shared {
    /// Creates the shared state from the content of the file. `epoch` is the epoch in the file.
    pub(super) fn new(state: State, epoch: Epoch) -> Self {
        let free_ivs = ArrayQueue::new(usize::from(Ivs::WORKERS));
        for ivs in (0..Ivs::WORKERS).filter_map(|number| Ivs::new(number.into(), epoch)) {
            // Cannot fail: the queue has room for all ranges.
            let _ = free_ivs.push(ivs);
        }
        let sas = state.sas.into_iter();
        let sas =
            sas.map(|sa| ((sa.direction(), sa.spi, sa.fingerprint), Entry::Unused(sa.sequence)));
        let entries = Entries { sas: sas.collect(), requested: 0, completed: 0, failure: None };
        Self {
            epoch: AtomicU32::new(epoch.number()),
            epoch_wanted: AtomicU32::new(epoch.number()),
            stopping: AtomicBool::new(false),
            free_ivs,
            entries: Mutex::new(entries),
            write_done: Condvar::new(),
        }
    }

    /// Must not be called on the data path.
    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch::from_number(self.epoch.load(Ordering::Acquire))
    }

    /// Sets the epoch after it has been written to the file.
    pub(super) fn set_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
    }
}
