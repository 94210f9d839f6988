//! Key files: read with care, and made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ipsec::{Fingerprint, KeyFileError, KeyMaterial, NoRandom, Transform};
use zeroize::Zeroizing;

/// Bytes that a key file has at most.
const LARGEST: usize = 4096;

/// A key file could not be read. It says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[error("key file {path}: {problem}", path = .path.display())]
pub struct KeyFileReadError {
    /// Which file.
    pub path: PathBuf,
    /// What is the matter with it, and what helps.
    pub problem: KeyFileProblem,
}

/// What is the matter with a key file, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileProblem {
    /// There is none.
    #[error("there is none; `xdpfwd esp new-key --transform {} {}` makes one", .transform.name(), .path.display())]
    Missing {
        /// For this one.
        transform: Transform,
        /// What it would be called.
        path: PathBuf,
    },
    /// It is a link, which is not followed.
    #[error("it is a link, and links are not followed: name the file itself, `readlink -f {}` says it", .0.display())]
    Link(PathBuf),
    /// It is something else.
    #[error(
        "it is {0}, and must be a regular file: name another, or move it away and make a key by `xdpfwd esp new-key`"
    )]
    NotRegular(&'static str),
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
    /// Others may do something with it.
    #[error("its mode {mode:04o} gives rights to group or others: `chmod 600 {}`, and a new key if others may have read it", .path.display())]
    Mode {
        /// Its mode.
        mode: u32,
        /// The file.
        path: PathBuf,
    },
    /// It is too large to be one.
    #[error("more than {LARGEST} bytes: it takes one line of hexadecimal digits, as `xdpfwd esp new-key` writes it")]
    TooLarge,
    /// What is in it is no key for the transform.
    #[error("{error}; `xdpfwd esp new-key --transform {} FILE` makes one", .transform.name())]
    Content {
        /// Why.
        error: KeyFileError,
        /// For this one.
        transform: Transform,
    },
    /// This process could leave a core dump with the key in it.
    #[error("core dumps cannot be turned off, so it is not read: {0}")]
    CoreDumps(#[source] io::Error),
    /// It could not be opened or read.
    #[error("cannot read it: {0}")]
    Io(#[source] io::Error),
}

/// A key file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileCreateError {
    /// There is one: it is not written over.
    #[error("{} exists, and is left as it is: name another file, or remove it first by `rm {}`", .0.display(), .0.display())]
    Exists(PathBuf),
    /// There are no random numbers.
    #[error("no key: {0}")]
    NoRandom(#[from] NoRandom),
    /// It could not be written.
    #[error("cannot write {}: {error}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Reads a key file, if nobody else can: without following a link, of this user, with no rights for group or others. The process leaves no core
/// dump from then on. What was read is wiped.
pub fn read(path: &Path, transform: Transform) -> Result<KeyMaterial, KeyFileReadError> {
    read_it(path, transform).map_err(|problem| KeyFileReadError { path: path.to_owned(), problem })
}

fn read_it(path: &Path, transform: Transform) -> Result<KeyMaterial, KeyFileProblem> {
    let mut file = open(path, transform)?;
    // Of what was opened: what the path stands for may be another by now.
    let metadata = file.metadata().map_err(KeyFileProblem::Io)?;
    if !metadata.is_file() {
        return Err(KeyFileProblem::NotRegular(kind(metadata.file_type())));
    }
    let (owner, user) = (metadata.uid(), xsk::process::effective_user());
    if owner != user {
        return Err(KeyFileProblem::Owner { owner, user, path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileProblem::Mode { mode, path: path.to_owned() });
    }
    xsk::process::no_core_dumps().map_err(KeyFileProblem::CoreDumps)?;
    // Of one size: growing would leave copies behind. One byte more, which tells a file that is too large.
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
    KeyMaterial::parse(&text[..len], transform).map_err(|error| KeyFileProblem::Content { error, transform })
}

fn open(path: &Path, transform: Transform) -> Result<File, KeyFileProblem> {
    // A FIFO that nobody writes to must not block. std adds O_CLOEXEC.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => KeyFileProblem::Missing { transform, path: path.to_owned() },
        Some(libc::ELOOP) => KeyFileProblem::Link(path.to_owned()),
        // A socket, or a device that is not there.
        Some(libc::ENXIO | libc::ENODEV) => KeyFileProblem::NotRegular("a socket or a device"),
        _ => KeyFileProblem::Io(error),
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

/// Makes a key file with a new random key, for the user of this process alone. One that exists is left as it is. Returns the key's fingerprint.
pub fn create(path: &Path, transform: Transform) -> Result<Fingerprint, KeyFileCreateError> {
    let failed = |error| KeyFileCreateError::Io { path: path.to_owned(), error };
    xsk::process::no_core_dumps().map_err(failed)?;
    let key = KeyMaterial::random(transform)?;
    create_durably(path, key.to_line().as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyFileCreateError::Exists(path.to_owned()),
        _ => failed(error),
    })?;
    Ok(key.fingerprint(transform))
}

/// Makes a file that outlasts a crash, for the user of this process alone. One that exists is left as it is.
pub(super) fn create_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = new_file(path)?;
    let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| sync_folder_of(path));
    written.inspect_err(|_| {
        // Half a file would be in the way. It is the one that was made a moment ago.
        let _ = fs::remove_file(path);
    })
}

/// Makes a file, for the user of this process alone.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
