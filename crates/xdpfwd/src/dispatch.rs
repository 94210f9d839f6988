//! Parses a program's command line and runs the command.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::app::App;
use crate::cli::{self, Cli, Command, LogFormat, USAGE};
use crate::config::{self, ThisMachine};
#[cfg(feature = "esp")]
use crate::esp;
#[cfg(feature = "filter")]
use crate::filter;
use crate::output;
#[cfg(feature = "top")]
use crate::top;
use crate::{check, ctl, doctor, logging, program};

impl App {
    /// Runs the program with the arguments of this process.
    pub fn main(self) -> ExitCode {
        self.main_with(std::env::args_os())
    }

    /// Runs the program with `arguments`, the first of which is the name of the program.
    pub fn main_with(
        self,
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> ExitCode {
        run(&self, arguments)
    }
}

fn run(app: &App, arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    program::set_name(app.name);
    let matches = match cli::command(app).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return print_usage(&error),
    };
    if let Some((name, matches)) = matches.subcommand()
        && let Some((_, run)) =
            app.subcommands.iter().find(|(command, _)| command.get_name() == name)
    {
        return run(matches);
    }
    let Cli { command, run: cli } = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error),
    };
    match &command {
        Some(Command::Doctor(arguments)) => return doctor::run(arguments, &app.registry),
        #[cfg(feature = "filter")]
        Some(Command::Filter(cli::Filter::Test(arguments))) => {
            return filter::test(arguments, &app.registry);
        }
        #[cfg(feature = "esp")]
        Some(Command::Esp(arguments)) => return esp::run(arguments),
        Some(Command::Ctl(arguments)) => return ctl::run(arguments),
        #[cfg(feature = "top")]
        Some(Command::Top(arguments)) => return top::run(arguments),
        None => {}
    }
    let machine = ThisMachine::default();
    let loaded = config::load(cli.config(), &app.registry, &machine, cli.file_policy());
    // `--check` starts no log: it prints errors and warnings to stderr.
    let _log_guard = (!cli.check).then(|| logging::start(cli.log_format));
    let format = if cli.check { LogFormat::Text } else { cli.log_format };
    let (plan, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.emit(format);
            return ExitCode::from(USAGE);
        }
    };
    warnings.emit(format);
    if cli.check {
        return check::run(&cli, &plan, &warnings, &machine);
    }
    crate::run::run(plan, machine.has_missing_interface(), &cli, app)
}

/// Prints a help text or a usage error.
fn print_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        // Ignore write errors, because the exit status also reports the failure.
        return ExitCode::from(USAGE);
    }
    output::exit_code(printed.map_err(output::write_failed), ExitCode::SUCCESS)
}
