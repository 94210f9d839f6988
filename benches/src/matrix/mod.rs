//! `matrix`: what each kind of security processing costs on each packet path.

pub(crate) mod cell;
pub(crate) mod columns;
mod execute;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod files;
pub(crate) mod folder;
mod history;
mod identity;
mod journal;
mod lab;
pub(crate) mod measure;
mod options;
mod paced;
pub(crate) mod plan;
mod progress;
pub(crate) mod published;
pub(crate) mod rates;
mod readme;
pub(crate) mod rows;
pub(crate) mod sampled;
mod system_calls;
mod table;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use xdpfwd_bench::results::{Results, Run};
use xdpfwd_xsk::clock;

use crate::common::{Stop, note, print};
use cell::FrameSize;
use folder::Folder;
use identity::Settings;
use journal::Header;
use lab::Lab;
use measure::Measure;
pub(crate) use options::Arguments;
use plan::Plan;
use progress::Estimate;

pub(crate) fn run(arguments: Arguments, stop: &Stop) -> Result<()> {
    if arguments.list {
        return print(&lab::list());
    }
    let generator = arguments.common.traffic.generator().used;
    let arguments = arguments.complete(generator)?;
    let mut sizes = Vec::new();
    for name in &arguments.sizes {
        let size = FrameSize::parse(name)?.describe();
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    let common = &arguments.common;
    lab::check_selection(&common.only, &arguments.columns)?;
    let machine = common.check_machine()?;
    let environment = common.environment()?;
    let mut lab = Lab::prepare(common, &arguments.columns, &environment)?;
    let [rate_columns, rate_sizes] = arguments.rate_cells();
    let plan = Plan {
        rows: lab.rows.clone(),
        columns: lab.columns.clone(),
        sizes,
        rounds: arguments.rounds(),
        rate_columns,
        rate_sizes,
        unavailable: lab.unavailable.clone(),
        published: published::published(),
    };
    let durations = arguments.durations(&plan);
    lab.set_durations(durations.window, durations.warmup);
    lab.accept_disturbed = arguments.accept_disturbed;
    let this_program = std::env::current_exe().context("cannot find this program")?;
    let settings = Settings {
        commit: machine.commit.clone(),
        build: identity::checksum(&environment.sources, &[&environment.xdpfwd, &this_program])?,
        versions: versions::detect(&environment.xdpfwd),
        seconds: durations.window,
        warmup: durations.warmup,
        trial_seconds: durations.trial,
        traffic: format!(
            "core {}, {:?}, accept disturbed: {}",
            common.core,
            lab.common().traffic,
            lab.accept_disturbed
        ),
        generator: common.traffic.generator().used.name().to_owned(),
        plan,
    };
    let header = Header::new(arguments.kind(), machine, clock::cycles_per_second(), settings);
    let folder = Folder::open(common.results(), header, arguments.fresh)?;
    let estimate = Estimate::new(durations.run, durations.rates);
    let path = folder.path.display().to_string();
    let results = finish(folder, &mut lab, estimate, stop)?;
    print(&table::text(&results))?;
    let program = std::env::args().next().unwrap_or_else(|| "xdpfwd-bench".to_owned());
    note(&format!("results: {path}\nreport:  {program} report {path}"));
    check(&results)
}

/// Runs what remains of a matrix. Writes its files, also if it is interrupted.
fn finish(
    mut folder: Folder,
    measure: &mut dyn Measure,
    estimate: Estimate,
    stop: &Stop,
) -> Result<Results> {
    folder.remarks.iter().for_each(|remark| note(remark));
    let executed = execute::execute(&mut folder, measure, estimate, stop);
    let finished = executed.is_ok().then(xdpfwd_bench::machine::utc_now);
    let results = files::write(&folder, finished)?;
    if let Err(error) = executed {
        note(&format!(
            "incomplete results are in {}; run the same command again to continue",
            folder.path.display()
        ));
        return Err(error);
    }
    folder.journal.remove()?;
    Ok(results)
}

/// Fails if a run has failed, or if its counts contradict each other.
fn check(results: &Results) -> Result<()> {
    let (runs, rates) = (results.failed.len(), results.failed_rates.len());
    let contradictions: Vec<&Run> =
        results.runs.iter().filter(|run| table::contradiction(run).is_some()).collect();
    if runs + rates + contradictions.len() == 0 {
        return Ok(());
    }
    let failed = results.failed.iter().map(|run| &run.row);
    let failed_rates = results.failed_rates.iter().map(|rates| &rates.row);
    let rows: BTreeSet<&str> = failed
        .chain(failed_rates)
        .chain(contradictions.iter().map(|run| &run.row))
        .map(String::as_str)
        .collect();
    bail!(
        "{runs} runs and {rates} searches for rates failed, and {} runs have counts that \
         contradict each other, see above; remove the causes, and measure these rows again: \
         --fresh --rows {}",
        contradictions.len(),
        rows.into_iter().collect::<Vec<_>>().join(",")
    )
}
