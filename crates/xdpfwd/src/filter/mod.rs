//! `xdpfwd filter test`: applies the rules of a configured filter to a capture, with the code of
//! the data plane.

mod capture;
mod verdicts;

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use crate::registry::Registry;
use anyhow::{Context as _, Result, bail};
use xdpfwd_engine::{Plan, StageOnPath};
use xdpfwd_stages::filter::FilterPlan;

use crate::cli::{FilterTest, LogFormat};
use crate::config::{self, FilePolicy, NoMachine};
use crate::{output, program};
use capture::Record;
use verdicts::Judge;

pub(crate) fn test(arguments: &FilterTest, registry: &Registry) -> ExitCode {
    let (plan, warnings) = match config::load(
        &arguments.config,
        registry,
        &NoMachine,
        FilePolicy::of_read_only_command(),
    ) {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.emit(LogFormat::Text);
            return ExitCode::from(crate::cli::USAGE);
        }
    };
    warnings.emit(LogFormat::Text);
    let selected = select_filter(&plan, arguments.stage.as_deref())
        .map_err(|error| (crate::cli::USAGE, error));
    // The exit status is 1 if the capture cannot be read to its end.
    let filter_capture = |filter| {
        output::ignore_closed(filter_capture(arguments, filter)).map_err(|error| (1, error))
    };
    match selected.and_then(filter_capture) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            program::print_error(error.as_ref());
            ExitCode::from(code)
        }
    }
}

/// Returns the filter called `name`, or without a name the only filter.
fn select_filter<'p>(plan: &'p Plan, name: Option<&str>) -> Result<&'p FilterPlan> {
    let stages = plan.paths.iter().flat_map(|path| &path.stages);
    let filters: BTreeMap<&str, &FilterPlan> =
        stages.filter_map(|stage| Some((&*stage.name, as_filter(stage)?))).collect();
    let names = || filters.keys().copied().collect::<Vec<_>>().join(", ");
    match (name, filters.len()) {
        (_, 0) => bail!("no path has a stage with kind = \"filter\""),
        (Some(name), _) => filters
            .get(name)
            .copied()
            .with_context(|| format!("no filter {name:?} on a path; filters: {}", names())),
        (None, 1) => filters.values().next().copied().context("no filter"),
        (None, _) => {
            bail!("the configuration has several filters; select one with --stage: {}", names())
        }
    }
}

fn as_filter(stage: &StageOnPath) -> Option<&FilterPlan> {
    let plan: &dyn Any = &*stage.plan;
    plan.downcast_ref()
}

/// Maximum number of the capture's interfaces that stderr reports as unreadable.
const MAX_NAMED: u64 = 20;

fn filter_capture(arguments: &FilterTest, plan: &FilterPlan) -> Result<()> {
    let stdout = BufWriter::new(io::stdout().lock());
    let is_live = capture::is_stdin(&arguments.pcap);
    let mut judge = Judge::new(plan.program(), arguments.json, stdout, is_live);
    let note = |text: &str| {
        let _ = writeln!(io::stderr(), "{}: {}: {text}", program::name(), arguments.pcap.display());
    };
    let (mut readable, mut unreadable) = (0_u64, 0_u64);
    let result = capture::read(&arguments.pcap, |record| {
        match record {
            Record::Packet(packet) => judge.judge(&packet)?,
            Record::Skipped(skip) => judge.skip(skip)?,
            Record::Interface => readable += 1,
            Record::UnreadableInterface(why) => {
                unreadable += 1;
                if unreadable <= MAX_NAMED {
                    note(&why);
                }
            }
        }
        Ok(())
    });
    if let Some(others @ 1..) = unreadable.checked_sub(MAX_NAMED) {
        note(&format!("{others} more interfaces whose packets are skipped"));
    }
    let (packets, skipped) = judge.counts();
    // Print the counts also if the capture is truncated, but not if it cannot be read at all. If
    // `read` failed because stdout is closed, `finish` fails, too.
    let printed = if packets == 0 && result.is_err() { Ok(()) } else { judge.finish() };
    result.and(printed)?;
    if packets > 0 && packets == skipped || readable == 0 && unreadable > 0 {
        bail!("{}: no packet can be judged", arguments.pcap.display());
    }
    Ok(())
}
