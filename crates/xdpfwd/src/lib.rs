//! The command `xdpfwd`, an AF_XDP packet forwarding engine, as a library. An [`App`] is the same
//! command under another name, with additional stages, `ctl` commands, subcommands and hooks.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     xdpfwd::App::new("my-forwarder", env!("CARGO_PKG_VERSION"))
//!         .stages(xdpfwd_stages::builtin())
//!         // .stage::<MyStageConfig>()
//!         .main()
//! }
//! ```
#![forbid(unsafe_code)]

mod app;
mod check;
mod cli;
mod config;
mod costs;
mod ctl;
mod dispatch;
mod doctor;
mod error_text;
#[cfg(feature = "esp")]
mod esp;
#[cfg(feature = "filter")]
mod filter;
mod host_checks;
mod kernel_ledger_text;
mod logging;
mod output;
mod program;
mod registry;
mod reload;
mod report;
mod run;
#[cfg(feature = "testing")]
mod testing;
mod text;
mod text_table;
#[cfg(feature = "top")]
mod top;
mod trusted_path;

use std::process::ExitCode;

pub use app::{App, BoxError};
/// The version of clap for use with [`App::ctl_parsed`] and [`App::subcommand`].
pub use clap;
pub use registry::{Registry, Toml};
pub use xdpfwd_engine::{Handle, HandleError};

/// Runs the command `xdpfwd` with the arguments of this process and the kinds of stages in
/// `registry`. To set another name or add commands and hooks, use [`App`].
pub fn main(registry: &Registry) -> ExitCode {
    App::new("xdpfwd", env!("CARGO_PKG_VERSION")).stages(registry.clone()).main()
}

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
