//! Egress queues: one bounded queue per port and queue index.

use xdpfwd_xsk::{Batch, EgressQueue, Frame, PushError, Umem};

use crate::reason::Reason;
use crate::verdict::PortId;

/// Maximum number of batches from a port per iteration. One system call sends them together.
/// Receiving stops at the first partial batch, so this adds no latency.
pub(crate) const BURST: usize = 4;

/// A worker's egress queues: one for each port and queue index. A packet leaves on the queue index
/// on which it arrived.
pub(crate) struct Egress {
    queues: Vec<EgressQueue>,
    queues_per_port: usize,
    /// Whether a queue may lack room for another batch.
    crowded: bool,
}

/// Capacity of an egress queue in frames: two ports' packets of one iteration. A queue that fills
/// up earlier is transmitted at once, so packets drop only if the port is not sending.
pub(crate) const EGRESS_CAPACITY: usize = 2 * BURST * Batch::CAPACITY;

#[inline]
fn reject_reason(refused: PushError) -> (Reason, Frame) {
    match refused {
        PushError::Full(frame) => (Reason::EGRESS_FULL, frame),
        PushError::Runt(frame) => (Reason::RUNT, frame),
        PushError::Foreign(frame) => (Reason::FOREIGN_FRAME, frame),
    }
}

impl Egress {
    pub(crate) fn new(umem: &Umem, ports: usize, queues_per_port: usize) -> Self {
        let queues =
            (0..ports * queues_per_port).map(|_| EgressQueue::new(umem, EGRESS_CAPACITY)).collect();
        Self { queues, queues_per_port, crowded: false }
    }

    /// Returns the index of an egress queue, which is also the index of the worker's port queue.
    #[inline]
    pub(crate) fn index_of(&self, port: PortId, queue_index: usize) -> usize {
        usize::from(port.0) * self.queues_per_port + queue_index
    }

    /// Adds a frame for a port on this queue index. Returns the frame with the reason if that
    /// fails.
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
        let pushed = queue.push(frame).map_err(reject_reason);
        self.crowded |= queue.room() < Batch::CAPACITY;
        pushed
    }

    /// Moves all frames of a batch to the queue at an existing index. Passes each refused frame to
    /// the closure, with the reason.
    #[inline]
    pub(crate) fn push_batch(
        &mut self,
        index: usize,
        batch: &mut Batch,
        mut refused: impl FnMut(Reason, Frame),
    ) {
        let queue = &mut self.queues[index];
        queue.push_batch(batch, |refusal| {
            let (reason, frame) = reject_reason(refusal);
            refused(reason, frame);
        });
        self.crowded |= queue.room() < Batch::CAPACITY;
    }

    /// Returns whether a queue may lack room for another batch, and clears the flag.
    #[inline]
    pub(crate) fn take_crowded(&mut self) -> bool {
        std::mem::take(&mut self.crowded)
    }

    #[inline]
    pub(crate) fn queue(&mut self, index: usize) -> &mut EgressQueue {
        &mut self.queues[index]
    }

    /// Returns whether a queue contains the frame of this chunk.
    #[cfg(feature = "testing")]
    pub(crate) fn has_chunk(&self, chunk: u32) -> bool {
        self.queues.iter().flat_map(EgressQueue::iter).any(|frame| frame.chunk() == chunk)
    }

    /// Returns the number of frames in all queues.
    pub(crate) fn waiting(&self) -> usize {
        self.queues.iter().map(EgressQueue::len).sum()
    }

    pub(crate) fn queues_mut(&mut self) -> impl Iterator<Item = &mut EgressQueue> {
        self.queues.iter_mut()
    }
}
