//! `xdpfwd ctl`: asks the one that runs, over its control socket; and what that answers.
//!
//! A question is a line, `{"command":"status"}`; an answer one JSON object, with `error` in it if there is nothing else to say.

mod client;
mod server;
mod views;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub(crate) use client::run;
pub(crate) use server::Server;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    command: Command,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
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

/// Where it is, if nothing else is said.
pub(crate) const USUAL: &str = "/run/xdpfwd.sock";
