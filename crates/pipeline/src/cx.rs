//! The context in which a stage runs.

use xdpfwd_xsk::{ForeignFrame, Frame, Pool};

use crate::egress::Egress;
#[cfg(feature = "testing")]
use crate::frame_log::{self, FrameEvent};
use crate::ledger::StageAccount;
use crate::reason::{Drops, Reason};
use crate::verdict::PortId;

/// The context in which a stage runs: the time, free frames, egress queues.
pub struct Cx<'a> {
    pub(crate) now: u64,
    pub(crate) worker: usize,
    pub(crate) queue: u16,
    /// The index of `queue` among the worker's queues.
    pub(crate) queue_index: usize,
    pub(crate) to: PortId,
    pub(crate) pool: &'a mut Pool,
    pub(crate) egress: &'a mut Egress,
    pub(crate) drops: &'a mut Drops,
    pub(crate) account: &'a mut StageAccount,
    /// Number of further frames that the stages of the worker may hold together.
    pub(crate) quota: &'a mut u32,
}

impl Cx<'_> {
    /// Returns the time at which the batch was received, in cycles of [`xdpfwd_xsk::clock`]. In
    /// `tick` and `retire`, which have no batch, it is the current time.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Returns the number of the worker, like [`BuildCx::worker`](crate::BuildCx::worker), for
    /// [`SharedCounters::add`](crate::SharedCounters::add).
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the number of the queue on which the batch arrived. Emitted frames leave on the
    /// queue with the same number. In `tick` and `retire`, it is the worker's first queue.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Returns the egress port of the stage's path.
    pub fn to(&self) -> PortId {
        self.to
    }

    /// Counts one more frame as held. Returns false if the quota is used up.
    #[inline]
    pub(crate) fn take_quota(&mut self) -> bool {
        if *self.quota == 0 {
            return false;
        }
        *self.quota -= 1;
        self.account.held += 1;
        true
    }

    /// Counts a held frame as released.
    #[inline]
    fn return_quota(&mut self) {
        if self.account.held > 0 {
            self.account.held -= 1;
            *self.quota = self.quota.saturating_add(1);
        }
    }

    /// Returns an empty frame, which counts as held until it is emitted, dropped or freed. Returns
    /// `None` if the pool is empty or the quota is used up: all stages of a worker together may
    /// hold at most a quarter of its frames.
    pub fn alloc(&mut self) -> Option<Frame> {
        if !self.take_quota() {
            return None;
        }
        let frame = self.pool.alloc();
        if frame.is_none() {
            self.return_quota();
        }
        frame
    }

    /// Moves a held or allocated frame to the egress queue of a port. The frame skips the remaining
    /// stages. If the port does not exist, or its queue is full or refuses the frame, the frame is
    /// dropped and counted.
    pub fn emit(&mut self, frame: Frame, to: PortId) {
        self.return_quota();
        if let Err((reason, frame)) = self.egress.push(to, self.queue_index, frame) {
            self.discard(frame, reason);
        }
    }

    /// Drops a held or allocated frame, and counts the drop.
    pub fn drop(&mut self, frame: Frame, reason: impl Into<Reason>) {
        self.return_quota();
        self.discard(frame, reason.into());
    }

    /// Gives an allocated, unused frame back to the pool. The frame contains no packet, so no drop
    /// is counted.
    pub fn free(&mut self, frame: Frame) {
        self.return_quota();
        #[cfg(feature = "testing")]
        let chunk = frame.chunk();
        match self.pool.free(frame) {
            Ok(()) => {
                #[cfg(feature = "testing")]
                frame_log::add(chunk, FrameEvent::Freed);
            }
            Err(ForeignFrame(frame)) => self.discard(frame, Reason::FOREIGN_FRAME),
        }
    }

    fn discard(&mut self, frame: Frame, reason: Reason) {
        self.account.drops += 1;
        discard(self.pool, self.drops, frame, reason);
    }
}

/// Drops a packet: its frame returns to the pool, and the drop is counted under `reason`. A frame
/// of another UMEM cannot return to this pool: the other UMEM loses the frame, and the drop is
/// counted under [`Reason::FOREIGN_FRAME`] instead.
#[inline]
pub(crate) fn discard(pool: &mut Pool, drops: &mut Drops, frame: Frame, reason: Reason) {
    #[cfg(feature = "testing")]
    let chunk = frame.chunk();
    match pool.free(frame) {
        Ok(()) => {
            #[cfg(feature = "testing")]
            frame_log::add(chunk, FrameEvent::Dropped(reason));
            drops.count(reason);
        }
        Err(ForeignFrame(_)) => drops.count(Reason::FOREIGN_FRAME),
    }
}
