//! `xdpfwd-bench`: compares xdpfwd with other forwarders in the lab. docs/benchmarking.md explains
//! the results.
#![forbid(unsafe_code)]

mod classify;
mod common;
mod cost;
mod drop;
mod esp;
mod forward;
mod instructions;
mod latency;
mod peer;
mod stats;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use common::Stop;
use xdpfwd_bench::classbench;

/// Measures xdpfwd and other forwarders in a lab of network namespaces.
///
/// Everything runs on one machine, interleaved in one run, so compare ratios. Needs root. Raw
/// numbers are saved in a folder of benches/results, named after day and host.
#[derive(Parser)]
#[command(name = "xdpfwd-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Packets per second of every forwarder, as ratios to a bare loop in C
    Forward(forward::Arguments),
    /// Latency at 10, 50 and 90 % of each forwarder's no-drop rate, and CPU use when idle
    Latency(latency::Arguments),
    /// Cost of a filter in user space and in the kernel: packets dropped and forwarded, with 0 to
    /// 10,000 rules
    Drop(drop::Arguments),
    /// CPU cycles per task, with and without ESP
    Cost(cost::Arguments),
    /// Instructions per packet, by callgrind, compared with those in the repository (needs no root)
    Instructions(instructions::Arguments),
    /// Ratio of the packets that two commands forward, run in alternation
    Pairs(forward::PairsArguments),
    /// A rule set and a trace for a packet classifier, in the style of ClassBench (needs no root)
    Classbench(classbench::Arguments),
    /// ns per lookup of the filter's classifier and of dpdk-test-acl (needs no root)
    Classify(classify::Arguments),
    /// ns and cycles per packet of each ESP backend, its AEAD alone and dpdk-test-crypto-perf
    /// (needs no root)
    Esp(esp::Arguments),
}

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xdpfwd-bench: {error:#}");
            match error.downcast_ref::<xdpfwd_lab::Error>() {
                Some(xdpfwd_lab::Error::Privilege { .. }) => ExitCode::from(3),
                _ => ExitCode::from(1),
            }
        }
    }
}

fn act(command: Command) -> Result<()> {
    let stop = Stop::new()?;
    match command {
        Command::Forward(arguments) => forward::run(&arguments, &stop),
        Command::Latency(arguments) => latency::run(&arguments, &stop),
        Command::Drop(arguments) => drop::run(&arguments, &stop),
        Command::Cost(arguments) => cost::run(&arguments, &stop),
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
