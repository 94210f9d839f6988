//! The four rings of a port, with descriptors, but without `Frame` values, a record of frame owners
//! or packet bytes. Benchmarks compare them with C (`benches/peers/ring_twin.c`).

use crate::abi::Descriptor;
use crate::batch::Batch;
use crate::fake_kernel::{FakeKernel, FakeRingSizes};
use crate::free_list::FreeList;
use crate::kernel::Rings;
use crate::owner::PortSlot;
use crate::umem::Umem;

/// The user-space ends of a [`FakeKernel`]'s rings, and the addresses of the chunks that are in no
/// ring.
pub struct BareRings {
    rings: Rings,
    free: FreeList<u64>,
    /// The received descriptors; the first `len` are valid.
    batch: [Descriptor; Batch::CAPACITY],
    len: usize,
    /// Mask of the low address bits, which are the offset within a chunk.
    offset_mask: u64,
}

impl BareRings {
    /// Creates rings of these sizes, with a full fill ring, and their fake kernel. Nothing accesses
    /// the chunks' memory.
    ///
    /// # Panics
    /// If a size is not a power of two.
    pub fn new(umem: &Umem, sizes: FakeRingSizes) -> (Self, FakeKernel) {
        let slot = PortSlot::new(0).expect("slot 0 is invalid");
        let (rings, kernel) = FakeKernel::rings(umem, slot, sizes);
        let free =
            FreeList::full((0..umem.frames()).rev().map(|chunk| umem.region().join(chunk, 0)));
        let empty = Descriptor { addr: 0, len: 0, options: 0 };
        let offset_mask = u64::from(umem.frame_size()) - 1;
        let mut bare = Self { rings, free, batch: [empty; Batch::CAPACITY], len: 0, offset_mask };
        bare.refill(sizes.fill);
        (bare, kernel)
    }

    /// Receives up to `n` descriptors, at most [`Batch::CAPACITY`]. Posts as many free addresses to
    /// the fill ring, or fewer if addresses or ring entries run out. Returns the number received.
    #[inline]
    pub fn receive(&mut self, n: u32) -> usize {
        let mut len = 0;
        let mut peek = self.rings.rx.peek(n.min(Batch::CAPACITY as u32));
        for (entry, descriptor) in self.batch.iter_mut().zip(peek.by_ref()) {
            *entry = descriptor;
            len += 1;
        }
        self.len = len;
        peek.release();
        self.refill(self.len as u32);
        self.len
    }

    #[inline]
    fn refill(&mut self, n: u32) {
        let mut reservation = self.rings.fill.reserve(n);
        // SAFETY: a slice's iterator reports its exact length. Needs `unsafe`: other iterators may
        // report a wrong length.
        unsafe { reservation.extend(self.free.take(reservation.granted() as usize)) };
        reservation.commit();
    }

    /// Posts the received descriptors to the TX ring, as far as they fit. Returns whether the
    /// kernel requests a wake-up.
    #[inline]
    pub fn transmit(&mut self) -> bool {
        let mut reservation = self.rings.tx.reserve(self.len as u32);
        let granted = reservation.granted() as usize;
        // SAFETY: as in `refill`.
        unsafe { reservation.extend(self.batch[..self.len.min(granted)].iter().copied()) };
        reservation.commit();
        self.rings.tx.needs_wakeup()
    }

    /// Moves the chunk addresses in the completion ring to the free list. Returns their number.
    #[inline]
    pub fn reclaim(&mut self) -> u32 {
        let mut peek = self.rings.completion.peek(u32::MAX);
        let offset_mask = self.offset_mask;
        self.free.put(peek.by_ref().map(|address| address & !offset_mask));
        peek.release()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_kernel::FakeKernelConfig;
    use crate::{HugePages, UmemConfig};

    #[test]
    fn bare_rings_circulate_every_chunk_without_duplicates() {
        let config =
            UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
        let (umem, _pool) = Umem::new(&config).unwrap();
        let sizes = FakeRingSizes { start: u32::MAX - 100, ..FakeRingSizes::default() };
        let (mut rings, kernel) = BareRings::new(&umem, sizes);
        kernel.set(FakeKernelConfig::default());
        for n in [1, 8, 64, 100].repeat(20) {
            let delivered = kernel.deliver_unwritten(n, 60) as usize;
            assert_eq!(delivered, n as usize);
            assert_eq!(rings.receive(n), delivered.min(Batch::CAPACITY));
            assert!(rings.transmit(), "the kernel did not request a wake-up");
            kernel.complete_all();
            assert_eq!(rings.reclaim() as usize, delivered.min(Batch::CAPACITY));
            // Receive what did not fit into the first batch.
            rings.receive(n);
            rings.transmit();
            kernel.complete_all();
            rings.reclaim();
            // Read the list of free addresses, then restore it.
            let mut all: Vec<u64> = rings.free.take(usize::MAX).collect();
            rings.free.put(all.iter().rev().copied());
            assert_eq!(
                all.len() as u32 + kernel.posted(),
                umem.frames(),
                "a chunk is missing or was added"
            );
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len() as u32 + kernel.posted(), umem.frames(), "a chunk occurs twice");
        }
    }

    #[test]
    fn pretend_user_call_replaces_receive_transmit_and_reclaim() {
        let config =
            UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
        let (umem, _pool) = Umem::new(&config).unwrap();
        let (_rings, kernel) = BareRings::new(&umem, FakeRingSizes::default());
        for n in [1, 8, 64].repeat(20) {
            assert_eq!(kernel.deliver_unwritten(n, 60), n);
            kernel.pretend_user(n);
            assert_eq!(kernel.complete_all(), n);
            assert_eq!(kernel.posted(), FakeRingSizes::default().fill);
        }
    }
}
