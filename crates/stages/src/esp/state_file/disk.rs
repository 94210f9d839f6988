//! The locked state file on disk.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use nix::fcntl::Flock;
use rustix::fs::{CWD, IFlags, RenameFlags};

use super::error::{StateFileProblem, WriteFailure};
use super::layout::{self, Content};
use super::slots::{Condition, Storage};
use crate::esp::private_file::{
    self, OpenFailure, create_new, effective_user, folder_of, sync_folder_of, try_lock,
};
use crate::esp::state::State;

#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Locked against other processes.
    current: Flock<File>,
}

impl Disk {
    /// Opens and locks the file, and reads its content.
    pub(super) fn open(given: &Path) -> Result<(Self, Content), StateFileProblem> {
        report_size_limit_as_error();
        let path = canonicalize(given).map_err(|error| read_problem(error, given))?;
        let current = open_and_lock(&path, given)?;
        let content = read(&current, given)?;
        Ok((Self { path, current }, content))
    }

    /// Creates a file with `state`. If the file exists, leaves it unchanged and fails.
    pub(super) fn create(path: &Path, state: &State) -> io::Result<()> {
        report_size_limit_as_error();
        let (content, _) = layout::file(state, 1, state.sas.len());
        drop(create_with(path, &content)?);
        // After a failed sync, remove the file: otherwise the next attempt would find it.
        sync_folder_of(path).inspect_err(|_| drop(fs::remove_file(path)))
    }

    /// Returns the path without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Storage for Disk {
    fn condition(&self, len: usize) -> io::Result<Condition> {
        let at_path = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Condition::Missing),
            Err(error) => return Err(error),
        };
        let opened = self.current.metadata()?;
        Ok(if (opened.dev(), opened.ino()) != (at_path.dev(), at_path.ino()) {
            Condition::Replaced
        } else if opened.len() != len as u64 {
            Condition::Resized
        } else {
            Condition::Intact
        })
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.current.write_all_at(bytes, offset as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current.sync_data()
    }

    fn replace(&mut self, content: &[u8], is_missing: bool) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new_path = Path::new(&name);
        match fs::remove_file(new_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Normally `NotFound`, because only a crash leaves a `.new` file.
            _ => {}
        }
        let file = create_with(new_path, content)?;
        let flags = if is_missing { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        let rename = |file| {
            // Lock the new file before the rename lets other processes open it.
            let file = try_lock(file)?.ok_or(io::ErrorKind::WouldBlock)?;
            rustix::fs::renameat_with(CWD, new_path, CWD, &self.path, flags)?;
            Ok::<_, io::Error>(file)
        };
        self.current = rename(file).inspect_err(|_| drop(fs::remove_file(new_path)))?;
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        sync_folder_of(&self.path)
    }
}

/// Creates a file and writes all of its blocks, so that later writes need no new blocks.
fn create_with(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = create_new(path)?;
    // Without `NOCOW`, Btrfs would write every change to another block. Other file systems do not
    // know the flag, so ignore failures.
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file) {
        let _ = rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW);
    }
    // If the write fails, for example on a full disk, remove the file.
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Installs a handler of SIGXFSZ, so that later writes beyond RLIMIT_FSIZE return an error instead
/// of ending the process.
fn report_size_limit_as_error() {
    static HANDLER: LazyLock<()> = LazyLock::new(|| {
        let (signal, flag) = (nix::sys::signal::Signal::SIGXFSZ, Arc::default());
        if let Err(error) = signal_hook::flag::register(signal as i32, flag) {
            tracing::warn!(%error, "cannot handle SIGXFSZ: a file size limit would end xdpfwd");
        }
    });
    LazyLock::force(&HANDLER);
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
        OpenFailure::Other(error) => match error.kind() {
            // The file is opened for writing, so report that it cannot be written.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                WriteFailure::from(error).problem(path)
            }
            _ => StateFileProblem::Read(error),
        },
    }
}

/// Opens and locks the file. Tries again if it is replaced before it is locked. `given` is the path
/// for messages.
fn open_and_lock(path: &Path, given: &Path) -> Result<Flock<File>, StateFileProblem> {
    // Each failed attempt means that another process has replaced the file. After 100 attempts,
    // report that the file is in use.
    for _ in 0..100 {
        let file = private_file::open_to_write(path).map_err(|error| read_problem(error, given))?;
        if let Some(locked) = lock(file, path, given)? {
            return Ok(locked);
        }
    }
    Err(StateFileProblem::InUse(given.to_owned()))
}

/// Checks and locks an open file. Returns `None` if another file is now at `path`. `given` is the
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
    let at_path = fs::symlink_metadata(path).map_err(|error| read_problem(error, given))?;
    let opened = locked.metadata().map_err(StateFileProblem::Read)?;
    let is_current = (opened.dev(), opened.ino()) == (at_path.dev(), at_path.ino());
    Ok(is_current.then_some(locked))
}

fn read(file: &File, given: &Path) -> Result<Content, StateFileProblem> {
    let mut bytes = Vec::new();
    // One byte more detects a file that is too large.
    let limit = layout::max_file_len() as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(StateFileProblem::Read)?;
    layout::parse(&bytes)
        .map_err(|error| StateFileProblem::Content { error, path: given.to_owned() })
}
