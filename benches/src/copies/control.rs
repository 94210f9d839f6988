//! The stage `memcpy` in the lab, compared with the same copies alone.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Result;
use serde::Serialize;
use xdpfwd_lab::{Chain, Traffic};

use super::memory;
use crate::{
    common::{Common, Stop, note},
    forwarders::Environment,
    lab_config::LabConfig,
    lab_run::LabRun,
    stats::{Median, slope},
};

/// Numbers of copies, the key `copies`.
pub(super) const COPIES: [u16; 3] = [1, 8, 32];

/// Cycles per packet in one round, for one length.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ControlRun {
    pub(super) size: u16,
    pub(super) round: u32,
    /// Of the stage in the lab, from the report, for each number of copies.
    pub(super) stage: Vec<f64>,
    /// Of the copies alone, for each number of copies.
    pub(super) alone: Vec<f64>,
}

impl ControlRun {
    pub(super) fn measure(
        common: &Common,
        environment: &Environment,
        size: u16,
        round: u32,
        stop: &Stop,
    ) -> Result<Self> {
        let mut stage = Vec::new();
        for copies in COPIES {
            stop.check()?;
            let config = config(environment, copies)?;
            let traffic = Traffic::new().size(size);
            stage.push(
                LabRun::measure(common, &environment.xdpfwd, &config, &traffic)?.stage_cycles(),
            );
        }
        let run = Self { size, round, stage, alone: alone(common, size)? };
        note(&format!(
            "memcpy, {size} bytes, round {}: {}",
            round + 1,
            serde_json::to_string(&run)?
        ));
        Ok(run)
    }

    fn slope(cycles: &[f64]) -> Option<f64> {
        let points: Vec<_> =
            COPIES.iter().zip(cycles).map(|(&copies, &cycles)| (copies.into(), cycles)).collect();
        slope(&points)
    }
}

/// Measures the copies alone, while the generator keeps the other core as busy as in the lab: cores
/// can share execution units, caches and power.
fn alone(common: &Common, size: u16) -> Result<Vec<f64>> {
    let chain = Chain::builder().build()?;
    let generator = Traffic::new()
        .size(size)
        .core(common.traffic.generator_core)
        .start(chain.gen_(), "gen0")?;
    let cycles = COPIES.map(|copies| memory::memcpy(common.core, size.into(), copies));
    let cycles = cycles.into_iter().collect();
    generator.stop()?;
    cycles
}

fn config(environment: &Environment, copies: u16) -> Result<PathBuf> {
    let stage = format!("[stage.control]\nkind = \"memcpy\"\ncopies = {copies}\n");
    let config = LabConfig {
        core: environment.core,
        stages: &["control"],
        tables: &stage,
        ..LabConfig::default()
    };
    config.write(&environment.scratch, &format!("copies-{copies}.toml"))
}

pub(super) fn table(runs: &[ControlRun], sizes: &[u16]) -> String {
    let mut text = String::from(
        "Control: the stage memcpy in the lab (cycles per packet, from the report), and the same \
         copies alone\n",
    );
    let _ = write!(text, "{:>7}", "bytes");
    for copies in COPIES {
        let _ = write!(text, "{:>11}", format!("copies {copies}"));
    }
    let _ = writeln!(text, "{:>16}{:>16}   stage / alone", "cycles/copy", "alone");
    for &size in sizes {
        let runs: Vec<&ControlRun> = runs.iter().filter(|run| run.size == size).collect();
        let median = |get: &dyn Fn(&ControlRun) -> Option<f64>| {
            Median::of(runs.iter().filter_map(|run| get(run)))
        };
        let stage_slope = |run: &ControlRun| ControlRun::slope(&run.stage);
        let alone_slope = |run: &ControlRun| ControlRun::slope(&run.alone);
        let (Some(stage), Some(alone), Some(ratio)) = (
            median(&stage_slope),
            median(&alone_slope),
            median(&|run| Some(stage_slope(run)? / alone_slope(run)?)),
        ) else {
            continue;
        };
        let _ = write!(text, "{size:>7}");
        for index in 0..COPIES.len() {
            let cycles = median(&|run| run.stage.get(index).copied());
            let _ = write!(text, "{:>11.1}", cycles.map_or(f64::NAN, |cycles| cycles.median));
        }
        let _ = writeln!(
            text,
            "{:>16.1}{:>16.1}   {:.2} [{:.2}, {:.2}] {:.0} %",
            stage.median,
            alone.median,
            ratio.median,
            ratio.low,
            ratio.high,
            100.0 * ratio.coverage
        );
    }
    text + "cycles/copy: the slope over the number of copies. Both lie within the L1 cache after \
            the first copy of a packet.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_divides_slopes_within_a_round() {
        let run = |round, factor| ControlRun {
            size: 512,
            round,
            stage: COPIES.map(|copies| 90.0 + 11.0 * factor * f64::from(copies)).to_vec(),
            alone: COPIES.map(|copies| 5.0 + 10.0 * factor * f64::from(copies)).to_vec(),
        };
        let table = table(&[run(0, 1.0), run(1, 3.0)], &[512, 1514]);
        assert!(table.contains("1.10 [1.10, 1.10]"), "{table}");
        assert!(!table.contains("1514"), "{table}");
    }
}
