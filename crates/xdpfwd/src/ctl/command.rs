//! The commands of `ctl` that xdpfwd has.

use clap::ValueEnum;

use crate::registry::Registry;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Command {
    /// What runs: ports and their modes, paths and their stages, since when
    Status,
    /// Everything counted so far, as a report has it
    Stats,
    /// Read the configuration anew and exchange the stages: all of them, or none
    Reload,
    /// Every filter's rules, and how many packets each has matched
    Rules,
    /// The security associations of ESP, with their counters and limits; no keys
    Sa,
    /// Every table that a stage has to show
    Inspect,
}

impl Command {
    /// Returns the command with a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Returns whether the program can have stages that the command is about.
    pub(crate) fn is_of_use(self, registry: &Registry) -> bool {
        let has = |about: &str| registry.kinds().any(|kind| kind.starts_with(about));
        match self {
            Self::Rules => has("filter"),
            Self::Sa => has("esp-"),
            Self::Status | Self::Stats | Self::Reload | Self::Inspect => true,
        }
    }
}

/// Returns whether xdpfwd has a command with this name.
pub(crate) fn is_builtin(name: &str) -> bool {
    Command::named(name).is_some()
}
