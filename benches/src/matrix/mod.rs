//! `matrix`: what each kind of security processing costs on each packet path.

mod execute;
#[cfg(test)]
mod fake;
mod files;
mod folder;
mod history;
mod identity;
mod journal;
mod measure;
mod options;
mod plan;
mod progress;
mod rates;
mod readme;
mod table;
#[cfg(test)]
mod tests;

use anyhow::{Result, bail};
use xdpfwd_bench::results::Results;

use crate::common::{Stop, note, print};
use folder::Folder;
use measure::Measure;
pub(crate) use options::Arguments;
use progress::Estimate;

/// Runs what remains of a matrix, and writes its files, also if it is interrupted.
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
    print(&table::text(&results))?;
    note(&format!("results: {}", folder.path.display()));
    note(&format!("report:  {} report {}", program(), folder.path.display()));
    folder.journal.remove()?;
    Ok(results)
}

/// Fails if a run has failed.
fn check(results: &Results) -> Result<()> {
    let failed = results.failed.len() + results.failed_rates.len();
    if failed > 0 {
        bail!(
            "{failed} of {} runs and searches for rates failed, see above",
            results.runs.len() + results.rates.len() + failed
        );
    }
    Ok(())
}

fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "xdpfwd-bench".to_owned())
}
