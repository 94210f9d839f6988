//! The data path: what happens to a packet, in the order in which it happens.
//!
//! ```text
//! poll_once ─┬─ for each port queue: one queue of one port
//!            │     reclaim      frames sent in an earlier iteration return to the pool
//!            │     receive      up to BURST batches of 64 packets; refills the fill ring
//!            │       parse      read each packet's headers, if a stage of the path needs them
//!            │       stages     each stage processes the batch, then its verdicts are applied
//!            │       enqueue    what is left goes to the egress queue of the path's port
//!            │       transmit   early, only if an egress queue could not take another batch
//!            ├─ transmit         every egress queue, so a lone packet leaves in this iteration
//!            └─ tick             once a millisecond, the stages' work that no packet triggers
//! ```
//!
//! **Ownership.** A frame is in one place at a time: the pool, the fill ring, the RX ring, `batch`,
//! an egress queue, the TX ring, the completion ring. A stage borrows the batch; it may take a
//! frame out (hold it), and later emits or frees it through [`Cx`].
//!
//! **Drops.** Each dropped packet is counted in `drops` under a [`Reason`], and its frame returns
//! to the pool at once:
//!
//! 1. a stage drops it, by a verdict (`apply_verdicts`) or through [`Cx`] for a frame that it held;
//!    the stage's account counts it too;
//! 2. an egress queue refuses the frame, because it is full (`egress_full`) or the frame is
//!    invalid: in `enqueue`, or in `apply_verdicts` and [`Cx`] for a packet that a stage sent to a
//!    port of its choice;
//! 3. the stages of its path are retired ([`Reason::SHUTDOWN`]).
//!
//! Losses before `receive` and after `transmit` are counted by the kernel.
//!
//! **Cycles.** `ledger.book(task, packets)` adds the time since the last time stamp to a task;
//! `ledger.stamp()` returns it, for a stage's account. A stamp is taken after each step of a batch,
//! never per packet, and not at all while the ledger is off.

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
    /// Runs one iteration of the worker loop and returns the number of packets received.
    ///
    /// For each port: reclaim transmitted frames, receive up to `BURST` batches, and run each batch
    /// through the stages of the port's path. Then transmit whatever the egress queues hold. Never
    /// blocks; a packet that finds its egress queue full is dropped and counted as `egress_full`.
    pub fn poll_once(&mut self) -> usize {
        self.ledger.book(Task::Control, 0);
        let mut received = 0;
        let mut busy = false;
        for port_index in 0..self.ports.len() {
            let port = &mut self.ports[port_index];
            let reclaimed = port.socket.reclaim(&mut self.pool);
            if reclaimed > 0 {
                busy = true;
                self.ledger.book(Task::Reclaim, reclaimed);
            }
            // A port that no path starts from only transmits.
            let Some(path_index) = port.path else { continue };
            for _ in 0..BURST {
                let packets =
                    self.ports[port_index].socket.receive(&mut self.batch, &mut self.pool);
                if packets == 0 {
                    self.ledger.book_empty_look();
                } else {
                    self.ledger.book(Task::Receive, packets);
                    received += packets;
                    self.forward(path_index, port_index);
                    // Transmit early, so that a queue overflows only if its port is not sending.
                    if self.egress.take_crowded() {
                        busy |= self.transmit();
                    }
                }
                // A partial batch means that the RX ring is empty: waiting for more would add
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

    /// Takes the received batch through a path: parse, stages, enqueue.
    fn forward(&mut self, path_index: usize, port_index: usize) {
        let path = &mut self.paths[path_index];
        // Copies, which the loop below keeps in registers.
        let &PortQueue { id: ingress, queue, queue_index, .. } = &self.ports[port_index];
        let needs_headers = path.needs_headers;
        // The time of the last stamp, which was taken when the batch had been received.
        let start = self.ledger.now();
        if path.retired {
            for frame in self.batch.slots_mut().iter_mut().filter_map(Option::take) {
                discard(&mut self.pool, &mut self.drops, frame, Reason::SHUTDOWN);
            }
            self.batch.clear_taken();
            return;
        }
        // Parse.
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
        // Stages: the chain calls `visit` with each.
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
            quota: &mut self.quota,
            start,
            ledger: &mut self.ledger,
        };
        path.chain.walk(&mut run);
        run.enqueue();
    }

    /// Hands every egress queue to its port's TX ring and wakes the kernel. Returns whether
    /// anything was sent. Frames that do not fit into the ring stay in the queue.
    #[inline]
    pub(super) fn transmit(&mut self) -> bool {
        let mut any = false;
        // There is an egress queue for each port queue, with the same index.
        for (index, port) in self.ports.iter_mut().enumerate() {
            let queue = self.egress.queue(index);
            // `has_unsent`: frames in the TX ring that the interface has not taken yet; the kernel
            // may have to be woken again.
            if !queue.is_empty() || port.socket.has_unsent() {
                let sent = port.socket.transmit(queue);
                any |= sent > 0;
                self.ledger.book(Task::Transmit, sent);
            }
        }
        any
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
    /// Number of frames that stages may still hold.
    quota: &'a mut u32,
    /// When the batch was received, in cycles.
    start: u64,
    ledger: &'a mut TaskLedger,
}

impl Visitor for StageRun<'_> {
    /// Runs a stage on the rest of the batch, applies its verdicts, and adds the cycles to its
    /// account. Returns false when the batch is empty.
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
            quota: self.quota,
        };
        stage.process(&mut view, &mut cx);
        // The common case: no verdict but `Next`, and no frame taken out.
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
    /// Applies a stage's verdicts. Remaining packets move together, in order, so that the next
    /// stage sees no gaps.
    fn apply_verdicts(&mut self, stage_index: usize) {
        let packets = self.batch.slots_mut();
        let mut left = 0;
        for at in 0..packets.len() {
            let verdict = std::mem::take(&mut self.verdicts[at]);
            // A frame that the stage holds is no longer in the batch.
            let Some(frame) = packets[at].take() else { continue };
            match verdict {
                Verdict::Next => {
                    packets[left] = Some(frame);
                    self.metas[left] = self.metas[at];
                    left += 1;
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
        self.batch.truncate(left);
    }

    /// Moves the remaining packets to the egress queue of the path's port, and drops those that do
    /// not fit.
    #[inline]
    fn enqueue(self) {
        let packets = self.batch.len();
        let egress_index = self.egress.index_of(self.to, self.queue_index);
        let Self { batch, egress, pool, drops, .. } = self;
        egress.push_batch(egress_index, batch, |reason, frame| refuse(pool, drops, frame, reason));
        self.ledger.book(Task::Enqueue, packets);
    }
}

/// Drops a frame that its egress queue refused. Cold path, kept out of line so that the hot path
/// stays compact.
#[cold]
#[inline(never)]
fn refuse(pool: &mut Pool, drops: &mut Drops, frame: Frame, reason: Reason) {
    discard(pool, drops, frame, reason);
}
