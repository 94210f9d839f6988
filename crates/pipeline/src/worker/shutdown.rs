//! Ending a worker: draining it, and going on without its stages after a panic.

use std::time::{Duration, Instant};

use super::Worker;
use crate::chain::Chain;
use crate::cx::discard;
use crate::reason::Reason;
use crate::verdict::Verdict;

impl<C: Chain> Worker<C> {
    /// Forwards what has been received, sends what is queued, and reclaims what was sent. Ends when
    /// nothing is left and nothing has arrived for a while, or after `at_most`; what is still
    /// queued then is dropped as [`Reason::SHUTDOWN`]. Detach the XDP program first, so that no new
    /// packets arrive.
    pub fn drain(&mut self, at_most: Duration) {
        const QUIET: Duration = Duration::from_millis(5);
        let start = Instant::now();
        let mut quiet_since = start;
        let mut retired = false;
        while start.elapsed() < at_most {
            if self.poll_once() > 0 {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= QUIET {
                if !retired {
                    // Flush frames held by stages.
                    (0..self.paths.len()).for_each(|index| self.retire(index));
                    retired = true;
                } else if !self.unsent() && self.sending() == 0 {
                    break;
                }
            }
        }
        for queue in self.egress.queues_mut() {
            while let Some(frame) = queue.pop() {
                discard(&mut self.pool, &mut self.drops, frame, Reason::SHUTDOWN);
            }
        }
    }

    /// Makes the worker go on without its stages, after one of them panicked and the caller caught
    /// that around [`poll_once`](Self::poll_once), [`run`](Self::run) or [`drain`](Self::drain):
    /// stages are called only for their counters, received packets are dropped as
    /// [`Reason::SHUTDOWN`], queued ones are sent. The frames of the batch that the panic
    /// interrupted are lost, and the report shows them as `leaked`.
    pub fn abandon_stages(&mut self) {
        for path in &mut self.paths {
            path.retired = true;
            path.poisoned = true;
        }
        self.batch.truncate(0);
        // The panicked stage's verdicts must not apply to the next batch.
        self.verdicts.fill(Verdict::Next);
    }

    /// Frames that the kernel was given to send and has not given back.
    fn sending(&self) -> u64 {
        self.ports
            .iter()
            .map(|port| port.socket.census())
            .map(|census| census.tx + census.completion)
            .sum()
    }
}
