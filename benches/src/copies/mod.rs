//! `copies`: the number of copies of a packet that each path makes, by the slope of cost over
//! packet length, and the stage `memcpy` as a control.

mod calibration;
mod control;
mod memory;
mod run;
mod table;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::{
    common::{Common, Stop, note, print},
    forwarders::{MissingReason, brief, check_config},
    lab_config::LabConfig,
    paths::{PATHS, PacketPath, names},
};
use calibration::Calibration;
use control::ControlRun;
use run::{CopyLab, CopyRun};

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

/// The rate of the second window of each run, as a share of the rate at which the path forwards the
/// longest packets: it must not lose packets, also if the host takes the core away for some
/// milliseconds.
const PACED_SHARE: f64 = 0.8;

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

/// A path with its configuration file and the rate of its second windows.
struct PreparedPath {
    path: &'static PacketPath,
    config: PathBuf,
    rate: u64,
}

/// All that was measured, and what could not be measured.
#[derive(Default, Serialize)]
struct Results {
    /// Paths that this build or the lab does not support, with the reason.
    missing: BTreeMap<&'static str, MissingReason>,
    #[serde(rename = "failed")]
    failures: Failures,
    control: Vec<ControlRun>,
    calibrations: Vec<Calibration>,
    runs: Vec<CopyRun>,
}

impl Results {
    /// Writes the configuration of each selected path, and measures its rate.
    fn prepare(&mut self, lab: &CopyLab<'_>) -> Vec<PreparedPath> {
        let mut ready = Vec::new();
        for path in PATHS.iter().filter(|path| lab.common.is_selected(path.name)) {
            match prepare(path, lab) {
                Ok(config) => {
                    let rate = self.failures.ok(path.name, lab.probe(&config));
                    let rate = rate.map(|pps| (PACED_SHARE * pps) as u64);
                    ready.extend(rate.map(|rate| PreparedPath { path, config, rate }));
                }
                Err(reason) => {
                    note(&format!("{}: n/a: {reason}", path.name));
                    self.missing.insert(path.name, reason);
                }
            }
        }
        ready
    }

    /// Measures every path once with every length. Every other round has the reverse order, to
    /// cancel the effect of the order.
    fn round(
        &mut self,
        lab: &CopyLab<'_>,
        paths: &[PreparedPath],
        sizes: &[u16],
        round: u32,
        stop: &Stop,
    ) -> Result<()> {
        for &size in sizes {
            stop.check()?;
            let title = format!("calibration, {size} bytes, round {}", round + 1);
            let calibration = Calibration::measure(lab, size, round);
            self.calibrations.extend(self.failures.ok(&title, calibration));
        }
        let mut order: Vec<(&PreparedPath, u16)> =
            sizes.iter().flat_map(|&size| paths.iter().map(move |path| (path, size))).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (path, size) in order {
            stop.check()?;
            let title = format!("round {}, {size} bytes, {}", round + 1, path.path.name);
            let run = lab.measure(path.path.name, &path.config, size, round, path.rate);
            let Some(run) = self.failures.ok(&title, run) else { continue };
            note(&format!(
                "{title}: forwarding {:.0} cycles at {:.3} Mpps, receiving {:.0} at {:.3}, {:.1} % \
                 lost",
                run.forwarding_cycles,
                run.forwarded_pps / 1e6,
                run.receiving_cycles,
                run.paced_pps / 1e6,
                100.0 * run.lost
            ));
            self.runs.push(run);
        }
        Ok(())
    }
}

fn prepare(path: &'static PacketPath, lab: &CopyLab<'_>) -> Result<PathBuf, MissingReason> {
    if let Some(reason) = path.unsupported_by_lab() {
        return Err(reason.into());
    }
    let name = format!("copies-{}.toml", path.name);
    let umem = lab.umem();
    let file = path.with_config(lab.environment.core, "", |config| {
        let config = LabConfig { both_directions: true, tables: &umem, ..config };
        config.write(&lab.environment.scratch, &name)
    });
    let file = file.map_err(|error| format!("{error:#}"))?;
    check_config(&lab.environment.xdpfwd, &file)?;
    Ok(file)
}

/// Measurements that failed. The others go on.
#[derive(Default, Serialize)]
#[serde(transparent)]
struct Failures(Vec<String>);

impl Failures {
    /// Returns the result of a measurement, or notes its error.
    fn ok<T>(&mut self, title: &str, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        note(&format!("{title} FAILED: {error:#}"));
        self.0.push(format!("{title}: {}", brief(&error)));
        None
    }

    fn text(&self) -> String {
        self.0.iter().map(|failure| format!("FAILED: {failure}\n")).collect()
    }

    fn check(&self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            count => bail!("{count} measurements failed, see above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_measurement_is_listed_and_fails_the_command() {
        let mut failures = Failures::default();
        assert_eq!(failures.ok("one", Ok(1)), Some(1));
        assert!(failures.check().is_ok());
        assert_eq!(failures.ok::<u32>("two", Err(anyhow::anyhow!("no memory"))), None);
        assert!(failures.check().is_err());
        assert_eq!(failures.text(), "FAILED: two: no memory\n");
    }
}
