//! The command `xdpfwd`, an AF_XDP packet forwarding engine, as a library: a command that knows stages of one's own, too, is
//! this one with another registry. `xdpfwd --help` says how it is called.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use pipeline::Registry;
//!
//! fn main() -> ExitCode {
//!     xdpfwd::main(&Registry::builtin()) // .with::<MyStageConfig>()
//! }
//! ```
#![forbid(unsafe_code)]

mod check;
mod cli;
mod config;
mod logging;
mod run;
mod text;

use std::process::ExitCode;

use clap::Parser as _;
use pipeline::Registry;

use cli::{Cli, LogFormat};
use config::ThisMachine;

/// The command line or the configuration is no good.
const USAGE: u8 = 2;

/// Does what the command line of this process says, with these kinds of stages for the configuration to name.
pub fn main(registry: &Registry) -> ExitCode {
    let cli = Cli::parse();
    let (plan, warnings) = match config::load(&cli.config, registry, &ThisMachine) {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.print();
            return ExitCode::from(USAGE);
        }
    };
    if cli.check {
        warnings.print();
        return check::run(&cli, &plan, &warnings, &ThisMachine);
    }
    let _flushed_at_the_end = logging::start(cli.log_format);
    match cli.log_format {
        LogFormat::Text => warnings.print(),
        LogFormat::Json => warnings.iter().for_each(config::Diagnostic::log),
    }
    run::run(plan, &cli)
}
