//! The measurement: samples or tracepoints, run time of XDP programs, context switches.

use std::cell::RefCell;
use std::time::Duration;

use xdpfwd_perf::{
    Core, CoreUsage, FREQUENCY_HZ, RunTime, RunTimeStatistics, Sampler, StartError, Switches,
    Symbols, Tracer,
};

use crate::attach::program::PROGRAM_NAME;
use crate::kernel_ledger_mode::KernelLedgerMode;
use crate::run::kernel_ledger::report::{
    KernelLedgerReport, SamplingReport, TracingReport, Traffic, XdpProgramReport, rounded,
};

/// Measures from its start until it is dropped.
pub(crate) struct KernelLedger {
    mode: KernelLedgerMode,
    measurement: Result<Measurement, String>,
    /// Keeps measuring the run time of XDP programs.
    statistics: Result<RunTimeStatistics, String>,
    workers: Vec<WorkerThread>,
    /// The run time of each port's replaced programs.
    replaced: Vec<RunTime>,
}

enum Measurement {
    None,
    Sampled(Sampler),
    Exact(Tracer),
}

struct WorkerThread {
    tid: u32,
    /// `None` if the worker may run on any core.
    core: Option<usize>,
    /// The last values read, for the case that the thread has ended.
    switches: RefCell<Switches>,
}

impl KernelLedger {
    pub(crate) fn off() -> Self {
        Self {
            mode: KernelLedgerMode::Off,
            measurement: Ok(Measurement::None),
            statistics: Err(String::new()),
            workers: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Starts to measure. [`obstacles`](Self::obstacles) returns what is not possible.
    ///
    /// `workers` are the thread id and the core of each worker.
    pub(crate) fn start(
        mode: KernelLedgerMode,
        cores: impl FnOnce() -> Vec<Core>,
        workers: &[(u32, Option<usize>)],
    ) -> Self {
        if mode == KernelLedgerMode::Off {
            return Self::off();
        }
        let statistics = RunTimeStatistics::start().map_err(|error| describe_statistics(&error));
        let tids = workers.iter().map(|(tid, _)| *tid);
        let measurement = match mode {
            KernelLedgerMode::Exact => Tracer::start(&cores(), tids).map(Measurement::Exact),
            _ => Symbols::read(&[PROGRAM_NAME])
                .map_err(StartError::from)
                .and_then(|symbols| Sampler::start(symbols, &cores(), tids))
                .map(Measurement::Sampled),
        };
        let measurement = measurement.map_err(|error| error.to_string());
        let worker = |&(tid, core)| WorkerThread { tid, core, switches: RefCell::default() };
        let workers = workers.iter().map(worker).collect();
        Self { mode, measurement, statistics, workers, replaced: Vec::new() }
    }

    /// Returns what is not possible, each with the remedy.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let mode = self.mode;
        let measurement = self.measurement.as_ref().err();
        let measurement =
            measurement.map(|why| format!("kernel_ledger = \"{mode}\" is unavailable: {why}"));
        let statistics = self.statistics.as_ref().err().filter(|_| mode != KernelLedgerMode::Off);
        let statistics = statistics.map(|why| {
            format!(
                "kernel_ledger = \"{mode}\": the run time of XDP programs is unavailable: {why}"
            )
        });
        measurement.into_iter().chain(statistics).collect()
    }

    /// Adds the run time of a program that a reload has replaced.
    pub(crate) fn carry(&mut self, port: usize, replaced: RunTime) {
        if self.replaced.len() <= port {
            self.replaced.resize(port + 1, RunTime::default());
        }
        self.replaced[port] += replaced;
    }

    /// Returns the report. `programs` yields, for each port with an XDP program: index of the port,
    /// its name, its interface, and the run time of the program.
    pub(crate) fn report<'a>(
        &self,
        traffic: Traffic,
        programs: impl Iterator<Item = (usize, &'a str, &'a str, RunTime)>,
    ) -> KernelLedgerReport {
        let report = KernelLedgerReport::empty(self.mode).with_system_calls(traffic);
        let measured = match &self.measurement {
            Err(why) => KernelLedgerReport { unavailable: Some(why.clone()), ..report },
            Ok(Measurement::None) => return report,
            Ok(Measurement::Sampled(sampler)) => {
                let counts = sampler.counts();
                let sampling = SamplingReport {
                    frequency_hz: FREQUENCY_HZ,
                    samples: counts.samples,
                    lost: counts.lost,
                    sample_nanoseconds: nanoseconds(counts.sample_cost),
                    cost_percent: rounded(counts.cost_percent(), 3),
                };
                let report = self.with_cores(report, counts.elapsed, &counts.cores, traffic);
                let groups = report.groups_of(&counts.cores, traffic);
                KernelLedgerReport { sampling: Some(sampling), groups, ..report }
            }
            Ok(Measurement::Exact(tracer)) => {
                let times = tracer.times();
                let tracing = TracingReport {
                    events: times.events,
                    event_nanoseconds: nanoseconds(times.event_cost),
                    cost_percent: rounded(times.cost_percent, 3),
                };
                let report = self.with_cores(report, times.elapsed, &times.cores, traffic);
                KernelLedgerReport { tracing: Some(tracing), ..report }
            }
        };
        match &self.statistics {
            Ok(_) if self.measurement.is_err() => measured,
            Ok(_) => KernelLedgerReport { xdp_programs: self.run_times(programs), ..measured },
            Err(why) => KernelLedgerReport { xdp_unavailable: Some(why.clone()), ..measured },
        }
    }

    fn with_cores(
        &self,
        report: KernelLedgerReport,
        elapsed: Duration,
        cores: &[CoreUsage],
        traffic: Traffic,
    ) -> KernelLedgerReport {
        let workers_on = |core: usize| {
            let runs_there = |worker: &WorkerThread| worker.core.is_none_or(|own| own == core);
            let numbered = self.workers.iter().enumerate();
            numbered.filter(|(_, worker)| runs_there(worker)).map(|(number, _)| number).collect()
        };
        let switches = self.workers.iter().map(WorkerThread::switches);
        report.with_times(elapsed, cores, workers_on, traffic).with_switches(switches, traffic)
    }

    fn run_times<'a>(
        &self,
        programs: impl Iterator<Item = (usize, &'a str, &'a str, RunTime)>,
    ) -> Vec<XdpProgramReport> {
        let report = |(port, name, interface, mut run_time)| {
            run_time += self.replaced.get(port).copied().unwrap_or_default();
            XdpProgramReport::new(name, interface, run_time)
        };
        programs.map(report).collect()
    }
}

impl WorkerThread {
    fn switches(&self) -> Switches {
        if let Ok(switches) = Switches::of_thread(self.tid) {
            *self.switches.borrow_mut() = switches;
        }
        *self.switches.borrow()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn describe_statistics(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "needs CAP_SYS_ADMIN".into(),
        _ => format!("cannot enable BPF run-time statistics: {error}"),
    }
}

/// Returns what prevents a kernel ledger of this mode, or a part of it, with the remedies. Measures
/// for a moment on the first core.
pub fn kernel_ledger_obstacles(mode: KernelLedgerMode) -> Vec<String> {
    let core = Core { number: 0, has_worker: false, only_veths: false, polls_other_end: false };
    KernelLedger::start(mode, || vec![core], &[]).obstacles()
}
