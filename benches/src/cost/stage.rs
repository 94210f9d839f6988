//! The stage `esp-seal` in the lab, from the ledger, compared with the stage alone (`bench-esp`).
//! The number of frames shows what the caches contribute.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::json;
use xdpfwd_ipsec::Transform;
use xdpfwd_lab::Traffic;
use xdpfwd_xsk::clock;

use super::{
    options::Arguments,
    path::{Path, config},
};
use crate::{
    common::{Common, Stop, note, on_core, print},
    esp::{Backend, stage::StageBench},
    lab_run::LabRun,
    stats::Median,
};

/// Frames of the lab's UMEM: the smallest number for two queues, and the default.
const LAB_FRAMES: [u32; 2] = [256, 16384];
/// Packets that circulate through the stage alone. 1024 is the default of `bench-esp`. As many as
/// 6144 circulate in the lab with the default UMEM: those of a fill ring and of an RX ring.
const ALONE_FRAMES: [usize; 3] = [64, 1024, 6144];
/// Packets that another core writes before they pass through the stage: a full RX ring, as in the
/// lab under overload. The stage's core also does other work between batches.
const OTHER_CORE_FRAMES: usize = 2048;
/// Batches of a measurement alone.
const BATCHES: usize = 4096;
/// Length of the Ethernet header.
const ETHERNET: u16 = 14;

/// Cycles per packet in one round.
#[derive(Debug, Serialize)]
struct Run {
    /// Length of the IP packet.
    payload: u16,
    round: u32,
    /// In the lab, for each of [`LAB_FRAMES`].
    lab: Vec<f64>,
    /// Alone, for each of [`ALONE_FRAMES`].
    alone: Vec<f64>,
    /// Alone, with [`OTHER_CORE_FRAMES`] packets that the generator's core has written.
    other_core: f64,
}

pub(super) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let mut output = common.begin("cost-stage")?;
    let environment = common.environment()?;
    let transform = arguments.transforms.first().context("--transforms is empty")?;
    let backend = arguments.backends.first().context("--backends is empty")?;
    let path = Path { seal: Some((transform.clone(), backend.clone())) };
    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        for &payload in &arguments.payloads {
            let mut lab = Vec::new();
            for (index, frames) in LAB_FRAMES.into_iter().enumerate() {
                stop.check()?;
                // A new state file in each run: sequence numbers of a state file are limited.
                let config = config(&path, index, Some(frames), &environment)?;
                let traffic = Traffic::new().size(payload + ETHERNET);
                lab.push(
                    LabRun::measure(common, &environment.xdpfwd, &config, &traffic)?.stage_cycles(),
                );
            }
            let (alone, other_core) = alone(common, transform, backend, payload)?;
            let run = Run { payload, round, lab, alone, other_core };
            note(&format!("round {}: {}", round + 1, serde_json::to_string(&run)?));
            runs.push(run);
        }
    }
    let text = table(&runs, arguments, transform, backend);
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({
        "lab_frames": LAB_FRAMES, "alone_frames": ALONE_FRAMES, "runs": runs,
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    Ok(())
}

/// Measures the stage alone: with each number of frames, and with packets of another core.
fn alone(common: &Common, transform: &str, backend: &str, payload: u16) -> Result<(Vec<f64>, f64)> {
    let found = Transform::ALL.into_iter().find(|found| found.name() == transform);
    let transform = found.with_context(|| format!("unknown transform {transform:?}"))?;
    let ignores_case = false;
    let backend = Backend::from_str(backend, ignores_case)
        .map_err(|_| anyhow!("unknown backend {backend:?}; use aws-lc, rustcrypto or ipsec-mb"))?;
    on_core(common.core, || {
        let cycles = |[seal, _open]: [f64; 2]| seal * clock::cycles_per_second() / 1e9;
        let new = |frames| StageBench::new(backend, transform, frames, payload.into());
        let passes = |frames| BATCHES * xdpfwd_ipsec::BATCH / frames;
        let alone: Result<_> = ALONE_FRAMES
            .into_iter()
            .map(|frames| Ok(cycles(new(frames)?.round(passes(frames))?)))
            .collect();
        let frames = OTHER_CORE_FRAMES;
        let other = common.traffic.generator_core;
        let other_core = new(frames)?.round_of_other_core(passes(frames), common.core, other)?;
        Ok((alone?, cycles(other_core)))
    })
}

fn table(runs: &[Run], arguments: &Arguments, transform: &str, backend: &str) -> String {
    let mut text = format!(
        "esp-seal, {transform}, {backend}: cycles per packet; medians of {} rounds\n{:>7}",
        arguments.rounds, "bytes"
    );
    for frames in LAB_FRAMES {
        let _ = write!(text, "{:>12}", format!("lab {frames}"));
    }
    for frames in ALONE_FRAMES {
        let _ = write!(text, "{:>12}", format!("alone {frames}"));
    }
    text += "  other core";
    text += "   lab 16384 / alone 1024      lab 16384 / alone 6144      lab 16384 / other core\n";
    for &payload in &arguments.payloads {
        let of_payload = || runs.iter().filter(|run| run.payload == payload);
        let _ = write!(text, "{payload:>7}");
        let figures = |run: &Run| -> Vec<f64> {
            run.lab.iter().chain(&run.alone).copied().chain([run.other_core]).collect()
        };
        let columns = LAB_FRAMES.len() + ALONE_FRAMES.len() + 1;
        for column in 0..columns {
            let values = of_payload().filter_map(|run| figures(run).get(column).copied());
            let median = Median::of(values).map_or(f64::NAN, |median| median.median);
            let _ = write!(text, "{median:>12.0}");
        }
        // Columns of the divisors.
        let first_alone = LAB_FRAMES.len();
        for divisor in [first_alone + 1, first_alone + 2, columns - 1] {
            let ratios =
                of_payload().filter_map(|run| Some(run.lab[1] / figures(run).get(divisor)?));
            let ratio = Median::of(ratios).map_or("n/a".to_owned(), |ratio| {
                format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high)
            });
            let _ = write!(text, "   {ratio:<25}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text + "lab N: from the ledger, with umem.frames = N. alone N: N packets circulate through the \
            stage (bench-esp: 1024).\nIn the lab, another core writes each packet before the stage \
            reads it; alone, the same core does. other core:\nalone, but the generator's core \
            writes 2048 packets (a full RX ring) before the stage reads them, and the stage's \
            core reads other\nmemory and runs the kernel's network stack before each batch; \
            a mean, as in the ledger.\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn table_compares_lab_and_stage_within_a_round() {
        let arguments = Cli::parse_from(["cost", "--compare-stage", "--payloads", "64"]).arguments;
        let run = |round, factor: f64| Run {
            payload: 64,
            round,
            lab: vec![110.0 * factor, 150.0 * factor],
            alone: vec![90.0 * factor, 100.0 * factor, 125.0 * factor],
            other_core: 151.0 * factor,
        };
        let text = table(&[run(0, 1.0), run(1, 2.0)], &arguments, "aes-128-gcm", "aws-lc");
        for ratio in ["1.50 [1.50, 1.50]", "1.20 [1.20, 1.20]", "0.99 [0.99, 0.99]"] {
            assert!(text.contains(ratio), "{text}");
        }
    }
}
