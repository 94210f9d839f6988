//! Reads and creates key files. Rejects files that other users can access.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use xdpfwd_ipsec::{Fingerprint, KeyFileError, KeyMaterial, RandomError, Transform};
use zeroize::Zeroizing;

use super::private_file::{
    self, OpenFailure, create_durably, effective_user, forbid_core_dumps, lock_memory,
};

/// Maximum size of a key file in bytes.
const MAX_SIZE: usize = 4096;

/// A failure to read a key file. The message does not reveal the content.
#[derive(Debug, thiserror::Error)]
#[error("key file {path}: {problem}", path = .path.display())]
pub struct KeyFileReadError {
    /// The path of the key file.
    pub path: PathBuf,
    /// The cause, and what to do about it.
    pub problem: KeyFileProblem,
}

/// The cause of a [`KeyFileReadError`], and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileProblem {
    /// The file does not exist.
    #[error(
        "does not exist; create it with: xdpfwd esp new-key --transform {} {}",
        .transform.name(), .path.display()
    )]
    Missing {
        /// The transform of the key.
        transform: Transform,
        /// The path of the key file.
        path: PathBuf,
    },
    /// The path is a symbolic link.
    #[error(
        "is a symbolic link, which is not allowed; use its target (readlink -f {})",
        .0.display()
    )]
    Link(PathBuf),
    /// The path is not a regular file.
    #[error(
        "is {0}, not a regular file; use another path, or move it away and create a key with: \
         xdpfwd esp new-key"
    )]
    NotRegular(&'static str),
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
        /// The path of the key file.
        path: PathBuf,
    },
    /// Group or others have access.
    #[error(
        "is accessible to group or others (mode {mode:04o}); run: chmod 600 {} \
         (and create a new key if others may have read it)",
        .path.display()
    )]
    Mode {
        /// The permission bits.
        mode: u32,
        /// The key file.
        path: PathBuf,
    },
    /// The file is too large.
    #[error(
        "is larger than {MAX_SIZE} bytes; expected one line of hexadecimal digits, as written by: \
         xdpfwd esp new-key"
    )]
    TooLarge,
    /// The content is no key for the transform.
    #[error(
        "{error}; create a key with: xdpfwd esp new-key --transform {} FILE",
        .transform.name()
    )]
    Content {
        /// The cause.
        error: KeyFileError,
        /// The transform of the key.
        transform: Transform,
    },
    /// A core dump of this process could contain the key.
    #[error("was not read, because core dumps cannot be disabled: {0}")]
    CoreDumps(#[source] io::Error),
    /// Opening or reading failed.
    #[error("cannot be read: {0}")]
    Io(#[source] io::Error),
}

/// A failure to create a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileCreateError {
    /// The file exists already.
    #[error(
        "{} exists and was not changed; use another path, or remove it first: rm {}",
        .0.display(), .0.display()
    )]
    Exists(PathBuf),
    /// AWS-LC returned no random bytes.
    #[error("cannot create a key: {0}")]
    RandomError(#[from] RandomError),
    /// Writing failed.
    #[error("cannot write {}: {error}", .path.display())]
    Io {
        /// The path of the key file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

/// Reads a key file that only this user can access, without following symbolic links. Disables core
/// dumps of the process, tries to lock its memory, and wipes the file's text from memory.
pub fn read(path: &Path, transform: Transform) -> Result<KeyMaterial, KeyFileReadError> {
    try_read(path, transform).map_err(|problem| KeyFileReadError { path: path.to_owned(), problem })
}

fn try_read(path: &Path, transform: Transform) -> Result<KeyMaterial, KeyFileProblem> {
    let mut file = open(path, transform)?;
    // Check the open file: the path may name another by now.
    let metadata = file.metadata().map_err(KeyFileProblem::Io)?;
    if !metadata.is_file() {
        return Err(KeyFileProblem::NotRegular(file_kind(metadata.file_type())));
    }
    let (owner, user) = (metadata.uid(), effective_user());
    if owner != user {
        return Err(KeyFileProblem::Owner { owner, user, path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileProblem::Mode { mode, path: path.to_owned() });
    }
    forbid_core_dumps().map_err(KeyFileProblem::CoreDumps)?;
    // Ignore a failure: the start of xdpfwd reports it, and `--check` does not need the lock.
    let _ = lock_memory();
    // A growing buffer would leave copies of the key in memory. The extra byte detects a file that
    // is too large.
    let mut text = Zeroizing::new([0; MAX_SIZE + 1]);
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(KeyFileProblem::Io(error)),
        }
    }
    if len > MAX_SIZE {
        return Err(KeyFileProblem::TooLarge);
    }
    KeyMaterial::parse(&text[..len], transform)
        .map_err(|error| KeyFileProblem::Content { error, transform })
}

fn open(path: &Path, transform: Transform) -> Result<File, KeyFileProblem> {
    private_file::open(path).map_err(|error| match OpenFailure::from(error) {
        OpenFailure::Missing => KeyFileProblem::Missing { transform, path: path.to_owned() },
        OpenFailure::Link => KeyFileProblem::Link(path.to_owned()),
        OpenFailure::NotRegular => KeyFileProblem::NotRegular("a socket or a device"),
        OpenFailure::Other(error) => KeyFileProblem::Io(error),
    })
}

fn file_kind(file_type: fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else {
        "a device"
    }
}

/// Creates a file with a random key, accessible only to this user, and returns the key's
/// fingerprint. If the file exists, leaves it unchanged and fails. Disables core dumps of the
/// process.
pub fn create(path: &Path, transform: Transform) -> Result<Fingerprint, KeyFileCreateError> {
    let io_error = |error| KeyFileCreateError::Io { path: path.to_owned(), error };
    forbid_core_dumps().map_err(io_error)?;
    let _ = lock_memory();
    let key = KeyMaterial::random(transform)?;
    create_durably(path, key.to_line().as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyFileCreateError::Exists(path.to_owned()),
        _ => io_error(error),
    })?;
    Ok(key.fingerprint(transform))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::process::Command;

    use super::*;
    use xdpfwd_testkit::Folder;

    const DIGITS: &str = "1f1e1d1c1b1a191817161514131211100f0e0d0c\n";
    const AES: Transform = Transform::Aes128Gcm;

    fn write(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn read_error(path: &Path) -> String {
        let text = read(path, AES).unwrap_err().to_string();
        assert!(text.starts_with(&format!("key file {}: ", path.display())), "{text}");
        assert!(!text.contains("1f1e") && !text.contains("0d0c"), "{text}");
        text
    }

    #[test]
    fn read_rejects_file_accessible_to_group_or_others() {
        let folder = Folder::new();
        let path = folder.join("key");
        for mode in [0o600, 0o400, 0o700] {
            let _ = fs::remove_file(&path);
            write(&path, DIGITS.as_bytes(), mode);
            assert_eq!(*read(&path, AES).unwrap().to_line(), DIGITS, "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
            write(&path, DIGITS.as_bytes(), mode);
            let text = read_error(&path);
            assert!(text.contains(&format!("(mode {mode:04o})")), "{text}");
            assert!(text.contains(&format!("run: chmod 600 {} ", path.display())), "{text}");
        }
    }

    #[test]
    fn read_rejects_file_of_other_user() {
        let folder = Folder::new();
        let user = effective_user();
        let (path, owner) = if user == 0 {
            let path = folder.join("key");
            write(&path, DIGITS.as_bytes(), 0o600);
            chown(&path, Some(4321), None).unwrap();
            (path, 4321)
        } else {
            (PathBuf::from("/etc/passwd"), 0)
        };
        let text = read_error(&path);
        assert!(
            text.contains(&format!("belongs to user {owner}, but xdpfwd runs as user {user}")),
            "{text}"
        );
        assert!(text.ends_with(&format!("run: chown {user} {}", path.display())), "{text}");
    }

    #[test]
    fn read_rejects_path_that_is_not_a_regular_file() {
        let folder = Folder::new();
        let path = folder.join("missing");
        assert!(read_error(&path).contains(&format!(
            "create it with: xdpfwd esp new-key --transform aes-128-gcm {}",
            path.display()
        )));
        write(&folder.join("key"), DIGITS.as_bytes(), 0o600);
        symlink(folder.join("key"), folder.join("link")).unwrap();
        assert!(read_error(&folder.join("link")).contains("is a symbolic link"));
        assert!(read_error(&folder).contains("is a directory, not a regular file"));
        assert!(read_error(Path::new("/dev/null")).contains("is a device, not a regular file"));
        let fifo = folder.join("fifo");
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap().success());
        assert!(read_error(&fifo).contains("is a FIFO, not a regular file"));
    }

    #[test]
    fn read_rejects_invalid_key() {
        let folder = Folder::new();
        let path = folder.join("key");
        write(&path, &DIGITS.as_bytes()[..38], 0o600);
        let text = read_error(&path);
        assert!(
            text.contains("found 38 hexadecimal digits, expected 40 for aes-128-gcm"),
            "{text}"
        );
        assert!(
            text.contains("create a key with: xdpfwd esp new-key --transform aes-128-gcm "),
            "{text}"
        );
        write(&path, format!("{DIGITS}{DIGITS}").as_bytes(), 0o600);
        assert!(read_error(&path).contains("byte 41 is not a hexadecimal digit"));
        let padded = |size: usize| format!("{}{DIGITS}", " ".repeat(size - DIGITS.len()));
        write(&path, padded(MAX_SIZE).as_bytes(), 0o600);
        assert_eq!(*read(&path, AES).unwrap().to_line(), DIGITS);
        write(&path, padded(MAX_SIZE + 1).as_bytes(), 0o600);
        assert!(read_error(&path).contains("larger than 4096 bytes"));
    }

    #[test]
    fn created_file_is_private_and_never_overwritten() {
        let folder = Folder::new();
        for transform in Transform::ALL {
            let path = folder.join(transform.name());
            let fingerprint = create(&path, transform).unwrap();
            assert_eq!(read(&path, transform).unwrap().fingerprint(transform), fingerprint);
            let (text, mode) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode());
            assert_eq!(mode & 0o7777, 0o600);
            let error = create(&path, transform).unwrap_err().to_string();
            assert!(error.contains("exists and was not changed"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), text);
        }
        symlink(folder.join("elsewhere"), folder.join("link")).unwrap();
        create(&folder.join("link"), AES).unwrap_err();
        assert!(!folder.join("elsewhere").exists());
        let error = create(&folder.join("no/folder"), AES).unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
    }
}
