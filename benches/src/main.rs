//! `xdpfwd-bench`: compares xdpfwd with other forwarders, and measures parts of it.
#![forbid(unsafe_code)]

mod classify;
mod common;
mod copies;
mod cost;
mod drop;
mod esp;
mod forward;
mod forwarders;
mod instructions;
mod lab_config;
mod lab_run;
mod latency;
mod launch;
mod matrix;
mod nic;
mod obstacle;
mod passing;
mod paths;
mod rate_search;
mod report;
mod rule_sets;
mod sampling;
mod stats;
mod threads;
mod xdp_programs;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use common::Stop;
use xdpfwd_bench::classbench;

/// Measure xdpfwd and other forwarders in a lab of network namespaces.
///
/// Run it in the repository after `make build`, as root unless a command says otherwise. All
/// measurements of a run share one machine: compare ratios within a run, not rates of different
/// runs. docs/benchmarking.md explains the results.
#[derive(Parser)]
#[command(
    name = "xdpfwd-bench",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  sudo target/release/xdpfwd-bench forward --rounds 3 --only xdpfwd,bare-loop
  sudo target/release/xdpfwd-bench pairs './a fwd0 fwd1' './b fwd0 fwd1'
  target/release/xdpfwd-bench classify --rules 1000
  target/release/xdpfwd-bench report benches/results/2026-11-30-vm/matrix

Exit codes: 0 success, 1 failure, 2 invalid usage, 3 missing privilege."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure packets per second of each forwarder, as ratios to a bare C loop
    Forward(forward::Arguments),
    /// Measure latency at 10, 50 and 90 % of each forwarder's no-drop rate, and CPU use when idle
    Latency(latency::Arguments),
    /// Measure the cost of a filter in user space and in the kernel, with 0 to 10,000 rules
    Drop(drop::Arguments),
    /// Measure CPU cycles per packet and task, with and without ESP
    Cost(cost::Arguments),
    /// Measure packets per second, system calls, copies and cycles by account of each packet path
    Paths(paths::Arguments),
    /// Measure the copies of each packet path by the slope of cost over packet length
    Copies(copies::Arguments),
    /// Measure rates and latency between network interfaces (docs/line-rate.md)
    Nic(Box<nic::Arguments>),
    /// Measure what security costs on every packet path: paths, stages, frame lengths
    Matrix(Box<matrix::Arguments>),
    /// Measure how much slower xdpfwd forwards while kernel_ledger = "sampled" measures
    Sampling(sampling::Arguments),
    /// Write the results of a matrix as a page and in Markdown (no root)
    ///
    /// Reads RESULTS/matrix.json, and writes report.html and report.md. report.html is one file that
    /// needs no network: open it in a browser, send it, or print it. Each number leads to its raw
    /// values and commands: hover over the number, or click it. report.md has the same figures as
    /// tables. docs/benchmarking.md explains them.
    Report(report::Arguments),
    /// Compare instructions per packet with the stored numbers (no root)
    Instructions(instructions::Arguments),
    /// Compare two forwarders of your choice in alternation
    Pairs(forward::PairsArguments),
    /// Generate rules and a trace of packet headers in the style of ClassBench (no root)
    Classbench(classbench::Arguments),
    /// Measure ns per lookup of the filter's classifier and of dpdk-test-acl (no root)
    Classify(classify::Arguments),
    /// Measure ns and cycles per packet of each ESP backend and of dpdk-test-crypto-perf (no root)
    Esp(esp::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return xdpfwd_lab::print_usage(&error),
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            common::note(&format!("xdpfwd-bench: {error:#}"));
            match error.downcast_ref::<xdpfwd_lab::Error>() {
                Some(xdpfwd_lab::Error::Privilege { .. }) => ExitCode::from(3),
                _ => ExitCode::from(1),
            }
        }
    }
}

fn execute(command: Command) -> Result<()> {
    let stop = Stop::new()?;
    match command {
        Command::Forward(arguments) => forward::run(&arguments, &stop),
        Command::Latency(arguments) => latency::run(&arguments, &stop),
        Command::Drop(arguments) => drop::run(&arguments, &stop),
        Command::Cost(arguments) => cost::run(&arguments, &stop),
        Command::Paths(arguments) => paths::run(&arguments, &stop),
        Command::Copies(arguments) => copies::run(&arguments, &stop),
        Command::Nic(arguments) => nic::run(&arguments, &stop),
        Command::Matrix(arguments) => matrix::run(*arguments, &stop),
        Command::Sampling(arguments) => sampling::run(&arguments, &stop),
        Command::Report(arguments) => report::run(&arguments),
        Command::Instructions(arguments) => instructions::run(&arguments),
        Command::Pairs(arguments) => forward::pairs(&arguments, &stop),
        Command::Classbench(arguments) => classbench::run(&arguments),
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Esp(arguments) => esp::run(&arguments, &stop),
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
