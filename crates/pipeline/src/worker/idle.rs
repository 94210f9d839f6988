//! The loop of a worker's thread.

use std::time::Duration;

use xdpfwd_xsk::{WaitSet, clock};

use super::Worker;
use super::mailbox::Mailbox;
use crate::chain::Chain;
use crate::ledger::Task;
use crate::shared_table;

/// A worker's behaviour when no packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// Poll for a limited time, then wait in the kernel. Waiting takes almost no CPU time, but
    /// delays the first packet after a pause by some tens of microseconds. Each packet adds
    /// [`SPIN_PER_PACKET`] to the polling time, up to [`MAX_SPIN`], so a worker under load also
    /// polls in short gaps.
    #[default]
    Poll,
    /// Poll without pause, on a dedicated core.
    Spin,
}

/// Polling time that each received packet adds, see [`Idle::Poll`].
pub const SPIN_PER_PACKET: Duration = Duration::from_micros(20);

/// Maximum polling time after the last packet, see [`Idle::Poll`].
pub const MAX_SPIN: Duration = Duration::from_millis(1);

/// Maximum time of a wait in the kernel, so that stages tick and frames are reclaimed.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Maximum time of a wait while the worker has work that no packet signals.
const MAX_WAIT_WITH_WORK: Duration = Duration::from_millis(1);

impl<C: Chain> Worker<C> {
    /// Repeats iterations, with commands from the mailbox between them, until
    /// [`Remote::stop`](super::Remote::stop).
    pub fn run(&mut self, mailbox: &Mailbox<C>, idle: Idle) {
        // `WorkerBuilder::build` has prepared its thread to read shared tables. It may have run on
        // another thread, so prepare this thread too.
        shared_table::prepare_thread();
        let mut wait_set = WaitSet::new(self.descriptors().chain([mailbox.fd()]));
        let mut budget = SpinBudget::new(clock::cycles());
        self.ledger.begin();
        loop {
            if mailbox.has_mail() {
                if !mailbox.run_commands(self) {
                    return;
                }
                if std::mem::take(&mut self.ports_changed) {
                    wait_set = WaitSet::new(self.descriptors().chain([mailbox.fd()]));
                }
            }
            let received = self.poll_once();
            if received > 0 {
                budget.add(received, clock::cycles());
            } else if idle == Idle::Poll && budget.is_spent(clock::cycles()) {
                let timeout =
                    if self.has_unannounced_work() { MAX_WAIT_WITH_WORK } else { MAX_WAIT };
                self.waits += 1;
                self.ledger.book(Task::Control, 0);
                wait_set.wait(timeout);
                self.ledger.book(Task::Wait, 0);
                // The wake-up for a command can arrive after the command has run, too late for
                // `run_commands` to clear it. Clear it here, or every later wait returns at once.
                if wait_set.is_ready(mailbox.fd()) {
                    mailbox.clear_wake_up();
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// How long an idle worker polls.
struct SpinBudget {
    /// The end of polling, in cycles of [`xdpfwd_xsk::clock`].
    end: u64,
    per_packet: u64,
    /// Maximum cycles from now until `end`.
    max: u64,
}

impl SpinBudget {
    fn new(now: u64) -> Self {
        let cycles = |time: Duration| (clock::cycles_per_second() * time.as_secs_f64()) as u64;
        let (per_packet, max) = (cycles(SPIN_PER_PACKET), cycles(MAX_SPIN));
        Self { end: now + per_packet, per_packet, max }
    }

    #[inline]
    fn add(&mut self, packets: usize, now: u64) {
        self.end = (self.end.max(now) + packets as u64 * self.per_packet).min(now + self.max);
    }

    #[inline]
    fn is_spent(&self, now: u64) -> bool {
        // The TSC can jump back after a live migration; treat that as spent.
        now >= self.end || self.end - now > self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_budget_grows_with_packets_up_to_maximum() {
        let SpinBudget { per_packet, max, .. } = SpinBudget::new(0);
        let mut budget = SpinBudget { end: 0, per_packet, max };
        let ends_at =
            |budget: &SpinBudget, end: u64| !budget.is_spent(end - 1) && budget.is_spent(end);
        budget.add(1, 1_000_000);
        assert!(ends_at(&budget, 1_000_000 + per_packet));
        budget.add(3, 1_000_000 + per_packet / 2);
        assert!(ends_at(&budget, 1_000_000 + 4 * per_packet));
        // The end is at most `max` after the last packet.
        (0..1000).for_each(|_| budget.add(64, 2_000_000));
        assert!(ends_at(&budget, 2_000_000 + max));
        let later = 2_000_000 + 10 * max;
        budget.add(1, later);
        assert!(ends_at(&budget, later + per_packet));
    }
}
