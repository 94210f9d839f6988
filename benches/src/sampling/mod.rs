//! `sampling`: how much slower xdpfwd forwards while its kernel ledger samples.

mod restarts;
mod table;
mod windows;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{
    common::{Common, Stop, note, print},
    lab_config::LabConfig,
};
use windows::WindowRun;

/// The path that is measured: the fastest, on which sampling costs the largest share.
const PATH: &str = "af_xdp-copy";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Runs; the result is the median of their ratios
    #[arg(long, value_name = "N", default_value_t = 21)]
    rounds: u32,
    /// Pairs of windows in each run
    #[arg(long, value_name = "N", default_value_t = 20)]
    pairs: u32,
    /// Length of a window in milliseconds. In 250 ms, the kernel ledger measures XDP programs once,
    /// and reads its samples at least once
    #[arg(long, value_name = "MS", default_value_t = 250)]
    window: u64,
    /// Frame length in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: u16,
    /// Compare runs of xdpfwd with kernel_ledger = "sampled" and "off" instead of windows of one
    /// run
    #[arg(long)]
    restarts: bool,
    /// Fail if the upper end of the interval of the cost is not below this
    #[arg(long, value_name = "PERCENT")]
    limit: Option<f64>,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let name = if arguments.restarts { "sampling-restarts" } else { "sampling" };
    let mut output = common.begin_with(name, "path", &[PATH])?;
    let environment = common.environment()?;
    let config = |mode: &str| {
        let engine = format!("mode = \"copy\"\nkernel_ledger = \"{mode}\"\n");
        let config = LabConfig { core: common.core, engine: &engine, ..LabConfig::default() };
        config.write(&environment.scratch, &format!("sampling-{mode}.toml"))
    };
    let (off, sampled) = (config("off")?, config("sampled")?);
    let (mut ratios, mut raw, mut sampling) = (Vec::new(), Vec::new(), None);
    for round in 0..arguments.rounds {
        stop.check()?;
        if arguments.restarts {
            let pair =
                restarts::measure(common, &environment, [&off, &sampled], arguments.size, round)?;
            note(&format!("pair {}: {:.4}", round + 1, pair.ratio()));
            ratios.push(table::Ratios { rate: pair.ratio(), cpu_time: None });
            raw.push(serde_json::to_value(pair)?);
        } else {
            let run = WindowRun::measure(arguments, &environment, &off, stop)?;
            note(&format!(
                "run {}: {:.4} of {:.3} Mpps; {:.4} of CPU time; stolen: {:.1} %",
                round + 1,
                run.ratio(),
                run.rate_without() / 1e6,
                run.cpu_time_ratio(),
                run.stolen_percent()
            ));
            ratios.push(table::Ratios { rate: run.ratio(), cpu_time: Some(run.cpu_time_ratio()) });
            sampling = Some(run.sampling);
            raw.push(serde_json::to_value(run)?);
        }
    }
    let (text, cost) = table::text(&ratios, sampling.as_ref(), arguments);
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({
        "size": arguments.size,
        "pairs": arguments.pairs,
        "window_ms": arguments.window,
        "runs": raw,
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    table::check(cost, arguments.limit)
}
