//! Running a plan: start, report at every interval, stop, report.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::{Control, DataPlane, Event, Plan, Report, ReportKind, StartError};

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

    let mut printer = Printer::start(cli.json)?;
    let started = Instant::now();
    let end = cli.duration.map(|duration| started + duration);
    let mut next = started + cli.interval;
    let failure = loop {
        let due = end.map_or(next, |end| end.min(next));
        let event = control.wait(due).context("cannot wait for events")?;
        if let Some(failure) = failure(&data_plane) {
            break Some(failure);
        }
        match event {
            Event::Stop(signal) => {
                tracing::info!(signal, "stopping; a second signal ends it at once");
                break None;
            }
            Event::Woken => {}
            Event::Due if end.is_some_and(|end| Instant::now() >= end) => break None,
            Event::Due => {
                printer.print(data_plane.report());
                next = after(next, cli.interval);
            }
        }
    };
    printer.print(data_plane.stop().into_final());
    printer.finish();
    failure.map_or(Ok(()), Err)
}

/// What makes it pointless to go on, if anything does.
fn failure(data_plane: &DataPlane) -> Option<anyhow::Error> {
    if let Some(worker) = data_plane.failed_worker() {
        return Some(anyhow::anyhow!("worker {worker} ended by itself, so everything was stopped; why stands above"));
    }
    let port = data_plane.lost_port()?;
    Some(anyhow::anyhow!("port {}: interface {} has disappeared, so everything was stopped", port.name, port.interface))
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

/// Prints reports to stdout, from a thread of its own: a reader that does not read holds up neither signals nor the end.
/// Forwarding goes on whatever becomes of stdout.
struct Printer {
    json: bool,
    last: Option<Report>,
    texts: SyncSender<String>,
    thread: JoinHandle<()>,
}

/// Reports that may wait for a slow reader; what comes after is left out.
const WAITING_REPORTS: usize = 16;

/// How long the final report may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Printer {
    fn start(json: bool) -> anyhow::Result<Self> {
        let (texts, to_print) = mpsc::sync_channel::<String>(WAITING_REPORTS);
        let print = move || {
            let mut broken = false;
            for text in to_print {
                let mut stdout = io::stdout().lock();
                if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
                    && !broken
                {
                    broken = true;
                    tracing::warn!(%error, "reports cannot be written to stdout; forwarding goes on");
                }
            }
        };
        let thread =
            thread::Builder::new().name("printer".into()).spawn(print).context("starting the printer's thread")?;
        Ok(Self { json, last: None, texts, thread })
    }

    fn print(&mut self, report: Report) {
        let text = match (self.json, report.kind) {
            (true, _) => {
                serde_json::to_string(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")) + "\n"
            }
            (false, ReportKind::Interval) => text::interval(&report, self.last.as_ref()),
            (false, ReportKind::Final) => text::summary(&report),
        };
        if self.texts.try_send(text).is_err() {
            tracing::warn!("stdout is not being read: a report is left out");
        }
        self.last = Some(report);
    }

    /// Waits until all is printed, for a while.
    fn finish(self) {
        drop(self.texts);
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < LAST_WORDS {
            thread::sleep(Duration::from_millis(1));
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
