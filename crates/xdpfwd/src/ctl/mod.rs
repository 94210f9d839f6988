//! `xdpfwd ctl`: queries a running xdpfwd over its control socket.
//!
//! A request is a line with a JSON object such as `{"command":"status"}`. The key `arguments`
//! contains the arguments of the command, if any, as a list of strings. A response is one JSON
//! object. If the request failed, the response has the key `error`.

mod client;
pub(crate) mod command;
mod server;
mod views;

use serde::{Deserialize, Serialize};

pub(crate) use client::run;
pub(crate) use command::Command;
pub(crate) use server::Server;

/// A request to a running xdpfwd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
}

/// Returns the path of the control socket that `ctl` connects to by default.
pub(crate) fn default_socket(program: &str) -> String {
    format!("/run/{program}.sock")
}
