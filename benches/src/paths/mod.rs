//! `paths`: packets per second, system calls, copies, cycles by account and context switches of
//! each packet path.

mod run;
mod table;

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::{
    common::{Common, Stop, note, print},
    forwarders::{Environment, MissingReason, brief},
    stats::Median,
};
pub(crate) use run::PathRun;
pub(crate) use table::{Caches, Copy, Core, PATHS, PacketPath, PreparedPath, Step, names};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; each runs every path once with each length
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Frame lengths in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [60, 1514])]
    sizes: Vec<u16>,
    /// One round of one second: shows whether every path works, not how fast it is
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    common: Common,
}

/// The accounts of the report's `kernel_ledger` that the table shows, with their column heads.
const ACCOUNTS: [(&str, &str); 4] = [
    ("user", "user"),
    ("system_call", "system call"),
    ("softirq", "softirq"),
    ("far_end", "far end"),
];

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let mut common = arguments.common.clone();
    if arguments.quick {
        common.traffic.seconds = common.traffic.seconds.min(1.0);
    }
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let mut output = common.begin_with("paths", "path", &names())?;
    let environment = common.environment()?;
    let mut measured = Measured::prepare(&common, &environment);
    for round in 0..rounds {
        measured.round(&common, &environment, &arguments.sizes, round, stop)?;
    }
    let text = text(&measured, &arguments.sizes);
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({
        "seconds": common.traffic.seconds,
        "warmup": common.traffic.warmup,
        "missing": measured.missing,
        "failed": measured.failed,
        "copies": measured.prepared.iter().map(|prepared| {
            let path = prepared.path;
            let copies = path.copies.iter().map(|copy| format!("{} ({})", copy.function, copy.file));
            (path.name, copies.collect::<Vec<_>>())
        }).collect::<BTreeMap<_, _>>(),
        "runs": measured.runs,
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    measured.check()
}

/// The runs of all selected paths.
pub(crate) struct Measured {
    pub(crate) prepared: Vec<PreparedPath>,
    /// Paths that cannot run, with the reason.
    pub(crate) missing: BTreeMap<&'static str, MissingReason>,
    pub(crate) runs: Vec<PathRun>,
    pub(crate) failed: Vec<String>,
}

impl Measured {
    /// Prepares the selected paths.
    pub(crate) fn prepare(common: &Common, environment: &Environment) -> Self {
        let (mut prepared, mut missing) = (Vec::new(), BTreeMap::new());
        for path in PATHS.iter().filter(|path| common.is_selected(path.name)) {
            match path.prepare(environment) {
                Ok(ready) => prepared.push(ready),
                Err(reason) => {
                    note(&format!("{}: n/a: {reason}", path.name));
                    missing.insert(path.name, reason);
                }
            }
        }
        Self { prepared, missing, runs: Vec::new(), failed: Vec::new() }
    }

    /// Measures every path once with every length. Every other round has the reverse order, to
    /// cancel the effect of the order.
    pub(crate) fn round(
        &mut self,
        common: &Common,
        environment: &Environment,
        sizes: &[u16],
        round: u32,
        stop: &Stop,
    ) -> Result<()> {
        let mut order: Vec<(&PreparedPath, u16)> = sizes
            .iter()
            .flat_map(|&size| self.prepared.iter().map(move |path| (path, size)))
            .collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (path, size) in order {
            stop.check()?;
            let title = format!("round {}, {size} bytes, {:<12}", round + 1, path.path.name);
            match PathRun::measure(path, common, environment, size, round) {
                Ok(run) => {
                    note(&format!(
                        "{title} {:.3} Mpps of {:.2} offered, {:.0} cycles per packet",
                        run.forwarded_pps / 1e6,
                        run.offered_pps / 1e6,
                        run.forwarding_cycles
                    ));
                    self.runs.push(run);
                }
                Err(error) => {
                    note(&format!("{title} FAILED: {error:#}"));
                    self.failed.push(format!("{title} {}", brief(&error)));
                }
            }
        }
        Ok(())
    }

    /// Returns the runs of a path with one length.
    pub(crate) fn of<'a>(
        &'a self,
        path: &'a PacketPath,
        size: u16,
    ) -> impl Iterator<Item = &'a PathRun> + Clone {
        self.runs.iter().filter(move |run| run.path == path.name && run.size == size)
    }

    /// Describes paths that could not run, runs that failed, and frames that are missing.
    pub(crate) fn remarks(&self) -> String {
        let mut text = String::new();
        for (name, reason) in &self.missing {
            let _ = writeln!(text, "{name}: n/a: {reason}");
        }
        for run in &self.runs {
            if let Some(unexplained) = &run.unexplained {
                let (path, size, round) = (run.path, run.size, run.round + 1);
                let _ = writeln!(text, "{path}, {size} bytes, round {round}: {unexplained}");
            }
        }
        for failure in &self.failed {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        text
    }

    /// Fails if a run failed or if frames are missing.
    pub(crate) fn check(&self) -> Result<()> {
        let lossy = self.runs.iter().filter(|run| run.unexplained.is_some()).count();
        if !self.failed.is_empty() || lossy > 0 {
            bail!(
                "of {} runs, {} failed and {lossy} do not account for every frame, see above",
                self.runs.len() + self.failed.len(),
                self.failed.len()
            );
        }
        Ok(())
    }
}

fn text(measured: &Measured, sizes: &[u16]) -> String {
    let mut text = String::new();
    for &size in sizes {
        let _ = writeln!(text, "{size} bytes");
        let _ = write!(text, "  {:<12}{:>7}{:>10}{:>8}", "path", "Mpps", "syscalls", "copies");
        for (_, head) in ACCOUNTS {
            let _ = write!(text, "{head:>13}");
        }
        let _ = writeln!(text, "{:>9}{:>11}{:>13}  frames", "busy", "voluntary", "involuntary");
        for path in PATHS.iter() {
            if let Some(reason) = measured.missing.get(path.name) {
                let _ = writeln!(text, "  {:<12}n/a: {reason}", path.name);
            }
            let runs = measured.of(path, size);
            let median = |get: &dyn Fn(&PathRun) -> Option<f64>| {
                Median::of(runs.clone().filter_map(get)).map(|median| median.median)
            };
            let Some(pps) = median(&|run| Some(run.forwarded_pps)) else { continue };
            let number = |value: Option<f64>, digits: usize| {
                value.map_or("n/a".to_owned(), |value| format!("{value:.digits$}"))
            };
            let _ = write!(
                text,
                "  {:<12}{:>7.3}{:>10}{:>8}",
                path.name,
                pps / 1e6,
                number(median(&|run| Some(run.syscalls)), 4),
                format!("{}+{}", path.count(Step::Receive), path.count(Step::Transmit)),
            );
            for (account, _) in ACCOUNTS {
                let cycles = median(&|run| run.kernel.as_ref()?.accounts.get(account).copied());
                let _ = write!(text, "{:>13}", number(cycles, 0));
            }
            let _ = writeln!(
                text,
                "{:>9}{:>11}{:>13}  {}",
                number(median(&|run| Some(run.forwarding_cycles)), 0),
                number(median(&|run| Some(run.kernel.as_ref()?.voluntary_switches)), 4),
                number(median(&|run| Some(run.kernel.as_ref()?.involuntary_switches)), 4),
                match runs.clone().all(|run| run.unexplained.is_none()) {
                    true => "conserved",
                    false => "MISSING, see below",
                }
            );
        }
        text += "\n";
    }
    text += "Medians of the rounds, per packet that xdpfwd received. copies: of all bytes of a \
             packet, by a CPU, counted in the\nsource (docs/copies.md), for reception + \
             transmission. user … far end: cycles by account, from the report's kernel_ledger.\n\
             busy: cycles of xdpfwd's core, from its ledger; they include the far end. voluntary, \
             involuntary: context switches.\n";
    if let Some(reason) = measured.prepared.iter().find_map(|path| path.no_kernel_ledger.as_ref()) {
        let _ = writeln!(text, "Accounts and context switches are n/a: xdpfwd says {reason}");
    } else if let Some(run) = measured.runs.iter().find(|run| run.kernel.is_none()) {
        let _ = writeln!(
            text,
            "Accounts and context switches are n/a for {}: its kernel_ledger was not available",
            run.path
        );
    }
    text + &measured.remarks()
}
