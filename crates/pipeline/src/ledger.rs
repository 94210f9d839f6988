//! The ledger: where a worker's cycles go.
//!
//! One clock runs through the worker's loop. Each stamp books the time since the last one on the
//! account of what was just done, once per batch and never per packet. So nothing falls between two
//! accounts, and all of them together are the worker's whole time. A stamp costs something itself:
//! [`stamp_cost`] is taken off each account and has one of its own.

use std::sync::OnceLock;

use xdpfwd_xsk::{Counters, clock};

/// One stage's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageAccount {
    /// Batches that it was called with.
    pub calls: u64,
    /// Packets in them.
    pub packets: u64,
    /// Packets that it dropped.
    pub drops: u64,
    /// Batches that were timed: all, unless the ledger was off for a while.
    pub timed_calls: u64,
    /// Packets in those.
    pub timed_packets: u64,
    /// Cycles of [`xdpfwd_xsk::clock`] that those took, verdicts carried out and a stamp for each
    /// included.
    pub cycles: u64,
    /// Frames that it holds at this moment.
    pub held: u32,
}

impl StageAccount {
    /// Cycles that its batches took, without the stamps.
    pub fn net_cycles(&self) -> u64 {
        self.cycles.saturating_sub(self.timed_calls * stamp_cost())
    }

    /// Cycles per packet; 0 before the first packet.
    pub fn cycles_per_packet(&self) -> f64 {
        if self.timed_packets == 0 {
            0.0
        } else {
            self.net_cycles() as f64 / self.timed_packets as f64
        }
    }

    /// Adds what another worker's copy of the stage did.
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

/// What a worker does besides its stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Task {
    /// Taking packets from RX rings into batches, and frames from the pool into fill rings.
    Receive,
    /// Reading headers, for paths with a stage that wants them.
    Parse,
    /// Moving packets that passed all stages to the egress queue. Called `scatter` in reports.
    Enqueue,
    /// Handing frames to TX rings.
    Transmit,
    /// System calls that make the kernel send: in copy mode its whole transmit path runs inside
    /// them.
    Wake,
    /// Taking back frames that were sent.
    Reclaim,
    /// Looking at rings in which nothing was, while there was work elsewhere; with busy polling,
    /// the system calls that let the driver look.
    Look,
    /// Commands of the control thread, the stages' ticks, and the loop itself.
    Control,
    /// Turns in which there was nothing to do.
    Poll,
    /// Waiting in the kernel for packets.
    Wait,
}

impl Task {
    /// All of them, in the order of a worker's turn.
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

    /// Its name in reports.
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

    /// Whether the worker had nothing to do meanwhile.
    pub fn is_idle(self) -> bool {
        matches!(self, Self::Poll | Self::Wait)
    }
}

/// What one task took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskAccount {
    /// Times that it was done.
    pub calls: u64,
    /// Packets that it moved.
    pub packets: u64,
    /// Their bytes, where it is known.
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

/// Where a worker's cycles went, at one moment; or several workers' added up. The stages have
/// accounts of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Whether it is on.
    pub on: bool,
    /// By [`Task`].
    tasks: [TaskAccount; Task::ALL.len()],
    /// Cycles of all stages, without the stamps.
    pub stages: u64,
    /// Stamps: their number, and what they took.
    pub stamps: TaskAccount,
}

impl LedgerReport {
    /// What a task took.
    pub fn task(&self, task: Task) -> &TaskAccount {
        &self.tasks[task as usize]
    }

    /// Cycles in which there was nothing to do.
    pub fn idle_cycles(&self) -> u64 {
        Task::ALL.into_iter().filter(|task| task.is_idle()).map(|task| self.task(task).cycles).sum()
    }

    /// All other cycles, the stamps included.
    pub fn busy_cycles(&self) -> u64 {
        let tasks =
            Task::ALL.into_iter().filter(|task| !task.is_idle()).map(|task| self.task(task).cycles);
        tasks.sum::<u64>() + self.stages + self.stamps.cycles
    }

    /// Everything: what passed on the wall while the ledger was on.
    pub fn total_cycles(&self) -> u64 {
        self.busy_cycles() + self.idle_cycles()
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.on |= other.on;
        for (task, other) in self.tasks.iter_mut().zip(&other.tasks) {
            task.add(other);
        }
        self.stages += other.stages;
        self.stamps.add(&other.stamps);
    }
}

/// Cycles that one stamp takes: the least of many, measured once.
pub fn stamp_cost() -> u64 {
    static COST: OnceLock<u64> = OnceLock::new();
    *COST.get_or_init(|| {
        let mut least = u64::MAX;
        // In runs, as a single difference may come out too small: the processor does not wait for
        // one to begin the next.
        const RUN: u64 = 64;
        for _ in 0..256 {
            let start = clock::cycles();
            (1..RUN).for_each(|_| _ = std::hint::black_box(clock::cycles()));
            least = least.min(clock::cycles().wrapping_sub(start) / RUN);
        }
        least
    })
}

/// The ledger as it is kept.
pub(crate) struct TaskLedger {
    on: bool,
    /// The last stamp.
    last: u64,
    /// Stamped time by task, stamps included; `calls` are the stamps.
    tasks: [TaskAccount; Task::ALL.len()],
    /// What this turn spent on looking in vain.
    looked: TaskAccount,
    /// What the ports had counted when the ledger was switched on.
    base: Counters,
    /// What the ports counted in earlier periods in which it was on.
    before: Counters,
    /// The time that stages see on a test bench; `None` for the clock's.
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

    /// Sets the time that stages see from now on. Accounts still go by the clock.
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

    /// Switches it. What the ports have counted so far decides where its period begins or ends.
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

    /// Begins now: what passed since the last stamp is nobody's.
    pub(crate) fn begin(&mut self) {
        self.last = clock::cycles();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// The time: that of the last stamp, which is not long ago, or of now if there are none.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(now) = self.frozen {
            return now;
        }
        if self.on { self.last } else { clock::cycles() }
    }

    /// Cycles since the last stamp.
    #[inline]
    pub(crate) fn stamp(&mut self) -> u64 {
        let now = clock::cycles();
        let passed = now.wrapping_sub(self.last);
        self.last = now;
        passed
    }

    /// Books the time since the last stamp.
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

    /// Books the time since the last stamp, in which nothing was found: as what is known at the end
    /// of the turn.
    #[inline]
    pub(crate) fn book_empty_look(&mut self) {
        if self.on {
            let passed = self.stamp();
            self.looked.calls += 1;
            self.looked.cycles += passed;
        }
    }

    /// A turn is over.
    #[inline]
    pub(crate) fn end_iteration(&mut self, busy: bool) {
        if self.on {
            let task = if busy { Task::Look } else { Task::Poll };
            self.tasks[task as usize].add(&self.looked);
            self.looked = TaskAccount::default();
        }
    }

    /// What it says, given what the ports have counted and what the stages took (stamps included)
    /// in so many batches.
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
        // A port times its system calls itself: they are a part of what transmitting took.
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

/// What was counted since.
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
