//! Data that threads share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use xdpfwd_ipsec::{Epoch, Fingerprint, Ivs};

use super::error::{StateFileProblem, WriteFailure, fault_text};
use super::numbers::{InboundProgress, MAX_UNWRITTEN, OutboundNumbers};
use crate::esp::state::{Direction, SequenceState, State};

/// The state that a [`StateFile`](super::StateFile) shares with its writer thread and IV ranges.
///
/// Workers use only the atomics and `free_ivs`, so they never wait. Only the control and the writer
/// thread lock `entries`.
#[derive(Debug)]
pub(super) struct Shared {
    /// The path, without symbolic links.
    pub(super) path: PathBuf,
    /// The epoch (upper 32 bits of IVs) in the file. Workers may use its IVs.
    epoch: AtomicU32,
    /// The latest epoch that a worker has requested.
    pub(super) epoch_wanted: AtomicU32,
    /// Makes the writer thread write a last time and end.
    pub(super) stopping: AtomicBool,
    /// The IV ranges that no worker uses.
    pub(super) free_ivs: ArrayQueue<Ivs>,
    entries: Mutex<Entries>,
    /// Notified after each write.
    pub(super) write_done: Condvar,
}

/// The SAs in the file, and the requested writes.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) sas: BTreeMap<(Direction, u32, Fingerprint), Entry>,
    /// Number of the last write that a caller requested; the first is 1.
    pub(super) requested: u64,
    /// Number of the last requested write that succeeded or failed.
    pub(super) completed: u64,
    /// Failure of the last write; `None` if it succeeded.
    pub(super) failure: Option<WriteFailure>,
    /// Why the file does not record `failure`; `None` if it does, or if there is none.
    pub(super) mark_failure: Option<WriteFailure>,
    /// Start of the write in progress.
    pub(super) write_started: Option<Instant>,
    /// Number of SAs for which the file has room.
    pub(super) capacity: usize,
    /// Number of SAs for which a caller needs room; 0 without a request.
    pub(super) wanted_capacity: usize,
    /// Why the last request for room failed; `None` if it succeeded.
    pub(super) growth_failure: Option<WriteFailure>,
}

#[derive(Debug)]
pub(super) enum Entry {
    /// No stage has used the SA in this run: its entry stays unchanged.
    Unused(SequenceState),
    Out(Arc<OutboundNumbers>),
    In(Arc<InboundProgress>),
}

impl Shared {
    /// `state` and `epoch` are those in the file, which has room for `capacity` SAs.
    pub(super) fn new(path: PathBuf, state: State, epoch: Epoch, capacity: usize) -> Self {
        let free_ivs = ArrayQueue::new(usize::from(Ivs::WORKERS));
        for ivs in (0..Ivs::WORKERS).filter_map(|number| Ivs::new(number.into(), epoch)) {
            // Cannot fail: the queue has room for all ranges.
            let _ = free_ivs.push(ivs);
        }
        let sas = state.sas.into_iter();
        let sas =
            sas.map(|sa| ((sa.direction(), sa.spi, sa.fingerprint), Entry::Unused(sa.sequence)));
        let entries = Entries {
            sas: sas.collect(),
            requested: 0,
            completed: 0,
            failure: None,
            mark_failure: None,
            write_started: None,
            capacity,
            wanted_capacity: 0,
            growth_failure: None,
        };
        Self {
            path,
            epoch: AtomicU32::new(epoch.number()),
            epoch_wanted: AtomicU32::new(epoch.number()),
            stopping: AtomicBool::new(false),
            free_ivs,
            entries: Mutex::new(entries),
            write_done: Condvar::new(),
        }
    }

    /// Locks `entries`. Not for the data path.
    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns why the state cannot be written, and the consequence; `None` if it can.
    pub(super) fn fault(&self) -> Option<String> {
        let entries = self.lock();
        let problem = match (&entries.failure, entries.write_started) {
            (Some(failure), _) => failure.clone().problem(&self.path),
            (None, Some(started)) if started.elapsed() > MAX_UNWRITTEN => StateFileProblem::Slow,
            _ => return None,
        };
        let is_last = self.stopping.load(Ordering::Acquire);
        Some(fault_text(&self.path, &problem, entries.mark_failure.as_ref(), is_last))
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch::from_number(self.epoch.load(Ordering::Acquire))
    }

    pub(super) fn set_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
    }
}
