//! Key files: secure reading, and creation.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use xdpfwd_ipsec::{Fingerprint, KeyFileError, KeyMaterial, NoRandom, Transform};
use zeroize::Zeroizing;

use super::private_file::{self, OpenFailure, create_durably, effective_user, forbid_core_dumps};

/// Maximum size of a key file in bytes.
const LARGEST: usize = 4096;

/// An error of reading a key file. Reveals none of its content.
#[derive(Debug, thiserror::Error)]
#[error("key file {path}: {problem}", path = .path.display())]
pub struct KeyFileReadError {
    /// The path of the key file.
    pub path: PathBuf,
    /// The cause, and what to do about it.
    pub problem: KeyFileProblem,
}

/// The cause of an error with a key file, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileProblem {
    /// The file does not exist.
    #[error("there is none; `xdpfwd esp new-key --transform {} {}` makes one", .transform.name(), .path.display())]
    Missing {
        /// The transform of the key.
        transform: Transform,
        /// The path of the key file.
        path: PathBuf,
    },
    /// The path is a symbolic link.
    #[error("it is a link, and links are not followed: name the file itself, `readlink -f {}` says it", .0.display())]
    Link(PathBuf),
    /// The path is not a regular file.
    #[error(
        "it is {0}, and must be a regular file: name another, or move it away and make a key by `xdpfwd esp new-key`"
    )]
    NotRegular(&'static str),
    /// Another user owns the file.
    #[error("it belongs to user {owner}, and must belong to user {user}, as whom xdpfwd runs: `chown {user} {}`", .path.display())]
    Owner {
        /// The owner of the file.
        owner: u32,
        /// The effective user of this process.
        user: u32,
        /// The path of the key file.
        path: PathBuf,
    },
    /// Group or others have access to the file.
    #[error("its mode {mode:04o} gives rights to group or others: `chmod 600 {}`, and a new key if others may have read it", .path.display())]
    Mode {
        /// The permission bits.
        mode: u32,
        /// The path of the key file.
        path: PathBuf,
    },
    /// The file is too large.
    #[error(
        "more than {LARGEST} bytes: it takes one line of hexadecimal digits, as `xdpfwd esp new-key` writes it"
    )]
    TooLarge,
    /// The content is not a key for the transform.
    #[error("{error}; `xdpfwd esp new-key --transform {} FILE` makes one", .transform.name())]
    Content {
        /// The cause.
        error: KeyFileError,
        /// The transform of the key.
        transform: Transform,
    },
    /// A core dump of this process could contain the key.
    #[error("core dumps cannot be turned off, so it is not read: {0}")]
    CoreDumps(#[source] io::Error),
    /// Opening or reading failed.
    #[error("cannot read it: {0}")]
    Io(#[source] io::Error),
}

/// An error of creating a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileCreateError {
    /// The file exists already.
    #[error("{} exists, and is left as it is: name another file, or remove it first by `rm {}`", .0.display(), .0.display())]
    Exists(PathBuf),
    /// AWS-LC returned no random bytes.
    #[error("no key: {0}")]
    NoRandom(#[from] NoRandom),
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
/// dumps of the process. Wipes the text read.
pub fn read(path: &Path, transform: Transform) -> Result<KeyMaterial, KeyFileReadError> {
    read_it(path, transform).map_err(|problem| KeyFileReadError { path: path.to_owned(), problem })
}

fn read_it(path: &Path, transform: Transform) -> Result<KeyMaterial, KeyFileProblem> {
    let mut file = open(path, transform)?;
    // Check the opened file: the path may name another one by now.
    let metadata = file.metadata().map_err(KeyFileProblem::Io)?;
    if !metadata.is_file() {
        return Err(KeyFileProblem::NotRegular(kind(metadata.file_type())));
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
    // Fixed size, because growing would leave copies of the key. One extra byte detects files that
    // are too large.
    let mut text = Zeroizing::new([0; LARGEST + 1]);
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(KeyFileProblem::Io(error)),
        }
    }
    if len > LARGEST {
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

fn kind(kind: fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a device"
    }
}

/// Creates a key file with a random key, accessible only to this user, and returns the key's
/// fingerprint. Leaves an existing file unchanged.
pub fn create(path: &Path, transform: Transform) -> Result<Fingerprint, KeyFileCreateError> {
    let failed = |error| KeyFileCreateError::Io { path: path.to_owned(), error };
    forbid_core_dumps().map_err(failed)?;
    let key = KeyMaterial::random(transform)?;
    create_durably(path, key.to_line().as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyFileCreateError::Exists(path.to_owned()),
        _ => failed(error),
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

    fn put(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path) -> String {
        let text = read(path, AES).unwrap_err().to_string();
        assert!(text.starts_with(&format!("key file {}: ", path.display())), "{text}");
        assert!(!text.contains("1f1e") && !text.contains("0d0c"), "{text}");
        text
    }

    #[test]
    fn read_requires_mode_without_rights_for_others() {
        let folder = Folder::new();
        let path = folder.join("key");
        for mode in [0o600, 0o400, 0o700] {
            let _ = fs::remove_file(&path);
            put(&path, DIGITS.as_bytes(), mode);
            assert_eq!(*read(&path, AES).unwrap().to_line(), DIGITS, "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
            put(&path, DIGITS.as_bytes(), mode);
            let text = refused(&path);
            assert!(text.contains(&format!("its mode {mode:04o}")), "{text}");
            assert!(text.contains(&format!("`chmod 600 {}`", path.display())), "{text}");
        }
    }

    #[test]
    fn read_rejects_file_of_other_user() {
        let folder = Folder::new();
        let user = effective_user();
        let (path, owner) = if user == 0 {
            let path = folder.join("key");
            put(&path, DIGITS.as_bytes(), 0o600);
            chown(&path, Some(4321), None).unwrap();
            (path, 4321)
        } else {
            (PathBuf::from("/etc/passwd"), 0)
        };
        let text = refused(&path);
        assert!(
            text.contains(&format!("belongs to user {owner}, and must belong to user {user}")),
            "{text}"
        );
        assert!(text.contains(&format!("`chown {user} {}`", path.display())), "{text}");
    }

    #[test]
    fn read_rejects_irregular_file_without_blocking() {
        let folder = Folder::new();
        let path = folder.join("missing");
        assert!(
            refused(&path).contains(&format!(
                "`xdpfwd esp new-key --transform aes-128-gcm {}`",
                path.display()
            ))
        );
        put(&folder.join("key"), DIGITS.as_bytes(), 0o600);
        symlink(folder.join("key"), folder.join("link")).unwrap();
        assert!(refused(&folder.join("link")).contains("links are not followed"));
        assert!(refused(&folder).contains("it is a directory"));
        assert!(refused(Path::new("/dev/null")).contains("it is a device"));
        let fifo = folder.join("fifo");
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap().success());
        assert!(refused(&fifo).contains("it is a FIFO"));
    }

    #[test]
    fn read_rejects_invalid_key() {
        let folder = Folder::new();
        let path = folder.join("key");
        put(&path, &DIGITS.as_bytes()[..38], 0o600);
        let text = refused(&path);
        assert!(
            text.contains("found 38 hexadecimal digits, expected 40 for aes-128-gcm"),
            "{text}"
        );
        assert!(text.contains("`xdpfwd esp new-key --transform aes-128-gcm "), "{text}");
        put(&path, format!("{DIGITS}{DIGITS}").as_bytes(), 0o600);
        assert!(refused(&path).contains("byte 41 is not a hexadecimal digit"));
        let large = |room: usize| format!("{}{DIGITS}", " ".repeat(room - DIGITS.len()));
        put(&path, large(LARGEST).as_bytes(), 0o600);
        assert_eq!(*read(&path, AES).unwrap().to_line(), DIGITS);
        put(&path, large(LARGEST + 1).as_bytes(), 0o600);
        assert!(refused(&path).contains("more than 4096 bytes"));
    }

    #[test]
    fn create_makes_private_file_and_keeps_existing_one() {
        let folder = Folder::new();
        for transform in Transform::ALL {
            let path = folder.join(transform.name());
            let fingerprint = create(&path, transform).unwrap();
            assert_eq!(read(&path, transform).unwrap().fingerprint(transform), fingerprint);
            let (text, mode) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode());
            assert_eq!(mode & 0o7777, 0o600);
            let again = create(&path, transform).unwrap_err().to_string();
            assert!(again.contains("exists, and is left as it is"), "{again}");
            assert_eq!(fs::read(&path).unwrap(), text);
        }
        symlink(folder.join("elsewhere"), folder.join("link")).unwrap();
        create(&folder.join("link"), AES).unwrap_err();
        assert!(!folder.join("elsewhere").exists());
        let nowhere = create(&folder.join("no/folder"), AES).unwrap_err().to_string();
        assert!(nowhere.starts_with("cannot write "), "{nowhere}");
    }
}
