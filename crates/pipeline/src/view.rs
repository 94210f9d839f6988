//! A batch as a stage sees it.

use xdpfwd_xsk::{Batch, Frame};

use crate::cx::Cx;
use crate::meta::Meta;
use crate::reason::Reason;
use crate::verdict::{PortId, Verdict};
use xdpfwd_wire::Headers;

/// The packets of a batch, each with what is known of it and a verdict to be given.
pub struct View<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) metas: &'a mut [Meta; Batch::CAPACITY],
    pub(crate) verdicts: &'a mut [Verdict; Batch::CAPACITY],
    /// A place was emptied by `hold`.
    pub(crate) took: bool,
}

/// One packet of a [`View`].
pub struct PacketMut<'a> {
    /// Its bytes, with room in front and behind.
    pub frame: &'a mut Frame,
    /// What is known of it.
    pub meta: &'a mut Meta,
    verdict: &'a mut Verdict,
}

impl PacketMut<'_> {
    /// Drops the packet and counts it under a reason: one of [`Reason`]'s constants, or the stage's own
    /// [`DropReason`](crate::DropReason).
    #[inline]
    pub fn drop(&mut self, reason: impl Into<Reason>) {
        *self.verdict = Verdict::Drop(reason.into());
    }

    /// Sends it out of this port, past the stages that follow.
    #[inline]
    pub fn send_to(&mut self, port: PortId) {
        *self.verdict = Verdict::To(port);
    }

    /// Parses it again, after its headers were rewritten or its start was moved.
    #[inline]
    pub fn reparse(&mut self) {
        Headers::parse_into(self.frame, &mut self.meta.headers);
    }
}

impl View<'_> {
    /// Places in the batch; all have a packet until one is held.
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is no place.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The packets, in the order in which they came.
    #[inline]
    pub fn packets(&mut self) -> impl Iterator<Item = PacketMut<'_>> {
        let places = self.batch.places_mut().iter_mut();
        places.zip(self.metas.iter_mut()).zip(self.verdicts.iter_mut()).filter_map(|((place, meta), verdict)| {
            let frame = place.as_mut()?;
            Some(PacketMut { frame, meta, verdict })
        })
    }

    /// The packet at a place; `None` behind the last place, or if it was held.
    #[inline]
    pub fn packet(&mut self, place: usize) -> Option<PacketMut<'_>> {
        let frame = self.batch.places_mut().get_mut(place)?.as_mut()?;
        Some(PacketMut { frame, meta: &mut self.metas[place], verdict: &mut self.verdicts[place] })
    }

    /// Gives the packet at a place a verdict. Behind the last place it does nothing.
    #[inline]
    pub fn set(&mut self, place: usize, verdict: Verdict) {
        if let Some(own) = self.verdicts[..self.batch.len()].get_mut(place) {
            *own = verdict;
        }
    }

    /// Takes the packet at a place out of the batch, for the stage to keep. It counts as held until it is emitted or dropped
    /// through [`Cx`]. `None` if there is no packet, or the worker's quota is used up: it stays in the batch then, and a
    /// stage that cannot let it pass drops it with [`Reason::HOLD_QUOTA`].
    pub fn hold(&mut self, place: usize, cx: &mut Cx<'_>) -> Option<Frame> {
        let occupied = self.batch.places_mut().get_mut(place).filter(|place| place.is_some())?;
        if !cx.take_quota() {
            return None;
        }
        self.took = true;
        occupied.take()
    }

    /// Whether every packet is still there and goes on.
    #[inline]
    pub(crate) fn all_next(&self) -> bool {
        !self.took && self.verdicts[..self.batch.len()].iter().all(|verdict| *verdict == Verdict::Next)
    }
}
