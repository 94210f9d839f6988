//! `xdpfwd`: an AF_XDP packet forwarding engine. `xdpfwd --help` says how it is called.
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let loaded = config::load(&cli.config, &Registry::builtin(), &ThisMachine);
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
    run::run(plan, &cli)
}
