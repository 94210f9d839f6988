//! Egress queues: one bounded queue per port and queue index.

use xdpfwd_xsk::{Batch, EgressQueue, Frame, PushError, Umem};

use crate::reason::Reason;
use crate::verdict::PortId;

/// Maximum number of batches that a worker receives from a port queue in one iteration. Their
/// packets are transmitted together, to save system calls. Receiving stops at the first partial
/// batch, so this adds no latency.
pub(crate) const BURST: usize = 4;

/// A worker's egress queues: one for each queue that the worker serves of each port. A packet that
/// arrived on a port's queue with index N leaves on the egress port's queue with index N.
pub(crate) struct Egress {
    queues: Vec<EgressQueue>,
    /// For each queue, whether its port is down. The queue then has no room.
    down: Vec<bool>,
    queues_per_port: usize,
    /// Whether a push has left less room in a queue than a batch needs.
    nearly_full: bool,
}

/// Capacity of an egress queue in frames: as many as the worker receives from two queues in one
/// iteration. When a queue is nearly full, the worker transmits before it receives more, so packets
/// are dropped only if the port is not sending.
pub(crate) const EGRESS_CAPACITY: usize = 2 * BURST * Batch::CAPACITY;

#[inline]
fn reason_and_frame(error: PushError, is_down: bool) -> (Reason, Frame) {
    match error {
        PushError::Full(frame) if is_down => (Reason::PORT_DOWN, frame),
        PushError::Full(frame) => (Reason::EGRESS_FULL, frame),
        PushError::Runt(frame) => (Reason::RUNT, frame),
        PushError::Foreign(frame) => (Reason::FOREIGN_FRAME, frame),
    }
}

impl Egress {
    pub(crate) fn new(umem: &Umem, ports: usize, queues_per_port: usize) -> Self {
        let count = ports * queues_per_port;
        let queues = (0..count).map(|_| EgressQueue::new(umem, EGRESS_CAPACITY)).collect();
        Self { queues, down: vec![false; count], queues_per_port, nearly_full: false }
    }

    /// Returns the number of queues that the worker serves of each port.
    pub(crate) fn queues_per_port(&self) -> usize {
        self.queues_per_port
    }

    /// Makes a queue refuse all frames, as those of a port that is down. Returns the waiting
    /// frames.
    pub(crate) fn close(&mut self, index: usize) -> Vec<Frame> {
        self.down[index] = true;
        let closed = EgressQueue::new(self.queues[index].umem(), 0);
        let mut queue = std::mem::replace(&mut self.queues[index], closed);
        let waiting = queue.len();
        queue.drain(waiting).collect()
    }

    /// Makes a closed queue accept frames again.
    pub(crate) fn open(&mut self, index: usize) {
        self.down[index] = false;
        self.queues[index] = EgressQueue::new(self.queues[index].umem(), EGRESS_CAPACITY);
    }

    /// Returns the index in `queues`. The worker's list of port queues has the same order.
    #[inline]
    pub(crate) fn index_of(&self, port: PortId, queue_index: usize) -> usize {
        usize::from(port.0) * self.queues_per_port + queue_index
    }

    /// Moves a frame to the egress queue of a port. If the frame is refused, returns it with the
    /// drop reason.
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
        let down = &self.down;
        let pushed = queue.push(frame).map_err(|error| reason_and_frame(error, down[index]));
        self.nearly_full |= queue.room() < Batch::CAPACITY;
        pushed
    }

    /// Moves a batch to the queue at `index`, which must exist. Passes each frame that the queue
    /// refuses to the closure, with the drop reason.
    #[inline]
    pub(crate) fn push_batch(
        &mut self,
        index: usize,
        batch: &mut Batch,
        mut refused: impl FnMut(Reason, Frame),
    ) {
        let (queue, down) = (&mut self.queues[index], &self.down);
        queue.push_batch(batch, |error| {
            let (reason, frame) = reason_and_frame(error, down[index]);
            refused(reason, frame);
        });
        self.nearly_full |= queue.room() < Batch::CAPACITY;
    }

    /// Returns whether, since the last call, a push has left less room in a queue than a batch
    /// needs. Closed queues, which have no room, do not count.
    #[inline]
    pub(crate) fn take_nearly_full(&mut self) -> bool {
        std::mem::take(&mut self.nearly_full) && self.is_open_queue_nearly_full()
    }

    /// Out of line, so that the hot path stays compact.
    #[cold]
    #[inline(never)]
    fn is_open_queue_nearly_full(&self) -> bool {
        let mut queues = self.queues.iter().zip(&self.down);
        queues.any(|(queue, is_down)| !is_down && queue.room() < Batch::CAPACITY)
    }

    #[inline]
    pub(crate) fn queue(&mut self, index: usize) -> &mut EgressQueue {
        &mut self.queues[index]
    }

    /// Returns whether the frame with this chunk number is in a queue.
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
