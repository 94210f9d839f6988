//! The open state file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use xdpfwd_ipsec::{Epoch, Fingerprint};

use super::disk::{self, Disk};
use super::epoch::{next_epoch, now};
use super::error::{StateFileError, StateFileProblem, WRITE_TIMEOUT, WriteFailure};
use super::layout;
use super::numbers::{InboundProgress, OutboundNumbers};
use super::shared::{Entry, Shared};
use super::slots::{Slots, Storage};
use super::writer;
use crate::esp::private_file;
use crate::esp::state::{Direction, SequenceState, State};

/// How often a caller that waits for a write checks that the writer thread still runs.
const CHECK_WRITER: Duration = Duration::from_secs(1);
/// How long closing the file waits for the last write.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// An open state file: locked, with its epoch written, and with a writer thread.
///
/// Keep a reference while sequence numbers or IVs from the file are in use. When the last reference
/// is dropped, no more numbers are given out, and the next unused number of each SA is written.
#[derive(Debug)]
pub struct StateFile {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Thread,
    /// `None` once `drop` has taken it.
    handle: Option<JoinHandle<()>>,
}

/// A state file after [`StateFile::close`]. Other references may still keep it open.
#[derive(Debug)]
pub struct ClosedState(Arc<Shared>);

impl ClosedState {
    /// Returns why the last write has failed, and the consequence; `None` if it succeeded, or if
    /// another reference, which can report its faults, keeps the file open.
    pub fn fault(&self) -> Option<String> {
        self.0.stopping.load(Ordering::Acquire).then(|| self.0.fault()).flatten()
    }
}

impl StateFile {
    /// Opens and locks a state file, and writes a new epoch. If the clock is a few seconds behind
    /// the last epoch, first waits.
    pub fn open(path: &Path) -> Result<Arc<Self>, StateFileError> {
        Self::try_open(path).map_err(|problem| StateFileError { path: path.to_owned(), problem })
    }

    fn try_open(given: &Path) -> Result<Arc<Self>, StateFileProblem> {
        let (disk, content) = Disk::open(given)?;
        if content.has_failed {
            return Err(StateFileProblem::WriteFailed(given.to_owned()));
        }
        let path = disk.path().to_owned();
        let mut slots = Slots::new(disk, &content);
        let mut state = content.state;
        let epoch = next_epoch(state.epoch, given)?;
        state.epoch = epoch.number();
        slots.write(&state).map_err(|failure| failure.problem(&path))?;
        Self::with_writer(path, slots, state, epoch)
    }

    /// Starts the writer thread. The file already contains `state` and `epoch`.
    pub(super) fn with_writer<S: Storage + Send + 'static>(
        path: PathBuf,
        slots: Slots<S>,
        state: State,
        epoch: Epoch,
    ) -> Result<Arc<Self>, StateFileProblem> {
        let shared = Arc::new(Shared::new(path, state, epoch, slots.capacity()));
        let handle =
            writer::spawn(Arc::clone(&shared), slots).map_err(|_| StateFileProblem::NoWriter)?;
        Ok(Arc::new(Self { shared, writer: handle.thread().clone(), handle: Some(handle) }))
    }

    /// Returns whether the file can be read and records a failed write. Changes nothing.
    pub fn has_failed_write(path: &Path) -> bool {
        let mut header = Vec::new();
        let read = |file: File| file.take(layout::HEADER_LEN as u64).read_to_end(&mut header);
        private_file::open(path).and_then(read).is_ok() && layout::is_marked(&header)
    }

    /// Removes the mark of a failed write, so that xdpfwd starts with the file. Returns false if
    /// there is no mark; then the file does not change.
    pub fn accept(path: &Path) -> Result<bool, StateFileError> {
        let accept = || {
            let (disk, content) = Disk::open(path)?;
            if content.has_failed {
                let cleared = Slots::new(disk, &content).set_mark(false);
                cleared.map_err(|failure| failure.problem(path))?;
            }
            Ok(content.has_failed)
        };
        accept().map_err(|problem| {
            let problem = match problem {
                StateFileProblem::Owner { owner, user: 0, path } => {
                    StateFileProblem::AcceptAsOwner { owner, path }
                }
                other => other,
            };
            StateFileError { path: path.to_owned(), problem }
        })
    }

    /// Creates a state file for keys that were never used. Leaves an existing file unchanged.
    pub fn create(path: &Path) -> Result<(), StateFileError> {
        // One second ago, so that the epoch of the first run (the time of its start) is later.
        let epoch = u32::try_from(now()).unwrap_or(u32::MAX).saturating_sub(1);
        Disk::create(path, &State { epoch, sas: Vec::new() }).map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::AlreadyExists => StateFileProblem::Exists(path.to_owned()),
                _ => WriteFailure::from(error).problem(path),
            };
            StateFileError { path: path.to_owned(), problem }
        })
    }

    /// Returns the path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Drops this reference. If it is the last one, closes the file.
    pub fn close(self: Arc<Self>) -> ClosedState {
        ClosedState(Arc::clone(&self.shared))
    }

    /// Returns why the state cannot be written, and the consequence; `None` if it can.
    pub fn fault(&self) -> Option<String> {
        self.shared.fault()
    }

    /// Returns whether `path` names this file.
    pub fn is_at(&self, path: &Path) -> bool {
        disk::canonicalize(path).is_ok_and(|path| path == self.shared.path)
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
        let key = (Direction::Out, spi, fingerprint);
        self.make_room(key)?;
        let mut entries = self.shared.lock();
        let (next, bytes) = match entries.sas.get(&key) {
            // The caller's stage applies its own limit when it starts: see the doc comment of
            // `outbound`.
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

    /// Makes room in the file for a new SA, so that no later write needs disk space.
    fn make_room(&self, sa: (Direction, u32, Fingerprint)) -> Result<(), StateFileProblem> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        while let Some(needed) = self.request_room(sa) {
            self.write_and_wait()?;
            let entries = self.shared.lock();
            // The writer may have written before it saw the request, which then remains.
            if entries.wanted_capacity == 0
                && entries.capacity < needed
                && let Some(failure) = &entries.growth_failure
            {
                return Err(failure.clone().problem(&self.shared.path));
            }
            if Instant::now() >= deadline {
                return Err(StateFileProblem::Timeout);
            }
        }
        Ok(())
    }

    /// Requests room for a new SA if the file has none. Returns the number of SAs for which the
    /// file then needs room.
    fn request_room(&self, sa: (Direction, u32, Fingerprint)) -> Option<usize> {
        let mut entries = self.shared.lock();
        let needed = entries.sas.len() + 1;
        let has_room = needed <= entries.capacity || entries.sas.contains_key(&sa);
        // Beyond the maximum, the caller rejects the SA.
        if has_room || needed > State::MAX_SAS {
            return None;
        }
        entries.wanted_capacity = needed;
        Some(needed)
    }

    /// If no number is available, waits for a write that reserves some. Does nothing if the SA has
    /// used all numbers.
    fn fill(&self, numbers: &OutboundNumbers) -> Result<(), StateFileProblem> {
        if !numbers.is_empty() {
            return Ok(());
        }
        match self.write_and_wait()? {
            // Another write may have made numbers available.
            Some(failure) if numbers.is_empty() => Err(failure.problem(&self.shared.path)),
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
        let key = (Direction::In, spi, fingerprint);
        self.make_room(key).map_err(|problem| self.error(problem))?;
        let progress = {
            let mut entries = self.shared.lock();
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
        StateFileError { path: self.shared.path.clone(), problem }
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.writer.unpark();
        let Some(handle) = self.handle.take() else { return };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !handle.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let failure = if !handle.is_finished() {
            // The thread holds the file's lock until the process ends.
            Some(io::Error::from(io::ErrorKind::TimedOut))
        } else if handle.join().is_err() {
            Some(io::Error::other("the writer thread panicked"))
        } else {
            None
        };
        if let Some(failure) = failure.map(WriteFailure::from) {
            let mut entries = self.shared.lock();
            (entries.failure, entries.mark_failure) = (Some(failure.clone()), Some(failure));
            drop(entries);
            tracing::error!("{}", self.shared.fault().unwrap_or_default());
        }
    }
}
