//! Shutting down a worker, and running without its stages after a panic.

use std::time::{Duration, Instant};

use super::Worker;
use crate::chain::Chain;
use crate::cx::discard;
use crate::reason::Reason;
use crate::verdict::Verdict;

impl<C: Chain> Worker<C> {
    /// Sends the packets that the worker still has, before the worker ends. Detach the XDP program
    /// first, so that no new packets arrive.
    ///
    /// Runs iterations. As soon as no packet has arrived for 5 ms, or for the
    /// [`receive_delay`](xdpfwd_xsk::Port::receive_delay) of a port if that is longer, retires the
    /// stages, which makes them emit the frames that they hold. Stops when, after that, all frames
    /// are sent and reclaimed, or after `timeout`. At the end, retires the stages that are not
    /// retired yet, and drops packets in egress queues as [`Reason::SHUTDOWN`].
    pub fn drain(&mut self, timeout: Duration) {
        const QUIET: Duration = Duration::from_millis(5);
        let delays = self.port_queues.iter().map(|port_queue| port_queue.socket.receive_delay());
        let quiet = delays.fold(QUIET, Duration::max);
        let start = Instant::now();
        let mut quiet_since = start;
        let mut retired = false;
        while start.elapsed() < timeout {
            // The time before the check: if the thread is preempted after it, packets can arrive.
            let checked = Instant::now();
            if self.poll_once() > 0 {
                quiet_since = Instant::now();
            } else if checked.duration_since(quiet_since) >= quiet {
                if !retired {
                    self.retire_all();
                    retired = true;
                } else if !self.has_unsent_frames() && self.unreclaimed_frames() == 0 {
                    break;
                }
            }
        }
        if !retired {
            self.retire_all();
        }
        for queue in self.egress.queues_mut() {
            while let Some(frame) = queue.pop() {
                discard(&mut self.pool, &mut self.drops, frame, Reason::SHUTDOWN);
            }
        }
    }

    /// Makes all stages emit, drop or free the frames that they hold.
    pub(crate) fn retire_all(&mut self) {
        (0..self.paths.len()).for_each(|index| self.retire(index));
    }

    /// Makes the worker run without its stages, after you have caught a panic of a stage in
    /// [`poll_once`](Self::poll_once), [`run`](Self::run) or [`drain`](Self::drain). Stages are
    /// then called only for their counters, received packets are dropped as [`Reason::SHUTDOWN`],
    /// and queued packets are sent. The interrupted batch is lost: the report counts its frames as
    /// `leaked`.
    pub fn disable_stages(&mut self) {
        for path in &mut self.paths {
            path.retired = true;
            path.poisoned = true;
        }
        self.batch.truncate(0);
        // The panicked stage's verdicts must not apply to the next batch.
        self.verdicts.fill(Verdict::Next);
    }

    /// Returns the number of frames posted for transmission and not reclaimed.
    fn unreclaimed_frames(&self) -> u64 {
        self.port_queues
            .iter()
            .map(|port_queue| port_queue.socket.frame_counts())
            .map(|frame_counts| frame_counts.tx + frame_counts.completion)
            .sum()
    }
}
