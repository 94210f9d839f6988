//! The way out: one bounded queue per port and queue.

use xsk::{Batch, EgressQueue, Frame, Refused, Umem};

use crate::reason::Reason;
use crate::verdict::PortId;
use crate::worker::BURST;

/// The egress queues of a worker: `lanes` of them per port, one for each of the port's queues that the worker serves. A
/// packet leaves on the lane on which it came.
pub(crate) struct Egress {
    queues: Vec<EgressQueue>,
    lanes: usize,
    /// Queue number of lane 0, and the distance to the next: worker *w* of *n* serves *w*, *w* + *n*, …
    first_queue: u16,
    stride: u16,
}

/// Frames that may wait for each port and queue: what two ports can deliver in one turn, so that only a port that does not
/// send makes them drop.
pub(crate) const EGRESS_CAPACITY: usize = 2 * BURST * Batch::CAPACITY;

impl Egress {
    pub(crate) fn new(umem: &Umem, ports: usize, lanes: usize, first_queue: u16, stride: u16) -> Self {
        let queues = (0..ports * lanes).map(|_| EgressQueue::new(umem, EGRESS_CAPACITY)).collect();
        Self { queues, lanes, first_queue, stride }
    }

    /// Where the queue for a port and queue number is; the same index names the worker's port.
    #[inline]
    pub(crate) fn index_of(&self, port: PortId, queue: u16) -> usize {
        let lane = usize::from(queue.wrapping_sub(self.first_queue) / self.stride);
        usize::from(port.0) * self.lanes + lane
    }

    /// Adds a frame for a port, on the lane of this queue number; hands it back with the reason if it cannot go.
    #[inline]
    pub(crate) fn push(&mut self, to: PortId, queue: u16, frame: Frame) -> Result<(), (Reason, Frame)> {
        self.push_at(self.index_of(to, queue), frame)
    }

    /// The same by index.
    #[inline]
    pub(crate) fn push_at(&mut self, index: usize, frame: Frame) -> Result<(), (Reason, Frame)> {
        let Some(queue) = self.queues.get_mut(index) else { return Err((Reason::NoSuchPort, frame)) };
        queue.push(frame).map_err(|refused| match refused {
            Refused::Full(frame) => (Reason::EgressFull, frame),
            Refused::Runt(frame) => (Reason::Runt, frame),
            Refused::Foreign(frame) => (Reason::ForeignFrame, frame),
        })
    }

    #[inline]
    pub(crate) fn queue(&mut self, index: usize) -> &mut EgressQueue {
        &mut self.queues[index]
    }

    /// Frames that wait, in all queues.
    pub(crate) fn waiting(&self) -> usize {
        self.queues.iter().map(EgressQueue::len).sum()
    }

    pub(crate) fn queues_mut(&mut self) -> impl Iterator<Item = &mut EgressQueue> {
        self.queues.iter_mut()
    }
}
