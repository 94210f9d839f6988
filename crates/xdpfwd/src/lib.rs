//! The command `xdpfwd`, an AF_XDP packet forwarding engine, as a library: a command that knows stages of one's own, too, is
//! this one with another registry. `xdpfwd --help` says how it is called.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     xdpfwd::main(&xdpfwd_stages::builtin()) // .with::<MyStageConfig>()
//! }
//! ```
#![forbid(unsafe_code)]

mod check;
mod cli;
mod config;
mod ctl;
mod doctor;
mod error_text;
#[cfg(feature = "esp")]
mod esp;
#[cfg(feature = "filter")]
mod filter;
mod logging;
mod registry;
mod reload;
mod run;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, LogFormat, USAGE};
use config::ThisMachine;

pub use registry::{Registry, Toml};

/// Does what the command line of this process says, with these kinds of stages for the configuration to name.
pub fn main(registry: &Registry) -> ExitCode {
    let Cli { command, run: cli } = Cli::parse();
    match &command {
        Some(Command::Doctor(arguments)) => return doctor::run(arguments, registry),
        #[cfg(feature = "filter")]
        Some(Command::Filter(cli::Filter::Test(arguments))) => return filter::test(arguments, registry),
        #[cfg(feature = "esp")]
        Some(Command::Esp(arguments)) => return esp::run(arguments),
        Some(Command::Ctl(arguments)) => return ctl::run(arguments),
        None => {}
    }
    let loaded = config::load(cli.config(), registry, &ThisMachine);
    // `--check` has no log: what it finds is its answer.
    let _flushed_at_the_end = (!cli.check).then(|| logging::start(cli.log_format));
    let format = if cli.check { LogFormat::Text } else { cli.log_format };
    let (plan, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.say(format);
            return ExitCode::from(USAGE);
        }
    };
    warnings.say(format);
    if cli.check {
        return check::run(&cli, &plan, &warnings, &ThisMachine);
    }
    run::run(plan, &cli, registry)
}

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
