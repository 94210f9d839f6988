//! `xdpfwd filter test`: applies the rules of a configured filter to a capture, with the code of
//! the data plane.

mod capture;

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use crate::registry::Registry;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use xdpfwd_engine::{Plan, StageOnPath};
use xdpfwd_stages::filter::{Filter, FilterPlan, Outcome, PacketException};
use xdpfwd_wire::Headers;

use crate::cli::{FilterTest, LogFormat};
use crate::config::{self, FilePolicy, NoMachine};
use crate::program;
use capture::CapturedPacket;

pub(crate) fn test(arguments: &FilterTest, registry: &Registry) -> ExitCode {
    let (plan, warnings) =
        match config::load(&arguments.config, registry, &NoMachine, FilePolicy::of_reading()) {
            Ok(loaded) => loaded,
            Err(errors) => {
                errors.emit(LogFormat::Text);
                return ExitCode::from(crate::cli::USAGE);
            }
        };
    warnings.emit(LogFormat::Text);
    let selected = select_filter(&plan, arguments.stage.as_deref())
        .map_err(|error| (crate::cli::USAGE, error));
    // Exit status 1: the capture cannot be read.
    match selected.and_then(|filter| filter_capture(arguments, filter).map_err(|error| (1, error)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            program::print_error(error.as_ref());
            ExitCode::from(code)
        }
    }
}

/// Without a name, returns the only filter.
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

/// A line of `--json`.
#[derive(Serialize)]
struct PacketVerdict {
    /// From 0.
    index: u64,
    verdict: &'static str,
    /// From 0; null if no rule decided.
    rule: Option<u32>,
    /// Drop reason, or the packet exception that accepted the packet.
    reason: Option<&'static str>,
}

fn filter_capture(arguments: &FilterTest, plan: &FilterPlan) -> Result<()> {
    let compiled_filter = plan.program();
    let mut filter = Filter::new(Arc::clone(compiled_filter));
    let mut stdout = BufWriter::new(io::stdout().lock());
    let cycles_per_second = xdpfwd_xsk::clock::cycles_per_second();
    let (mut index, mut truncated_count) = (0, 0);
    let (mut first_seconds, mut last_seconds) = (None, 0.0);
    // By rule, reason and verdict.
    let mut by_outcome: BTreeMap<(Option<u32>, Option<&'static str>, &'static str), u64> =
        BTreeMap::new();
    capture::read(
        &arguments.pcap,
        |CapturedPacket { seconds, bytes, truncated: is_truncated }| {
            truncated_count += u64::from(is_truncated);
            let headers = Headers::parse(&bytes);
            // A packet without a timestamp gets that of the previous packet.
            if seconds > 0.0 {
                last_seconds = seconds;
                first_seconds.get_or_insert(seconds);
            }
            let elapsed = (last_seconds - first_seconds.unwrap_or(last_seconds)).max(0.0);
            let Outcome { drop, rule, exception } = filter.decide(
                compiled_filter.inspect(&bytes, &headers),
                bytes.len(),
                (elapsed * cycles_per_second) as u64,
            );
            let line = PacketVerdict {
                index,
                verdict: if drop.is_none() { "accept" } else { "drop" },
                rule,
                reason: drop.or(exception.map(PacketException::reason)).map(|reason| reason.name()),
            };
            *by_outcome.entry((line.rule, line.reason, line.verdict)).or_default() += 1;
            if arguments.json {
                serde_json::to_writer(&mut stdout, &line)?;
                writeln!(stdout)?;
            } else {
                let decided_by = rule.map_or("no rule".to_owned(), |rule| format!("rule {rule}"));
                let reason = line.reason.map_or(String::new(), |reason| format!(" ({reason})"));
                writeln!(stdout, "{index:>8}  {:<6}  {decided_by}{reason}", line.verdict)?;
            }
            index += 1;
            Ok(())
        },
    )?;
    if !arguments.json {
        writeln!(
            stdout,
            "\n{index} packets{}",
            if truncated_count > 0 {
                format!(", {truncated_count} of them truncated by the capture")
            } else {
                String::new()
            }
        )?;
        for ((rule, reason, verdict), count) in by_outcome {
            let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
            let decided_by = match rule {
                Some(rule) => format!(
                    "rule {rule}: {}",
                    compiled_filter.rule(rule).map_or(String::new(), ToString::to_string)
                ),
                None => "no rule".to_owned(),
            };
            writeln!(stdout, "{count:>8}  {verdict:<6}  {decided_by}{reason}")?;
        }
    }
    stdout.flush()?;
    Ok(())
}
