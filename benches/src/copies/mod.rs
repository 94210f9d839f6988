//! `copies`: the number of copies of a packet that each path makes, by the slope of cost over
//! packet length, and the stage `memcpy` as a control.

mod calibration;
mod control;
mod memory;
mod results;
mod run;
mod table;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    common::{Common, Stop, note, print},
    paths::names,
};
use control::ControlRun;
use results::Results;
use run::CopyLab;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; each runs every path once with each length
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Frame lengths in memory, in bytes without FCS
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_values_t = [60, 508, 1020, 1514, 2036, 3000]
    )]
    sizes: Vec<u16>,
    /// Frame lengths with which the stage memcpy runs
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [512, 1514])]
    control_sizes: Vec<u16>,
    /// Measure only the stage memcpy
    #[arg(long)]
    only_control: bool,
    /// One round of one second with three lengths: shows whether the command works
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let mut common = arguments.common.clone();
    let (mut rounds, mut sizes) = (arguments.rounds, arguments.sizes.clone());
    if arguments.quick {
        common.traffic.seconds = common.traffic.seconds.min(1.0);
        rounds = 1;
        sizes = vec![60, 1020, 3000];
    }
    let mut output = common.begin_with("copies", "path", &names())?;
    let environment = common.environment()?;
    let largest = sizes.iter().copied().max().context("use --sizes with at least one length")?;
    let lab = CopyLab { common: &common, environment: &environment, largest };
    let mut results = Results::default();
    let paths = if arguments.only_control { Vec::new() } else { results.prepare(&lab) };
    for round in 0..rounds {
        for &size in &arguments.control_sizes {
            let run = ControlRun::measure(&common, &environment, size, round, stop);
            stop.check()?;
            let title = format!("memcpy, {size} bytes, round {}", round + 1);
            results.control.extend(results.failures.ok(&title, run));
        }
        if !arguments.only_control {
            results.round(&lab, &paths, &sizes, round, stop)?;
        }
    }
    let mut text = control::table(&results.control, &arguments.control_sizes);
    if !arguments.only_control {
        text += &table::calibrations(&results.calibrations, &sizes);
        text += &table::paths(&results, &sizes);
    }
    text += &results.failures.text();
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&serde_json::to_value(&results)?)?;
    note(&format!("raw numbers: {}", path.display()));
    results.failures.check()
}
