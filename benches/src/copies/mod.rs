//! `copies`: the number of copies of a packet that each path makes, by the slope of cost over
//! packet length, and the stage `memcpy` as a control.

mod calibration;
mod control;
mod memory;
mod table;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{
    common::{Common, Stop, note, print},
    paths::{Measured, names},
};
use calibration::Calibration;
use control::ControlRun;

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
        default_values_t = [60, 252, 508, 764, 1020, 1514]
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
        sizes = vec![60, 764, 1514];
    }
    let mut output = common.begin_with("copies", "path", &names())?;
    let environment = common.environment()?;
    let mut measured = Measured::prepare(&common, &environment);
    let (mut control_runs, mut calibrations) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for &size in &arguments.control_sizes {
            control_runs.push(ControlRun::measure(&common, &environment, size, round, stop)?);
        }
        if arguments.only_control {
            continue;
        }
        for &size in &sizes {
            stop.check()?;
            calibrations.push(Calibration::measure(&common, &environment, size, round)?);
        }
        measured.round(&common, &environment, &sizes, round, stop)?;
    }
    let mut text = control::table(&control_runs, &arguments.control_sizes);
    if !arguments.only_control {
        text += &table::calibrations(&calibrations, &sizes);
        text += &table::paths(&measured, &calibrations, &sizes);
        text += &measured.remarks();
    }
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({
        "seconds": common.traffic.seconds,
        "warmup": common.traffic.warmup,
        "missing": measured.missing,
        "failed": measured.failed,
        "control": control_runs,
        "calibrations": calibrations,
        "runs": measured.runs,
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    measured.check()
}
