//! Temporary folders for tests.

use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary folder, removed on drop. Only its owner can enter it, unless it was created with
/// [`Self::shared`].
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Creates an empty folder with a unique name.
    #[expect(clippy::new_without_default, reason = "creates a folder on disk")]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("xdpfwd-test-").tempdir().unwrap())
    }

    /// Creates a folder that every user can enter and list, for programs that run as another user.
    pub fn shared() -> Self {
        let folder = Self::new();
        fs::set_permissions(&*folder, Permissions::from_mode(0o755)).unwrap();
        folder
    }

    /// Writes a file with mode 0600.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}
