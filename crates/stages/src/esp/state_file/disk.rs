//! The state file on disk, locked, and replaced by each write.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

use super::error::{StateFileProblem, WriteFailure};
use crate::esp::private_file::{
    self, OpenFailure, create_new, effective_user, folder_of, sync_folder_of, try_lock,
};
use crate::esp::state::State;

#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Locked so that no other process opens it.
    current: Flock<File>,
}

impl Disk {
    /// Opens and locks the file, and reads its state.
    pub(super) fn open(given: &Path) -> Result<(Self, State), StateFileProblem> {
        let path = canonicalize(given).map_err(|error| read_problem(error, given))?;
        let current = open_and_lock(&path, given)?;
        let state = read(&current, given)?;
        Ok((Self { path, current }, state))
    }

    /// Returns the path without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file by one with the new state, which survives a crash once this function
    /// returns `Ok`.
    pub(super) fn write(&mut self, state: &State) -> Result<(), WriteFailure> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new_path = Path::new(&name);
        match fs::remove_file(new_path) {
            Ok(()) => {}
            // The normal case: the new file exists only after a crash during a write.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let file = create_new(new_path)?;
        self.current = self.replace(file, new_path, state).inspect_err(|_| {
            // The disk may be full: free the space.
            let _ = fs::remove_file(new_path);
        })?;
        Ok(sync_folder_of(&self.path)?)
    }

    /// Writes the state to `file` at `new_path`, and renames it over the current file.
    fn replace(
        &self,
        mut file: File,
        new_path: &Path,
        state: &State,
    ) -> Result<Flock<File>, WriteFailure> {
        file.write_all(state.to_text().as_bytes())?;
        file.sync_all()?;
        // Lock before the rename lets other processes open it.
        let file = try_lock(file)?.ok_or(io::ErrorKind::WouldBlock).map_err(io::Error::from)?;
        match is_at(&self.current, &self.path) {
            Ok(false) => return Err(WriteFailure::Replaced),
            Ok(true) => {}
            // The file was removed. Create it again: this process has the latest state.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        fs::rename(new_path, &self.path)?;
        Ok(file)
    }
}

/// Returns whether `path` still names the open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, at_path) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((opened.dev(), opened.ino()) == (at_path.dev(), at_path.ino()))
}

/// Resolves symbolic links in the folder part only: the file itself must not be a link.
pub(super) fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    Ok(folder_of(path).canonicalize()?.join(name))
}

fn read_problem(error: io::Error, path: &Path) -> StateFileProblem {
    match OpenFailure::from(error) {
        OpenFailure::Missing => StateFileProblem::Missing(path.to_owned()),
        OpenFailure::Link => StateFileProblem::Link(path.to_owned()),
        OpenFailure::NotRegular => StateFileProblem::NotRegular,
        OpenFailure::Other(error) => StateFileProblem::Read(error),
    }
}

/// Tries again if the file is replaced before it is locked. `given` is the path for messages.
fn open_and_lock(path: &Path, given: &Path) -> Result<Flock<File>, StateFileProblem> {
    // Each failed attempt means that another process has replaced the file. After this many
    // replacements, report that the file is in use.
    for _ in 0..100 {
        let file = private_file::open(path).map_err(|error| read_problem(error, given))?;
        if let Some(locked) = lock(file, path, given)? {
            return Ok(locked);
        }
    }
    Err(StateFileProblem::InUse(given.to_owned()))
}

/// Checks and locks an open file. Returns `None` if the file at `path` was replaced. `given` is the
/// path for messages.
pub(super) fn lock(
    file: File,
    path: &Path,
    given: &Path,
) -> Result<Option<Flock<File>>, StateFileProblem> {
    let metadata = file.metadata().map_err(StateFileProblem::Read)?;
    if !metadata.is_file() {
        return Err(StateFileProblem::NotRegular);
    }
    let (owner, user) = (metadata.uid(), effective_user());
    if owner != user {
        return Err(StateFileProblem::Owner { owner, user, path: given.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(StateFileProblem::Mode { mode, path: given.to_owned() });
    }
    let locked = try_lock(file).map_err(StateFileProblem::Read)?;
    let locked = locked.ok_or_else(|| StateFileProblem::InUse(given.to_owned()))?;
    let is_current = is_at(&locked, path).map_err(|error| read_problem(error, given))?;
    Ok(is_current.then_some(locked))
}

fn read(file: &File, given: &Path) -> Result<State, StateFileProblem> {
    let mut text = Vec::new();
    // One byte more detects a file that is too large.
    let limit = State::MAX_LEN as u64 + 1;
    file.take(limit).read_to_end(&mut text).map_err(StateFileProblem::Read)?;
    State::parse(&text).map_err(|error| StateFileProblem::Content { error, path: given.to_owned() })
}
