//! The state file: epochs of IVs and numbers of SAs, on disk before they are used.
//!
//! A [`StateFile`] is locked by the process that has it open. A thread of its own, the keeper, writes it: a new file beside it, synchronised, locked
//! and renamed over it, with its folder synchronised. Only then is what it says given out, by atomics: workers never wait, they ask for
//! more long before they are short of it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime};

use super::state::{Direction, Reached, SaState, State, StateError};
use crossbeam_queue::ArrayQueue;
use xdpfwd_ipsec::{Epoch, EpochError, Exhausted, Fingerprint, Ivs, Numbers};

use super::key_file::{create_durably, folder_of, new_file, sync_folder_of};

/// Sequence numbers that are written down at a time.
const STEP: u64 = 1 << 20;
/// When fewer are left, more are written down.
const SHORT_OF: u64 = STEP / 2;
/// How often the numbers of inbound SAs are written down.
const EVERY: Duration = Duration::from_secs(1);
/// After a failure it is tried again so much later.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a write may take that somebody waits for.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// A clock that is behind the epoch by up to so many seconds is waited for.
const WAIT_FOR_CLOCK: u64 = 5;

/// A state file could not be opened, made or written.
#[derive(Debug, thiserror::Error)]
#[error("state file {path}: {problem}", path = .path.display())]
pub struct StateFileError {
    /// Which file.
    pub path: PathBuf,
    /// What is the matter with it, and what helps.
    pub problem: StateFileProblem,
}

/// What is the matter with a state file, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum StateFileProblem {
    /// There is none.
    #[error("there is none; for keys that were never used, `xdpfwd esp new-state {}` makes one", .0.display())]
    Missing(PathBuf),
    /// It is there already.
    #[error("it exists, and is left as it is: its keys must not be used without it. With new keys: `rm {}` first", .0.display())]
    Exists(PathBuf),
    /// Another process has it, or another part of this one.
    #[error("it is in use: each xdpfwd takes a state file of its own, and keys of its own; `fuser {}` says who has it", .0.display())]
    InUse(PathBuf),
    /// It is a link, which is not followed.
    #[error("it is a link, and links are not followed: name the file itself, `readlink -f {}` says it", .0.display())]
    Link(PathBuf),
    /// It is something else.
    #[error("it is no regular file: name another")]
    NotRegular,
    /// Somebody else owns it.
    #[error("it belongs to user {owner}, and must belong to user {user}, as whom xdpfwd runs: `chown {user} {}`", .path.display())]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Whose it has to be.
        user: u32,
        /// The file.
        path: PathBuf,
    },
    /// Others may write into it.
    #[error("its mode {mode:04o} lets group or others write: `chmod 600 {}`", .path.display())]
    Mode {
        /// Its mode.
        mode: u32,
        /// The file.
        path: PathBuf,
    },
    /// What is in it is no state.
    #[error("it is not whole, or was edited: {error}. What its keys were used for is not known: take new keys (`xdpfwd esp new-key`), then `rm {}` and `xdpfwd esp new-state {}`", .path.display(), .path.display())]
    Content {
        /// Why.
        error: StateError,
        /// The file.
        path: PathBuf,
    },
    /// There is no epoch for a new run.
    #[error("{error}. `date` says what the clock says; new keys take a new state, by `rm {}` and `xdpfwd esp new-state {}`", .path.display(), .path.display())]
    Epoch {
        /// Why.
        error: EpochError,
        /// The file.
        path: PathBuf,
    },
    /// It has as many SAs as there may be.
    #[error("it has {most} SAs, and takes no more: take new keys for all, and a new state by `xdpfwd esp new-state`", most = State::MOST_SAS)]
    Full,
    /// While it was open, somebody put another file in its place.
    #[error("another file was put in its place: nothing is written any more, stop xdpfwd and find out who did it")]
    Replaced,
    /// It could not be read.
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    /// It could not be written.
    #[error("cannot write it: {error}; `df {}` and `ls -ld {}` say whether there is room and leave", .folder.display(), .folder.display())]
    Write {
        /// Why.
        #[source]
        error: Arc<io::Error>,
        /// Where it is.
        folder: PathBuf,
    },
    /// The disk does not answer.
    #[error("it is not written within {WRITTEN_WITHIN:?}: does its disk answer? Take one that does")]
    Slow,
    /// The thread that writes it has ended.
    #[error("the thread that writes it is not there")]
    NoKeeper,
}

/// A state file that is open: locked, with its epoch written down, and a thread that writes it. It has to be kept as long as what it gave out
/// is in use; with the last reference to it the numbers end, and the file gets the exact ones.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    shared: Arc<Shared>,
    keeper: Thread,
    handle: Option<JoinHandle<()>>,
}

/// What everybody and the keeper have in common.
#[derive(Debug)]
struct Shared {
    /// Written down: the lanes go on under it.
    epoch: AtomicU32,
    /// The latest that a lane has asked for.
    epoch_wanted: AtomicU32,
    stopping: AtomicBool,
    /// IV ranges that no worker has. Workers take and return them without a lock.
    lanes: ArrayQueue<Ivs>,
    inner: Mutex<Inner>,
    /// A write that somebody waits for was done, or failed.
    answered: Condvar,
}

#[derive(Debug)]
struct Inner {
    sas: BTreeMap<(Direction, u32, Fingerprint), Sa>,
    /// Writes that were waited for, by number: the last that was asked for, the last that was answered, and how.
    asked: u64,
    answered: u64,
    failure: Option<WriteFailure>,
}

/// An SA in the file.
#[derive(Debug)]
enum Sa {
    /// Nobody has asked for it in this run: it stays as it is.
    Unused(Reached),
    Out(Arc<Outbound>),
    In(Arc<Inbound>),
}

#[derive(Clone, Debug)]
enum WriteFailure {
    Io(Arc<io::Error>),
    Replaced,
}

impl From<io::Error> for WriteFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl WriteFailure {
    fn problem(self, path: &Path) -> StateFileProblem {
        match self {
            Self::Io(error) => StateFileProblem::Write { error, folder: folder_of(path).to_owned() },
            Self::Replaced => StateFileProblem::Replaced,
        }
    }
}

impl StateFile {
    /// Opens and locks it, takes the next epoch, and has that written down before it returns. A clock that is a few seconds behind is waited for.
    pub fn open(path: &Path) -> Result<Arc<Self>, StateFileError> {
        Self::open_it(path).map_err(|problem| StateFileError { path: path.to_owned(), problem })
    }

    fn open_it(given: &Path) -> Result<Arc<Self>, StateFileProblem> {
        let path = canonical(given).map_err(|error| read_problem(error, given))?;
        let file = open_and_lock(&path, given)?;
        let mut state = read(&file, given)?;
        let epoch = next_epoch(state.epoch, given)?;
        state.epoch = epoch.number();
        let mut disk = Disk { path: path.clone(), current: file };
        disk.write(&state).map_err(|failure| failure.problem(&path))?;

        let entry = |sa: SaState| ((sa.direction(), sa.spi, sa.fingerprint), Sa::Unused(sa.reached));
        let inner = Inner { sas: state.sas.into_iter().map(entry).collect(), asked: 0, answered: 0, failure: None };
        let lanes = ArrayQueue::new(usize::from(Ivs::WORKERS));
        for ivs in (0..Ivs::WORKERS).filter_map(|number| Ivs::new(number.into(), epoch)) {
            let _ = lanes.push(ivs);
        }
        let shared = Arc::new(Shared {
            lanes,
            epoch: AtomicU32::new(epoch.number()),
            epoch_wanted: AtomicU32::new(epoch.number()),
            stopping: AtomicBool::new(false),
            inner: Mutex::new(inner),
            answered: Condvar::new(),
        });
        let keeper = Keeper { shared: Arc::clone(&shared), disk, is_broken: false };
        let handle = thread::Builder::new().name("esp-state".into()).spawn(move || keeper.run());
        let handle = handle.map_err(|_| StateFileProblem::NoKeeper)?;
        Ok(Arc::new(Self { path, shared, keeper: handle.thread().clone(), handle: Some(handle) }))
    }

    /// Makes one for keys that were never used. One that exists is left as it is.
    pub fn create(path: &Path) -> Result<(), StateFileError> {
        // The first run takes the one behind it, which is now.
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

    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the file of this name.
    pub fn is(&self, path: &Path) -> bool {
        canonical(path).is_ok_and(|path| path == self.path)
    }

    /// Takes a lane of IVs, which nobody else has until it is dropped. `None`: all are taken. Never waits.
    pub fn lane(self: &Arc<Self>) -> Option<Lane> {
        let mut ivs = self.shared.lanes.pop()?;
        // A former owner may have used it under an earlier epoch.
        ivs.go_on(self.shared.epoch());
        Some(Lane { ivs, has_asked: false, file: Arc::clone(self) })
    }

    /// The numbers of an outbound SA: those that somebody has already, or else those behind what is written down. A number that it can give out
    /// is written down before it returns. Limits of one that somebody has are changed by [`Outbound::limit`].
    pub fn outbound(
        self: &Arc<Self>,
        spi: u32,
        fingerprint: Fingerprint,
        extended: bool,
        limit: Option<u64>,
    ) -> Result<Arc<Outbound>, StateFileError> {
        // What cannot be written down is not given out.
        let limit = Some(limit.unwrap_or(u64::MAX).min(State::LARGEST_NUMBER - 1));
        let failed = |problem| StateFileError { path: self.path.clone(), problem };
        let outbound = {
            let mut inner = self.shared.lock();
            let key = (Direction::Out, spi, fingerprint);
            let (next, bytes) = match inner.sas.get(&key) {
                // Its limits change when who asks is at work.
                Some(Sa::Out(outbound)) => {
                    let outbound = Arc::clone(outbound);
                    drop(inner);
                    return self.written(outbound).map_err(failed);
                }
                Some(Sa::Unused(Reached::Out { next, bytes })) => (*next, *bytes),
                _ if inner.sas.len() >= State::MOST_SAS => return Err(failed(StateFileProblem::Full)),
                _ => (1, 0),
            };
            let outbound = Arc::new(Outbound {
                numbers: Numbers::new(next, extended, limit),
                bytes: AtomicU64::new(bytes),
                has_asked: AtomicBool::new(false),
                keeper: self.keeper.clone(),
            });
            inner.sas.insert(key, Sa::Out(Arc::clone(&outbound)));
            outbound
        };
        self.written(outbound).map_err(failed)
    }

    /// Sees to it that there are numbers, unless all were used.
    fn written(&self, outbound: Arc<Outbound>) -> Result<Arc<Outbound>, StateFileProblem> {
        if outbound.numbers.is_short(1) {
            let failure = self.have_written()?;
            // If it failed for another, and not for this one, that is good enough.
            if let Some(failure) = failure.filter(|_| outbound.numbers.is_short(1)) {
                return Err(failure.problem(&self.path));
            }
        }
        Ok(outbound)
    }

    /// Has the keeper write, and waits until it has, or has failed.
    fn have_written(&self) -> Result<Option<WriteFailure>, StateFileProblem> {
        let deadline = Instant::now() + WRITTEN_WITHIN;
        let mut inner = self.shared.lock();
        inner.asked += 1;
        let own = inner.asked;
        self.keeper.unpark();
        while inner.answered < own {
            if self.handle.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(StateFileProblem::NoKeeper);
            }
            if Instant::now() >= deadline {
                return Err(StateFileProblem::Slow);
            }
            let waited = self.shared.answered.wait_timeout(inner, EVERY);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(inner.failure.clone())
    }

    /// The numbers of an inbound SA: those that somebody has already, or else those that are written down.
    pub fn inbound(self: &Arc<Self>, spi: u32, fingerprint: Fingerprint) -> Result<Arc<Inbound>, StateFileError> {
        let mut inner = self.shared.lock();
        let key = (Direction::In, spi, fingerprint);
        let (highest, written) = match inner.sas.get(&key) {
            Some(Sa::In(inbound)) => return Ok(Arc::clone(inbound)),
            Some(Sa::Unused(Reached::In { highest })) => (*highest, *highest),
            _ if inner.sas.len() >= State::MOST_SAS => {
                return Err(StateFileError { path: self.path.clone(), problem: StateFileProblem::Full });
            }
            _ => (0, u64::MAX),
        };
        let inbound = Arc::new(Inbound { highest: AtomicU64::new(highest), written: AtomicU64::new(written) });
        inner.sas.insert(key, Sa::In(Arc::clone(&inbound)));
        drop(inner);
        // From now on it wakes by itself.
        self.keeper.unpark();
        Ok(inbound)
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.keeper.unpark();
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!(state_file = %self.path.display(), "the thread that writes the state file has panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is written down.
    fn epoch(&self) -> Epoch {
        Epoch::of(self.epoch.load(Ordering::Acquire))
    }
}

/// A lane of IVs: a worker has it for itself, and draws from it without waiting for anybody.
#[derive(Debug)]
pub struct Lane {
    ivs: Ivs,
    /// For the next epoch.
    has_asked: bool,
    file: Arc<StateFile>,
}

impl Lane {
    /// Up to so many IVs that follow each other. `None`: the next epoch is not written down yet.
    #[inline]
    pub fn reserve(&mut self, count: u32) -> Option<Range<u64>> {
        if self.ivs.left() < Ivs::PER_EPOCH / 2 {
            self.go_on();
        }
        self.ivs.reserve(count)
    }

    /// Under the next epoch, if there is one; it is asked for once.
    fn go_on(&mut self) {
        let shared = &self.file.shared;
        if self.ivs.go_on(shared.epoch()) {
            self.has_asked = false;
        } else if !self.has_asked {
            self.has_asked = true;
            shared.epoch_wanted.fetch_max(self.ivs.epoch().number().saturating_add(1), Ordering::Relaxed);
            self.file.keeper.unpark();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let ivs = self.ivs.hand_over();
        let returned = self.file.shared.lanes.push(ivs);
        debug_assert!(returned.is_ok(), "there is room for all lanes");
    }
}

/// The numbers of an outbound SA, which its workers share.
#[derive(Debug)]
pub struct Outbound {
    numbers: Numbers,
    bytes: AtomicU64,
    /// For more to be written down.
    has_asked: AtomicBool,
    keeper: Thread,
}

impl Outbound {
    /// Sets how far it goes, from now on: with 64 bits if it is `extended`, and no further than `limit`.
    pub fn limit(&self, extended: bool, limit: Option<u64>) {
        self.numbers.limit(extended, Some(limit.unwrap_or(u64::MAX).min(State::LARGEST_NUMBER - 1)));
    }

    /// Reserves up to so many sequence numbers that follow each other, as many as there are.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<Range<u64>, Exhausted> {
        let reserved = self.numbers.reserve(count);
        if self.numbers.is_short(SHORT_OF)
            && !self.has_asked.load(Ordering::Relaxed)
            && !self.has_asked.swap(true, Ordering::AcqRel)
        {
            self.keeper.unpark();
        }
        reserved
    }

    /// Counts bytes of inner packets. Returns how many it has been in all, over restarts.
    #[inline]
    pub fn add_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Takes back what was counted for a packet that was not sealed. Returns how many it has been in all.
    #[inline]
    pub fn take_back_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes)
    }

    /// Bytes of inner packets, over restarts.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The next sequence number that is free.
    pub fn next(&self) -> u64 {
        self.numbers.next()
    }
}

/// How far an inbound SA has got.
#[derive(Debug)]
pub struct Inbound {
    highest: AtomicU64,
    /// What of it is written down; the largest number if it is not in the file yet.
    written: AtomicU64,
}

impl Inbound {
    /// Says how far it has got: for the worker whose SA it is.
    #[inline]
    pub fn set_highest(&self, number: u64) {
        self.highest.store(number, Ordering::Relaxed);
    }

    /// The highest number that was received: where the window begins. All up to it may have been received.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }
}

/// Who writes.
struct Keeper {
    shared: Arc<Shared>,
    disk: Disk,
    /// The last write has failed: that was said.
    is_broken: bool,
}

/// What is to be written, and what is so once it is.
struct Next {
    state: State,
    outbound: Vec<(Arc<Outbound>, u64)>,
    inbound: Vec<(Arc<Inbound>, u64)>,
    /// The last write that somebody waits for.
    asked: u64,
    /// Somebody waits for it.
    is_waited_for: bool,
    /// Somebody is short of something, or waits.
    is_due: bool,
    /// An inbound SA has got further.
    has_received: bool,
}

impl Keeper {
    fn run(mut self) {
        let mut tick = Instant::now() + EVERY;
        let mut not_before = None;
        loop {
            let is_last = self.shared.stopping.load(Ordering::Acquire);
            let now = Instant::now();
            let next = self.shared.next(is_last);
            not_before = not_before.filter(|at| now < *at);
            let ticked = now >= tick;
            let is_due = next.is_due || (ticked && next.has_received);
            let may = not_before.is_none() || next.is_waited_for;
            if is_last || (is_due && may) {
                let succeeded = self.write(&next);
                not_before = (!succeeded).then(|| Instant::now() + PAUSE);
            }
            if ticked {
                // One that could not be written is due again when it may be.
                tick = not_before.unwrap_or(now + EVERY);
            }
            if is_last {
                return;
            }
            let tick = (!next.inbound.is_empty()).then_some(tick);
            let wake = not_before.into_iter().chain(tick).min();
            // Whoever has asked meanwhile has left a token: it does not park then.
            match wake {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }

    /// Writes it, and then gives out what it says.
    fn write(&mut self, next: &Next) -> bool {
        let failure = self.disk.write(&next.state).err();
        match &failure {
            None => self.shared.give_out(next),
            Some(failure) if !self.is_broken => {
                let problem = failure.clone().problem(&self.disk.path);
                let path = self.disk.path.display();
                tracing::error!(state_file = %path, "{problem}. Until it can be, packets are sealed as long as there are numbers that are written down");
            }
            Some(_) => {}
        }
        if failure.is_none() && self.is_broken {
            tracing::info!(state_file = %self.disk.path.display(), "the state file is written again");
        }
        self.is_broken = failure.is_some();
        let succeeded = failure.is_none();
        let mut inner = self.shared.lock();
        inner.answered = next.asked;
        inner.failure = failure;
        self.shared.answered.notify_all();
        succeeded
    }
}

impl Shared {
    /// What is to be written at this moment. The `last` time, numbers end, and are exact.
    fn next(&self, last: bool) -> Next {
        let inner = self.lock();
        let (epoch, wanted) = (self.epoch.load(Ordering::Relaxed), self.epoch_wanted.load(Ordering::Relaxed));
        let mut next = Next {
            state: State { epoch: epoch.max(wanted), sas: Vec::with_capacity(inner.sas.len()) },
            outbound: Vec::new(),
            inbound: Vec::new(),
            asked: inner.asked,
            is_waited_for: inner.asked > inner.answered,
            is_due: inner.asked > inner.answered || wanted > epoch,
            has_received: false,
        };
        for ((_, spi, fingerprint), sa) in &inner.sas {
            let reached = match sa {
                Sa::Unused(reached) => *reached,
                Sa::Out(outbound) => next.outbound(outbound, last),
                Sa::In(inbound) => next.inbound(inbound),
            };
            next.state.sas.push(SaState { spi: *spi, fingerprint: *fingerprint, reached });
        }
        next
    }

    /// What is written down may be used.
    fn give_out(&self, written: &Next) {
        for (outbound, below) in &written.outbound {
            outbound.numbers.allow_below(*below);
            // Who is short again asks again.
            outbound.has_asked.store(false, Ordering::Release);
        }
        for (inbound, highest) in &written.inbound {
            inbound.written.store(*highest, Ordering::Relaxed);
        }
        self.epoch.store(written.state.epoch, Ordering::Release);
    }
}

impl Next {
    fn outbound(&mut self, outbound: &Arc<Outbound>, last: bool) -> Reached {
        let numbers = &outbound.numbers;
        let is_short = !last && numbers.is_short(SHORT_OF);
        let next = if last { numbers.close() } else { numbers.to_write(if is_short { STEP } else { 0 }) };
        if is_short {
            self.is_due = true;
        } else {
            // It was so for a moment only.
            outbound.has_asked.store(false, Ordering::Release);
        }
        self.outbound.push((Arc::clone(outbound), next));
        Reached::Out { next, bytes: outbound.bytes() }
    }

    fn inbound(&mut self, inbound: &Arc<Inbound>) -> Reached {
        let highest = inbound.highest();
        self.has_received |= highest != inbound.written.load(Ordering::Relaxed);
        self.inbound.push((Arc::clone(inbound), highest));
        Reached::In { highest }
    }
}

/// Where it is written to.
struct Disk {
    path: PathBuf,
    /// The file that is there now. Its lock is what keeps others out.
    current: File,
}

impl Disk {
    /// Puts a new file in the place of the one that is there. Once it returns, that outlasts a crash.
    fn write(&mut self, state: &State) -> Result<(), WriteFailure> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new = Path::new(&name);
        match fs::remove_file(new) {
            Ok(()) => {}
            // Nobody has crashed in writing it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = new_file(new)?;
        self.replace(&mut file, new, state).inspect_err(|_| {
            // If it is still there: a full disk has use for the room.
            let _ = fs::remove_file(new);
        })?;
        self.current = file;
        Ok(sync_folder_of(&self.path)?)
    }

    fn replace(&self, file: &mut File, new: &Path, state: &State) -> Result<(), WriteFailure> {
        file.write_all(state.to_text().as_bytes())?;
        file.sync_all()?;
        // Before it has the name that others open it by.
        if !xdpfwd_xsk::process::try_lock(file)? {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        match is_at(&self.current, &self.path) {
            Ok(false) => return Err(WriteFailure::Replaced),
            Ok(true) => {}
            // Somebody has removed it. Nobody knows better than this process what was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fs::rename(new, &self.path)?)
    }
}

/// Whether a path stands for the file that was opened by it.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino()))
}

/// Without links but for the last part, which must not be one.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    Ok(folder_of(path).canonicalize()?.join(name))
}

fn read_problem(error: io::Error, path: &Path) -> StateFileProblem {
    match error.raw_os_error() {
        Some(libc::ENOENT) => StateFileProblem::Missing(path.to_owned()),
        Some(libc::ELOOP) => StateFileProblem::Link(path.to_owned()),
        Some(libc::ENXIO | libc::ENODEV) => StateFileProblem::NotRegular,
        _ => StateFileProblem::Read(error),
    }
}

/// Opens it, if nobody has it. What is locked is the file that the path stands for, not one that was renamed over meanwhile.
fn open_and_lock(path: &Path, given: &Path) -> Result<File, StateFileProblem> {
    // Who has it replaces it now and then; who meets that so often meets somebody who has it.
    for _ in 0..100 {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|error| read_problem(error, given))?;
        if lock(&file, path, given)? {
            return Ok(file);
        }
    }
    Err(StateFileProblem::InUse(given.to_owned()))
}

/// Locks what was opened. False: it is not what the path stands for any more.
fn lock(file: &File, path: &Path, given: &Path) -> Result<bool, StateFileProblem> {
    let metadata = file.metadata().map_err(StateFileProblem::Read)?;
    if !metadata.is_file() {
        return Err(StateFileProblem::NotRegular);
    }
    let (owner, user) = (metadata.uid(), xdpfwd_xsk::process::effective_user());
    if owner != user {
        return Err(StateFileProblem::Owner { owner, user, path: given.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(StateFileProblem::Mode { mode, path: given.to_owned() });
    }
    match xdpfwd_xsk::process::try_lock(file) {
        Ok(true) => is_at(file, path).map_err(|error| read_problem(error, given)),
        Ok(false) => Err(StateFileProblem::InUse(given.to_owned())),
        Err(error) => Err(StateFileProblem::Read(error)),
    }
}

fn read(file: &File, given: &Path) -> Result<State, StateFileProblem> {
    let mut text = Vec::new();
    // One byte more, which tells a file that is too large.
    file.take(State::LARGEST as u64 + 1).read_to_end(&mut text).map_err(StateFileProblem::Read)?;
    State::parse(&text).map_err(|error| StateFileProblem::Content { error, path: given.to_owned() })
}

/// The epoch of this run. A clock that is a little behind is waited for.
fn next_epoch(stored: u32, given: &Path) -> Result<Epoch, StateFileProblem> {
    let mut has_said = false;
    loop {
        match Epoch::next(Some(Epoch::of(stored)), now()) {
            Ok(epoch) => return Ok(epoch),
            Err(EpochError::ClockBehind { now, stored }) if stored - now <= WAIT_FOR_CLOCK => {
                if !has_said {
                    let seconds = stored - now;
                    tracing::info!(state_file = %given.display(), seconds, "waiting for the clock, which is behind the last epoch");
                }
                has_said = true;
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(StateFileProblem::Epoch { error, path: given.to_owned() }),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
