//! The slot of a port in its UMEM, for as long as the port, or its quarantine, exists.

use crate::owner::PortSlot;
use crate::umem::Umem;

/// A reserved slot. Dropping it takes the chunks that are still recorded as posted by the port out
/// of use, and frees the slot.
pub(crate) struct SlotLease {
    umem: Umem,
    slot: PortSlot,
}

impl SlotLease {
    /// Reserves a slot; `None` if another port has it.
    pub(crate) fn claim(umem: &Umem, slot: PortSlot) -> Option<Self> {
        umem.region().claim(slot).then(|| Self { umem: umem.clone(), slot })
    }

    /// Reserves a free slot; `None` if the UMEM already has the maximum of 126 ports.
    pub(crate) fn claim_any(umem: &Umem) -> Option<Self> {
        let mut slots = (0..PortSlot::MAX).filter_map(PortSlot::new);
        slots.find_map(|slot| Self::claim(umem, slot))
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
