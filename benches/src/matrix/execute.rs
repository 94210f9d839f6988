//! Runs the steps of a matrix that remain.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use xdpfwd_bench::results::{Failure, GivenUp};

use super::{
    files,
    folder::Folder,
    history::{History, describe_given_up},
    journal::{Outcome, Record},
    measure::Measure,
    plan::Step,
    progress::{Estimate, Progress, brief_duration},
    rates::{self, Request},
};
use crate::{common::Stop, forwarders::brief};

/// Runs all steps that are not done, and appends each outcome to the journal. A step that fails is
/// reported, and the next step runs.
///
/// # Errors
///
/// The journal or the results cannot be written, or `stop` was requested. The step that ran then
/// has not ended, so it is not stored.
pub(crate) fn execute(
    folder: &mut Folder,
    measure: &mut dyn Measure,
    mut estimate: Estimate,
    stop: &Stop,
) -> Result<()> {
    let steps = folder.header.settings.plan.steps();
    let mut history = History::of(&folder.records);
    for record in &folder.records {
        let is_rates = matches!(record.outcome.step(), Step::Rates { .. });
        estimate.measured(is_rates, record.elapsed_seconds);
    }
    let remaining: Vec<&Step> = steps.iter().filter(|step| !history.is_done(step)).collect();
    remaining.iter().for_each(|step| estimate.add(matches!(step, Step::Rates { .. })));
    let progress = Progress::new(steps.len(), steps.len() - remaining.len());
    progress.note(&format!(
        "{} of {} steps to run, about {}",
        remaining.len(),
        steps.len(),
        brief_duration(estimate.left())
    ));
    let mut reported: Vec<GivenUp> = Vec::new();
    let mut last_round = None;
    for step in remaining {
        let is_rates = matches!(step, Step::Rates { .. });
        if let Some(given_up) = history.given_up(step.cell()) {
            if !reported.contains(&given_up) {
                progress.note(&describe_given_up(&given_up));
                reported.push(given_up);
            }
            estimate.remove(is_rates);
            progress.skip();
            continue;
        }
        let round = match step {
            Step::Run { round, .. } => Some(*round),
            Step::Rates { .. } => None,
        };
        if last_round.is_some_and(|last| last != round) {
            files::write(folder, None)?;
        }
        last_round = Some(round);
        stop.check()?;
        let title = title(step);
        progress.start(&title, estimate.left());
        let start = Instant::now();
        let trial_seconds = folder.header.settings.trial_seconds;
        let outcome = run(step, measure, trial_seconds, stop);
        // A forwarder that Ctrl-C ended has not failed.
        stop.check()?;
        let elapsed = start.elapsed();
        estimate.measured(is_rates, elapsed.as_secs_f64());
        estimate.remove(is_rates);
        let result = describe(&outcome, elapsed);
        progress.end(&title, &result, is_failure(&outcome), estimate.left());
        history.add(&outcome);
        let record = Record { elapsed_seconds: elapsed.as_secs_f64(), outcome };
        folder.journal.append(&record)?;
        folder.records.push(record);
    }
    Ok(())
}

fn run(step: &Step, measure: &mut dyn Measure, trial_seconds: f64, stop: &Stop) -> Outcome {
    let outcome = match step {
        Step::Run { cell, round } => {
            measure.run(cell, *round).map(|run| Outcome::Run(Box::new(run)))
        }
        Step::Rates { cell } => {
            let measure: &dyn Measure = measure;
            let request = Request::of_matrix(trial_seconds);
            let mut start = |latency| measure.session(cell, latency);
            rates::measure(&mut start, &request, cell, stop)
                .map(|(rates, latencies)| Outcome::Rates { cell: cell.clone(), rates, latencies })
        }
    };
    outcome
        .and_then(Outcome::check_numbers)
        .unwrap_or_else(|error| failure(step, format!("{error:#}")))
}

fn failure(step: &Step, error: String) -> Outcome {
    match step {
        Step::Run { cell, round } => Outcome::FailedRun(Failure {
            row: cell.row.clone(),
            column: cell.column.clone(),
            size: cell.size.clone(),
            round: *round,
            error,
        }),
        Step::Rates { cell } => Outcome::FailedRates { cell: cell.clone(), error },
    }
}

fn is_failure(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::FailedRun(_) | Outcome::FailedRates { .. })
}

/// Returns the text of a step for people. Rounds count from 1.
fn title(step: &Step) -> String {
    let cell = step.cell();
    let what = match step {
        Step::Run { round, .. } => format!("round {}", round + 1),
        Step::Rates { .. } => "rates".to_owned(),
    };
    let unit = if cell.size.parse::<u16>().is_ok() { " bytes" } else { "" };
    format!("{what}, {}{unit}, {}, {}", cell.size, cell.column, cell.row)
}

fn describe(outcome: &Outcome, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    match outcome {
        Outcome::Run(run) => {
            let cycles = run.cycles.map_or("cycles n/a".to_owned(), |cycles| {
                format!("{:.0} cycles per packet", cycles.total())
            });
            format!("{:.3} Mpps, {cycles} ({seconds:.1} s)", run.forwarded_pps / 1e6)
        }
        Outcome::Rates { rates, .. } => {
            let rates: Vec<String> = rates
                .iter()
                .map(|rate| {
                    format!("{:.3} Mpps with {} % loss", rate.pps / 1e6, 100.0 * rate.allowed_loss)
                })
                .collect();
            format!("{} ({seconds:.1} s)", rates.join(", "))
        }
        Outcome::FailedRun(Failure { error, .. }) | Outcome::FailedRates { error, .. } => {
            format!("FAILED: {}", brief(&anyhow!("{error}")))
        }
    }
}
