//! The context in which a stage runs.

use xdpfwd_xsk::{ForeignFrame, Frame, Pool};

use crate::egress::Egress;
#[cfg(feature = "testing")]
use crate::frame_log::{self, FrameEvent};
use crate::ledger::StageAccount;
use crate::reason::{Drops, Reason};
use crate::verdict::PortId;

/// The time, free frames and egress queues of a running stage.
pub struct Cx<'a> {
    pub(crate) now: u64,
    pub(crate) worker: usize,
    pub(crate) queue: u16,
    pub(crate) queue_index: usize,
    pub(crate) to: PortId,
    pub(crate) pool: &'a mut Pool,
    pub(crate) egress: &'a mut Egress,
    pub(crate) drops: &'a mut Drops,
    pub(crate) account: &'a mut StageAccount,
    /// Number of further frames that the worker's stages may hold.
    pub(crate) hold_quota_left: &'a mut u32,
}

impl Cx<'_> {
    /// Returns when the batch was received, in cycles of [`xdpfwd_xsk::clock`]; in `tick` and
    /// `retire`, the current time.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Returns the number of the worker, for [`SharedCounters::add`](crate::SharedCounters::add).
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the number of the queue on which the batch arrived, and on which emitted frames
    /// leave; in `tick` and `retire`, the worker's first queue.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Returns the egress port of the stage's path.
    pub fn to(&self) -> PortId {
        self.to
    }

    /// Counts one more frame as held by the stage. Returns false if the worker's stages may hold
    /// no more frames.
    #[inline]
    pub(crate) fn take_hold_quota(&mut self) -> bool {
        if *self.hold_quota_left == 0 {
            return false;
        }
        *self.hold_quota_left -= 1;
        self.account.held += 1;
        true
    }

    /// Counts one frame less as held by the stage. Does nothing if the stage holds none: the frame
    /// may be one that another stage has held.
    #[inline]
    fn return_hold_quota(&mut self) {
        if self.account.held > 0 {
            self.account.held -= 1;
            *self.hold_quota_left = self.hold_quota_left.saturating_add(1);
        }
    }

    /// Returns an empty frame, which counts as held until it is emitted, dropped or freed. Returns
    /// `None` if the pool is empty, or if the worker's stages already hold a quarter of its frames,
    /// which is the limit.
    pub fn alloc(&mut self) -> Option<Frame> {
        if !self.take_hold_quota() {
            return None;
        }
        let frame = self.pool.alloc();
        if frame.is_none() {
            self.return_hold_quota();
        }
        frame
    }

    /// Moves a held or allocated frame to the egress queue of a port, past the remaining stages. If
    /// the port does not exist, or its queue is full or refuses the frame, the frame is dropped and
    /// counted.
    pub fn emit(&mut self, frame: Frame, to: PortId) {
        self.return_hold_quota();
        if let Err((reason, frame)) = self.egress.push(to, self.queue_index, frame) {
            self.discard(frame, reason);
        }
    }

    /// Drops a held or allocated frame, and counts the drop.
    pub fn drop(&mut self, frame: Frame, reason: impl Into<Reason>) {
        self.return_hold_quota();
        self.discard(frame, reason.into());
    }

    /// Returns a frame to the pool without counting a drop: an allocated frame that is not used, or
    /// the frame of a packet that the stage has merged into another one.
    pub fn free(&mut self, frame: Frame) {
        self.return_hold_quota();
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

/// Returns the frame to the pool, and counts the drop. A frame of another UMEM is lost, and counted
/// under [`Reason::FOREIGN_FRAME`] instead.
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
