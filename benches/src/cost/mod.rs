//! `cost`: CPU cycles per packet and task of xdpfwd's cycle ledger (docs/report.md), for forwarding
//! alone and with ESP.

mod stage;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use xdpfwd_ipsec::Transform;
use xdpfwd_lab::Traffic;
use xdpfwd_stages::esp::{key_file, state_file::StateFile};

use crate::{
    common::{Common, Stop, note, print},
    forwarders::Environment,
    lab_run::LabRun,
    stats::Median,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; each runs every measurement once
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: u32,
    /// Frame lengths in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [60, 512, 1400])]
    sizes: Vec<u16>,
    /// ESP transforms, as in the configuration file
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["aes-128-gcm"])]
    transforms: Vec<String>,
    /// ESP backends, as in the configuration file
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["aws-lc"])]
    backends: Vec<String>,
    /// Measure only the stage esp-seal, with the first of the transforms and backends: in the lab, and
    /// alone with few and many frames
    #[arg(long)]
    compare_stage: bool,
    /// Lengths of the IP packets with --compare-stage, in bytes
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_values_t = [64, 512, 1400],
        requires = "compare_stage"
    )]
    payloads: Vec<u16>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    /// Transform and backend of the path's `esp-seal` stage; `None`: no stage.
    seal: Option<(String, String)>,
}

impl Path {
    fn name(&self) -> String {
        match &self.seal {
            None => "forward".to_owned(),
            Some((transform, backend)) => format!("seal {transform}, {backend}"),
        }
    }
}

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

/// Writes a configuration file with key and state file. `index` is part of the file names; `frames`
/// is the key of this name, if any.
fn config(
    path: &Path,
    index: usize,
    frames: Option<u32>,
    environment: &Environment,
) -> Result<PathBuf> {
    let file = environment.scratch.join(format!("cost-{index}.toml"));
    let mut text = format!(
        "[engine]\ncores = [{}]\n\n[[port]]\nname = \"lan\"\ninterface = \"fwd0\"\n\n\
         [[port]]\nname = \"wan\"\ninterface = \"fwd1\"\n\n\
         [[path]]\nfrom = \"lan\"\nto = \"wan\"\n",
        environment.core
    );
    let umem = frames.map(|frames| format!("\n[umem]\nframes = {frames}\n")).unwrap_or_default();
    if let Some((name, backend)) = &path.seal {
        let transform = Transform::ALL.into_iter().find(|transform| transform.name() == name);
        let transform = transform.with_context(|| format!("unknown transform {name:?}"))?;
        let (key, state) = (format!("cost-{index}.key"), format!("cost-{index}.state"));
        for old in [&key, &state] {
            let _ = fs::remove_file(environment.scratch.join(old));
        }
        key_file::create(&environment.scratch.join(&key), transform)?;
        StateFile::create(&environment.scratch.join(&state))?;
        let _ = write!(
            text,
            "stages = [\"seal\"]\n\n[stage.seal]\nkind = \"esp-seal\"\nlab = true\n\
             state_file = \"{state}\"\nbackend = \"{backend}\"\n\n\
             [[stage.seal.sa]]\nspi = 4097\ntransform = \"{name}\"\nkey_file = \"{key}\"\n\
             source = \"192.0.2.1\"\ndestination = \"192.0.2.2\"\n"
        );
    }
    text += &umem;
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
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

/// The tasks, in the order of the table's columns.
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
    let _ = writeln!(text, " {:>8} {:>20}", "all", "stages [95 %]");
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
