//! The rates and latencies of one cell.

use anyhow::{Context as _, Result};
use xdpfwd_bench::results::{Latency, Rate};
use xdpfwd_lab::Histogram;

use super::{measure::Measure, plan::CellName};
use crate::{
    common::Stop,
    rate_search::{self, Limits},
};

/// Allowed shares of lost packets.
pub(crate) const GOALS: [f64; 2] = [0.0, 0.005];
/// Shares of the no-drop rate at which latency is measured.
pub(crate) const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// The lowest rate that the search tries, in packets per second.
const MIN_PPS: f64 = 1000.0;
/// A rate at which the generator sends as fast as it can.
const MAX_PPS: f64 = 100e6;
/// Most searches take fewer; this bounds the time on a disturbed machine.
const MAX_TRIALS: u32 = 45;

/// Returns the limits of the search with this duration of the trials that confirm a rate.
pub(crate) fn limits(trial_seconds: f64) -> Limits {
    Limits {
        seconds: vec![trial_seconds / 4.0, trial_seconds],
        max_trials: MAX_TRIALS,
        ..Limits::new(MIN_PPS, MAX_PPS)
    }
}

/// Finds the rates of a cell, then measures latency at shares of the no-drop rate.
pub(crate) fn measure(
    measure: &mut dyn Measure,
    cell: &CellName,
    trial_seconds: f64,
    stop: &Stop,
) -> Result<(Vec<Rate>, Vec<Latency>)> {
    let mut session = measure.session(cell)?;
    let found = rate_search::search(&limits(trial_seconds), &GOALS, |pps, seconds| {
        stop.check()?;
        Ok(session.trial(pps as u64, seconds)?.0)
    })
    .context("searching for rates")?;
    let no_drop_pps = found.iter().find(|rate| rate.allowed_loss == 0.0).and_then(|rate| rate.pps);
    let rates = found
        .into_iter()
        .map(|rate| Rate {
            row: cell.row.clone(),
            column: cell.column.clone(),
            size: cell.size.clone(),
            allowed_loss: rate.allowed_loss,
            pps: rate.pps.unwrap_or(0.0),
            upper_pps: rate.upper_pps,
            trials: rate.trials,
        })
        .collect();
    let mut latencies = Vec::new();
    for load in no_drop_pps.is_some().then_some(LOADS).into_iter().flatten() {
        stop.check()?;
        let pps = load * no_drop_pps.unwrap_or(0.0);
        let (counts, histogram) = session
            .trial(pps as u64, trial_seconds)
            .with_context(|| format!("measuring latency at {} % load", 100.0 * load))?;
        latencies.extend(
            histogram.and_then(|histogram| latency(cell, load, counts.offered_pps, &histogram)),
        );
    }
    session.stop()?;
    Ok((rates, latencies))
}

/// Returns `None` if no packet arrived.
fn latency(cell: &CellName, load: f64, offered_pps: f64, histogram: &Histogram) -> Option<Latency> {
    let nanoseconds = |q| histogram.quantile(q).map(|time| time.as_nanos() as f64);
    Some(Latency {
        row: cell.row.clone(),
        column: cell.column.clone(),
        size: cell.size.clone(),
        load,
        offered_pps,
        p50_ns: nanoseconds(0.5)?,
        p99_ns: nanoseconds(0.99)?,
        p999_ns: nanoseconds(0.999)?,
        max_ns: nanoseconds(1.0)?,
    })
}
