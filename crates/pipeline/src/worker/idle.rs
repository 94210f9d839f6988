//! A worker's thread: iterations of the loop, and idle waiting.

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
    /// Poll for a while, then wait in the kernel for the next packet. The first packet after a
    /// pause is delayed by some tens of microseconds; a pause takes almost no CPU time. Each packet
    /// received adds [`SPIN`] of polling, so that under load a short gap does not put the worker to
    /// sleep.
    #[default]
    Poll,
    /// Poll all the time, on a dedicated core.
    Spin,
}

/// Polling time that each received packet adds before the worker waits in the kernel.
pub const SPIN: Duration = Duration::from_micros(20);

/// Longest time of polling without a packet.
pub const LONGEST_SPIN: Duration = Duration::from_millis(1);

/// Longest wait in the kernel: ticks and reclaiming happen at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait while the worker has work that no packet signals.
const SHORT_WAIT: Duration = Duration::from_millis(1);

impl<C: Chain> Worker<C> {
    /// Repeats iterations until the mailbox receives a stop, and runs its commands in between.
    pub fn run(&mut self, mailbox: &Mailbox<C>, idle: Idle) {
        // Already done if the worker was built on this thread.
        shared_table::prepare_thread();
        let mut wait_set = WaitSet::new(self.descriptors().chain([mailbox.fd()]));
        let mut budget = SpinBudget::new(clock::cycles());
        self.ledger.begin();
        loop {
            if mailbox.has_mail() && !mailbox.open(self) {
                return;
            }
            let received = self.poll_once();
            if received > 0 {
                budget.add(received, clock::cycles());
            } else if idle == Idle::Poll && budget.is_spent(clock::cycles()) {
                let at_most = if self.has_unannounced_work() { SHORT_WAIT } else { LONGEST_WAIT };
                self.waits += 1;
                self.ledger.book(Task::Control, 0);
                wait_set.wait(at_most);
                self.ledger.book(Task::Wait, 0);
                // The worker may have read the flag before the wake-up arrived. Clear the wake-up
                // anyway, or every later wait returns at once.
                if wait_set.is_ready(mailbox.fd()) {
                    mailbox.clear_wake_up();
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// The remaining polling time, which received packets extend.
struct SpinBudget {
    /// End of polling, in cycles of [`xdpfwd_xsk::clock`].
    end: u64,
    /// Cycles that each packet adds.
    per_packet: u64,
    /// Maximum number of cycles until `end`.
    longest: u64,
}

impl SpinBudget {
    fn new(now: u64) -> Self {
        let cycles = |time: Duration| (clock::cycles_per_second() * time.as_secs_f64()) as u64;
        let (per_packet, longest) = (cycles(SPIN), cycles(LONGEST_SPIN));
        Self { end: now + per_packet, per_packet, longest }
    }

    #[inline]
    fn add(&mut self, packets: usize, now: u64) {
        self.end = (self.end.max(now) + packets as u64 * self.per_packet).min(now + self.longest);
    }

    #[inline]
    fn is_spent(&self, now: u64) -> bool {
        // The TSC can jump back after a live migration; treat that as spent.
        now >= self.end || self.end - now > self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_budget_grows_with_packets_up_to_the_longest() {
        let SpinBudget { per_packet, longest, .. } = SpinBudget::new(0);
        let mut budget = SpinBudget { end: 0, per_packet, longest };
        let spent_at =
            |budget: &SpinBudget, at: u64| !budget.is_spent(at - 1) && budget.is_spent(at);
        // One packet after a pause.
        budget.add(1, 1_000_000);
        assert!(spent_at(&budget, 1_000_000 + per_packet));
        // Three packets before the end extend it.
        budget.add(3, 1_000_000 + per_packet / 2);
        assert!(spent_at(&budget, 1_000_000 + 4 * per_packet));
        // Any number of packets extends the end to at most `longest` after the last one.
        (0..1000).for_each(|_| budget.add(64, 2_000_000));
        assert!(spent_at(&budget, 2_000_000 + longest));
        // Unused time is not carried over.
        let later = 2_000_000 + 10 * longest;
        budget.add(1, later);
        assert!(spent_at(&budget, later + per_packet));
    }
}
