//! Errors when opening, creating or writing a state file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xdpfwd_ipsec::EpochError;

use crate::esp::private_file::folder_of;
use crate::esp::state::{State, StateError};

/// Maximum time for which a caller waits for a write.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A failure to open, create or write a state file.
#[derive(Debug, thiserror::Error)]
#[error("state file {path}: {problem}", path = .path.display())]
pub struct StateFileError {
    /// The path of the state file.
    pub path: PathBuf,
    /// The cause, and what to do about it.
    pub problem: StateFileProblem,
}

/// The cause of a [`StateFileError`], and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StateFileProblem {
    /// The file does not exist.
    #[error(
        "does not exist; if its keys have never been used, create it with: xdpfwd esp new-state {}",
        .0.display()
    )]
    Missing(PathBuf),
    /// The file exists already.
    #[error(
        "exists and was not changed, because its keys must not be used without it; to start \
         with new keys, remove it first: rm {}",
        .0.display()
    )]
    Exists(PathBuf),
    /// Another process, or another `StateFile` of this process, has the lock.
    #[error(
        "is in use; each xdpfwd process needs its own state file and its own keys (find the \
         process: fuser {})",
        .0.display()
    )]
    InUse(PathBuf),
    /// The path is a symbolic link.
    #[error(
        "is a symbolic link, which is not allowed; use its target (readlink -f {})",
        .0.display()
    )]
    Link(PathBuf),
    /// The path is not a regular file.
    #[error("is not a regular file; use another path")]
    NotRegular,
    /// Another user owns the file.
    #[error(
        "belongs to user {owner}, but xdpfwd runs as user {user}; run: chown {user} {}",
        .path.display()
    )]
    Owner {
        /// The owner of the file.
        owner: u32,
        /// The effective user of this process.
        user: u32,
        /// The path of the state file.
        path: PathBuf,
    },
    /// Root runs `esp accept-state`, but another user owns the file. The owner must not change,
    /// because this user runs xdpfwd.
    #[error(
        "belongs to user {owner}; accept it as this user, because xdpfwd requires that its user \
         owns the file: sudo -u '#{owner}' xdpfwd esp accept-state {}",
        .path.display()
    )]
    AcceptAsOwner {
        /// The owner of the file.
        owner: u32,
        /// The path of the state file.
        path: PathBuf,
    },
    /// Group or others may write to the file.
    #[error(
        "is writable by group or others (mode {mode:04o}); run: chmod 600 {}",
        .path.display()
    )]
    Mode {
        /// The permission bits.
        mode: u32,
        /// The path of the state file.
        path: PathBuf,
    },
    /// The content is not a valid state.
    #[error(
        "is incomplete or was edited: {error}. The numbers that its keys have used are unknown: \
         create new keys (xdpfwd esp new-key), then run: rm {} && xdpfwd esp new-state {}",
        .path.display(), .path.display()
    )]
    Content {
        /// The cause.
        error: StateError,
        /// The path of the state file.
        path: PathBuf,
    },
    /// The clock is behind the last epoch, or no later epoch exists.
    #[error(
        "{error}. Check the clock (date). If it is right, create new keys (xdpfwd esp new-key), \
         then run: rm {} && xdpfwd esp new-state {}",
        .path.display(), .path.display()
    )]
    Epoch {
        /// The cause.
        error: EpochError,
        /// The path of the state file.
        path: PathBuf,
    },
    /// The file holds the maximum number of SAs.
    #[error(
        "holds {max} SAs, the maximum; create new keys for all SAs, and a new state file \
         (xdpfwd esp new-state)",
        max = State::MAX_SAS
    )]
    Full,
    /// Another program replaced the file while it was open.
    #[error(
        "was replaced by another file and is no longer written; stop xdpfwd and find out which \
         program replaced it"
    )]
    Replaced,
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error(
        "cannot be written: {error}; check free space and permissions: df {}; ls -ld {}",
        .folder.display(), .folder.display()
    )]
    Write {
        /// The cause.
        #[source]
        error: Arc<io::Error>,
        /// The folder of the file.
        folder: PathBuf,
    },
    /// An earlier run's write has failed.
    #[error(
        "records a failed write: packets that arrived after the last successful write could be \
         accepted again. Create new keys (xdpfwd esp new-key), then run: rm {} && xdpfwd esp \
         new-state {}; or, to keep the keys and accept this risk, run: xdpfwd esp accept-state {}",
        .0.display(), .0.display(), .0.display()
    )]
    WriteFailed(PathBuf),
    /// A write in progress takes over a second.
    #[error("is not written: a write takes longer than a second; check its disk")]
    Slow,
    /// A caller waited too long for a write.
    #[error(
        "was not written within {} s; check its disk, or move it to another disk",
        WRITE_TIMEOUT.as_secs()
    )]
    Timeout,
    /// The writer thread did not start, or ended.
    #[error("cannot be written, because its writer thread is not running; restart xdpfwd")]
    NoWriter,
}

/// Describes a problem of a state file in use, and its consequence. `mark_failure` is why the file
/// does not record the problem; `is_last` is true if no later write follows.
pub(super) fn fault_text(
    path: &Path,
    problem: &StateFileProblem,
    mark_failure: Option<&WriteFailure>,
    is_last: bool,
) -> String {
    let path = path.display();
    let consequence = match (is_last, mark_failure) {
        (false, _) => {
            "Until it can be written, inbound packets are dropped as state_file, and outbound \
             packets as soon as the numbers already in the file are used up"
                .to_owned()
        }
        (true, None) => format!(
            "The last received packets are not recorded and could be accepted again, so the next \
             start refuses the file: create new keys and a new state file, or accept this risk \
             (xdpfwd esp accept-state {path})"
        ),
        (true, Some(mark_failure)) => format!(
            "The last received packets are not recorded and could be accepted again. The file \
             cannot record this failure either ({mark_failure}), so the next start does not know \
             of it: create new keys and a new state file before that start"
        ),
    };
    format!("state file {path} {problem}. {consequence}")
}

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum WriteFailure {
    #[error("{0}")]
    Io(Arc<io::Error>),
    #[error("another file is at its path")]
    Replaced,
    #[error("the file is no longer at its path")]
    Missing,
}

impl From<io::Error> for WriteFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl WriteFailure {
    pub(super) fn problem(self, path: &Path) -> StateFileProblem {
        match self {
            Self::Io(error) => {
                StateFileProblem::Write { error, folder: folder_of(path).to_owned() }
            }
            Self::Replaced => StateFileProblem::Replaced,
            Self::Missing => StateFileProblem::Missing(path.to_owned()),
        }
    }
}
