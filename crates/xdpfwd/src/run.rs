//! Runs a plan: start, periodic reports, stop, final report.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use xdpfwd_engine::{
    Control, DataPlane, Event, Handle, Plan, Report, ReportKind, StartError, WaitOutcome,
};

use crate::app::App;
use crate::cli::{LogFormat, Run, USAGE};
use crate::config::{self, ThisMachine};
use crate::ctl::Server;
use crate::error_text::with_causes;
use crate::{doctor, program, reload, report, text};

/// Exit status: the program could not start, or forwarding failed.
const FAILED: u8 = 1;
/// Exit status: a privilege, a capability or a kernel feature is missing.
const PRIVILEGE: u8 = 3;

/// The configuration became invalid while the program waited for an interface. The errors have been
/// printed.
#[derive(Debug)]
struct InvalidConfiguration;

impl fmt::Display for InvalidConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is invalid")
    }
}

impl Error for InvalidConfiguration {}

/// Runs until a signal arrives, `--duration` ends, or forwarding fails. `interface_was_missing`
/// states that an interface did not exist when the configuration was checked.
pub(crate) fn run(plan: Plan, interface_was_missing: bool, cli: &Run, app: &App) -> ExitCode {
    // This copy of the plan serves to diagnose a failed start. It lacks the stages, because copies
    // of their plans would keep resources (files, keys) open.
    let mut without_stages = plan.clone();
    without_stages.paths.iter_mut().for_each(|path| path.stages.clear());
    match run_until_stopped(plan, interface_was_missing, cli, app) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<InvalidConfiguration>() => ExitCode::from(USAGE),
        Err(error) => {
            match cli.log_format {
                LogFormat::Text => program::print_error(error.as_ref()),
                LogFormat::Json => tracing::error!("{}", with_causes(error.as_ref())),
            }
            let start_error = error.downcast_ref::<StartError>();
            if start_error.is_some() {
                print_start_problems(&without_stages, cli);
            }
            let lacks_privilege = start_error.is_some_and(StartError::lacks_privilege_or_feature);
            ExitCode::from(if lacks_privilege { PRIVILEGE } else { FAILED })
        }
    }
}

fn print_start_problems(plan: &Plan, cli: &Run) {
    let findings = doctor::start_problems(plan);
    match cli.log_format {
        LogFormat::Json => {
            for finding in findings {
                let fix = finding.fix.unwrap_or_default();
                tracing::error!(
                    subject = finding.subject,
                    check = finding.check,
                    fix,
                    "{}",
                    finding.finding
                );
            }
        }
        LogFormat::Text => {
            let mut stderr = io::stderr().lock();
            if !findings.is_empty() {
                let _ = writeln!(
                    stderr,
                    "`{} doctor --config {}` reports:",
                    program::name(),
                    cli.config().display()
                );
            }
            for finding in &findings {
                let _ = write!(stderr, "{}", finding.with_subject());
            }
        }
    }
}

fn run_until_stopped(
    mut plan: Plan,
    mut interface_was_missing: bool,
    cli: &Run,
    app: &App,
) -> anyhow::Result<()> {
    // Before attaching anything, so that a signal always causes an orderly stop.
    let mut control = Control::new().context("cannot set up signals and timers")?;
    let mut printer = Printer::start(cli.json, app)?;
    let end = cli.duration.map(|duration| Instant::now() + duration);
    loop {
        if xdpfwd_engine::wait_until_up(&plan, &mut control, end)? != WaitOutcome::Up {
            tracing::info!("stopped while waiting for an interface: nothing was forwarded");
            printer.print(Report::not_started(&plan).into_final());
            return printer.finish();
        }
        if !interface_was_missing {
            break;
        }
        // The checks of the interface that was missing have not run yet.
        (plan, interface_was_missing) = load_again(cli, app)?;
    }
    let data_plane = DataPlane::start(plan, &control)?;
    tracing::info!(version = app.version, "{} has started", app.name);
    log_modes(&data_plane);
    let server = Server::new(data_plane.plan(), &control);
    let handle = Handle::new(data_plane, &control);

    let outcome = match app.run_start_hooks(&handle) {
        Ok(()) => serve(&handle, &mut control, &server, &mut printer, end, cli, app),
        Err(error) => Err(anyhow::anyhow!("cannot start {}: {error}", app.name)),
    };
    app.run_stop_hooks(&handle);
    start_watchdog(STOP_TIMEOUT);
    // `None` if a hook has stopped the data plane and taken the report.
    let Some(final_report) = handle.stop().map(Report::into_final) else {
        return outcome.and(printer.finish());
    };
    // A worker can also fail while it stops.
    let outcome = outcome.and_then(|()| {
        final_report.failure.as_ref().map_or(Ok(()), |failure| Err(stop_error(failure)))
    });
    let outcome = outcome.and_then(|()| match final_report.faults.as_slice() {
        [] => Ok(()),
        faults => Err(anyhow::anyhow!("{}", faults.join("\n"))),
    });
    app.run_stopped_hooks(&final_report);
    printer.print(final_report);
    outcome.and(printer.finish())
}

/// Loads the configuration again. Returns the plan, and whether an interface is still missing.
fn load_again(cli: &Run, app: &App) -> Result<(Plan, bool), InvalidConfiguration> {
    let machine = ThisMachine::default();
    match config::load(cli.config(), &app.registry, &machine, cli.file_policy()) {
        Ok((plan, warnings)) => {
            warnings.emit(cli.log_format);
            Ok((plan, machine.has_missing_interface()))
        }
        Err(errors) => {
            errors.emit(cli.log_format);
            Err(InvalidConfiguration)
        }
    }
}

/// Handles events and prints reports until the program must stop. Returns the failure, if one is
/// the reason.
fn serve(
    handle: &Handle,
    control: &mut Control,
    server: &Server,
    printer: &mut Printer,
    end: Option<Instant>,
    cli: &Run,
    app: &App,
) -> anyhow::Result<()> {
    let mut next_report = Instant::now() + cli.interval;
    loop {
        // Wake up for the health check even if no report is due.
        let next_check = Instant::now() + HEALTH_CHECK_INTERVAL;
        let next_attempt = handle.with(|data_plane| data_plane.next_attempt())?;
        let wake_up = [end, next_attempt, Some(next_check)].into_iter().flatten();
        let event = control
            .wait(wake_up.fold(next_report, Instant::min))
            .context("cannot wait for events")?;
        // A stop must not wait for workers that do not reply.
        if !matches!(event, Event::Stop(_) | Event::StopRequested) {
            let links_changed = event == Event::HostChanged;
            handle.with(|data_plane| check(data_plane, links_changed))??;
        }
        match event {
            Event::Stop(signal) => {
                tracing::info!(signal, "stopping");
                return Ok(());
            }
            Event::StopRequested => {
                tracing::info!("stopping: requested by the program");
                return Ok(());
            }
            Event::Woken => server.answer_all(handle, cli, app),
            Event::HostChanged => handle.with(DataPlane::update_host_addresses)?,
            Event::Reload => drop(reload::run(handle, cli, app)),
            Event::Due if end.is_some_and(|end| Instant::now() >= end) => return Ok(()),
            Event::Due if Instant::now() >= next_report => {
                printer.print(handle.report()?);
                next_report = next_report_time(next_report, cli.interval);
            }
            Event::Due => {}
        }
        handle.with(|data_plane| data_plane.maintain())?;
    }
}

/// Maximum interval between checks of workers and interfaces.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for stopping, because a worker may be stuck in a stage.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the process if it still runs after `limit`.
fn start_watchdog(limit: Duration) {
    let watch = move || {
        thread::sleep(limit);
        tracing::error!("a worker did not stop within {limit:?}; exiting without it");
        thread::sleep(Duration::from_millis(100)); // until the log is written
        std::process::exit(i32::from(FAILED));
    };
    if let Err(error) = thread::Builder::new().name("watchdog".into()).spawn(watch) {
        tracing::warn!(%error, "cannot start the watchdog thread; stopping has no time limit");
    }
}

/// Closes and opens ports whose interfaces come and go. Fails if forwarding must stop.
fn check(data_plane: &mut DataPlane, links_changed: bool) -> anyhow::Result<()> {
    if let Some(failure) = data_plane.failed_worker() {
        return Err(stop_error(failure));
    }
    data_plane.check_ports(links_changed).map_err(stop_error)
}

fn stop_error(reason: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{reason}; forwarding was stopped")
}

/// Returns the first time after now at a multiple of `interval` from `due`.
fn next_report_time(due: Instant, interval: Duration) -> Instant {
    let late = Instant::now().saturating_duration_since(due);
    let intervals = (late.as_secs_f64() / interval.as_secs_f64()).floor() + 1.0;
    due + interval.mul_f64(intervals)
}

/// Logs each port's mode, which affects speed more than any other setting. Warns if `mode = "auto"`
/// fell back to a slower mode.
fn log_modes(data_plane: &DataPlane) {
    for (port, mode) in data_plane.ports().iter().zip(data_plane.modes()) {
        tracing::info!(
            port = port.name,
            interface = port.interface,
            queues = port.queues,
            mode = mode.name(),
            "forwarding"
        );
    }
    let fallback = data_plane.fallback();
    let limiting_port = fallback.and_then(|fallback| {
        let ports = data_plane.ports().iter().zip(data_plane.modes());
        ports.into_iter().find(|(port, _)| port.interface == fallback.interface)
    });
    if let Some((port, mode)) = limiting_port {
        let finding = doctor::mode_finding(&port.interface, *mode, fallback);
        tracing::warn!(
            port = port.name,
            interface = port.interface,
            fix = finding.fix.unwrap_or_default(),
            "{}",
            finding.finding
        );
    }
}

/// Prints reports on its own thread, so that a slow reader of stdout delays neither signals nor the
/// stop.
struct Printer {
    json: bool,
    program: &'static str,
    version: &'static str,
    previous: Option<Report>,
    texts: SyncSender<String>,
    /// Number of reports dropped because the reader was too slow. The printer's thread logs and
    /// resets it after the next printed report.
    dropped: Arc<AtomicU64>,
    /// Returns the last write error. A reader of stdout that is gone does not count as an error.
    thread: JoinHandle<Option<io::Error>>,
}

const MAX_QUEUED_REPORTS: usize = 16;

/// Time limit for queueing the final report, and again for printing the queued reports.
const FINAL_REPORT_TIMEOUT: Duration = Duration::from_secs(2);

impl Printer {
    fn start(json: bool, app: &App) -> anyhow::Result<Self> {
        let (texts, to_print) = mpsc::sync_channel::<String>(MAX_QUEUED_REPORTS);
        let dropped = Arc::new(AtomicU64::new(0));
        let dropped_reports = Arc::clone(&dropped);
        let print = move || {
            let (mut is_closed, mut failure) = (false, None);
            for text in to_print {
                let mut stdout = io::stdout().lock();
                match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        if !is_closed {
                            tracing::info!("the reader of stdout is gone; forwarding continues");
                        }
                        is_closed = true;
                    }
                    Err(error) => {
                        if failure.is_none() {
                            tracing::warn!(
                                %error,
                                "cannot write reports to stdout; forwarding continues"
                            );
                        }
                        failure = Some(error);
                    }
                }
                let reports = dropped_reports.swap(0, Ordering::Relaxed);
                if reports > 0 {
                    tracing::warn!(reports, "reports were dropped because stdout was not read");
                }
            }
            failure
        };
        let thread = thread::Builder::new()
            .name("printer".into())
            .spawn(print)
            .context("cannot start the printer thread")?;
        Ok(Self {
            json,
            program: app.name,
            version: app.version,
            previous: None,
            texts,
            dropped,
            thread,
        })
    }

    /// Queues the report, or drops it if the queue is full. Only the final report waits for space,
    /// up to [`FINAL_REPORT_TIMEOUT`].
    fn print(&mut self, report: Report) {
        let mut text = match (self.json, report.kind) {
            (true, _) => report::json_line(&report, self.program, self.version),
            (false, ReportKind::Interval) => text::interval(&report, self.previous.as_ref()),
            (false, ReportKind::Final) => text::summary(&report, self.program, self.version),
        };
        let deadline = Instant::now()
            + if report.kind == ReportKind::Final { FINAL_REPORT_TIMEOUT } else { Duration::ZERO };
        self.previous = Some(report);
        while let Err(TrySendError::Full(unsent)) = self.texts.try_send(text) {
            if Instant::now() >= deadline {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            text = unsent;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until all reports are printed, up to [`FINAL_REPORT_TIMEOUT`]. Fails if some could not
    /// be written, unless the reader of stdout is gone.
    fn finish(self) -> anyhow::Result<()> {
        drop(self.texts);
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < FINAL_REPORT_TIMEOUT {
            thread::sleep(Duration::from_millis(1));
        }
        if !self.thread.is_finished() {
            return Ok(());
        }
        match self.thread.join() {
            Ok(Some(error)) => {
                Err(anyhow::Error::new(error)
                    .context("reports are missing: cannot write to stdout"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_schedule_skips_missed_times() {
        let interval = Duration::from_secs(10);
        let due = Instant::now().checked_sub(Duration::from_secs(34)).unwrap();
        assert_eq!(next_report_time(due, interval), due + Duration::from_secs(40));
        let due = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(next_report_time(due, interval), due + interval);
    }
}
