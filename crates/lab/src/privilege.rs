//! The check for root.

use crate::Error;

/// Fails with [`Error::Privilege`] unless this process is root.
///
/// # Errors
///
/// [`Error::Privilege`], which names `operation` and how to run it as root.
pub fn require_root(operation: &str) -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Error::Privilege { operation: operation.to_owned() })
    }
}
