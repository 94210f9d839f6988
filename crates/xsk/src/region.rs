//! The chunks of a UMEM, and the record of their owners.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use crate::config::UmemConfig;
use crate::mapping::Mapping;
use crate::owner::{Owner, Owners, Slot};

/// The memory of a UMEM and the record of its owners.
pub(crate) struct Region {
    memory: Mapping,
    frame_size: u32,
    pub(crate) frames: u32,
    pub(crate) owners: Owners,
    /// `None` if the memory has another owner.
    pub(crate) _memfd: Option<OwnedFd>,
    pub(crate) huge: bool,
    /// One bit per slot, set if a port uses it.
    slots: Cell<u128>,
}

impl Region {
    pub(crate) fn new(
        config: &UmemConfig,
        memory: Mapping,
        memfd: Option<OwnedFd>,
        huge: bool,
    ) -> Self {
        let &UmemConfig { frame_size, frames, .. } = config;
        // Frames refer to these bytes.
        assert!(
            memory.len() >= config.bytes(),
            "a mapping of {} bytes is too short for the UMEM",
            memory.len()
        );
        Self {
            memory,
            frame_size,
            frames,
            owners: Owners::new(frames),
            _memfd: memfd,
            huge,
            slots: Cell::new(0),
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    /// Returns the bytes of all chunks; the mapping may be longer, rounded up to huge pages.
    pub(crate) fn len(&self) -> usize {
        self.frame_size as usize * self.frames as usize
    }

    #[inline]
    pub(crate) fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Claims a slot for a port; returns `false` if another port has it.
    pub(crate) fn claim(&self, slot: Slot) -> bool {
        let taken = self.slots.get();
        self.slots.set(taken | slot.bit());
        taken & slot.bit() == 0
    }

    /// Releases the slot of a closed port.
    pub(crate) fn release(&self, slot: Slot) {
        self.slots.set(self.slots.get() & !slot.bit());
    }

    /// Returns a copy of the fields for use in a loop.
    #[inline]
    pub(crate) fn chunks(&self) -> Chunks<'_> {
        Chunks {
            region: self,
            base: self.base(),
            owners: self.owners.cells(),
            shift: self.frame_size.trailing_zeros(),
        }
    }

    /// Like [`Chunks::split`].
    #[cfg(feature = "fake-kernel")]
    #[inline]
    pub(crate) fn split(&self, address: u64) -> (u32, u32) {
        let shift = self.frame_size.trailing_zeros();
        let chunk = u32::try_from(address >> shift).unwrap_or(u32::MAX);
        (chunk, address as u32 & (self.frame_size - 1))
    }

    /// Returns the address within the UMEM of an offset in a chunk; the offset may be the chunk's
    /// end, where an empty packet can lie.
    #[inline]
    pub(crate) fn join(&self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.frame_size.trailing_zeros()) + u64::from(offset)
    }
}

/// A copy of a region's fields for packet loops. Through a reference to the region, the compiler
/// would have to assume that each written owner byte changes the region, and reload all fields.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    pub(crate) region: &'a Region,
    pub(crate) base: NonNull<u8>,
    owners: &'a [Cell<Owner>],
    shift: u32,
}

impl Chunks<'_> {
    /// Splits an address within the UMEM into chunk and offset. The address may come from the
    /// kernel, so the chunk may not exist.
    #[inline]
    pub(crate) fn split(self, address: u64) -> (u64, u32) {
        (address >> self.shift, address as u32 & (self.frame_size() - 1))
    }

    /// Like [`Region::join`].
    #[inline]
    pub(crate) fn join(self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.shift) + u64::from(offset)
    }

    #[inline]
    pub(crate) fn frame_size(self) -> u32 {
        1 << self.shift
    }

    /// Hands a chunk from one owner to the next; returns `false` without a change if `from` does
    /// not own it or it does not exist.
    #[inline]
    pub(crate) fn hand_over(self, chunk: u64, from: Owner, to: Owner) -> bool {
        Owners::hand_over(self.owners, chunk, from, to)
    }

    /// Sets the owner of a chunk that the caller is known to own.
    #[inline]
    pub(crate) fn set(self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.owners.get(chunk as usize) {
            cell.set(owner);
        }
    }
}
