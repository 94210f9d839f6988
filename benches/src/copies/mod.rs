//! `copies`: the number of copies of a packet that each path makes, by the slope of cost over packet
//! length, and the stage `memcpy` as a control.

mod calibration;
mod control;
mod table;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::fs;
use xdpfwd_lab::Traffic;

use crate::{
    common::{Common, Stop, note, print},
    forwarders::Environment,
    lab_run::LabRun,
    paths::{Measured, names},
};
use calibration::Costs;
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

/// The costs of copies in one round, for one length.
#[derive(Clone, Debug, Serialize)]
struct Calibration {
    size: u16,
    round: u32,
    #[serde(flatten)]
    costs: Costs,
    /// Cycles per packet of the generator's core if the XDP program of fwd0 drops every packet: no
    /// path makes a copy there.
    dropped: f64,
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

impl Calibration {
    fn measure(common: &Common, environment: &Environment, size: u16, round: u32) -> Result<Self> {
        let (forwarding, receiving) = (common.core, common.traffic.generator_core);
        let costs = calibration::kernel(forwarding, receiving, size.into())?;
        let file = environment.scratch.join("copies-drop.toml");
        let text = format!(
            "[engine]\ncores = [{forwarding}]\n\n[[port]]\nname = \"lan\"\ninterface = \"fwd0\"\n\n\
             [[port]]\nname = \"wan\"\ninterface = \"fwd1\"\n\n\
             [[path]]\nfrom = \"lan\"\nto = \"wan\"\nstages = [\"drop\"]\n\n\
             [stage.drop]\nkind = \"filter\"\nplace = \"kernel\"\ndefault = \"drop\"\n\
             not_ip = \"drop\"\nrules = []\n"
        );
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let run = LabRun::measure(common, &environment.xdpfwd, &file, &Traffic::new().size(size))?;
        let dropped = run.generator_core_cycles / run.window.offered.packets as f64;
        let calibration = Self { size, round, costs, dropped };
        note(&format!("round {}: {}", round + 1, serde_json::to_string(&calibration)?));
        Ok(calibration)
    }
}
