//! What this process is to the system: whose it is, whether it may be dumped, which files it has locked.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// The user whose rights this process has.
pub fn effective_user() -> u32 {
    // SAFETY: it takes nothing, and cannot fail. Unsafe: foreign call.
    unsafe { libc::geteuid() }
}

/// From now on this process leaves no core dump, and no other process of the same user can read its memory: for who has keys in it.
pub fn no_core_dumps() -> io::Result<()> {
    let no: libc::c_ulong = 0;
    // SAFETY: this option takes one number and no pointer; the rest is ignored. Unsafe: foreign call.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, no, no, no, no) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Locks a file for who has opened it, without waiting: `flock`, as `File::try_lock` of Rust 1.89. False: somebody else has it locked.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open as long as the file is borrowed. Unsafe: foreign call.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_user_is_who_makes_files() {
        let path = std::env::temp_dir().join(format!("xsk-process-{}", std::process::id()));
        let owner = std::fs::File::create(&path).and_then(|file| file.metadata()).unwrap().uid();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(effective_user(), owner);
    }

    #[test]
    fn one_has_the_lock() {
        let path = std::env::temp_dir().join(format!("xsk-process-lock-{}", std::process::id()));
        let (one, other) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(try_lock(&one).unwrap());
        assert!(!try_lock(&other).unwrap());
        drop(one);
        assert!(try_lock(&other).unwrap());
    }

    #[test]
    fn it_is_not_dumped() {
        no_core_dumps().unwrap();
        // SAFETY: it takes no pointer. Unsafe: foreign call.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
    }
}
