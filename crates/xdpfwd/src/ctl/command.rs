//! The commands of `ctl` that xdpfwd has.

use clap::ValueEnum;

use crate::registry::Registry;

/// Commands of `xdpfwd ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Command {
    /// Show ports with their modes, paths with their stages, and the uptime
    Status,
    /// Show the counters of ports, stages and drops
    Stats,
    /// Reload the configuration file: replace all stages, or none if it is invalid
    Reload,
    /// Show the rules of each filter, with the packets that each matched
    Rules,
    /// Show the security associations of ESP, with counters and limits, without keys
    Sa,
    /// Show the inspection tables of all stages
    Inspect,
}

impl Command {
    /// Returns the command with a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Returns whether the program can have stages that the command is about.
    pub(crate) fn is_supported_by(self, registry: &Registry) -> bool {
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
