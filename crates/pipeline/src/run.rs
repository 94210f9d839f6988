//! A batch on its way through the stages of a path.

use xsk::{Batch, Frame, Pool};

use crate::chain::Visitor;
use crate::egress::Egress;
use crate::ledger::{Ledger, StageAccount, Task};
use crate::meta::Meta;
use crate::reason::{Drops, Reason};
use crate::stage::{Cx, Stage, discard};
use crate::verdict::{PortId, Verdict};
use crate::view::View;

/// A batch on its way: shown each stage in turn, it lets the stage process what is left of it, carries out the verdicts,
/// and books the cost.
pub(crate) struct BatchRun<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) metas: &'a mut [Meta; Batch::CAPACITY],
    pub(crate) verdicts: &'a mut [Verdict; Batch::CAPACITY],
    pub(crate) pool: &'a mut Pool,
    pub(crate) egress: &'a mut Egress,
    pub(crate) drops: &'a mut Drops,
    pub(crate) accounts: &'a mut [StageAccount],
    pub(crate) queue: u16,
    pub(crate) lane: usize,
    pub(crate) to: PortId,
    pub(crate) quota: &'a mut u32,
    /// When the batch was received.
    pub(crate) start: u64,
    pub(crate) ledger: &'a mut Ledger,
}

impl Visitor for BatchRun<'_> {
    #[inline]
    fn visit(&mut self, index: usize, stage: &mut impl Stage) -> bool {
        let packets = self.batch.len();
        if packets == 0 {
            return false;
        }
        let account = &mut self.accounts[index];
        account.calls += 1;
        account.packets += packets as u64;
        let mut view = View { batch: self.batch, metas: self.metas, verdicts: self.verdicts, took: false };
        let mut cx = Cx {
            now: self.start,
            queue: self.queue,
            lane: self.lane,
            to: self.to,
            pool: self.pool,
            egress: self.egress,
            drops: self.drops,
            account,
            quota: self.quota,
        };
        stage.process(&mut view, &mut cx);
        if !view.all_next() {
            self.settle(index);
        }
        if self.ledger.is_on() {
            let account = &mut self.accounts[index];
            account.timed_calls += 1;
            account.timed_packets += packets as u64;
            account.cycles += self.ledger.stamp();
        }
        true
    }
}

/// Drops what an egress queue does not take. Out of the way of what it does take, which the compiler would spread out for it.
#[cold]
#[inline(never)]
fn refuse(pool: &mut Pool, drops: &mut Drops, frame: Frame, reason: Reason) {
    discard(pool, drops, frame, reason);
}

impl BatchRun<'_> {
    /// Carries out the verdicts, and closes the gaps: the next stage sees only what goes on, still in order.
    fn settle(&mut self, index: usize) {
        let places = self.batch.places_mut();
        let mut left = 0;
        for place in 0..places.len() {
            let verdict = std::mem::take(&mut self.verdicts[place]);
            let Some(frame) = places[place].take() else { continue };
            match verdict {
                Verdict::Next => {
                    places[left] = Some(frame);
                    self.metas[left] = self.metas[place];
                    left += 1;
                }
                Verdict::To(port) => {
                    if let Err((reason, frame)) = self.egress.push(port, self.lane, frame) {
                        self.accounts[index].drops += 1;
                        discard(self.pool, self.drops, frame, reason);
                    }
                }
                Verdict::Drop(reason) => {
                    self.accounts[index].drops += 1;
                    discard(self.pool, self.drops, frame, reason);
                }
            }
        }
        self.batch.truncate(left);
    }

    /// Puts what went through all stages into the queue of the path's port.
    #[inline]
    pub(crate) fn scatter(self) {
        let packets = self.batch.len();
        let index = self.egress.index_of(self.to, self.lane);
        let Self { batch, egress, pool, drops, .. } = self;
        egress.push_batch(index, batch, |reason, frame| refuse(pool, drops, frame, reason));
        self.ledger.book(Task::Scatter, packets);
    }
}
