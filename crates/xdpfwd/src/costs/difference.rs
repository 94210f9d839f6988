//! The costs between two reports.

use super::{Account, Core, Costs, KernelLedger, Ledger, Stage, Switches, Task, XdpProgram};

/// Returns how much a counter grew. A counter that is smaller than before has started again, for
/// example because a reload replaced its stage.
pub(crate) fn delta(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Returns the sum, or the maximum if it is larger: the numbers come from another process.
pub(crate) fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Returns `numerator / denominator`, or 0 if the denominator is 0.
pub(crate) fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 { 0.0 } else { numerator as f64 / denominator as f64 }
}

/// Rounds as reports do.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Rounds numbers that can be far below 1, such as system calls per packet.
fn rounded_small(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// Returns the item of an earlier report that equals `item` by `key`, or an item with zeros.
fn earlier<T: Clone + Default, K: PartialEq>(before: &[T], item: &T, key: impl Fn(&T) -> K) -> T {
    before.iter().find(|other| key(other) == key(item)).cloned().unwrap_or_default()
}

impl Costs {
    /// Returns the costs since the report `before` of the same process.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let rx_packets = delta(self.rx_packets, before.rx_packets);
        let syscalls = delta(self.syscalls, before.syscalls);
        let kernel_ledger = self.kernel_ledger.as_ref().map(|ledger| {
            let mut ledger = match &before.kernel_ledger {
                Some(before) => ledger.since(before, rx_packets),
                None => ledger.clone(),
            };
            ledger.syscalls_per_packet = rounded_small(ratio(syscalls, rx_packets));
            ledger
        });
        Self {
            elapsed_seconds: self.elapsed_seconds - before.elapsed_seconds,
            rx_packets,
            syscalls,
            ledger: self.ledger.since(&before.ledger),
            stages: stages_since(&self.stages, &before.stages),
            kernel_ledger,
        }
    }
}

impl Ledger {
    fn since(&self, before: &Self) -> Self {
        let workers = self.workers.iter().map(|worker| {
            let before = earlier(&before.workers, worker, |worker| worker.worker);
            super::Worker {
                worker: worker.worker,
                wall_cycles: delta(worker.wall_cycles, before.wall_cycles),
                busy_cycles: delta(worker.busy_cycles, before.busy_cycles),
                idle_cycles: delta(worker.idle_cycles, before.idle_cycles),
            }
        });
        Self {
            busy_cycles: delta(self.busy_cycles, before.busy_cycles),
            idle_cycles: delta(self.idle_cycles, before.idle_cycles),
            tasks: self.tasks.iter().map(|task| task.since(&before.tasks)).collect(),
            workers: workers.collect(),
            ..*self
        }
    }
}

impl Task {
    fn since(&self, before: &[Self]) -> Self {
        let before = earlier(before, self, |task| task.name.clone());
        let (calls, packets) =
            (delta(self.calls, before.calls), delta(self.packets, before.packets));
        let cycles = delta(self.cycles, before.cycles);
        Self {
            name: self.name.clone(),
            calls,
            packets,
            bytes: delta(self.bytes, before.bytes),
            cycles,
            cycles_per_packet: rounded(ratio(cycles, packets)),
            packets_per_call: rounded(ratio(packets, calls)),
        }
    }
}

/// A stage can be on a path several times: the n-th is compared with the n-th.
fn stages_since(now: &[Stage], before: &[Stage]) -> Vec<Stage> {
    let same = |stage: &Stage, other: &Stage| stage.path == other.path && stage.name == other.name;
    let since = |(index, stage): (usize, &Stage)| {
        let earlier_in_list = now[..index].iter().filter(|other| same(stage, other)).count();
        let before = before.iter().filter(|other| same(stage, other)).nth(earlier_in_list);
        stage.since(&before.cloned().unwrap_or_default())
    };
    now.iter().enumerate().map(since).collect()
}

impl Stage {
    fn since(&self, before: &Self) -> Self {
        let (calls, packets) =
            (delta(self.calls, before.calls), delta(self.packets, before.packets));
        // A report without `cycles` has only the cycles per packet since the start.
        let (cycles, cycles_per_packet) = match self.cycles {
            0 => ((self.cycles_per_packet * packets as f64) as u64, self.cycles_per_packet),
            cycles => {
                let cycles = delta(cycles, before.cycles);
                (cycles, rounded(ratio(cycles, packets)))
            }
        };
        let counters = self.counters.iter().map(|(name, &count)| {
            let before = before.counters.get(name).copied().unwrap_or(0);
            (name.clone(), delta(count, before))
        });
        Self {
            path: self.path.clone(),
            name: self.name.clone(),
            place: self.place.clone(),
            calls,
            packets,
            drops: delta(self.drops, before.drops),
            cycles,
            cycles_per_packet,
            packets_per_call: rounded(ratio(packets, calls)),
            counters: counters.collect(),
        }
    }
}

/// Returns the accounts since `before`, each with its share of `total` cycles.
fn accounts_since(
    now: &[Account],
    before: &[Account],
    rx_packets: u64,
    total: Option<u64>,
) -> Vec<Account> {
    let accounts = now.iter().map(|account| {
        let before =
            earlier(before, account, |account| (account.account.clone(), account.name.clone()));
        let cycles = delta(account.cycles, before.cycles);
        Account {
            samples: delta(account.samples, before.samples),
            cycles,
            cycles_per_packet: rounded(ratio(cycles, rx_packets)),
            ..account.clone()
        }
    });
    let mut accounts: Vec<Account> = accounts.collect();
    let total = total.unwrap_or_else(|| sum(accounts.iter().map(|account| account.cycles)));
    for account in &mut accounts {
        account.share_percent = rounded(100.0 * ratio(account.cycles, total));
    }
    accounts
}

impl KernelLedger {
    /// Returns the kernel's share since `before`, in which the ports received `rx_packets`.
    pub(crate) fn since(&self, before: &Self, rx_packets: u64) -> Self {
        let accounts = accounts_since(&self.accounts, &before.accounts, rx_packets, None);
        let total = sum(accounts.iter().map(|account| account.cycles));
        let groups = accounts_since(&self.groups, &before.groups, rx_packets, Some(total));
        let cores = self.cores.iter().map(|core| Core {
            accounts: accounts_since(
                &core.accounts,
                &earlier(&before.cores, core, |core| core.core).accounts,
                rx_packets,
                None,
            ),
            ..core.clone()
        });
        let workers = self.workers.iter().map(|worker| {
            let before = earlier(&before.workers, worker, |worker| worker.worker);
            let voluntary = delta(worker.voluntary_switches, before.voluntary_switches);
            let involuntary = delta(worker.involuntary_switches, before.involuntary_switches);
            Switches {
                worker: worker.worker,
                voluntary_switches: voluntary,
                involuntary_switches: involuntary,
                voluntary_switches_per_packet: rounded_small(ratio(voluntary, rx_packets)),
                involuntary_switches_per_packet: rounded_small(ratio(involuntary, rx_packets)),
            }
        });
        let programs = self.xdp_programs.iter().map(|program| {
            let before = earlier(&before.xdp_programs, program, |program| program.port.clone());
            let runs = delta(program.runs, before.runs);
            let nanoseconds = delta(program.nanoseconds, before.nanoseconds);
            // The report has no frequency here: derive the factor from its own ratio.
            let factor = program.cycles_per_run / ratio(program.nanoseconds, program.runs);
            let cycles_per_run = rounded(ratio(nanoseconds, runs) * factor);
            XdpProgram {
                runs,
                nanoseconds,
                cycles_per_run: if cycles_per_run.is_finite() { cycles_per_run } else { 0.0 },
                ..program.clone()
            }
        });
        let sampling = self.sampling.as_ref().map(|sampling| {
            let before = before.sampling.clone().unwrap_or_default();
            super::Sampling {
                samples: delta(sampling.samples, before.samples),
                lost: delta(sampling.lost, before.lost),
                ..sampling.clone()
            }
        });
        let tracing = self.tracing.as_ref().map(|tracing| {
            let before = before.tracing.as_ref().map_or(0, |tracing| tracing.events);
            super::Tracing { events: delta(tracing.events, before), ..tracing.clone() }
        });
        Self {
            seconds: (self.seconds - before.seconds).max(0.0),
            sampling,
            tracing,
            accounts,
            groups,
            cores: cores.collect(),
            workers: workers.collect(),
            xdp_programs: programs.collect(),
            ..self.clone()
        }
    }
}
