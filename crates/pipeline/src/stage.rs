//! A stage: what is done to packets on their way, a batch at a time.

use xsk::{Frame, Pool};

use crate::egress::Egress;
use crate::ledger::StageAccount;
use crate::reason::{Drops, Reason};
use crate::verdict::PortId;
use crate::view::View;

/// One step of a pipeline. It sees every packet that the steps before it let pass, a batch at a time, may rewrite, shrink
/// or grow each, and gives each a verdict; without one a packet goes on to the next step.
///
/// Nothing in `process` may block, allocate or log: it runs on the data path. All but `process` have a default that suits
/// a stage which keeps no packets and no state.
///
/// ```
/// use pipeline::{Cx, Reason, Stage, View};
///
/// /// Drops what is not an even number of bytes long.
/// struct EvenOnly;
///
/// impl Stage for EvenOnly {
///     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
///         for mut packet in view.packets() {
///             if packet.frame.len() % 2 != 0 {
///                 packet.drop(Reason::Policy);
///             }
///         }
///     }
///
///     fn needs_headers(&self) -> bool {
///         false
///     }
/// }
/// ```
pub trait Stage {
    /// Processes a batch.
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>);

    /// Whether it reads what was parsed of each packet ([`Meta::headers`](crate::Meta::headers)). If no stage of a path
    /// does, nothing is parsed there.
    fn needs_headers(&self) -> bool {
        true
    }

    /// Called between batches, about once a millisecond while packets flow or the stage holds some, and at least every
    /// 100 ms: for what must happen without a packet to trigger it.
    fn tick(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Counters of its own, by name, for reports. They only ever grow.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// What a successor of the same kind and name should know: on a reload the new stage gets it, on an upgrade the new
    /// process.
    fn snapshot(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over from a predecessor. A snapshot that it cannot read is an error, and the stage starts afresh.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let _ = snapshot;
        Ok(())
    }

    /// The last call before the stage goes: frames that it holds are emitted or freed now, or they are lost.
    fn retire(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// A snapshot could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore the state of the stage: {0}")]
pub struct SnapshotError(pub String);

impl Stage for Box<dyn Stage> {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        (**self).process(view, cx);
    }

    fn needs_headers(&self) -> bool {
        (**self).needs_headers()
    }

    fn tick(&mut self, cx: &mut Cx<'_>) {
        (**self).tick(cx);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        (**self).counters()
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        (**self).snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        (**self).restore(snapshot)
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        (**self).retire(cx);
    }
}

/// What a stage can use while it works: the time, free frames, the way out.
pub struct Cx<'a> {
    pub(crate) now: u64,
    pub(crate) queue: u16,
    pub(crate) pool: &'a mut Pool,
    pub(crate) egress: &'a mut Egress,
    pub(crate) drops: &'a mut Drops,
    pub(crate) account: &'a mut StageAccount,
    pub(crate) quota: u32,
}

impl Cx<'_> {
    /// When the batch was received, in cycles of [`xsk::clock`].
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The queue number on which the batch came, and on which what it emits leaves.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Whether one more frame may be held.
    #[inline]
    pub(crate) fn may_hold(&mut self) -> bool {
        self.account.held < self.quota
    }

    /// A free frame, empty. It counts as held until it is emitted or freed. `None` when the pool is empty or the stage's
    /// quota used up.
    pub fn alloc(&mut self) -> Option<Frame> {
        if !self.may_hold() {
            return None;
        }
        let frame = self.pool.alloc()?;
        self.account.held += 1;
        Some(frame)
    }

    /// Sends a frame that the stage held or allocated out of a port, past the stages that follow. What the port has no
    /// room for is dropped and counted.
    pub fn emit(&mut self, frame: Frame, to: PortId) {
        self.account.held = self.account.held.saturating_sub(1);
        if let Err((reason, frame)) = self.egress.push(to, self.queue, frame) {
            self.discard(frame, reason);
        }
    }

    /// Drops a frame that the stage held or allocated, and counts it.
    pub fn drop(&mut self, frame: Frame, reason: Reason) {
        self.account.held = self.account.held.saturating_sub(1);
        self.discard(frame, reason);
    }

    /// Gives a frame back that the stage allocated and has no use for: not a packet, so no drop.
    pub fn free(&mut self, frame: Frame) {
        self.account.held = self.account.held.saturating_sub(1);
        if let Err(xsk::Foreign(frame)) = self.pool.free(frame) {
            self.discard(frame, Reason::ForeignFrame);
        }
    }

    fn discard(&mut self, frame: Frame, reason: Reason) {
        self.account.drops += 1;
        discard(self.pool, self.drops, frame, reason);
    }
}

/// Ends a packet's way: its frame goes back to the pool, its drop is counted. A frame of another UMEM cannot go back: it
/// is lost to that one, and says so there.
#[inline]
pub(crate) fn discard(pool: &mut Pool, drops: &mut Drops, frame: Frame, reason: Reason) {
    match pool.free(frame) {
        Ok(()) => drops.count(reason),
        Err(xsk::Foreign(_)) => drops.count(Reason::ForeignFrame),
    }
}
