//! The command line.

mod demo;
mod demo_cycles;
mod demo_text;
mod manual;
mod options;
mod run;
mod screen;
mod stop;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use stop::Stop;

/// Measure packet forwarders in a lab of three network namespaces.
///
/// Veth pairs connect gen0 in namespace gen to fwd0 in namespace fwd, and fwd1 to sink0 in
/// namespace sink. The forwarder runs in namespace fwd, between a traffic generator and a sink that
/// counts the arriving frames. Needs root. The lab is removed at the end, also on Ctrl-C. The next
/// lab, or `xdpfwd-lab clean`, removes the leftovers of a killed lab.
#[derive(Parser)]
#[command(
    name = "xdpfwd-lab",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml
  sudo xdpfwd-lab run --seconds 5 -- ./bare_loop fwd0 fwd1 1
  sudo xdpfwd-lab up play            # builds a persistent lab and prints how to use it

Sizes are frame lengths in memory, without FCS: 60 is the \"64-byte packet\" of line-rate tables.

Exit codes: 0 success, 1 failure, 2 invalid usage, 3 missing privilege."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send traffic through xdpfwd and account for every frame
    #[command(after_help = "\
Runs `PATH --config FILE --json --interval 1` in namespace fwd (interfaces fwd0 and fwd1) and sends
traffic to fwd0. The exit code is 0 if frames were forwarded, xdpfwd leaked none, and the accounting
balances: offered = forwarded + all losses.

Examples:
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml \\
      --rate 500000 --size 1514")]
    Demo(demo::Arguments),
    /// Measure any forwarder
    #[command(after_help = "\
Runs COMMAND in namespace fwd and prints the offered and the forwarded traffic. The generator and
the sink count both, over a window in the middle of the run.

Examples:
  sudo xdpfwd-lab run --seconds 5 -- ./bare_loop fwd0 fwd1 1
  sudo xdpfwd-lab run --rate 100000 --check -- target/release/xdpfwd --config configs/cross-connect.toml")]
    Run(run::Arguments),
    /// Build a persistent lab and print how to use it
    Up(manual::Up),
    /// Remove a lab created with `up`
    Down(manual::Down),
    /// Send traffic out of an interface, inside a namespace, until Ctrl-C
    Generate(manual::Generate),
    /// Count frames arriving at an interface, inside a namespace, until Ctrl-C
    Sink(manual::SinkArguments),
    /// Remove leftovers of killed labs
    Clean,
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return xdpfwd_lab::print_usage(&error),
    };
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) => {
            xdpfwd_lab::print_error(&format!("xdpfwd-lab: {error:#}"));
            match error.downcast_ref::<xdpfwd_lab::Error>() {
                Some(xdpfwd_lab::Error::Privilege { .. }) => ExitCode::from(3),
                Some(xdpfwd_lab::Error::Value { .. }) => ExitCode::from(2),
                _ => ExitCode::from(1),
            }
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    let stop = Stop::new()?;
    match command {
        Command::Demo(arguments) => demo::run(&arguments, &stop),
        Command::Run(arguments) => run::run(&arguments, &stop),
        Command::Up(arguments) => manual::up(&arguments),
        Command::Down(arguments) => manual::down(&arguments),
        Command::Generate(arguments) => manual::generate(&arguments, &stop),
        Command::Sink(arguments) => manual::sink(&arguments, &stop),
        Command::Clean => manual::clean(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
