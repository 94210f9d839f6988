//! The data path: what happens to a packet, in order.
//!
//! ```text
//! poll_once ─┬─ for each port queue (one queue of one port)
//!            │     reclaim      frames sent in an earlier iteration return to the pool
//!            │     receive      up to BURST batches of 64 packets; refills the fill ring
//!            │       parse      parse each packet's headers, if a stage of the path needs them
//!            │       stages     each stage processes the batch, then its verdicts are applied
//!            │       enqueue    the remaining packets go to the egress queue of the path's port
//!            │       transmit   early, only if an egress queue may lack room for another batch
//!            ├─ transmit         every egress queue, so a lone packet leaves in this iteration
//!            └─ tick             once a millisecond: work of the stages that no packet triggers
//! ```
//!
//! **Ownership.** A frame is in one place at a time: the pool, the fill ring, the RX ring, `batch`,
//! a stage, an egress queue, the TX ring or the completion ring. A stage borrows the batch. It may
//! hold a frame, and later emit, drop or free it through [`Cx`].
//!
//! **Drops.** Each dropped packet is counted in `drops` under a [`Reason`], and its frame returns
//! to the pool:
//!
//! 1. A stage drops the packet: by a verdict (`apply_verdicts`), or through [`Cx`] if the stage
//!    held the frame.
//! 2. A stage sends the packet to a port ([`Verdict::To`], [`Cx::emit`]) that does not exist, or
//!    whose egress queue is full (`egress_full`) or refuses an invalid frame.
//! 3. The egress queue of the path refuses the frame after the last stage (`enqueue`).
//! 4. The packet arrives after its path's stages have been retired ([`Stage::retire`]), or the
//!    worker ends before it sends the packet ([`Reason::SHUTDOWN`]).
//!
//! In cases 1 and 2, the stage's account counts the drop too.
//!
//! The kernel counts losses before `receive` and after `transmit`.
//!
//! **Cycles.** `ledger.book(task, packets)` takes a time stamp and adds the time since the previous
//! stamp to a task. `ledger.stamp()` returns the time since the previous stamp, for a stage's
//! account. There is a stamp after each step of a batch, never per packet, and none while the
//! ledger is off.

use xdpfwd_wire::Headers;
use xdpfwd_xsk::{Batch, Frame, Pool};

use super::{PortQueue, Worker};
use crate::chain::{Chain, Visitor};
use crate::cx::{Cx, discard};
use crate::egress::{BURST, Egress};
use crate::ledger::{StageAccount, Task, TaskLedger};
use crate::meta::Meta;
use crate::reason::{Drops, Reason};
use crate::stage::Stage;
use crate::verdict::{PortId, Verdict};
use crate::view::View;

impl<C: Chain> Worker<C> {
    /// Runs one iteration and returns the number of packets received.
    ///
    /// For each port queue: reclaims transmitted frames, receives up to `BURST` batches, and runs
    /// each batch through the stages of the port's path. Then transmits the egress queues. Never
    /// blocks: packets for a full queue are dropped as `egress_full`.
    pub fn poll_once(&mut self) -> usize {
        self.ledger.book(Task::Control, 0);
        let mut received = 0;
        let mut busy = false;
        for index in 0..self.port_queues.len() {
            let port_queue = &mut self.port_queues[index];
            let reclaimed = port_queue.socket.reclaim(&mut self.pool);
            if reclaimed > 0 {
                busy = true;
                self.ledger.book(Task::Reclaim, reclaimed);
            }
            // A port without a path only transmits.
            let Some(path_index) = port_queue.path else { continue };
            for _ in 0..BURST {
                let packets =
                    self.port_queues[index].socket.receive(&mut self.batch, &mut self.pool);
                if packets == 0 {
                    self.ledger.book_empty_check();
                } else {
                    self.ledger.book(Task::Receive, packets);
                    received += packets;
                    self.forward(path_index, index);
                    // Make room now: a queue must overflow only if its port is not sending.
                    if self.egress.take_nearly_full() {
                        busy |= self.transmit();
                    }
                }
                // After a partial batch, the RX ring is empty. Waiting for more packets would add
                // latency.
                if packets < Batch::CAPACITY {
                    break;
                }
            }
        }
        busy |= self.transmit();
        let now = self.ledger.now();
        if now.wrapping_sub(self.last_tick) >= self.tick_cycles {
            self.last_tick = now;
            self.tick(now);
            self.ledger.book(Task::Control, 0);
        }
        self.ledger.end_iteration(busy || received > 0);
        received
    }

    /// Takes the received batch through parse, stages and enqueue.
    pub(super) fn forward(&mut self, path_index: usize, port_queue_index: usize) {
        let path = &mut self.paths[path_index];
        // Copied, so that the loop below can keep these fields in registers.
        let &PortQueue { id: ingress, queue, queue_index, .. } =
            &self.port_queues[port_queue_index];
        let needs_headers = path.needs_headers;
        // `poll_once` took the last stamp when it had received the batch.
        let start = self.ledger.now();
        if path.retired {
            for frame in self.batch.slots_mut().iter_mut().filter_map(Option::take) {
                discard(&mut self.pool, &mut self.drops, frame, Reason::SHUTDOWN);
            }
            self.batch.clear_taken();
            return;
        }
        for (packet, meta) in self.batch.slots().iter().zip(self.metas.iter_mut()) {
            meta.ingress = ingress;
            meta.queue = queue;
            meta.decrypted = false;
            if needs_headers {
                Headers::parse_into(packet.as_deref().unwrap_or_default(), &mut meta.headers);
            }
        }
        if needs_headers {
            self.ledger.book(Task::Parse, self.batch.len());
        }
        // The chain calls `StageRun::visit` with each stage.
        let mut run = StageRun {
            batch: &mut self.batch,
            metas: &mut self.metas,
            verdicts: &mut self.verdicts,
            pool: &mut self.pool,
            egress: &mut self.egress,
            drops: &mut self.drops,
            accounts: &mut path.accounts,
            worker: self.number,
            queue,
            queue_index,
            to: path.to,
            hold_quota_left: &mut self.hold_quota_left,
            start,
            ledger: &mut self.ledger,
        };
        path.chain.walk(&mut run);
        run.enqueue();
    }

    /// Moves frames from the egress queues to the TX rings and wakes the kernel. Returns whether
    /// any frame was moved. Frames for which a TX ring has no room stay in their egress queue.
    #[inline]
    pub(super) fn transmit(&mut self) -> bool {
        let mut any_sent = false;
        // Each port queue has an egress queue with the same index.
        for (index, port_queue) in self.port_queues.iter_mut().enumerate() {
            let egress_queue = self.egress.queue(index);
            // If `has_unsent`, the interface has not taken all frames, and the kernel may have to
            // be woken again.
            if !egress_queue.is_empty() || port_queue.socket.has_unsent() {
                let sent = port_queue.socket.transmit(egress_queue);
                any_sent |= sent > 0;
                self.ledger.book(Task::Transmit, sent);
            }
        }
        any_sent
    }
}

/// A batch on its way through the stages of a path.
struct StageRun<'a> {
    batch: &'a mut Batch,
    metas: &'a mut [Meta; Batch::CAPACITY],
    verdicts: &'a mut [Verdict; Batch::CAPACITY],
    pool: &'a mut Pool,
    egress: &'a mut Egress,
    drops: &'a mut Drops,
    accounts: &'a mut [StageAccount],
    worker: usize,
    queue: u16,
    queue_index: usize,
    to: PortId,
    /// Number of further frames that the stages may hold.
    hold_quota_left: &'a mut u32,
    /// The time of reception, in cycles.
    start: u64,
    ledger: &'a mut TaskLedger,
}

impl Visitor for StageRun<'_> {
    /// Runs a stage on the batch, applies the verdicts, and adds the cycles to the stage's account.
    /// Returns false if the batch is empty, to skip later stages.
    #[inline]
    fn visit(&mut self, stage_index: usize, stage: &mut impl Stage) -> bool {
        let packets = self.batch.len();
        if packets == 0 {
            return false;
        }
        let account = &mut self.accounts[stage_index];
        account.calls += 1;
        account.packets += packets as u64;
        let mut view = View {
            batch: self.batch,
            metas: self.metas,
            verdicts: self.verdicts,
            has_taken: false,
        };
        let mut cx = Cx {
            now: self.start,
            worker: self.worker,
            queue: self.queue,
            queue_index: self.queue_index,
            to: self.to,
            pool: self.pool,
            egress: self.egress,
            drops: self.drops,
            account,
            hold_quota_left: self.hold_quota_left,
        };
        stage.process(&mut view, &mut cx);
        // In the common case, all packets go on to the next stage.
        if !view.all_next() {
            self.apply_verdicts(stage_index);
        }
        if self.ledger.is_on() {
            let account = &mut self.accounts[stage_index];
            account.timed_calls += 1;
            account.timed_packets += packets as u64;
            account.cycles += self.ledger.stamp();
        }
        true
    }
}

impl StageRun<'_> {
    /// Sends or drops packets by their verdicts. Moves the remaining packets together, in order, so
    /// that the next stage sees no gaps.
    fn apply_verdicts(&mut self, stage_index: usize) {
        let packets = self.batch.slots_mut();
        let mut remaining = 0;
        for index in 0..packets.len() {
            // Resets the verdict to `Verdict::Next`, for the next stage or batch.
            let verdict = std::mem::take(&mut self.verdicts[index]);
            // If there is no frame at this index, the stage holds it.
            let Some(frame) = packets[index].take() else { continue };
            match verdict {
                Verdict::Next => {
                    packets[remaining] = Some(frame);
                    self.metas[remaining] = self.metas[index];
                    remaining += 1;
                }
                Verdict::To(port) => {
                    if let Err((reason, frame)) = self.egress.push(port, self.queue_index, frame) {
                        self.accounts[stage_index].drops += 1;
                        discard(self.pool, self.drops, frame, reason);
                    }
                }
                Verdict::Drop(reason) => {
                    self.accounts[stage_index].drops += 1;
                    discard(self.pool, self.drops, frame, reason);
                }
            }
        }
        self.batch.truncate(remaining);
    }

    /// Moves the batch to the egress queue of the path's port. Drops packets that this queue
    /// refuses.
    #[inline]
    fn enqueue(self) {
        let packets = self.batch.len();
        let egress_index = self.egress.index_of(self.to, self.queue_index);
        let Self { batch, egress, pool, drops, .. } = self;
        egress.push_batch(egress_index, batch, |reason, frame| {
            drop_refused(pool, drops, frame, reason)
        });
        self.ledger.book(Task::Enqueue, packets);
    }
}

/// Out of line, so that the hot path stays compact.
#[cold]
#[inline(never)]
fn drop_refused(pool: &mut Pool, drops: &mut Drops, frame: Frame, reason: Reason) {
    discard(pool, drops, frame, reason);
}
