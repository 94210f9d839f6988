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

    /// What its rules have matched, if it has any.
    fn matched(&self) -> Option<Matched> {
        None
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

    /// The last call before the stage goes: frames that it holds are emitted or freed now, or they are lost. Neither
    /// `process` nor `tick` is called after it.
    fn retire(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// What a stage's rules have matched, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Packets that each has matched.
    pub rules: Vec<u64>,
    /// Packets that none decided about.
    pub default: u64,
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

    fn matched(&self) -> Option<Matched> {
        (**self).matched()
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
    pub(crate) lane: usize,
    pub(crate) to: PortId,
    pub(crate) pool: &'a mut Pool,
    pub(crate) egress: &'a mut Egress,
    pub(crate) drops: &'a mut Drops,
    pub(crate) account: &'a mut StageAccount,
    /// Frames that stages may hold yet, all of the worker's together.
    pub(crate) quota: &'a mut u32,
}

impl Cx<'_> {
    /// When the batch was received, in cycles of [`xsk::clock`].
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The queue number on which the batch came, and on which what is emitted leaves. In `tick` and `retire`, where there
    /// is no batch, the worker's first.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The port to which the stage's path leads.
    pub fn to(&self) -> PortId {
        self.to
    }

    /// Books one more frame as held, if the quota allows it.
    #[inline]
    pub(crate) fn book_held(&mut self) -> bool {
        if *self.quota == 0 {
            return false;
        }
        *self.quota -= 1;
        self.account.held += 1;
        true
    }

    /// Books a frame that was held as given away.
    #[inline]
    pub(crate) fn book_given(&mut self) {
        if self.account.held > 0 {
            self.account.held -= 1;
            *self.quota = self.quota.saturating_add(1);
        }
    }

    /// A free frame, empty. It counts as held until it is emitted or freed. `None` when the pool is empty or the quota
    /// used up: a quarter of the worker's frames, for all its stages together.
    pub fn alloc(&mut self) -> Option<Frame> {
        if !self.book_held() {
            return None;
        }
        let frame = self.pool.alloc();
        if frame.is_none() {
            self.book_given();
        }
        frame
    }

    /// Sends a frame that the stage held or allocated out of a port, past the stages that follow. What the port has no
    /// room for is dropped and counted.
    pub fn emit(&mut self, frame: Frame, to: PortId) {
        self.book_given();
        if let Err((reason, frame)) = self.egress.push(to, self.lane, frame) {
            self.discard(frame, reason);
        }
    }

    /// Drops a frame that the stage held or allocated, and counts it.
    pub fn drop(&mut self, frame: Frame, reason: Reason) {
        self.book_given();
        self.discard(frame, reason);
    }

    /// Gives a frame back that the stage allocated and has no use for: not a packet, so no drop.
    pub fn free(&mut self, frame: Frame) {
        self.book_given();
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
