//! Reasons why a cell of the matrix cannot be measured.

use std::fmt;

/// The reason why a path has no configuration for a column.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// The path cannot do this, on this kernel or at all. As short as possible.
    CannotExist(String),
    /// A program is missing; the text contains the command that installs it.
    NotInstalled(String),
    /// The attempt failed: nothing is known about the cell.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Obstacle {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Obstacle {
    /// Returns the reason of a cell that is not available, or the error that ends the command.
    pub(crate) fn into_reason(self) -> anyhow::Result<String> {
        match self {
            Self::CannotExist(reason) | Self::NotInstalled(reason) => Ok(reason),
            Self::Failed(error) => Err(error),
        }
    }

    /// Returns an error for commands that cannot run without the missing path.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Failed(error) => error,
            Self::CannotExist(_) | Self::NotInstalled(_) => anyhow::Error::msg(self.to_string()),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotExist(reason) | Self::NotInstalled(reason) => f.write_str(reason),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}
