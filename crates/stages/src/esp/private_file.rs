//! Protects keys and state: files that only the user of this process may write, no core dumps, and
//! no copies of memory in swap space.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::prctl;
use nix::unistd::Uid;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Returns the effective user, whom callers require as the owner of files.
pub(super) fn effective_user() -> u32 {
    Uid::effective().as_raw()
}

/// Disables core dumps of this process. Also prevents other processes of the user from reading its
/// memory.
pub(super) fn forbid_core_dumps() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Keeps all memory of this process, with the keys and copies of them, out of swap space. Pages are
/// locked when they are first used.
///
/// Requires the right to lock unlimited memory: with a limit, later allocations could fail.
pub(super) fn lock_memory() -> io::Result<()> {
    let is_unlimited = getrlimit(Resource::Memlock).current.is_none();
    let has_capability = capabilities(None)?.effective.contains(CapabilitySet::IPC_LOCK);
    if !is_unlimited && !has_capability {
        return Err(Errno::EPERM.into());
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Ok(mlockall(flags)?)
}

/// Returns whether the machine has swap space; true if unknown.
pub(super) fn has_swap() -> bool {
    // The first line is a heading.
    fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// Opens a file for reading. Does not follow a symbolic link, and does not block on a FIFO without
/// a writer.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OPEN_FLAGS.bits()).open(path)
}

/// Like [`open`], for reading and writing.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OPEN_FLAGS.bits()).open(path)
}

const OPEN_FLAGS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK);

/// Why a file could not be opened: the causes with error messages of their own, and `Other`.
pub(super) enum OpenFailure {
    Missing,
    Link,
    /// A socket, a device file without a device, or a folder opened for writing.
    NotRegular,
    Other(io::Error),
}

impl From<io::Error> for OpenFailure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => Self::Missing,
            Some(Errno::ELOOP) => Self::Link,
            Some(Errno::ENXIO | Errno::ENODEV | Errno::EISDIR) => Self::NotRegular,
            _ => Self::Other(error),
        }
    }
}

/// Locks a file without waiting. Returns `None` if another file description holds the lock.
pub(super) fn try_lock(file: File) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

/// Creates a file that survives a crash once this function returns `Ok`. If the file exists, leaves
/// it unchanged and fails.
pub(super) fn create_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = create_new(path)?;
    let result =
        file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| sync_folder_of(path));
    result.inspect_err(|_| {
        // Otherwise, the next attempt would find the file.
        let _ = fs::remove_file(path);
    })
}

/// Creates a file to which only its owner has access. Fails if the file exists.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW.bits();
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

/// Writes the file's folder to disk, so that the file's name survives a crash.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use xdpfwd_testkit::Folder;

    #[test]
    fn effective_user_owns_created_files() {
        let folder = Folder::new();
        let owner =
            create_new(&folder.join("file")).and_then(|file| file.metadata()).unwrap().uid();
        assert_eq!(effective_user(), owner);
    }

    #[test]
    fn try_lock_of_locked_file_returns_none() {
        let folder = Folder::new();
        let path = folder.join("lock");
        let (first, open_again) = (File::create(&path).unwrap(), || File::open(&path).unwrap());
        let first_lock = try_lock(first).unwrap();
        assert!(first_lock.is_some());
        assert!(try_lock(open_again()).unwrap().is_none());
        drop(first_lock);
        assert!(try_lock(open_again()).unwrap().is_some());
    }

    #[test]
    fn lock_memory_locks_pages_when_used_or_lacks_privilege() {
        match lock_memory() {
            Ok(()) => {
                let used = vec![1_u8; 1 << 20];
                let status = fs::read_to_string("/proc/self/status").unwrap();
                let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
                let kib: usize = locked.trim().trim_end_matches(" kB").parse().unwrap();
                assert!(kib >= used.len() >> 10, "{status}");
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn forbid_core_dumps_clears_dumpable_attribute() {
        forbid_core_dumps().unwrap();
        assert_eq!(prctl::get_dumpable(), Ok(false));
    }
}
