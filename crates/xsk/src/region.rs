//! The region of a UMEM: its memory, and each chunk's owner.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use crate::config::UmemConfig;
use crate::mapping::Mapping;
use crate::owner::{Owner, Owners, PortSlot};

pub(crate) struct Region {
    memory: Mapping,
    frame_size: u32,
    pub(crate) frames: u32,
    pub(crate) owners: Owners,
    /// The file of the memory, which only tests use; `None` if the crate `xsk-rs` mapped the
    /// memory.
    pub(crate) _memfd: Option<OwnedFd>,
    /// Whether reserved huge pages back the memory.
    pub(crate) huge: bool,
    /// One bit per [`PortSlot`] (the number of a port within its UMEM), set if a port has the slot.
    used_slots: Cell<u128>,
}

impl Region {
    pub(crate) fn new(
        config: &UmemConfig,
        memory: Mapping,
        memfd: Option<OwnedFd>,
        huge: bool,
    ) -> Self {
        let &UmemConfig { frame_size, frames, .. } = config;
        // Frames access these bytes through raw pointers.
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
            used_slots: Cell::new(0),
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    /// Returns the size in bytes of all chunks. The mapping can be longer: it is rounded up to
    /// whole huge pages.
    pub(crate) fn len(&self) -> usize {
        self.frame_size as usize * self.frames as usize
    }

    #[inline]
    pub(crate) fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Reserves the slot for a port. Returns `false` if another port has it.
    pub(crate) fn claim(&self, slot: PortSlot) -> bool {
        let taken = self.used_slots.get();
        self.used_slots.set(taken | slot.bit());
        taken & slot.bit() == 0
    }

    pub(crate) fn release(&self, slot: PortSlot) {
        self.used_slots.set(self.used_slots.get() & !slot.bit());
    }

    #[inline]
    pub(crate) fn chunks(&self) -> Chunks<'_> {
        Chunks {
            region: self,
            base: self.base(),
            owners: self.owners.cells(),
            shift: self.frame_size.trailing_zeros(),
        }
    }

    /// Like [`Chunks::split`], but returns `u32::MAX` instead of a chunk number that exceeds 32
    /// bits.
    #[cfg(feature = "fake-kernel")]
    #[inline]
    pub(crate) fn split(&self, address: u64) -> (u32, u32) {
        let shift = self.frame_size.trailing_zeros();
        let chunk = u32::try_from(address >> shift).unwrap_or(u32::MAX);
        (chunk, address as u32 & (self.frame_size - 1))
    }

    /// Returns the address of an offset in a chunk, relative to the UMEM's start. The offset can
    /// equal the chunk size: an empty packet can lie at the chunk's end.
    #[inline]
    pub(crate) fn join(&self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.frame_size.trailing_zeros()) + u64::from(offset)
    }
}

/// A copy of a region's fields for packet loops: with a reference, the compiler would assume that
/// each write of an owner byte changes the fields, and reload them.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    pub(crate) region: &'a Region,
    pub(crate) base: NonNull<u8>,
    owners: &'a [Cell<Owner>],
    shift: u32,
}

impl Chunks<'_> {
    /// Splits an address, relative to the UMEM's start, into chunk number and offset. The chunk may
    /// not exist, because the address can come from the kernel.
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

    /// Like [`Owners::hand_over`].
    #[inline]
    pub(crate) fn hand_over(self, chunk: u64, from: Owner, to: Owner) -> bool {
        Owners::hand_over(self.owners, chunk, from, to)
    }

    /// Like [`Owners::set`].
    #[inline]
    pub(crate) fn set(self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.owners.get(chunk as usize) {
            cell.set(owner);
        }
    }
}
