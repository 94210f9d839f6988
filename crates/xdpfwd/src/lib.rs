//! The command `xdpfwd`, an AF_XDP packet forwarding engine, as a library. An [`App`] is the same command under another
//! name, with stages, `ctl` commands, subcommands and hooks of its own.
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
mod ctl;
mod doctor;
mod error_text;
#[cfg(feature = "esp")]
mod esp;
#[cfg(feature = "filter")]
mod filter;
mod logging;
mod program;
mod registry;
mod reload;
mod report;
mod run;
#[cfg(feature = "testing")]
mod testing;
mod text;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use cli::{Cli, Command, LogFormat, USAGE};
use config::ThisMachine;

pub use app::{App, BoxError};
pub use clap;
pub use registry::{Registry, Toml};
pub use xdpfwd_engine::{Handle, HandleError};

/// Runs the command `xdpfwd` by the arguments of this process, with these kinds of stages. A program of another name, with
/// commands and hooks of its own, is an [`App`].
pub fn main(registry: &Registry) -> ExitCode {
    App::new("xdpfwd", env!("CARGO_PKG_VERSION")).stages(registry.clone()).main()
}

fn run_app(app: &App, arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    program::set_name(app.name);
    let matches = cli::command(app).get_matches_from(arguments);
    if let Some((name, matches)) = matches.subcommand()
        && let Some((_, run)) = app.subcommands.iter().find(|(own, _)| own.get_name() == name)
    {
        return run(matches);
    }
    let Cli { command, run: cli } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match &command {
        Some(Command::Doctor(arguments)) => return doctor::run(arguments, &app.registry),
        #[cfg(feature = "filter")]
        Some(Command::Filter(cli::Filter::Test(arguments))) => return filter::test(arguments, &app.registry),
        #[cfg(feature = "esp")]
        Some(Command::Esp(arguments)) => return esp::run(arguments),
        Some(Command::Ctl(arguments)) => return ctl::run(arguments, app),
        None => {}
    }
    let loaded = config::load(cli.config(), &app.registry, &ThisMachine);
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
    run::run(plan, &cli, app)
}

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
