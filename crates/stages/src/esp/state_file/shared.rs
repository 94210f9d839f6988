//! State that the state file, its writer thread and the IV ranges share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;
use xdpfwd_ipsec::{Epoch, Fingerprint, Ivs};

use super::error::WriteFailure;
use super::numbers::{InboundProgress, OutboundNumbers};
use crate::esp::state::{Direction, SequenceState, State};

/// State that the state file, its writer thread and the IV ranges share.
///
/// Workers use the atomics and `free_ivs`, which never wait. `entries` is behind a mutex that only
/// the control thread and the writer take.
#[derive(Debug)]
pub(super) struct Shared {
    /// The epoch in the file, under which IV ranges draw.
    epoch: AtomicU32,
    /// The latest epoch that a worker asked for.
    pub(super) epoch_wanted: AtomicU32,
    pub(super) stopping: AtomicBool,
    /// IV ranges without a worker.
    pub(super) free_ivs: ArrayQueue<Ivs>,
    entries: Mutex<Entries>,
    /// Notified after each write that a caller waits for.
    pub(super) write_done: Condvar,
}

/// The SAs of the file, and writes that callers wait for.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) sas: BTreeMap<(Direction, u32, Fingerprint), Entry>,
    /// Number of the last write that a caller waits for.
    pub(super) requested: u64,
    /// Number of the last such write that succeeded or failed.
    pub(super) completed: u64,
    /// The failure of the last write.
    pub(super) failure: Option<WriteFailure>,
}

/// An SA in the file.
#[derive(Debug)]
pub(super) enum Entry {
    /// No stage of this run uses it: it stays as it is.
    Unused(SequenceState),
    Out(Arc<OutboundNumbers>),
    In(Arc<InboundProgress>),
}

impl Shared {
    /// Creates it from the state that the file has, whose epoch is `epoch`.
    pub(super) fn new(state: State, epoch: Epoch) -> Self {
        let free_ivs = ArrayQueue::new(usize::from(Ivs::WORKERS));
        for ivs in (0..Ivs::WORKERS).filter_map(|number| Ivs::new(number.into(), epoch)) {
            // Cannot fail: there is room for all.
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

    /// Locks the entries. Not for the data path.
    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the epoch in the file.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch::of(self.epoch.load(Ordering::Acquire))
    }

    /// Sets the epoch that the file has now.
    pub(super) fn set_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
    }
}
