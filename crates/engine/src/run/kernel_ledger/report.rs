//! The kernel ledger in reports.

use std::time::Duration;

use serde::Serialize;
use xdpfwd_perf::{Account, CoreUsage, Group, RunTime, Switches};
use xdpfwd_xsk::clock;

use crate::kernel_ledger_mode::KernelLedgerMode;

/// Where the time of the workers' cores, and of those that receive for them, was spent.
///
/// Cycles are those of the time-stamp counter, as in the [`Ledger`](crate::Ledger). Cycles per
/// packet refer to the packets received by all ports.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelLedgerReport {
    /// `"off"`, `"sampled"` or `"exact"`, as configured.
    pub mode: &'static str,
    /// Why the configured mode is not possible, and the remedy. If set, the lists are empty.
    pub unavailable: Option<String>,
    /// Measured time.
    pub seconds: f64,
    /// The samples, in the mode `"sampled"`.
    pub sampling: Option<SamplingReport>,
    /// The tracepoints, in the mode `"exact"`.
    pub tracing: Option<TracingReport>,
    /// All accounts, summed over the cores.
    pub accounts: Vec<AccountReport>,
    /// The accounts inside the kernel by groups of functions, in the mode `"sampled"`. Groups
    /// without samples are absent.
    pub groups: Vec<GroupReport>,
    /// Each measured core.
    pub cores: Vec<CoreReport>,
    /// The context switches of each worker.
    pub workers: Vec<SwitchesReport>,
    /// System calls of the workers per received packet.
    pub syscalls_per_packet: f64,
    /// The run time of each port's XDP program.
    pub xdp_programs: Vec<XdpProgramReport>,
    /// Why the run time is not available.
    pub xdp_unavailable: Option<String>,
}

/// The samples of all cores, and what they cost.
#[derive(Clone, Debug, Serialize)]
pub struct SamplingReport {
    /// Samples per second and core.
    pub frequency_hz: u64,
    /// Number of samples.
    pub samples: u64,
    /// Samples that the kernel discarded.
    pub lost: u64,
    /// Duration of a sample: interrupt and evaluation.
    pub sample_nanoseconds: u64,
    /// Share of a core's time.
    pub cost_percent: f64,
}

/// The events of all cores, and what they cost.
#[derive(Clone, Debug, Serialize)]
pub struct TracingReport {
    /// Number of changes between accounts.
    pub events: u64,
    /// Duration of an event: tracepoint and BPF program.
    pub event_nanoseconds: u64,
    /// Share of the busiest core's time.
    pub cost_percent: f64,
}

/// The time of an account.
#[derive(Clone, Debug, Serialize)]
pub struct AccountReport {
    /// [`Account::name`].
    pub name: &'static str,
    /// Number of samples; 0 in the mode `"exact"`.
    pub samples: u64,
    /// Cycles.
    pub cycles: u64,
    /// Cycles per received packet.
    pub cycles_per_packet: f64,
    /// Share of the time of the cores.
    pub share_percent: f64,
}

/// The time of a group of kernel functions within an account.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// [`Account::name`].
    pub account: &'static str,
    /// The group, with its time. The share is that of all cores' time.
    #[serde(flatten)]
    pub group: AccountReport,
}

/// The time of a core.
#[derive(Clone, Debug, Serialize)]
pub struct CoreReport {
    /// The core.
    pub core: usize,
    /// The workers that run there; of workers without a fixed core, those that may.
    pub workers: Vec<usize>,
    /// All accounts of this core.
    pub accounts: Vec<AccountReport>,
}

/// The context switches of a worker since its thread started.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchesReport {
    /// Worker number.
    pub worker: usize,
    /// The worker waited.
    pub voluntary_switches: u64,
    /// The kernel ran another thread instead.
    pub involuntary_switches: u64,
    /// Per packet received by all workers.
    pub voluntary_switches_per_packet: f64,
    /// Per packet received by all workers.
    pub involuntary_switches_per_packet: f64,
}

/// The run time of a port's XDP program, with the programs that reloads have replaced.
#[derive(Clone, Debug, Serialize)]
pub struct XdpProgramReport {
    /// Port name.
    pub port: String,
    /// Interface name.
    pub interface: String,
    /// Number of measured runs, one per packet: those in some milliseconds of each second.
    pub runs: u64,
    /// Duration of these runs.
    pub nanoseconds: u64,
    /// Cycles per run, including about one reading of the clock.
    pub cycles_per_run: f64,
}

/// What the figures per packet refer to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Packets received by all ports.
    pub(crate) packets: u64,
    pub(crate) syscalls: u64,
}

impl Traffic {
    fn per_packet(self, count: u64) -> f64 {
        if self.packets == 0 { 0.0 } else { count as f64 / self.packets as f64 }
    }
}

pub(super) fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

fn cycles(time: Duration) -> u64 {
    (time.as_secs_f64() * clock::cycles_per_second()).round() as u64
}

impl AccountReport {
    fn new(
        name: &'static str,
        samples: u64,
        time: Duration,
        total: Duration,
        traffic: Traffic,
    ) -> Self {
        let cycles = cycles(time);
        let share = time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            name,
            samples,
            cycles,
            cycles_per_packet: rounded(traffic.per_packet(cycles), 1),
            share_percent: rounded(100.0 * share, 2),
        }
    }

    /// Returns all accounts, summed over `cores`.
    fn of_cores(cores: &[CoreUsage], traffic: Traffic) -> Vec<Self> {
        let total = total(cores);
        let report = |account: Account| {
            let samples = cores.iter().map(|core| core.samples.account(account)).sum();
            let time = cores.iter().map(|core| core.account(account)).sum();
            Self::new(account.name(), samples, time, total, traffic)
        };
        Account::ALL.into_iter().map(report).collect()
    }
}

fn total(cores: &[CoreUsage]) -> Duration {
    cores.iter().flat_map(|core| core.accounts).sum()
}

impl KernelLedgerReport {
    /// Returns a report without a measurement.
    pub(crate) fn empty(mode: KernelLedgerMode) -> Self {
        Self { mode: mode.name(), ..Self::default() }
    }

    pub(super) fn with_system_calls(self, traffic: Traffic) -> Self {
        let syscalls_per_packet = rounded(traffic.per_packet(traffic.syscalls), 4);
        Self { syscalls_per_packet, ..self }
    }

    pub(super) fn with_times(
        self,
        elapsed: Duration,
        cores: &[CoreUsage],
        workers_on: impl Fn(usize) -> Vec<usize>,
        traffic: Traffic,
    ) -> Self {
        let core_report = |core: &CoreUsage| CoreReport {
            core: core.core,
            workers: workers_on(core.core),
            accounts: AccountReport::of_cores(std::slice::from_ref(core), traffic),
        };
        Self {
            seconds: rounded(elapsed.as_secs_f64(), 6),
            accounts: AccountReport::of_cores(cores, traffic),
            cores: cores.iter().map(core_report).collect(),
            ..self
        }
    }

    pub(super) fn groups_of(&self, cores: &[CoreUsage], traffic: Traffic) -> Vec<GroupReport> {
        let total = total(cores);
        let mut groups = Vec::new();
        for account in Account::ALL.into_iter().filter(|account| account.has_groups()) {
            for group in Group::ALL {
                let samples = cores.iter().map(|core| core.samples.group(account, group)).sum();
                let time = cores.iter().map(|core| core.group(account, group)).sum();
                let group = AccountReport::new(group.name(), samples, time, total, traffic);
                if samples > 0 {
                    groups.push(GroupReport { account: account.name(), group });
                }
            }
        }
        groups
    }

    pub(super) fn with_switches(
        self,
        switches: impl Iterator<Item = Switches>,
        traffic: Traffic,
    ) -> Self {
        let per_packet = |count| rounded(traffic.per_packet(count), 6);
        let report = |(worker, Switches { voluntary, involuntary })| SwitchesReport {
            worker,
            voluntary_switches: voluntary,
            involuntary_switches: involuntary,
            voluntary_switches_per_packet: per_packet(voluntary),
            involuntary_switches_per_packet: per_packet(involuntary),
        };
        Self { workers: switches.enumerate().map(report).collect(), ..self }
    }
}

impl XdpProgramReport {
    pub(super) fn new(port: &str, interface: &str, run_time: RunTime) -> Self {
        let RunTime { runs, nanoseconds } = run_time;
        let cycles = nanoseconds as f64 * clock::cycles_per_second() / 1e9;
        Self {
            port: port.to_owned(),
            interface: interface.to_owned(),
            runs,
            nanoseconds,
            cycles_per_run: rounded(cycles / runs.max(1) as f64, 1),
        }
    }
}
