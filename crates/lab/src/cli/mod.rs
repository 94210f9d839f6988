//! The command line.

mod by_hand;
mod demo;
mod demo_text;
mod run;
mod screen;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use xdpfwd_lab::Traffic;

/// How often a wait looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(20);

/// A lab for packet forwarders: three network namespaces, a generator and a sink.
///
/// gen0 in namespace gen is joined to fwd0 in namespace fwd, and fwd1 there to sink0 in namespace sink. A forwarder that
/// carries frames from fwd0 to fwd1 is run in the middle, driven and measured. Needs root; everything is removed at the
/// end, also on Ctrl-C. What a killed lab leaves behind is removed by the next one, or by `xdpfwd-lab clean`.
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
    /// Runs `PATH --config FILE --json --interval 1` in the middle (its interfaces are fwd0 and fwd1), offers traffic to
    /// fwd0, and says what became of every frame. Exit code 0 only if something was forwarded, xdpfwd leaked no frame, and
    /// the books balance: offered = forwarded + every loss, each with its place.
    #[command(after_help = "\
Examples:
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml
  sudo xdpfwd-lab demo --xdpfwd target/release/xdpfwd --config configs/cross-connect.toml --rate 500000 --size 1514")]
    Demo(demo::Arguments),
    /// Measure any forwarder
    ///
    /// Runs COMMAND in the middle and prints what was offered and what arrived at the sink, both counted by the lab's own
    /// programs over a window in the middle of the run.
    #[command(after_help = "\
Examples:
  sudo xdpfwd-lab run --seconds 5 -- ./bare_loop fwd0 fwd1 1
  sudo xdpfwd-lab run --rate 100000 --check -- target/release/xdpfwd --config configs/cross-connect.toml")]
    Run(run::Arguments),
    /// Build a lab that stays, and print how to use it
    Up(by_hand::Up),
    /// Remove a lab that was made with `up`
    Down(by_hand::Down),
    /// Send traffic out of an interface, inside a namespace, until Ctrl-C
    Generate(by_hand::Generate),
    /// Count what arrives at an interface, inside a namespace, until Ctrl-C
    Sink(by_hand::SinkArguments),
    /// Remove what killed labs left behind
    Clean,
}

/// What the generator sends.
#[derive(Args, Clone)]
struct TrafficArguments {
    /// Frame length in memory in bytes, without FCS: 60 to MTU + 14
    #[arg(long, default_value_t = 60, value_name = "BYTES")]
    size: u16,
    /// Number of flows (UDP source ports from 1024), 1-64512
    #[arg(long, default_value_t = 16)]
    flows: u32,
    /// Packets per second [default: flat out]
    #[arg(long, value_name = "PPS")]
    rate: Option<u64>,
    /// Core the generator is pinned to
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    core: usize,
}

impl TrafficArguments {
    fn traffic(&self) -> Traffic {
        let traffic = Traffic::new().size(self.size).flows(self.flows).core(self.core);
        match self.rate {
            Some(rate) => traffic.rate(rate),
            None => traffic,
        }
    }

    /// The MTU that carries these frames.
    fn mtu(&self) -> u16 {
        self.size.saturating_sub(14).max(1500)
    }
}

/// Parses the command line and does what it says.
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

/// Ctrl-C or SIGTERM: seen by every wait, so that what was built is taken down in order.
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("installing a signal handler")?;
        }
        Ok(Self(flag))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails if it is set.
    fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted; the forwarder is ended and the lab removed");
        }
        Ok(())
    }

    /// Sleeps until `time` after `from`; returns early when set.
    fn sleep_until(&self, from: Instant, time: Duration) {
        while !self.is_set() {
            match time.checked_sub(from.elapsed()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(TICK)),
                _ => return,
            }
        }
    }
}

/// Writes to stdout. A reader that went away (`| head`) is no failure of ours.
fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to stdout"),
        _ => Ok(()),
    }
}

/// A time on the command line: seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("use seconds, 0-86400, fractions allowed".into()),
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
