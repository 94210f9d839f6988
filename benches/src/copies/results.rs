//! All results of `copies`, and how its runs are ordered.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    calibration::Calibration,
    control::ControlRun,
    run::{CopyLab, CopyRun},
};
use crate::{
    common::{Stop, note},
    forwarders::{MissingReason, brief, check_config},
    lab_config::LabConfig,
    paths::{PATHS, PacketPath},
};

/// The rate of the second window of each run, as a share of the rate at which the path forwards the
/// longest packets: it must not lose packets, also if the host takes the core away for some
/// milliseconds.
const PACED_SHARE: f64 = 0.8;

/// A path with its configuration file and the rate of its second windows.
pub(super) struct PreparedPath {
    path: &'static PacketPath,
    config: PathBuf,
    rate: u64,
}

/// All that was measured, and what could not be measured.
#[derive(Default, Serialize)]
pub(super) struct Results {
    /// Paths that this build or the lab does not support, with the reason.
    pub(super) missing: BTreeMap<&'static str, MissingReason>,
    #[serde(rename = "failed")]
    pub(super) failures: Failures,
    pub(super) control: Vec<ControlRun>,
    pub(super) calibrations: Vec<Calibration>,
    pub(super) runs: Vec<CopyRun>,
}

impl Results {
    /// Writes the configuration of each selected path, and measures its rate.
    pub(super) fn prepare(&mut self, lab: &CopyLab<'_>) -> Vec<PreparedPath> {
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
    pub(super) fn round(
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
pub(super) struct Failures(Vec<String>);

impl Failures {
    /// Returns the result of a measurement, or notes its error.
    pub(super) fn ok<T>(&mut self, title: &str, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        note(&format!("{title} FAILED: {error:#}"));
        self.0.push(format!("{title}: {}", brief(&error)));
        None
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(|failure| format!("FAILED: {failure}\n")).collect()
    }

    pub(super) fn check(&self) -> Result<()> {
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
