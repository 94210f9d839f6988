//! `xdpfwd-vm` boots a Debian kernel in QEMU, with the host's file system, and runs a test suite or
//! another command there. See docs/testing.md.
#![forbid(unsafe_code)]

mod apt;
mod cargo;
mod initramfs;
mod kernel;
mod machine;
mod nic;
mod output;
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
use output::{INTERNAL_ERROR, print_line};
use suite::{CiTests, Suite};

/// Run test suites on other Linux kernels, in an emulated machine.
///
/// Run xdpfwd-vm in the repository. The machine boots a Debian kernel in QEMU (without KVM) and
/// runs one command as root. It sees the host's file system read-only under a writable layer in
/// memory. Kernel packages are pinned by checksum and cached in ~/.cache/xdpfwd-vm. Once QEMU is
/// installed and the kernels are cached, neither root nor a network is needed.
#[derive(Parser)]
#[command(
    name = "xdpfwd-vm",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  xdpfwd-vm list
  xdpfwd-vm prepare
  xdpfwd-vm run zero-copy --kernel 7.2
  xdpfwd-vm exec -- uname -r

Exit status: that of the command; 125 if xdpfwd-vm itself fails."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the suites and kernels
    List,
    /// Download missing kernels, and install QEMU unless the installed QEMU supports igb
    Prepare {
        /// Only the kernel of this series, for example 7.2
        #[arg(long, value_name = "SERIES")]
        kernel: Option<String>,
    },
    /// Run suites on their kernels, one boot for each suite and kernel
    Run {
        /// Suites, as `list` shows them [default: all]
        suites: Vec<String>,
        #[command(flatten)]
        boot: Boot,
        /// Only the tests that CI runs, as `list` shows them
        #[arg(long)]
        ci: bool,
        /// Number of machines that run in parallel; each uses one core
        #[arg(
            long,
            value_name = "N",
            default_value_t = 1,
            value_parser = clap::value_parser!(u8).range(1..)
        )]
        jobs: u8,
        /// Arguments for the test binary, such as the name of a test
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a command in the machine as root, in the current folder
    Exec {
        #[command(flatten)]
        boot: Boot,
        /// Start the machine without network interfaces
        #[arg(long)]
        no_nics: bool,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Boot {
    /// Only the kernel of this series, for example 7.2
    #[arg(long, value_name = "SERIES")]
    kernel: Option<String>,
    /// Seconds, including the boot, after which the machine is switched off
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
}

impl Boot {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::print_usage(&error),
    };
    match execute(cli.command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            crate::output::print_error(&format!("xdpfwd-vm: {error:#}"));
            ExitCode::from(INTERNAL_ERROR)
        }
    }
}

fn execute(command: Command) -> Result<u8> {
    match command {
        Command::List => {
            list()?;
            Ok(0)
        }
        Command::Prepare { kernel } => {
            apt::require_qemu()?;
            for kernel in select_kernels(kernel.as_deref())? {
                kernel.fetch()?;
            }
            Ok(0)
        }
        Command::Run { suites, boot, ci, jobs, arguments } => {
            run(&suites, &boot, ci, jobs, &arguments)
        }
        Command::Exec { boot, no_nics, command } => {
            apt::require_qemu()?;
            let kernels = select_kernels(boot.kernel.as_deref())?;
            let kernel = kernels.first().context("crates/vm/kernels.toml has no kernel")?;
            let nics = if no_nics { Vec::new() } else { nic::all() };
            Machine { kernel, nics, kernel_parameters: "", timeout: boot.timeout(), prefix: "" }
                .run(&command, &[])
        }
    }
}

fn list() -> Result<()> {
    print_line("suites")?;
    for suite in suite::ALL {
        print_line(&format!("  {:<12}{}", suite.name, suite.about))?;
        for suite_kernel in suite.kernels {
            let ci = match suite_kernel.ci {
                CiTests::All => "all tests".to_owned(),
                CiTests::Only(tests) => tests.join(", "),
                CiTests::None => "no tests".to_owned(),
            };
            print_line(&format!("              on {:<5} in CI: {ci}", suite_kernel.series))?;
        }
    }
    print_line("kernels, newest first")?;
    for kernel in kernel::pinned()? {
        let Kernel { series, release, debian_suite, .. } = kernel;
        print_line(&format!("  {series:<12}{release} of {debian_suite}"))?;
    }
    Ok(())
}

fn select_kernels(series: Option<&str>) -> Result<Vec<Kernel>> {
    let mut kernels = kernel::pinned()?;
    if let Some(series) = series {
        let known: Vec<String> = kernels.iter().map(|kernel| kernel.series.clone()).collect();
        kernels.retain(|kernel| kernel.series == series);
        if kernels.is_empty() {
            bail!("unknown kernel {series:?}; use {}", known.join(", "));
        }
    }
    Ok(kernels)
}

struct SuiteRun<'a> {
    suite: &'static Suite,
    kernel: &'a Kernel,
    /// The names of the tests to run; empty for all.
    tests: &'static [&'static str],
}

/// Returns a run for each suite on each of its kernels. With `ci`, returns only the runs and tests
/// of CI.
fn plan_runs<'a>(suites: &[&'static Suite], kernels: &'a [Kernel], ci: bool) -> Vec<SuiteRun<'a>> {
    let mut runs = Vec::new();
    for &suite in suites {
        for kernel in kernels {
            let tests: &[&str] =
                match suite.suite_kernel(kernel).map(|suite_kernel| &suite_kernel.ci) {
                    None => continue,
                    Some(CiTests::None) if ci => continue,
                    Some(CiTests::Only(tests)) if ci => tests,
                    Some(_) => &[],
                };
            runs.push(SuiteRun { suite, kernel, tests });
        }
    }
    runs
}

/// Runs suites on kernels. Returns the first exit status that is not 0, or else 0.
fn run(names: &[String], boot: &Boot, ci: bool, jobs: u8, arguments: &[String]) -> Result<u8> {
    let suites = suite::select(names)?;
    let kernels = select_kernels(boot.kernel.as_deref())?;
    let runs = plan_runs(&suites, &kernels, ci);
    if runs.is_empty() {
        bail!("no selected suite runs on a selected kernel; see `xdpfwd-vm list`");
    }
    apt::require_qemu()?;
    let commands = runs.iter().map(|run| run.command(arguments)).collect::<Result<Vec<_>>>()?;
    // Fetch all kernels before the first boot, so that parallel boots do not fetch the same kernel.
    for run in &runs {
        run.kernel.fetch()?;
    }
    // The output of parallel machines is mixed, so each line names its machine.
    let use_prefix = jobs > 1;
    let next_index = AtomicUsize::new(0);
    let run_pending = || {
        let mut results = Vec::new();
        loop {
            let index = next_index.fetch_add(1, Ordering::Relaxed);
            let Some((run, command)) = runs.get(index).zip(commands.get(index)) else {
                return results;
            };
            results.push((index, run.run(command, boot, use_prefix)));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(run_pending)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    print_line("xdpfwd-vm: duration of boot and tests")?;
    for (index, result) in &results {
        match result {
            Ok((status, time)) => print_line(&format!(
                "{:>8} s  exit status {status}  {}",
                time.as_secs(),
                runs[*index]
            ))?,
            Err(error) => print_line(&format!("       – s  {}: {error:#}", runs[*index]))?,
        }
    }
    let statuses: Result<Vec<u8>> =
        results.into_iter().map(|(_, result)| result.map(|(status, _)| status)).collect();
    Ok(statuses?.into_iter().find(|status| *status != 0).unwrap_or(0))
}

impl SuiteRun<'_> {
    /// Builds the test binary. Returns the command that runs the tests in the machine.
    fn command(&self, arguments: &[String]) -> Result<Vec<String>> {
        cargo::build_programs(self.suite)?;
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

    /// Runs the command in a machine. Returns its exit status, and the duration with the boot.
    fn run(&self, command: &[String], boot: &Boot, use_prefix: bool) -> Result<(u8, Duration)> {
        let Self { suite, kernel, .. } = self;
        print_line(&format!("xdpfwd-vm: {self}"))?;
        let environment = [("XDPFWD_VM_ZERO_COPY", if kernel.zero_copy { "1" } else { "0" })];
        let prefix =
            if use_prefix { format!("{} {}: ", suite.name, kernel.series) } else { String::new() };
        let (nics, timeout) = (suite.nics(), boot.timeout());
        let machine = Machine {
            kernel,
            nics,
            kernel_parameters: suite.kernel_parameters,
            timeout,
            prefix: &prefix,
        };
        let start = Instant::now();
        let status = machine.run(command, &environment)?;
        print_line(&format!(
            "xdpfwd-vm: {self}: exit status {status} after {} s",
            start.elapsed().as_secs()
        ))?;
        Ok((status, start.elapsed()))
    }
}

impl fmt::Display for SuiteRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "suite {} on Linux {}", self.suite.name, self.kernel.release)?;
        match self.tests.len() {
            0 => Ok(()),
            tests => write!(f, " ({tests} selected tests)"),
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

    /// Returns the suite, kernel series and number of selected tests (0: all) of each run.
    fn descriptions(runs: &[SuiteRun<'_>]) -> Vec<String> {
        runs.iter()
            .map(|run| format!("{} {} {}", run.suite.name, run.kernel.series, run.tests.len()))
            .collect()
    }

    #[test]
    fn run_without_ci_has_all_tests_of_each_suite_on_each_of_its_kernels() {
        let kernels = kernel::pinned().unwrap();
        let all: Vec<&Suite> = suite::ALL.iter().collect();
        let ci = false;
        let runs = descriptions(&plan_runs(&all, &kernels, ci));
        assert_eq!(runs.len(), suite::ALL.iter().map(|suite| suite.kernels.len()).sum::<usize>());
        assert!(runs.contains(&"zero-copy 6.12 0".to_owned()), "{runs:?}");
        assert!(runs.iter().all(|run| run.ends_with(" 0")), "{runs:?}");
    }

    #[test]
    fn run_with_ci_has_only_tests_that_ci_selects() {
        let kernels = kernel::pinned().unwrap();
        let all: Vec<&Suite> = suite::ALL.iter().collect();
        let ci = true;
        let runs = descriptions(&plan_runs(&all, &kernels, ci));
        assert_eq!(
            runs,
            ["zero-copy 7.2 0", "zero-copy 6.12 6", "esp 7.2 0", "doctor 7.2 0", "isolated 7.2 0"]
        );
    }
}
