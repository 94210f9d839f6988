//! The ledger: where a worker's cycles go.
//!
//! Each stamp adds the time since the last stamp to the account of the work just done, once per
//! batch. All accounts together are the worker's whole time. The cost of a stamp itself,
//! [`stamp_cost`], is subtracted from each account and has an account of its own.

use std::sync::OnceLock;

use xdpfwd_xsk::{Counters, clock};

/// One stage's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageAccount {
    /// Batches processed.
    pub calls: u64,
    /// Packets in these batches.
    pub packets: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Batches that were timed: all, except while the ledger was off.
    pub timed_calls: u64,
    /// Packets in the timed batches.
    pub timed_packets: u64,
    /// Cycles of [`xdpfwd_xsk::clock`] for the timed batches, including verdicts and one stamp
    /// each.
    pub cycles: u64,
    /// Frames that the stage holds now.
    pub held: u32,
}

impl StageAccount {
    /// Returns the cycles without the stamps.
    pub fn net_cycles(&self) -> u64 {
        self.cycles.saturating_sub(self.timed_calls * stamp_cost())
    }

    /// Returns the cycles per packet; 0 before the first packet.
    pub fn cycles_per_packet(&self) -> f64 {
        if self.timed_packets == 0 {
            0.0
        } else {
            self.net_cycles() as f64 / self.timed_packets as f64
        }
    }

    /// Adds the account of the same stage on another worker.
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

/// A worker's work besides its stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Task {
    /// Moving packets from RX rings into batches, and frames from the pool into fill rings.
    Receive,
    /// Parsing headers, for paths with a stage that needs them.
    Parse,
    /// Moving packets that passed all stages to the egress queue. Called `scatter` in reports.
    Enqueue,
    /// Handing frames to TX rings.
    Transmit,
    /// System calls that make the kernel send. In copy mode they include its whole transmit path.
    Wake,
    /// Reclaiming transmitted frames.
    Reclaim,
    /// Checking empty rings while other rings have work; with busy polling, the system calls that
    /// let the driver poll.
    Look,
    /// Commands of the control thread, the stages' ticks, and the loop itself.
    Control,
    /// Iterations without work.
    Poll,
    /// Waiting in the kernel for packets.
    Wait,
}

impl Task {
    /// All tasks, in the order of an iteration.
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

    /// Returns whether the worker has no work during this task.
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
    /// Bytes moved, where known.
    pub bytes: u64,
    /// Cycles, without the stamps.
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

/// Cycles by task at one moment, of one worker or the sum of several. Stages have accounts of their
/// own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Whether the ledger is on.
    pub on: bool,
    /// Accounts, indexed by [`Task`].
    tasks: [TaskAccount; Task::ALL.len()],
    /// Cycles of all stages, without the stamps.
    pub stages: u64,
    /// Number and cost of the stamps.
    pub stamps: TaskAccount,
}

impl LedgerReport {
    /// Returns the cost of a task.
    pub fn task(&self, task: Task) -> &TaskAccount {
        &self.tasks[task as usize]
    }

    /// Returns the cycles without work.
    pub fn idle_cycles(&self) -> u64 {
        Task::ALL.into_iter().filter(|task| task.is_idle()).map(|task| self.task(task).cycles).sum()
    }

    /// Returns all other cycles, stamps included.
    pub fn busy_cycles(&self) -> u64 {
        let tasks =
            Task::ALL.into_iter().filter(|task| !task.is_idle()).map(|task| self.task(task).cycles);
        tasks.sum::<u64>() + self.stages + self.stamps.cycles
    }

    /// Returns all cycles: the elapsed time while the ledger was on.
    pub fn total_cycles(&self) -> u64 {
        self.busy_cycles() + self.idle_cycles()
    }

    /// Adds another worker's ledger.
    pub fn add(&mut self, other: &Self) {
        self.on |= other.on;
        for (task, other) in self.tasks.iter_mut().zip(&other.tasks) {
            task.add(other);
        }
        self.stages += other.stages;
        self.stamps.add(&other.stamps);
    }
}

/// Returns the cycles per stamp: the minimum of many runs, measured once.
pub fn stamp_cost() -> u64 {
    static COST: OnceLock<u64> = OnceLock::new();
    *COST.get_or_init(|| {
        let mut least = u64::MAX;
        // Average over a run: consecutive clock reads overlap in the processor, so a single
        // difference may be too small.
        const RUN: u64 = 64;
        for _ in 0..256 {
            let start = clock::cycles();
            (1..RUN).for_each(|_| _ = std::hint::black_box(clock::cycles()));
            least = least.min(clock::cycles().wrapping_sub(start) / RUN);
        }
        least
    })
}

/// The running ledger of a worker.
pub(crate) struct TaskLedger {
    on: bool,
    /// Time of the last stamp.
    last: u64,
    /// Stamped time by task, stamps included; `calls` are the stamps.
    tasks: [TaskAccount; Task::ALL.len()],
    /// Time that this iteration spent on checking empty rings.
    looked: TaskAccount,
    /// The ports' counters when the ledger was switched on.
    base: Counters,
    /// The ports' counts of earlier periods with the ledger on.
    before: Counters,
    /// The time that stages see on a test bench; `None` for the clock.
    #[cfg(feature = "testing")]
    frozen: Option<u64>,
}

impl TaskLedger {
    pub(crate) fn new(on: bool) -> Self {
        stamp_cost();
        Self {
            on,
            last: clock::cycles(),
            tasks: [TaskAccount::default(); Task::ALL.len()],
            looked: TaskAccount::default(),
            base: Counters::default(),
            before: Counters::default(),
            #[cfg(feature = "testing")]
            frozen: None,
        }
    }

    /// Sets the time that stages see from now on. Accounts still use the clock.
    #[cfg(feature = "testing")]
    pub(crate) fn freeze(&mut self, now: u64) {
        self.frozen = Some(now);
    }

    /// Returns the time that stages see, without the delay of [`now`](Self::now).
    pub(crate) fn read_clock(&self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(now) = self.frozen {
            return now;
        }
        clock::cycles()
    }

    /// Switches the ledger. `counted` are the ports' counters at this moment.
    pub(crate) fn switch(&mut self, on: bool, counted: Counters) {
        match (self.on, on) {
            (false, true) => {
                self.base = counted;
                self.last = clock::cycles();
            }
            (true, false) => {
                self.book(Task::Control, 0);
                self.before += since(counted, self.base);
            }
            _ => return,
        }
        self.on = on;
    }

    /// Restarts timing: the time since the last stamp goes to no account.
    pub(crate) fn begin(&mut self) {
        self.last = clock::cycles();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Returns the time of the last stamp, which is recent, or the current time if the ledger is
    /// off.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(now) = self.frozen {
            return now;
        }
        if self.on { self.last } else { clock::cycles() }
    }

    /// Takes a stamp and returns the cycles since the last one.
    #[inline]
    pub(crate) fn stamp(&mut self) -> u64 {
        let now = clock::cycles();
        let passed = now.wrapping_sub(self.last);
        self.last = now;
        passed
    }

    /// Adds the time since the last stamp to a task.
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

    /// Adds the time since the last stamp, which found no work. The end of the iteration decides
    /// whether it counts as [`Task::Look`] or [`Task::Poll`].
    #[inline]
    pub(crate) fn book_empty_look(&mut self) {
        if self.on {
            let passed = self.stamp();
            self.looked.calls += 1;
            self.looked.cycles += passed;
        }
    }

    /// Ends an iteration.
    #[inline]
    pub(crate) fn end_iteration(&mut self, busy: bool) {
        if self.on {
            let task = if busy { Task::Look } else { Task::Poll };
            self.tasks[task as usize].add(&self.looked);
            self.looked = TaskAccount::default();
        }
    }

    /// Returns the report, given the ports' counters and the sum of the stages' accounts.
    pub(crate) fn report(&self, counted: Counters, stages: &StageAccount) -> LedgerReport {
        let mut counters = self.before;
        if self.on {
            counters += since(counted, self.base);
        }
        let cost = stamp_cost();
        let mut tasks = self.tasks;
        tasks[if self.looked.calls > 0 { Task::Look as usize } else { Task::Poll as usize }]
            .add(&self.looked);
        let stamps = tasks.iter().map(|task| task.calls).sum::<u64>() + stages.timed_calls;
        // Each port times its system calls itself: subtract them from the time for transmitting.
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
        LedgerReport { on: self.on, tasks, stages: stages.net_cycles(), stamps }
    }
}

/// Returns the difference between two readings.
fn since(now: Counters, then: Counters) -> Counters {
    Counters {
        rx_bytes: now.rx_bytes - then.rx_bytes,
        tx_bytes: now.tx_bytes - then.tx_bytes,
        tx_packets: now.tx_packets - then.tx_packets,
        tx_wakes: now.tx_wakes - then.tx_wakes,
        tx_wake_cycles: now.tx_wake_cycles - then.tx_wake_cycles,
        ..Counters::default()
    }
}
