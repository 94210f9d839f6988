//! The open state file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use xdpfwd_ipsec::Fingerprint;

use super::disk::{self, Disk};
use super::epoch::{next_epoch, now};
use super::error::{StateFileError, StateFileProblem, WRITE_TIMEOUT, WriteFailure};
use super::numbers::{InboundProgress, OutboundNumbers};
use super::shared::{Entry, Shared};
use super::writer;
use crate::esp::private_file::create_durably;
use crate::esp::state::{Direction, SequenceState, State};

/// How often a caller that waits for a write checks that the writer thread still runs.
const CHECK_WRITER: Duration = Duration::from_secs(1);

/// An open state file: locked, with its epoch written, and with a writer thread.
///
/// Keep a reference while sequence numbers or IVs from the file are in use. When the last reference
/// is dropped, no more numbers are given out, and the next unused number of each SA is written.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Thread,
    /// `None` once dropped.
    handle: Option<JoinHandle<()>>,
}

impl StateFile {
    /// Opens and locks a state file, and writes a new epoch. If the clock is a few seconds behind
    /// the last epoch, first waits.
    pub fn open(path: &Path) -> Result<Arc<Self>, StateFileError> {
        Self::try_open(path).map_err(|problem| StateFileError { path: path.to_owned(), problem })
    }

    fn try_open(given: &Path) -> Result<Arc<Self>, StateFileProblem> {
        let (mut disk, mut state) = Disk::open(given)?;
        let epoch = next_epoch(state.epoch, given)?;
        state.epoch = epoch.number();
        disk.write(&state).map_err(|failure| failure.problem(disk.path()))?;
        let path = disk.path().to_owned();
        let shared = Arc::new(Shared::new(state, epoch));
        let handle =
            writer::spawn(Arc::clone(&shared), disk).map_err(|_| StateFileProblem::NoWriter)?;
        Ok(Arc::new(Self { path, shared, writer: handle.thread().clone(), handle: Some(handle) }))
    }

    /// Creates a state file for keys that were never used. Leaves an existing file unchanged.
    pub fn create(path: &Path) -> Result<(), StateFileError> {
        // So the first run uses a later epoch: the time of its start.
        let epoch = u32::try_from(now()).unwrap_or(u32::MAX).saturating_sub(1);
        let text = State { epoch, sas: Vec::new() }.to_text();
        create_durably(path, text.as_bytes()).map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::AlreadyExists => StateFileProblem::Exists(path.to_owned()),
                _ => WriteFailure::from(error).problem(path),
            };
            StateFileError { path: path.to_owned(), problem }
        })
    }

    /// Returns the path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether `path` names this file.
    pub fn is_at(&self, path: &Path) -> bool {
        disk::canonicalize(path).is_ok_and(|path| path == self.path)
    }

    /// Returns the sequence numbers of an outbound SA: 64-bit numbers (ESN) if `extended`. At least
    /// one is available on return, unless the SA has used all.
    ///
    /// If this process already uses the SA, returns the same [`OutboundNumbers`] and ignores
    /// `extended` and `limit`: apply them with [`OutboundNumbers::limit`]. Otherwise, the numbers
    /// start at `next` in the file, or at 1 for a new SA.
    pub fn outbound(
        self: &Arc<Self>,
        spi: u32,
        fingerprint: Fingerprint,
        extended: bool,
        limit: Option<u64>,
    ) -> Result<Arc<OutboundNumbers>, StateFileError> {
        let numbers = self.numbers(spi, fingerprint, extended, limit);
        let numbers = numbers.map_err(|problem| self.error(problem))?;
        self.fill(&numbers).map_err(|problem| self.error(problem))?;
        Ok(numbers)
    }

    /// Like [`outbound`](Self::outbound), but does not wait until a number is available.
    fn numbers(
        &self,
        spi: u32,
        fingerprint: Fingerprint,
        extended: bool,
        limit: Option<u64>,
    ) -> Result<Arc<OutboundNumbers>, StateFileProblem> {
        let mut entries = self.shared.lock();
        let key = (Direction::Out, spi, fingerprint);
        let (next, bytes) = match entries.sas.get(&key) {
            // The new stage applies its limits when it starts.
            Some(Entry::Out(numbers)) => return Ok(Arc::clone(numbers)),
            Some(Entry::Unused(SequenceState::Out { next, bytes })) => (*next, *bytes),
            _ if entries.sas.len() >= State::MAX_SAS => return Err(StateFileProblem::Full),
            _ => (1, 0),
        };
        let writer = self.writer.clone();
        let numbers = Arc::new(OutboundNumbers::new(next, bytes, extended, limit, writer));
        entries.sas.insert(key, Entry::Out(Arc::clone(&numbers)));
        Ok(numbers)
    }

    /// Waits for a write that reserves numbers if none is available. Does nothing if the SA has
    /// used all numbers.
    fn fill(&self, numbers: &OutboundNumbers) -> Result<(), StateFileProblem> {
        if !numbers.is_empty() {
            return Ok(());
        }
        match self.write_and_wait()? {
            // Another write may have made numbers available.
            Some(failure) if numbers.is_empty() => Err(failure.problem(&self.path)),
            _ => Ok(()),
        }
    }

    /// Requests a write, and waits until it has succeeded or failed. Returns the failure of the
    /// last write, or `None` if it succeeded.
    pub(super) fn write_and_wait(&self) -> Result<Option<WriteFailure>, StateFileProblem> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut entries = self.shared.lock();
        entries.requested += 1;
        let request = entries.requested;
        self.writer.unpark();
        while entries.completed < request {
            if self.handle.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(StateFileProblem::NoWriter);
            }
            if Instant::now() >= deadline {
                return Err(StateFileProblem::Timeout);
            }
            let result = self.shared.write_done.wait_timeout(entries, CHECK_WRITER);
            entries = result.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(entries.failure.clone())
    }

    /// Returns the progress of an inbound SA. If this process already uses the SA, returns the same
    /// [`InboundProgress`]. Otherwise, the progress starts at `highest` in the file, or at 0 for a
    /// new SA.
    pub fn inbound(
        self: &Arc<Self>,
        spi: u32,
        fingerprint: Fingerprint,
    ) -> Result<Arc<InboundProgress>, StateFileError> {
        let progress = {
            let mut entries = self.shared.lock();
            let key = (Direction::In, spi, fingerprint);
            let stored = match entries.sas.get(&key) {
                Some(Entry::In(progress)) => return Ok(Arc::clone(progress)),
                Some(Entry::Unused(SequenceState::In { highest })) => Some(*highest),
                _ if entries.sas.len() >= State::MAX_SAS => {
                    return Err(self.error(StateFileProblem::Full));
                }
                _ => None,
            };
            let progress = Arc::new(InboundProgress::new(stored));
            entries.sas.insert(key, Entry::In(Arc::clone(&progress)));
            progress
        };
        // From now on, the writer checks the progress periodically.
        self.writer.unpark();
        Ok(progress)
    }

    fn error(&self, problem: StateFileProblem) -> StateFileError {
        StateFileError { path: self.path.clone(), problem }
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.writer.unpark();
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!(
                state_file = %self.path.display(),
                "the thread that writes the state file panicked"
            );
        }
    }
}
