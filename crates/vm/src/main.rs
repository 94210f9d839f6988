//! `xdpfwd-vm`: boots a Debian kernel under QEMU's emulation, on the host's own file system, and runs a test suite in it.
//! docs/testing.md says what for.
#![forbid(unsafe_code)]

mod apt;
mod cargo;
mod initramfs;
mod kernel;
mod machine;
mod nic;
mod suite;
mod tool;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use kernel::Kernel;
use machine::Machine;
use suite::Suite;

/// Runs test suites on kernels that this machine does not run.
///
/// The kernel comes from Debian's packages, pinned by checksum and cached outside the repository. It boots in QEMU's
/// emulation (no KVM needed), sees the host's file system read-only with a writable layer in memory, runs one command as
/// root, and the command's exit status is this one's. Neither root nor a network is needed once the packages are there.
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
    /// Gets what is missing: the kernels' packages, and QEMU from Debian's backports where the installed one has no igb
    Prepare {
        /// Only this kernel, by its series
        #[arg(long)]
        kernel: Option<String>,
    },
    /// Runs suites, each on each of its kernels, with one boot each; all of them if none is named
    Run {
        /// Their names, as `list` shows them
        suites: Vec<String>,
        #[command(flatten)]
        boot: Boot,
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
    /// Seconds after which the machine is switched off: boot, command and all
    #[arg(long, default_value_t = 900)]
    timeout: u64,
}

impl Boot {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// What a command could not be brought to: the machine did not say how it ended.
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
        Command::Run { suites, boot, arguments } => run(&suites, &boot, &arguments),
        Command::Exec { boot, no_nics, command } => {
            apt::require_qemu()?;
            let kernels = chosen_kernels(boot.kernel.as_deref())?;
            let kernel = kernels.first().context("no kernel is known")?;
            let nics = if no_nics { Vec::new() } else { nic::all() };
            Machine { kernel, nics, boot: "", timeout: boot.timeout() }.run(&command, &[])
        }
    }
}

fn list() -> Result<()> {
    println!("suites");
    for suite in suite::ALL {
        println!("  {:<12}{} (on {})", suite.name, suite.about, suite.kernels.join(", "));
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

/// Runs suites on kernels; the exit status is the first that is not 0.
fn run(names: &[String], boot: &Boot, arguments: &[String]) -> Result<u8> {
    let suites = suite::chosen(names)?;
    let kernels = chosen_kernels(boot.kernel.as_deref())?;
    let legs: Vec<(&Suite, &Kernel)> = suites
        .iter()
        .flat_map(|suite| kernels.iter().filter(|kernel| suite.runs_on(kernel)).map(move |kernel| (*suite, kernel)))
        .collect();
    if legs.is_empty() {
        bail!("none of these suites runs on that kernel: see `xdpfwd-vm list`");
    }
    apt::require_qemu()?;
    let mut worst = 0;
    for (suite, kernel) in legs {
        let binary = cargo::test_binary(suite)?;
        println!("xdpfwd-vm: suite {} on Linux {}", suite.name, kernel.release);
        let mut command = vec![binary.display().to_string(), "--test-threads=1".into(), "--nocapture".into()];
        command.extend(arguments.iter().cloned());
        let environment = [("XDPFWD_VM_ZERO_COPY", if kernel.zero_copy { "1" } else { "0" })];
        let machine = Machine { kernel, nics: suite.nics(), boot: suite.boot, timeout: boot.timeout() };
        let status = machine.run(&command, &environment)?;
        println!("xdpfwd-vm: suite {} on Linux {}: exit status {status}", suite.name, kernel.release);
        if worst == 0 {
            worst = status;
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
