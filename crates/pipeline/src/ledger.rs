//! The ledger: where a worker's cycles go.
//!
//! After each step of a batch the worker takes a time stamp, and adds the time since the previous
//! stamp to the account of that step. All accounts add up to the elapsed time. Taking the stamps
//! costs time too ([`stamp_cost`] each), which has its own account.

use std::sync::OnceLock;

use xdpfwd_xsk::{Counters, clock};

/// Packets, drops and CPU cycles of one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageAccount {
    /// Batches processed.
    pub calls: u64,
    /// Packets in these batches.
    pub packets: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Batches processed and timed while the ledger was on.
    pub timed_calls: u64,
    /// Packets in the timed batches.
    pub timed_packets: u64,
    /// Cycles of [`xdpfwd_xsk::clock`] for the timed batches, including those to apply the verdicts
    /// and for one stamp per batch.
    pub cycles: u64,
    /// Frames that the stage holds now.
    pub held: u32,
}

impl StageAccount {
    /// Returns the cycles without the cost of the stamps.
    pub fn net_cycles(&self) -> u64 {
        self.cycles.saturating_sub(self.timed_calls * stamp_cost())
    }

    /// Returns the cycles per timed packet without the stamps; 0 without timed packets.
    pub fn cycles_per_packet(&self) -> f64 {
        if self.timed_packets == 0 {
            0.0
        } else {
            self.net_cycles() as f64 / self.timed_packets as f64
        }
    }

    /// Adds another account, such as that of the same stage on another worker.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.packets += other.packets;
        self.drops += other.drops;
        self.timed_calls += other.timed_calls;
        self.timed_packets += other.timed_packets;
        self.cycles += other.cycles;
        self.held += other.held;
    }
}

/// A task of a worker, other than running its stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Task {
    /// Moving packets from RX rings, and frames from the pool into fill rings.
    Receive,
    /// Parsing headers, for paths with a stage that needs them.
    Parse,
    /// Moving packets to the egress queue. Called `scatter` in reports.
    Enqueue,
    /// Handing frames to TX rings.
    Transmit,
    /// System calls that make the kernel send. In copy mode, they run the kernel's whole transmit
    /// path.
    Wake,
    /// Reclaiming transmitted frames.
    Reclaim,
    /// Checking empty rings, in iterations that find other work. With busy polling, includes the
    /// system calls that let the driver poll.
    Look,
    /// Commands of the control thread, the stages' ticks, and the loop itself.
    Control,
    /// Checking rings in iterations that find no work.
    Poll,
    /// Waiting in the kernel for packets.
    Wait,
}

impl Task {
    /// All tasks, in report order.
    pub const ALL: [Self; 10] = [
        Self::Receive,
        Self::Parse,
        Self::Enqueue,
        Self::Transmit,
        Self::Wake,
        Self::Reclaim,
        Self::Look,
        Self::Control,
        Self::Poll,
        Self::Wait,
    ];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Parse => "parse",
            Self::Enqueue => "scatter",
            Self::Transmit => "transmit",
            Self::Wake => "wake",
            Self::Reclaim => "reclaim",
            Self::Look => "look",
            Self::Control => "control",
            Self::Poll => "poll",
            Self::Wait => "wait",
        }
    }

    /// Returns whether a worker runs this task because it has no work.
    pub fn is_idle(self) -> bool {
        matches!(self, Self::Poll | Self::Wait)
    }
}

/// The cost of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskAccount {
    /// Number of times that the task ran.
    pub calls: u64,
    /// Packets moved.
    pub packets: u64,
    /// Bytes moved; counted only for [`Task::Receive`] and [`Task::Transmit`].
    pub bytes: u64,
    /// Cycles, without the cost of the stamps.
    pub cycles: u64,
}

impl TaskAccount {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.cycles += other.cycles;
    }
}

/// Cycles by task up to one moment, of one or several workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Whether the ledger is on.
    pub is_on: bool,
    /// The account of each task, indexed by [`Task`].
    tasks: [TaskAccount; Task::ALL.len()],
    /// Cycles of all stages without the stamps.
    pub stages: u64,
    /// Number and cost of the stamps.
    pub stamps: TaskAccount,
}

impl LedgerReport {
    /// Returns the cost of a task.
    pub fn task(&self, task: Task) -> &TaskAccount {
        &self.tasks[task as usize]
    }

    /// Returns the cycles of the idle tasks.
    pub fn idle_cycles(&self) -> u64 {
        Task::ALL.into_iter().filter(|task| task.is_idle()).map(|task| self.task(task).cycles).sum()
    }

    /// Returns the cycles of the tasks that are not idle, of the stages and of the stamps.
    pub fn busy_cycles(&self) -> u64 {
        let tasks =
            Task::ALL.into_iter().filter(|task| !task.is_idle()).map(|task| self.task(task).cycles);
        tasks.sum::<u64>() + self.stages + self.stamps.cycles
    }

    /// Returns the elapsed cycles while the ledger was on.
    pub fn total_cycles(&self) -> u64 {
        self.busy_cycles() + self.idle_cycles()
    }

    /// Adds another worker's ledger.
    pub fn add(&mut self, other: &Self) {
        self.is_on |= other.is_on;
        for (task, other) in self.tasks.iter_mut().zip(&other.tasks) {
            task.add(other);
        }
        self.stages += other.stages;
        self.stamps.add(&other.stamps);
    }
}

/// Returns the cost of a stamp in cycles: the minimum of 256 averages, measured once.
pub fn stamp_cost() -> u64 {
    static COST: OnceLock<u64> = OnceLock::new();
    *COST.get_or_init(|| {
        let mut minimum = u64::MAX;
        const AVERAGES: usize = 256;
        // Clock reads per average. Two consecutive reads overlap in the processor, so the
        // difference of two may be too small.
        const READS: u64 = 64;
        for _ in 0..AVERAGES {
            let start = clock::cycles();
            (1..READS).for_each(|_| _ = std::hint::black_box(clock::cycles()));
            minimum = minimum.min(clock::cycles().wrapping_sub(start) / READS);
        }
        minimum
    })
}

/// The accounts of one worker's tasks.
pub(crate) struct TaskLedger {
    on: bool,
    /// Time of the last stamp, in cycles.
    last_stamp: u64,
    /// The account of each task, indexed by [`Task`]. Here, `cycles` includes the cost of the
    /// stamps; there is one stamp per call.
    tasks: [TaskAccount; Task::ALL.len()],
    /// Checks of empty rings in this iteration.
    empty_checks: TaskAccount,
    /// The ports' counters when the ledger was last switched on.
    counters_at_start: Counters,
    /// Increase of the ports' counters during earlier periods with the ledger on.
    earlier_counters: Counters,
    /// The stopped clock that stages see, in cycles; `None` if they see the real clock.
    #[cfg(feature = "testing")]
    frozen_time: Option<u64>,
}

impl TaskLedger {
    pub(crate) fn new(on: bool) -> Self {
        stamp_cost();
        Self {
            on,
            last_stamp: clock::cycles(),
            tasks: [TaskAccount::default(); Task::ALL.len()],
            empty_checks: TaskAccount::default(),
            counters_at_start: Counters::default(),
            earlier_counters: Counters::default(),
            #[cfg(feature = "testing")]
            frozen_time: None,
        }
    }

    /// Stops the clock that stages see; it stays at `now` (in cycles). The accounts still use the
    /// real clock.
    #[cfg(feature = "testing")]
    pub(crate) fn freeze(&mut self, now: u64) {
        self.frozen_time = Some(now);
    }

    /// Returns the current time for stages. Unlike [`now`](Self::now), never uses the last stamp,
    /// which may be old between iterations.
    pub(crate) fn read_clock(&self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(now) = self.frozen_time {
            return now;
        }
        clock::cycles()
    }

    /// Switches the ledger on or off. `port_counters` is the sum over all ports.
    pub(crate) fn switch(&mut self, on: bool, port_counters: Counters) {
        match (self.on, on) {
            (false, true) => {
                self.counters_at_start = port_counters;
                self.last_stamp = clock::cycles();
            }
            (true, false) => {
                self.book(Task::Control, 0);
                self.earlier_counters += increase(self.counters_at_start, port_counters);
            }
            _ => return,
        }
        self.on = on;
    }

    /// Takes a stamp. The time since the previous stamp goes to no account.
    pub(crate) fn begin(&mut self) {
        self.last_stamp = clock::cycles();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Returns the time of the last stamp, which is recent during an iteration, or the current time
    /// if the ledger is off.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(now) = self.frozen_time {
            return now;
        }
        if self.on { self.last_stamp } else { clock::cycles() }
    }

    /// Takes a stamp, and returns the cycles since the previous one.
    #[inline]
    pub(crate) fn stamp(&mut self) -> u64 {
        let now = clock::cycles();
        let passed = now.wrapping_sub(self.last_stamp);
        self.last_stamp = now;
        passed
    }

    /// Takes a stamp, and adds the time since the previous one to the account of a task.
    #[inline]
    pub(crate) fn book(&mut self, task: Task, packets: usize) {
        if self.on {
            let passed = self.stamp();
            let account = &mut self.tasks[task as usize];
            account.calls += 1;
            account.packets += packets as u64;
            account.cycles += passed;
        }
    }

    /// Takes a stamp after a check of an empty ring. [`end_iteration`](Self::end_iteration) decides
    /// whether the time since the previous stamp counts as [`Task::Look`] or [`Task::Poll`].
    #[inline]
    pub(crate) fn book_empty_check(&mut self) {
        if self.on {
            let passed = self.stamp();
            self.empty_checks.calls += 1;
            self.empty_checks.cycles += passed;
        }
    }

    /// Adds this iteration's checks of empty rings to [`Task::Look`] if the worker was busy, else
    /// to [`Task::Poll`].
    #[inline]
    pub(crate) fn end_iteration(&mut self, busy: bool) {
        if self.on {
            let task = if busy { Task::Look } else { Task::Poll };
            self.tasks[task as usize].add(&self.empty_checks);
            self.empty_checks = TaskAccount::default();
        }
    }

    /// Returns the cycles by task so far. `port_counters` is the sum over all ports, and `stages`
    /// the sum of the stages' accounts.
    pub(crate) fn report(&self, port_counters: Counters, stages: &StageAccount) -> LedgerReport {
        let mut counters = self.earlier_counters;
        if self.on {
            counters += increase(self.counters_at_start, port_counters);
        }
        let cost = stamp_cost();
        let mut tasks = self.tasks;
        // Zero, because `end_iteration` has added these checks to a task, unless a panic of a stage
        // has interrupted the iteration.
        tasks[Task::Look as usize].add(&self.empty_checks);
        let stamps = tasks.iter().map(|task| task.calls).sum::<u64>() + stages.timed_calls;
        // Ports time their wake-up system calls, which `Transmit` includes: move this time to
        // `Wake`.
        let transmit = &mut tasks[Task::Transmit as usize];
        transmit.cycles = transmit.cycles.saturating_sub(counters.tx_wake_cycles);
        for task in &mut tasks {
            task.cycles = task.cycles.saturating_sub(task.calls * cost);
        }
        tasks[Task::Receive as usize].bytes = counters.rx_bytes;
        tasks[Task::Transmit as usize].bytes = counters.tx_bytes;
        tasks[Task::Wake as usize] = TaskAccount {
            calls: counters.tx_wakes,
            packets: counters.tx_packets,
            bytes: 0,
            cycles: counters.tx_wake_cycles,
        };
        let stamps = TaskAccount { calls: stamps, cycles: stamps * cost, ..TaskAccount::default() };
        LedgerReport { is_on: self.on, tasks, stages: stages.net_cycles(), stamps }
    }
}

/// Returns the increase of the counters that the ledger reports. The other counters are 0.
fn increase(from: Counters, to: Counters) -> Counters {
    Counters {
        rx_bytes: to.rx_bytes - from.rx_bytes,
        tx_bytes: to.tx_bytes - from.tx_bytes,
        tx_packets: to.tx_packets - from.tx_packets,
        tx_wakes: to.tx_wakes - from.tx_wakes,
        tx_wake_cycles: to.tx_wake_cycles - from.tx_wake_cycles,
        ..Counters::default()
    }
}
