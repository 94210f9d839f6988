//! The way out: one bounded queue per port and queue.

use xdpfwd_xsk::{Batch, EgressQueue, Frame, Refused, Umem};

use crate::reason::Reason;
use crate::verdict::PortId;

/// Batches that a port may deliver in one iteration, as long as they are full: what they send goes
/// out with one system call. A port that has less to deliver is not waited for, so this adds no
/// latency.
pub(crate) const BURST: usize = 4;

/// The egress queues of a worker: `queues_per_port` of them per port, one for each of the port's
/// queues that the worker serves. A packet leaves on the queue_index on which it came.
pub(crate) struct Egress {
    queues: Vec<EgressQueue>,
    queues_per_port: usize,
    /// A queue has less room than a batch may need.
    crowded: bool,
}

/// Frames that may wait for each port and queue: a turn's worth of one port and of another. A queue
/// that gets crowded before the turn is over is sent at once, so that only a port which does not
/// send makes packets drop.
pub(crate) const EGRESS_CAPACITY: usize = 2 * BURST * Batch::CAPACITY;

#[inline]
fn why(refused: Refused) -> (Reason, Frame) {
    match refused {
        Refused::Full(frame) => (Reason::EGRESS_FULL, frame),
        Refused::Runt(frame) => (Reason::RUNT, frame),
        Refused::Foreign(frame) => (Reason::FOREIGN_FRAME, frame),
    }
}

impl Egress {
    pub(crate) fn new(umem: &Umem, ports: usize, queues_per_port: usize) -> Self {
        let queues =
            (0..ports * queues_per_port).map(|_| EgressQueue::new(umem, EGRESS_CAPACITY)).collect();
        Self { queues, queues_per_port, crowded: false }
    }

    /// Where the queue for a port and queue_index is; the same index names the worker's port.
    #[inline]
    pub(crate) fn index_of(&self, port: PortId, queue_index: usize) -> usize {
        usize::from(port.0) * self.queues_per_port + queue_index
    }

    /// Adds a frame for a port, on this queue_index; hands it back with the reason if it cannot go.
    #[inline]
    pub(crate) fn push(
        &mut self,
        to: PortId,
        queue_index: usize,
        frame: Frame,
    ) -> Result<(), (Reason, Frame)> {
        let index = self.index_of(to, queue_index);
        let Some(queue) = self.queues.get_mut(index) else {
            return Err((Reason::NO_SUCH_PORT, frame));
        };
        let pushed = queue.push(frame).map_err(why);
        self.crowded |= queue.room() < Batch::CAPACITY;
        pushed
    }

    /// Adds all frames of a batch, for the queue at an index that exists, and leaves the batch
    /// empty. What cannot go is shown with the reason.
    #[inline]
    pub(crate) fn push_batch(
        &mut self,
        index: usize,
        batch: &mut Batch,
        mut refused: impl FnMut(Reason, Frame),
    ) {
        let queue = &mut self.queues[index];
        queue.push_batch(batch, |refusal| {
            let (reason, frame) = why(refusal);
            refused(reason, frame);
        });
        self.crowded |= queue.room() < Batch::CAPACITY;
    }

    /// Whether a queue has become so full that the next batch may not fit: time to transmit. Says
    /// so once.
    #[inline]
    pub(crate) fn take_crowded(&mut self) -> bool {
        std::mem::take(&mut self.crowded)
    }

    #[inline]
    pub(crate) fn queue(&mut self, index: usize) -> &mut EgressQueue {
        &mut self.queues[index]
    }

    /// Returns whether a queue has the frame of this chunk.
    #[cfg(feature = "testing")]
    pub(crate) fn has_chunk(&self, chunk: u32) -> bool {
        self.queues.iter().flat_map(EgressQueue::iter).any(|frame| frame.chunk() == chunk)
    }

    /// Frames that wait, in all queues.
    pub(crate) fn waiting(&self) -> usize {
        self.queues.iter().map(EgressQueue::len).sum()
    }

    pub(crate) fn queues_mut(&mut self) -> impl Iterator<Item = &mut EgressQueue> {
        self.queues.iter_mut()
    }
}
