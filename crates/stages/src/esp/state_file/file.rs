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

/// How often a waiting caller checks that the writer thread lives.
const CHECK_WRITER: Duration = Duration::from_secs(1);

/// An open state file: locked, with its epoch written, and with a thread that writes it.
///
/// Keep it as long as its numbers and IVs are in use. When the last reference is dropped, the
/// numbers end, and the exact ones are written to the file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Thread,
    handle: Option<JoinHandle<()>>,
}

impl StateFile {
    /// Opens and locks a state file, and writes the next epoch before it returns. Waits for a clock
    /// that is a few seconds behind.
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
        // The first run uses the following epoch, which is now.
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

    /// Returns its path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it is the file at this path.
    pub fn is_at(&self, path: &Path) -> bool {
        disk::canonicalize(path).is_ok_and(|path| path == self.path)
    }

    /// Returns the numbers of an outbound SA: those in use already, or else those that follow the
    /// number in the file. At least one is available when it returns, unless all were used. To
    /// change the limits of numbers in use, call [`OutboundNumbers::limit`].
    pub fn outbound(
        self: &Arc<Self>,
        spi: u32,
        fingerprint: Fingerprint,
        extended: bool,
        limit: Option<u64>,
    ) -> Result<Arc<OutboundNumbers>, StateFileError> {
        let numbers = self.numbers(spi, fingerprint, extended, limit);
        let numbers = numbers.map_err(|problem| self.failed(problem))?;
        self.fill(&numbers).map_err(|problem| self.failed(problem))?;
        Ok(numbers)
    }

    /// Returns the numbers of an outbound SA, of which none may be available yet.
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
            // Their limits change when the stage that asks starts its work.
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

    /// Has numbers of an SA written if none is available and some are left.
    fn fill(&self, numbers: &OutboundNumbers) -> Result<(), StateFileProblem> {
        if !numbers.is_empty() {
            return Ok(());
        }
        match self.write_and_wait()? {
            // A write for another caller may have supplied the numbers.
            Some(failure) if numbers.is_empty() => Err(failure.problem(&self.path)),
            _ => Ok(()),
        }
    }

    /// Has the writer write, and waits for it. Returns the failure of the write.
    pub(super) fn write_and_wait(&self) -> Result<Option<WriteFailure>, StateFileProblem> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut entries = self.shared.lock();
        entries.requested += 1;
        let own = entries.requested;
        self.writer.unpark();
        while entries.completed < own {
            if self.handle.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(StateFileProblem::NoWriter);
            }
            if Instant::now() >= deadline {
                return Err(StateFileProblem::Timeout);
            }
            let waited = self.shared.write_done.wait_timeout(entries, CHECK_WRITER);
            entries = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(entries.failure.clone())
    }

    /// Returns the progress of an inbound SA: that in use already, or else that in the file.
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
                    return Err(self.failed(StateFileProblem::Full));
                }
                _ => None,
            };
            let progress = Arc::new(InboundProgress::new(stored));
            entries.sas.insert(key, Entry::In(Arc::clone(&progress)));
            progress
        };
        // Starts the writer's periodic check.
        self.writer.unpark();
        Ok(progress)
    }

    fn failed(&self, problem: StateFileProblem) -> StateFileError {
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
