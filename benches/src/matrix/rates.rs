//! The rates and latencies of one cell.

use anyhow::{Context as _, Result};
use xdpfwd_bench::results::{Latency, Rate};

use super::{measure::Session, plan::CellName};
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

/// The goals and limits of the measurements of a cell.
pub(crate) struct Request<'a> {
    pub(crate) limits: Limits,
    /// Shares of packets that may be lost.
    pub(crate) goals: &'a [f64],
    /// Shares of the rate of the smallest goal at which latency is measured.
    pub(crate) loads: &'a [f64],
    /// Duration of each measurement of latency in seconds.
    pub(crate) latency_seconds: f64,
}

impl Request<'_> {
    /// Returns the request of a matrix. `trial_seconds` is the duration of the trials that confirm
    /// a rate, and of the measurements of latency.
    pub(crate) fn of_matrix(trial_seconds: f64) -> Self {
        let limits = limits(trial_seconds);
        Self { limits, goals: &GOALS, loads: &LOADS, latency_seconds: trial_seconds }
    }
}

/// Finds the rates of a cell, then measures latency at shares of the lowest of them.
///
/// `start` starts the path; its argument is whether the trials measure latencies. The search runs
/// without, since the sink's work for latencies would lower the rates, and not in all cells alike.
pub(crate) fn measure<'a>(
    start: &mut dyn FnMut(bool) -> Result<Box<dyn Session + 'a>>,
    request: &Request<'_>,
    cell: &CellName,
    stop: &Stop,
) -> Result<(Vec<Rate>, Vec<Latency>)> {
    let mut session = start(false)?;
    let rates = find(&mut *session, &request.limits, request.goals, cell, stop)?;
    let can_have_latency = session.can_have_latency();
    session.stop()?;
    let mut latencies = Vec::new();
    if let Some(pps) = lowest(&rates).filter(|_| can_have_latency) {
        let mut session = start(true)?;
        let seconds = request.latency_seconds;
        measure_latencies(&mut *session, request.loads, pps, seconds, cell, stop, &mut latencies)?;
        session.stop()?;
    }
    Ok((rates, latencies))
}

/// Searches for the highest rates of a cell within the allowed shares of lost packets, `goals`.
/// Returns them in ascending order of the share. A rate is 0 if all trials lost more packets.
pub(crate) fn find(
    session: &mut dyn Session,
    limits: &Limits,
    goals: &[f64],
    cell: &CellName,
    stop: &Stop,
) -> Result<Vec<Rate>> {
    let found = rate_search::search(limits, goals, |pps, seconds| {
        stop.check()?;
        Ok(session.trial(pps as u64, seconds)?.0)
    })
    .context("searching for rates")?;
    let rates = found.into_iter().map(|rate| Rate {
        row: cell.row.clone(),
        column: cell.column.clone(),
        size: cell.size.clone(),
        allowed_loss: rate.allowed_loss,
        pps: rate.pps.unwrap_or(0.0),
        upper_pps: rate.upper_pps,
        trials: rate.trials,
        is_complete: rate.is_complete,
    });
    Ok(rates.collect())
}

/// Returns the rate with the smallest allowed loss, unless all trials lost more.
pub(crate) fn lowest(rates: &[Rate]) -> Option<f64> {
    rates.first().map(|rate| rate.pps).filter(|pps| *pps > 0.0)
}

/// Measures latency at shares of a rate, `loads`, for a time in seconds each. `session` measures
/// latencies. Adds each result to `latencies`, so that those before an error remain.
pub(crate) fn measure_latencies(
    session: &mut dyn Session,
    loads: &[f64],
    pps: f64,
    seconds: f64,
    cell: &CellName,
    stop: &Stop,
    latencies: &mut Vec<Latency>,
) -> Result<()> {
    for &load in loads {
        stop.check()?;
        let mut measure = || -> Result<Latency> {
            let (counts, histogram) = session.trial((load * pps) as u64, seconds)?;
            let histogram = histogram.context("the session measures no latency")?;
            let nanoseconds = |quantile| -> Result<f64> {
                let time = histogram.quantile(quantile).context("no packet arrived")?;
                Ok(time.as_nanos() as f64)
            };
            Ok(Latency {
                row: cell.row.clone(),
                column: cell.column.clone(),
                size: cell.size.clone(),
                load,
                offered_pps: counts.offered_pps,
                loss: Some(counts.loss()),
                p50_ns: nanoseconds(0.5)?,
                p99_ns: nanoseconds(0.99)?,
                p999_ns: nanoseconds(0.999)?,
                max_ns: nanoseconds(1.0)?,
            })
        };
        let latency =
            measure().with_context(|| format!("measuring latency at {} % load", 100.0 * load))?;
        latencies.push(latency);
    }
    Ok(())
}
