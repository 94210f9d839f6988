//! `xdpfwd ctl`: queries a running xdpfwd over its control socket.
//!
//! A request is a line with a JSON object such as `{"command":"status"}`; its key `arguments`, if
//! any, is a list of strings. A response is one JSON object, with the key `error` if the request
//! failed. The arguments of `rules` and `inspect` select rows: `--from=N`, `--count=N` and
//! `--matching=TEXT`.

mod client;
pub(crate) mod command;
pub(crate) mod escape;
mod ledger;
mod listing;
mod receive;
mod server;
mod text;
mod views;
mod window;

use serde::{Deserialize, Serialize};

pub(crate) use client::run;
#[cfg(feature = "top")]
pub(crate) use client::{exit_code, fetch};
pub(crate) use command::Command;
pub(crate) use server::Server;
pub(crate) use window::Window;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
}

pub(crate) fn default_socket(program: &str) -> String {
    format!("/run/{program}.sock")
}
