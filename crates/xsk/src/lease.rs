//! The slot of a port in its UMEM, for as long as the port, or its remains, exist.

use crate::owner::PortSlot;
use crate::umem::Umem;

/// A claimed slot. Dropping it takes the chunks that are still recorded as posted by the port out of
/// use, and frees the slot.
pub(crate) struct SlotLease {
    umem: Umem,
    slot: PortSlot,
}

impl SlotLease {
    /// Takes over a slot that was [claimed](crate::region::Region::claim).
    pub(crate) fn of_claimed(umem: &Umem, slot: PortSlot) -> Self {
        Self { umem: umem.clone(), slot }
    }

    pub(crate) fn umem(&self) -> &Umem {
        &self.umem
    }

    pub(crate) fn slot(&self) -> PortSlot {
        self.slot
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        let region = self.umem.region();
        region.owners.close(self.slot);
        region.release(self.slot);
    }
}
