//! The built-in commands of `ctl`.

use clap::ValueEnum;

use crate::registry::Registry;

/// The built-in commands of `xdpfwd ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Command {
    /// Show ports with their modes, paths with their stages, and the uptime
    Status,
    /// Show the counters of ports, stages and drops
    Stats,
    /// Show CPU cycles by task and stage, and the kernel's share
    Ledger,
    /// Reload the configuration file: replace all stages, or none if it is invalid
    Reload,
    /// Show the rules of each filter, with the number of packets that matched each rule
    Rules,
    /// Show the security associations of ESP, with counters and limits, without keys
    Sa,
    /// Show the inspection tables of all stages
    Inspect,
}

impl Command {
    /// Returns the command called `name`, if it is built in.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Returns whether a program with these kinds of stages offers the command.
    pub(crate) fn is_supported_by(self, registry: &Registry) -> bool {
        let has_kind = |prefix: &str| registry.kinds().any(|kind| kind.starts_with(prefix));
        match self {
            Self::Rules => has_kind("filter"),
            Self::Sa => has_kind("esp-"),
            Self::Status | Self::Stats | Self::Ledger | Self::Reload | Self::Inspect => true,
        }
    }
}

pub(crate) fn is_builtin(name: &str) -> bool {
    Command::named(name).is_some()
}
