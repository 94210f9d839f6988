//! The command line.

mod by_hand;
mod demo;
mod demo_text;
mod options;
mod run;
mod screen;
mod stop;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use stop::Stop;

/// A lab for packet forwarders: three network namespaces, a generator and a sink.
///
/// Veth pairs connect gen0 in namespace gen to fwd0 in namespace fwd, and fwd1 to sink0 in
/// namespace sink. A forwarder from fwd0 to fwd1 runs in namespace fwd and is measured. Needs root.
/// Everything is removed at the end, also on Ctrl-C. The next lab, or `xdpfwd-lab clean`, removes
/// the leftovers of a killed lab.
#[derive(Parser)]
#[command(
    name = "xdpfwd-lab",
    version,
    max_term_width = 110,
    after_help = "\
Exit codes: 0 as asked, 1 failed, 2 usage, 3 a privilege is missing.

Sizes are frame lengths in memory, without FCS: 60 is the \"64-byte packet\" of the line-rate tables.

Examples:
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml
  sudo xdpfwd-lab run --seconds 5 -- ./bare_loop fwd0 fwd1 1
  sudo xdpfwd-lab up play            # a lab that stays; prints how to use it"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive xdpfwd and account for every frame
    ///
    /// Runs `PATH --config FILE --json --interval 1` in namespace fwd (interfaces fwd0 and fwd1),
    /// offers traffic to fwd0, and accounts for every frame. Exit code 0 only if frames were
    /// forwarded, xdpfwd leaked none, and the account balances: offered = forwarded + all losses.
    #[command(after_help = "\
Examples:
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml --rate 500000 --size 1514")]
    Demo(demo::Arguments),
    /// Measure any forwarder
    ///
    /// Runs COMMAND in namespace fwd and prints the offered and the forwarded traffic, both counted
    /// by the lab's own programs over a window in the middle of the run.
    #[command(after_help = "\
Examples:
  sudo xdpfwd-lab run --seconds 5 -- ./bare_loop fwd0 fwd1 1
  sudo xdpfwd-lab run --rate 100000 --check -- target/release/xdpfwd --config configs/cross-connect.toml")]
    Run(run::Arguments),
    /// Build a persistent lab and print how to use it
    Up(by_hand::Up),
    /// Remove a lab created with `up`
    Down(by_hand::Down),
    /// Send traffic out of an interface, inside a namespace, until Ctrl-C
    Generate(by_hand::Generate),
    /// Count frames arriving at an interface, inside a namespace, until Ctrl-C
    Sink(by_hand::SinkArguments),
    /// Remove leftovers of killed labs
    Clean,
}

/// Parses and executes the command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match act(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xdpfwd-lab: {error:#}");
            match error.downcast_ref::<xdpfwd_lab::Error>() {
                Some(xdpfwd_lab::Error::Privilege { .. }) => ExitCode::from(3),
                Some(xdpfwd_lab::Error::Value { .. }) => ExitCode::from(2),
                _ => ExitCode::from(1),
            }
        }
    }
}

fn act(command: Command) -> Result<ExitCode> {
    let stop = Stop::new()?;
    match command {
        Command::Demo(arguments) => demo::run(&arguments, &stop),
        Command::Run(arguments) => run::run(&arguments, &stop),
        Command::Up(arguments) => by_hand::up(&arguments),
        Command::Down(arguments) => by_hand::down(&arguments),
        Command::Generate(arguments) => by_hand::generate(&arguments, &stop),
        Command::Sink(arguments) => by_hand::sink(&arguments, &stop),
        Command::Clean => by_hand::clean(),
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
