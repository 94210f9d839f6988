//! The ledger in the report: CPU cycles by task.

use serde::Serialize;

use xdpfwd_pipeline::{LedgerReport, Task, TaskAccount};
use xdpfwd_xsk::clock;

/// CPU cycles. Those of all `tasks` together equal `busy_cycles` plus `idle_cycles`.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// Whether the workers measure cycles (configuration key `ledger`).
    pub on: bool,
    /// Time-stamp-counter cycles per second.
    pub cycles_per_second: f64,
    /// Cycles that taking one time stamp costs. The cycles of the measured tasks exclude this cost;
    /// the task `stamps` reports it.
    pub stamp_cycles: u64,
    /// Cycles with work, time stamps included.
    pub busy_cycles: u64,
    /// Cycles without work.
    pub idle_cycles: u64,
    /// Per task, summed over the workers.
    pub tasks: Vec<TaskReport>,
    /// Per worker.
    pub workers: Vec<WorkerLedger>,
}

/// The cycles of one task, summed over the workers.
#[derive(Clone, Debug, Serialize)]
pub struct TaskReport {
    /// Task name.
    pub name: &'static str,
    /// Number of calls.
    pub calls: u64,
    /// Packets handled.
    pub packets: u64,
    /// Bytes handled; 0 if not counted.
    pub bytes: u64,
    /// Cycles.
    pub cycles: u64,
    /// Cycles per packet; 0 without packets.
    pub cycles_per_packet: f64,
    /// Packets per call; 0 without calls.
    pub packets_per_call: f64,
}

/// The cycles of one worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerLedger {
    /// Worker number.
    pub worker: usize,
    /// Cycles since the worker started, measured by the thread that requested the report. The sum
    /// of busy and idle cycles should equal this number.
    pub wall_cycles: u64,
    /// Cycles with work, time stamps included.
    pub busy_cycles: u64,
    /// Cycles without work.
    pub idle_cycles: u64,
}

impl Ledger {
    /// `workers` yields each worker's ledger and wall cycles, or `None` if it has never reported.
    pub(crate) fn new<'a>(workers: impl Iterator<Item = Option<(&'a LedgerReport, u64)>>) -> Self {
        let mut sum = LedgerReport::default();
        let mut worker_ledgers = Vec::new();
        for (worker, ledger) in workers.enumerate() {
            let Some((ledger, wall_cycles)) = ledger else { continue };
            sum.add(ledger);
            let (busy_cycles, idle_cycles) = (ledger.busy_cycles(), ledger.idle_cycles());
            worker_ledgers.push(WorkerLedger { worker, wall_cycles, busy_cycles, idle_cycles });
        }
        let stages = TaskAccount { cycles: sum.stages, ..TaskAccount::default() };
        let mut tasks: Vec<_> = Task::ALL
            .into_iter()
            .map(|task| TaskReport::new(task.name(), sum.task(task)))
            .collect();
        tasks.push(TaskReport::new("stages", &stages));
        tasks.push(TaskReport::new("stamps", &sum.stamps));
        Self {
            on: sum.is_on,
            cycles_per_second: clock::cycles_per_second().round(),
            stamp_cycles: xdpfwd_pipeline::stamp_cost(),
            busy_cycles: sum.busy_cycles(),
            idle_cycles: sum.idle_cycles(),
            tasks,
            workers: worker_ledgers,
        }
    }
}

impl TaskReport {
    fn new(name: &'static str, account: &TaskAccount) -> Self {
        let TaskAccount { calls, packets, bytes, cycles } = *account;
        let ratio = |numerator: u64, denominator: u64| {
            if denominator == 0 {
                0.0
            } else {
                (numerator as f64 / denominator as f64 * 10.0).round() / 10.0
            }
        };
        let (cycles_per_packet, packets_per_call) = (ratio(cycles, packets), ratio(packets, calls));
        Self { name, calls, packets, bytes, cycles, cycles_per_packet, packets_per_call }
    }
}
