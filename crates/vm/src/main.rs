//! `xdpfwd-vm`: boots a Debian kernel in QEMU on the host's file system and runs a test suite. See
//! docs/testing.md.
#![forbid(unsafe_code)]

mod apt;
mod cargo;
mod initramfs;
mod kernel;
mod machine;
mod nic;
mod suite;
mod tool;

use std::fmt;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use kernel::Kernel;
use machine::Machine;
use suite::{InCi, Suite};

/// Runs test suites on other kernels.
///
/// The kernel comes from Debian's packages, pinned by checksum and cached outside the repository.
/// It boots in QEMU's emulation (no KVM needed), sees the host's file system read-only with a
/// writable layer in memory, runs one command as root, and returns the command's exit status. Once
/// the packages are cached, neither root nor a network is needed.
#[derive(Parser)]
#[command(name = "xdpfwd-vm", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the suites and kernels
    List,
    /// Downloads missing kernel packages, and QEMU from Debian's backports if the installed one
    /// lacks igb
    Prepare {
        /// Only this kernel, by its series
        #[arg(long)]
        kernel: Option<String>,
    },
    /// Runs suites (default: all) on each of their kernels, with one boot each
    Run {
        /// Their names, as `list` shows them
        suites: Vec<String>,
        #[command(flatten)]
        boot: Boot,
        /// Only the CI selection, as `list` shows it: each suite on its main kernel
        #[arg(long)]
        ci: bool,
        /// Number of parallel boots; each emulation uses one core
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
        jobs: u8,
        /// Arguments for the test binary, such as the name of a test
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Runs a command in the machine, in the current folder
    Exec {
        #[command(flatten)]
        boot: Boot,
        /// Leave out the network interfaces
        #[arg(long)]
        no_nics: bool,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Boot {
    /// Only on this kernel, by its series
    #[arg(long)]
    kernel: Option<String>,
    /// Seconds after which the machine is switched off, including the boot
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
}

impl Boot {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Exit status when the machine reports no status of the command.
const NO_STATUS: u8 = 125;

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xdpfwd-vm: {error:#}");
            ExitCode::from(NO_STATUS)
        }
    }
}

fn act(command: Command) -> Result<u8> {
    match command {
        Command::List => {
            list()?;
            Ok(0)
        }
        Command::Prepare { kernel } => {
            apt::require_qemu()?;
            for kernel in chosen_kernels(kernel.as_deref())? {
                kernel.fetch()?;
            }
            Ok(0)
        }
        Command::Run { suites, boot, ci, jobs, arguments } => {
            run(&suites, &boot, ci, jobs, &arguments)
        }
        Command::Exec { boot, no_nics, command } => {
            apt::require_qemu()?;
            let kernels = chosen_kernels(boot.kernel.as_deref())?;
            let kernel = kernels.first().context("no kernel is known")?;
            let nics = if no_nics { Vec::new() } else { nic::all() };
            Machine { kernel, nics, boot: "", timeout: boot.timeout(), prefix: "" }
                .run(&command, &[])
        }
    }
}

fn list() -> Result<()> {
    println!("suites");
    for suite in suite::ALL {
        println!("  {:<12}{}", suite.name, suite.about);
        for on in suite.kernels {
            let ci = match on.ci {
                InCi::Whole => "all tests".to_owned(),
                InCi::Tests(tests) => tests.join(", "),
                InCi::Nothing => "no test".to_owned(),
            };
            println!("              on {:<5} in CI: {ci}", on.series);
        }
    }
    println!("kernels, newest first");
    for kernel in kernel::pinned()? {
        println!("  {:<12}{} of {}", kernel.series, kernel.release, kernel.suite);
    }
    Ok(())
}

fn chosen_kernels(series: Option<&str>) -> Result<Vec<Kernel>> {
    let mut kernels = kernel::pinned()?;
    if let Some(series) = series {
        let known: Vec<String> = kernels.iter().map(|kernel| kernel.series.clone()).collect();
        kernels.retain(|kernel| kernel.series == series);
        if kernels.is_empty() {
            bail!("no kernel {series:?}: there are {}", known.join(", "));
        }
    }
    Ok(kernels)
}

/// A suite on a kernel: one boot.
struct Leg<'a> {
    suite: &'static Suite,
    kernel: &'a Kernel,
    /// Names of the tests to run; empty means all.
    tests: &'static [&'static str],
}

/// Returns the boots of a run.
fn legs<'a>(suites: &[&'static Suite], kernels: &'a [Kernel], ci: bool) -> Vec<Leg<'a>> {
    let mut legs = Vec::new();
    for &suite in suites {
        for kernel in kernels {
            let tests: &[&str] = match suite.on(kernel).map(|on| &on.ci) {
                None => continue,
                Some(InCi::Nothing) if ci => continue,
                Some(InCi::Tests(tests)) if ci => tests,
                Some(_) => &[],
            };
            legs.push(Leg { suite, kernel, tests });
        }
    }
    legs
}

/// Runs suites on kernels; the exit status is the first that is not 0.
fn run(names: &[String], boot: &Boot, ci: bool, jobs: u8, arguments: &[String]) -> Result<u8> {
    let suites = suite::chosen(names)?;
    let kernels = chosen_kernels(boot.kernel.as_deref())?;
    let legs = legs(&suites, &kernels, ci);
    if legs.is_empty() {
        bail!("none of these suites runs on that kernel: see `xdpfwd-vm list`");
    }
    apt::require_qemu()?;
    let commands = legs.iter().map(|leg| leg.command(arguments)).collect::<Result<Vec<_>>>()?;
    // Fetch before booting, so that no two boots fetch the same kernel.
    for leg in &legs {
        leg.kernel.fetch()?;
    }
    let next = AtomicUsize::new(0);
    let run_legs = || {
        let mut ended = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((leg, command)) = legs.get(index).zip(commands.get(index)) else {
                return ended;
            };
            ended.push((index, leg.run(command, boot, jobs > 1)));
        }
    };
    let mut ended: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(run_legs)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    ended.sort_by_key(|(index, _)| *index);
    println!("xdpfwd-vm: boot and tests took");
    for (index, ended) in &ended {
        match ended {
            Ok((status, time)) => {
                println!("{:>8} s  exit status {status}  {}", time.as_secs(), legs[*index])
            }
            Err(error) => println!("       – s  {}: {error:#}", legs[*index]),
        }
    }
    let statuses: Result<Vec<u8>> =
        ended.into_iter().map(|(_, ended)| ended.map(|(status, _)| status)).collect();
    Ok(statuses?.into_iter().find(|status| *status != 0).unwrap_or(0))
}

impl Leg<'_> {
    /// Builds the suite's test binary and returns the command to run in the machine.
    fn command(&self, arguments: &[String]) -> Result<Vec<String>> {
        let binary = cargo::test_binary(self.suite)?;
        let mut command =
            vec![binary.display().to_string(), "--test-threads=1".into(), "--nocapture".into()];
        if !self.tests.is_empty() {
            cargo::require_tests(&binary, self.tests)?;
            command.push("--exact".into());
            command.extend(self.tests.iter().map(ToString::to_string));
        }
        command.extend(arguments.iter().cloned());
        Ok(command)
    }

    /// Boots and runs the command. Returns its exit status and the total time.
    fn run(
        &self,
        command: &[String],
        boot: &Boot,
        is_one_of_several: bool,
    ) -> Result<(u8, Duration)> {
        let Self { suite, kernel, .. } = self;
        println!("xdpfwd-vm: {self}");
        let environment = [("XDPFWD_VM_ZERO_COPY", if kernel.zero_copy { "1" } else { "0" })];
        let prefix = if is_one_of_several {
            format!("{} {}: ", suite.name, kernel.series)
        } else {
            String::new()
        };
        let (nics, timeout) = (suite.nics(), boot.timeout());
        let machine = Machine { kernel, nics, boot: suite.boot, timeout, prefix: &prefix };
        let start = Instant::now();
        let status = machine.run(command, &environment)?;
        println!("xdpfwd-vm: {self}: exit status {status} after {} s", start.elapsed().as_secs());
        Ok((status, start.elapsed()))
    }
}

impl fmt::Display for Leg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "suite {} on Linux {}", self.suite.name, self.kernel.release)?;
        match self.tests.len() {
            0 => Ok(()),
            tests => write!(f, " ({tests} of its tests)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn shown(legs: &[Leg<'_>]) -> Vec<String> {
        legs.iter()
            .map(|leg| format!("{} {} {}", leg.suite.name, leg.kernel.series, leg.tests.len()))
            .collect()
    }

    #[test]
    fn full_run_has_all_tests_on_every_kernel() {
        let kernels = kernel::pinned().unwrap();
        let all: Vec<&Suite> = suite::ALL.iter().collect();
        let legs = shown(&legs(&all, &kernels, false));
        assert_eq!(legs.len(), suite::ALL.iter().map(|suite| suite.kernels.len()).sum::<usize>());
        assert!(legs.contains(&"zero-copy 6.12 0".to_owned()), "{legs:?}");
        assert!(legs.iter().all(|leg| leg.ends_with(" 0")), "{legs:?}");
    }

    #[test]
    fn ci_run_contains_only_the_ci_selection() {
        let kernels = kernel::pinned().unwrap();
        let all: Vec<&Suite> = suite::ALL.iter().collect();
        let legs = shown(&legs(&all, &kernels, true));
        assert_eq!(
            legs,
            ["zero-copy 7.2 0", "zero-copy 6.12 5", "esp 7.2 0", "doctor 7.2 0", "isolated 7.2 0"]
        );
    }
}
