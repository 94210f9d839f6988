//! Errors of the state file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xdpfwd_ipsec::EpochError;

use crate::esp::private_file::folder_of;
use crate::esp::state::{State, StateError};

/// The longest time that a caller waits for a write.
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

/// The cause of an error with a state file, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StateFileProblem {
    /// The file does not exist.
    #[error("there is none; for keys that were never used, `xdpfwd esp new-state {}` makes one", .0.display())]
    Missing(PathBuf),
    /// The file exists already.
    #[error("it exists, and is left as it is: its keys must not be used without it. With new keys: `rm {}` first", .0.display())]
    Exists(PathBuf),
    /// Another process, or another state file of this process, has the lock.
    #[error("it is in use: each xdpfwd takes a state file of its own, and keys of its own; `fuser {}` says who has it", .0.display())]
    InUse(PathBuf),
    /// The path is a symbolic link.
    #[error("it is a link, and links are not followed: name the file itself, `readlink -f {}` says it", .0.display())]
    Link(PathBuf),
    /// The path is not a regular file.
    #[error("it is no regular file: name another")]
    NotRegular,
    /// Another user owns the file.
    #[error("it belongs to user {owner}, and must belong to user {user}, as whom xdpfwd runs: `chown {user} {}`", .path.display())]
    Owner {
        /// The owner of the file.
        owner: u32,
        /// The effective user of this process.
        user: u32,
        /// The path of the state file.
        path: PathBuf,
    },
    /// Group or others may write to the file.
    #[error("its mode {mode:04o} lets group or others write: `chmod 600 {}`", .path.display())]
    Mode {
        /// The permission bits.
        mode: u32,
        /// The path of the state file.
        path: PathBuf,
    },
    /// The content is not a valid state.
    #[error("it is not whole, or was edited: {error}. What its keys were used for is not known: take new keys (`xdpfwd esp new-key`), then `rm {}` and `xdpfwd esp new-state {}`", .path.display(), .path.display())]
    Content {
        /// The cause.
        error: StateError,
        /// The path of the state file.
        path: PathBuf,
    },
    /// No epoch is left for a new run.
    #[error("{error}. `date` says what the clock says; new keys take a new state, by `rm {}` and `xdpfwd esp new-state {}`", .path.display(), .path.display())]
    Epoch {
        /// The cause.
        error: EpochError,
        /// The path of the state file.
        path: PathBuf,
    },
    /// The file holds the maximum number of SAs.
    #[error("it has {most} SAs, and takes no more: take new keys for all, and a new state by `xdpfwd esp new-state`", most = State::MOST_SAS)]
    Full,
    /// Another program replaced the file while it was open.
    #[error(
        "another file was put in its place: nothing is written any more, stop xdpfwd and find out who did it"
    )]
    Replaced,
    /// Reading failed.
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write it: {error}; `df {}` and `ls -ld {}` say whether there is room and leave", .folder.display(), .folder.display())]
    Write {
        /// The cause.
        #[source]
        error: Arc<io::Error>,
        /// The folder of the file.
        folder: PathBuf,
    },
    /// A write took too long.
    #[error("it is not written within {WRITE_TIMEOUT:?}: does its disk answer? Take one that does")]
    Slow,
    /// The thread that writes the file has ended.
    #[error("the thread that writes it is not there")]
    NoWriter,
}

/// The cause of a failed write of the state file.
#[derive(Clone, Debug)]
pub(super) enum WriteFailure {
    Io(Arc<io::Error>),
    Replaced,
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
        }
    }
}
