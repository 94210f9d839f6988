//! The policy for files that other users can change.

use std::path::Path;

use nix::unistd::Uid;

use crate::trusted_path;

/// What to do if other users can change a file, and thereby control xdpfwd, which may run as root.
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
    /// Returns the policy of a start, a reload, `--check` and `doctor`. `allow` states that
    /// [`ALLOW_OPTION`] is set.
    pub(crate) fn of_start(allow: bool) -> Self {
        if Uid::effective().is_root() && !allow { Self::Refuse } else { Self::Warn }
    }

    /// Returns the policy of commands that only read the files and do nothing that needs root.
    #[cfg_attr(not(feature = "filter"), expect(dead_code, reason = "only `filter test` uses it"))]
    pub(crate) fn of_read_only_command() -> Self {
        if Uid::effective().is_root() { Self::Warn } else { Self::Accept }
    }

    /// Returns an error or a warning if other users can change the file, or can create it if
    /// it is missing.
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
