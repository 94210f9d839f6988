//! A worker's thread: iterations of the loop, and what happens when no packets arrive.

use std::time::Duration;

use xdpfwd_xsk::{WaitSet, clock};

use super::Worker;
use super::mailbox::Mailbox;
use crate::chain::Chain;
use crate::ledger::Task;
use crate::shared_table;

/// What a worker does when no packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// It polls for a while and then waits in the kernel for the next packet. That costs some tens
    /// of microseconds of latency for the first packet after a pause, and next to no processor time
    /// during one. Each packet received adds [`SPIN`] of polling, so that under load a short gap
    /// does not put the worker to sleep.
    #[default]
    Poll,
    /// It keeps polling: for a core of its own.
    Spin,
}

/// How much longer a worker polls, before it waits in the kernel, for each packet received.
pub const SPIN: Duration = Duration::from_micros(20);

/// The longest that it polls without receiving a packet.
pub const LONGEST_SPIN: Duration = Duration::from_millis(1);

/// Longest wait in the kernel: ticks and reclaiming happen at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait while there is work that no packet announces.
const SHORT_WAIT: Duration = Duration::from_millis(1);

impl<C: Chain> Worker<C> {
    /// Polls until the mailbox is told to stop, and carries out its commands between two
    /// iterations.
    pub fn run(&mut self, mailbox: &Mailbox<C>, idle: Idle) {
        // Already done, unless the worker was built on another thread.
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
                // The flag may have been seen before its wake-up. Clear the wake-up anyway, or
                // every later wait returns at once.
                if wait_set.is_ready(mailbox.fd()) {
                    mailbox.clear_wake_up();
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// How long to keep polling: the time that received packets have added and that has not passed yet.
struct SpinBudget {
    /// When it is spent, in cycles of [`xdpfwd_xsk::clock`].
    end: u64,
    /// Cycles that a packet adds.
    per_packet: u64,
    /// Most cycles from now to the end.
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
        // Three before that is spent: added to what is left.
        budget.add(3, 1_000_000 + per_packet / 2);
        assert!(spent_at(&budget, 1_000_000 + 4 * per_packet));
        // Any number: at most the longest, from the last packet.
        (0..1000).for_each(|_| budget.add(64, 2_000_000));
        assert!(spent_at(&budget, 2_000_000 + longest));
        // What was not used is not kept.
        let later = 2_000_000 + 10 * longest;
        budget.add(1, later);
        assert!(spent_at(&budget, later + per_packet));
    }
}
