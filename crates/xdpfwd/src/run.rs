//! Running a plan: start, report at every interval, stop, report.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::{Control, DataPlane, Event, Plan, Report, StartError};

use crate::cli::Cli;
use crate::text;

/// Could not start, or failed while running.
const FAILED: u8 = 1;
/// A privilege, a capability or a kernel feature is missing.
const PRIVILEGE: u8 = 3;

/// Runs the plan until a signal, or for as long as the command line says.
pub(crate) fn run(plan: Plan, cli: &Cli) -> ExitCode {
    match drive(plan, cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With nobody to read it, the exit code says it alone.
            let _ = writeln!(io::stderr(), "xdpfwd: {error:#}");
            let start = error.downcast_ref::<StartError>();
            let lacking = start.is_some_and(StartError::lacks_privilege_or_feature);
            ExitCode::from(if lacking { PRIVILEGE } else { FAILED })
        }
    }
}

fn drive(plan: Plan, cli: &Cli) -> anyhow::Result<()> {
    // Before anything is attached: a signal from here on is an orderly stop.
    let mut control = Control::new().context("cannot set up signals and timers")?;
    let mut data_plane = DataPlane::start(plan, &control)?;
    announce(&data_plane);

    let mut printer = Printer::new(cli.json);
    let started = Instant::now();
    let end = cli.duration.map(|duration| started + duration);
    let mut next = started + cli.interval;
    let failed = loop {
        let due = end.map_or(next, |end| end.min(next));
        match control.wait(due).context("cannot wait for events")? {
            Event::Stop(signal) => {
                tracing::info!(signal, "stopping");
                break None;
            }
            Event::Woken => {
                if let Some(worker) = data_plane.failed_worker() {
                    break Some(worker);
                }
            }
            Event::Due if end.is_some_and(|end| Instant::now() >= end) => break None,
            Event::Due => {
                printer.print(&data_plane.report());
                next = after(next, cli.interval);
            }
        }
    };
    printer.print(&data_plane.stop().into_final());
    match failed {
        Some(worker) => {
            anyhow::bail!("worker {worker} ended by itself, so everything was stopped; its last words are above")
        }
        None => Ok(()),
    }
}

/// The next time to report: on the beat that was begun, without making up for beats that were missed.
fn after(due: Instant, interval: Duration) -> Instant {
    let late = Instant::now().saturating_duration_since(due);
    let beats = (late.as_secs_f64() / interval.as_secs_f64()).floor() + 1.0;
    due + interval.mul_f64(beats)
}

/// Says what was got: the mode is what matters most for speed, and auto may have settled for less.
fn announce(data_plane: &DataPlane) {
    for (port, mode) in data_plane.ports().iter().zip(data_plane.modes()) {
        tracing::info!(
            port = port.name,
            interface = port.interface,
            queues = port.queues,
            mode = mode.name(),
            "forwarding"
        );
    }
    if let Some(fallback) = data_plane.fallback() {
        tracing::info!(
            port = fallback.port,
            interface = fallback.interface,
            reason = fallback.reason,
            "no {}: this port decided the mode for all",
            fallback.lacks
        );
    }
}

/// Prints reports to stdout. When nobody reads them any more it says so once, and forwarding goes on.
struct Printer {
    json: bool,
    last: Option<Report>,
    broken: bool,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self { json, last: None, broken: false }
    }

    fn print(&mut self, report: &Report) {
        let text = match (self.json, report.kind) {
            (true, _) => {
                serde_json::to_string(report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")) + "\n"
            }
            (false, engine::ReportKind::Interval) => text::interval(report, self.last.as_ref()),
            (false, engine::ReportKind::Final) => text::summary(report),
        };
        self.last = Some(report.clone());
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            && !self.broken
        {
            self.broken = true;
            tracing::warn!(%error, "reports cannot be written to stdout; forwarding goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_beat_is_not_made_up_for() {
        let interval = Duration::from_secs(10);
        let due = Instant::now().checked_sub(Duration::from_secs(34)).unwrap();
        assert_eq!(after(due, interval), due + Duration::from_secs(40));
        let due = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(after(due, interval), due + interval);
    }
}
