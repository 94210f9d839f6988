//! `xdpfwd ctl`: asks the one that runs, over its control socket; and what that answers.
//!
//! A question is a line, `{"command":"status"}`, with a list of strings as `arguments` if the command takes any; an answer one JSON object, with `error` in it if there is nothing else to say.

mod client;
mod server;
mod views;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub(crate) use client::run;
pub(crate) use server::Server;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    command: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
}

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
    fn named(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }
}

/// Returns whether xdpfwd has a command with this name.
pub(crate) fn is_builtin(name: &str) -> bool {
    Command::named(name).is_some()
}

/// Returns the path of the control socket that `ctl` connects to by default.
pub(crate) fn default_socket(program: &str) -> String {
    format!("/run/{program}.sock")
}
