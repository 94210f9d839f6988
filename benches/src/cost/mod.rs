//! `cost`: CPU cycles per packet and task of xdpfwd's cycle ledger (docs/report.md), for forwarding
//! alone and with ESP.

mod options;
mod path;
mod stage;

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use xdpfwd_lab::Traffic;

use crate::{
    common::{Common, Stop, note, print},
    forwarders::Environment,
    lab_run::LabRun,
    stats::Median,
};
pub(crate) use options::Arguments;
use path::{Path, config};

#[derive(Clone, Debug, Serialize)]
struct Run {
    path: String,
    size: u16,
    round: u32,
    pps: f64,
    /// Per packet, by task, without the idle tasks `poll` and `wait`.
    cycles: BTreeMap<String, f64>,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    if arguments.compare_stage {
        return stage::run(arguments, stop);
    }
    let common = &arguments.common;
    let mut output = common.begin("cost")?;
    let environment = common.environment()?;
    let mut paths = vec![Path { seal: None }];
    for transform in &arguments.transforms {
        for backend in &arguments.backends {
            paths.push(Path { seal: Some((transform.clone(), backend.clone())) });
        }
    }
    let configs = paths.iter().enumerate().map(|(index, path)| {
        let frames = None;
        config(path, index, frames, &environment)
    });
    let configs: Vec<PathBuf> = configs.collect::<Result<_>>()?;
    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        for &size in &arguments.sizes {
            for (path, config) in paths.iter().zip(&configs) {
                stop.check()?;
                let (pps, cycles) = measure(common, &environment, config, size)?;
                let run = Run { path: path.name(), size, round, pps, cycles };
                note(&format!("round {round}: {}", serde_json::to_string(&run)?));
                runs.push(run);
            }
        }
    }
    let text = table(&runs, &paths, arguments);
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({ "runs": runs }))?;
    note(&format!("raw numbers: {}", path.display()));
    Ok(())
}

/// Returns packets per second, and cycles per packet by task.
fn measure(
    common: &Common,
    environment: &Environment,
    config: &std::path::Path,
    size: u16,
) -> Result<(f64, BTreeMap<String, f64>)> {
    let run = LabRun::measure(common, &environment.xdpfwd, config, &Traffic::new().size(size))?;
    let packets = run.transmitted();
    if packets <= 0.0 {
        bail!("no packet was forwarded; the last report: {}", run.last());
    }
    let cycles = run.busy_tasks().into_iter().map(|(task, cycles)| (task, cycles / packets));
    Ok((packets / run.seconds(), cycles.collect()))
}

/// The tasks of the ledger (docs/report.md), in the order of the table's columns.
const TASKS: [&str; 10] = [
    "receive", "parse", "stages", "scatter", "transmit", "wake", "reclaim", "look", "control",
    "stamps",
];

fn table(runs: &[Run], paths: &[Path], arguments: &Arguments) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "cycles per packet, from the ledger; medians of {} rounds\n",
        arguments.rounds
    );
    let _ = write!(text, "{:>5} {:<32} {:>9}", "bytes", "path", "kpps");
    for task in TASKS {
        let _ = write!(text, " {task:>8}");
    }
    let _ = writeln!(text, " {:>8} {:>20}", "all", "stages, 95 % CI");
    for &size in &arguments.sizes {
        for path in paths {
            let path_runs: Vec<&Run> =
                runs.iter().filter(|run| run.size == size && run.path == path.name()).collect();
            let median =
                |get: &dyn Fn(&Run) -> f64| Median::of(path_runs.iter().map(|run| get(run)));
            let Some(pps) = median(&|run| run.pps) else { continue };
            let _ = write!(text, "{size:>5} {:<32} {:>9.0}", path.name(), pps.median / 1e3);
            for task in TASKS {
                let cycles = median(&|run| run.cycles.get(task).copied().unwrap_or(0.0));
                let _ = write!(text, " {:>8.1}", cycles.map_or(0.0, |cycles| cycles.median));
            }
            let total = median(&|run| run.cycles.values().sum()).map_or(0.0, |total| total.median);
            let stages = median(&|run| run.cycles.get("stages").copied().unwrap_or(0.0));
            let spread = stages
                .map_or(String::new(), |stages| format!("[{:.0}, {:.0}]", stages.low, stages.high));
            let _ = writeln!(text, " {total:>8.1} {spread:>20}");
        }
    }
    text
}
