//! A worker's counters.

use super::Worker;
use crate::chain::Chain;
use crate::ledger::{LedgerReport, Task};
use crate::report::{FrameCounts, QueueReport, WorkerReport};

impl<C: Chain> Worker<C> {
    /// Returns the frame counts.
    pub fn frames(&self) -> FrameCounts {
        let mut at_ports = xdpfwd_xsk::PortFrameCounts::default();
        for port_queue in &self.port_queues {
            at_ports += port_queue.socket.frame_counts();
        }
        for prepared in self.prepared.iter().flat_map(|(_, prepared)| prepared) {
            at_ports += prepared.frame_counts();
        }
        FrameCounts::new(
            u64::from(self.umem.frames()),
            self.pool.len() as u64,
            u64::from(self.umem.held()),
            at_ports,
            self.quarantined() as u64,
        )
    }

    /// Returns the number of frames in egress queues or held by stages, as the worker counts them,
    /// without the UMEM's record of frame owners.
    pub fn frames_in_user_space(&self) -> usize {
        self.egress.waiting() + (self.hold_quota - self.hold_quota_left) as usize
    }

    /// Calculates from the UMEM's record of frame owners how many more frames stages may hold.
    /// By this record, a frame that a stage has lost is not held. A frame that an old stage keeps
    /// after a reload is held until that stage is dropped.
    pub(super) fn recount_hold_quota(&mut self) {
        let held = (self.umem.held() as usize).saturating_sub(self.egress.waiting());
        self.hold_quota_left = self.hold_quota.saturating_sub(held as u32);
    }

    /// Returns all counters of the worker.
    pub fn report(&mut self) -> WorkerReport {
        let queues = self.port_queues.iter().map(|port_queue| QueueReport {
            port: port_queue.id,
            queue: port_queue.queue,
            counters: port_queue.counters(),
            kernel: port_queue.kernel_counters(),
            frame_counts: port_queue.socket.frame_counts(),
        });
        let queues: Vec<_> = queues.collect();
        self.recount_hold_quota();
        let frames = self.frames();
        self.ledger.book(Task::Control, 0);
        let ledger = self.ledger_report();
        let paths = self.paths.iter_mut().map(super::path::Path::report).collect();
        WorkerReport { queues, paths, drops: self.drops, frames, waits: self.waits, ledger }
    }

    /// Switches the ledger of CPU cycles on or off. While off, tasks are not counted at all, and
    /// stages' accounts count only batches, packets and drops.
    pub fn switch_ledger(&mut self, on: bool) {
        let port_counters = self.port_counters();
        self.ledger.switch(on, port_counters);
    }

    /// Returns the cycles by task so far.
    pub fn ledger_report(&self) -> LedgerReport {
        let mut stages = self.former_stages;
        self.paths.iter().flat_map(|path| &path.accounts).for_each(|account| stages.add(account));
        self.ledger.report(self.port_counters(), &stages)
    }

    fn port_counters(&self) -> xdpfwd_xsk::Counters {
        let mut sum = xdpfwd_xsk::Counters::default();
        self.port_queues.iter().for_each(|port_queue| sum += port_queue.counters());
        sum
    }
}
