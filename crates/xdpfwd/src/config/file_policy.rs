//! What happens with files that other users can change.

use std::path::Path;

use nix::unistd::Uid;

use crate::trusted_path;

/// What to do if other users can change a file: as root, xdpfwd would do with packets what they
/// write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilePolicy {
    Refuse,
    Warn,
    /// Files are not checked.
    Accept,
}

/// The option that accepts files that other users can change.
pub(crate) const ALLOW_OPTION: &str = "--allow-writable-files";

impl FilePolicy {
    /// For a start, a reload, `--check` and `doctor`. `allow` is [`ALLOW_OPTION`].
    pub(crate) fn of_start(allow: bool) -> Self {
        if Uid::effective().is_root() && !allow { Self::Refuse } else { Self::Warn }
    }

    /// For commands that only read the files and do nothing that needs root.
    pub(crate) fn of_reading() -> Self {
        if Uid::effective().is_root() { Self::Warn } else { Self::Accept }
    }

    /// Returns an error or a warning if other users can change the file. A missing file is neither.
    pub(super) fn check(self, path: &Path) -> Result<Option<String>, String> {
        let checked = match self {
            Self::Accept => Ok(()),
            Self::Warn | Self::Refuse => trusted_path::check(path),
        };
        match (checked, self) {
            (Ok(()), _) => Ok(None),
            (Err(untrusted), Self::Refuse) => {
                Err(format!("{untrusted}; or accept this with {ALLOW_OPTION}"))
            }
            (Err(untrusted), _) => Ok(Some(untrusted.to_string())),
        }
    }
}
