//! The chunks of a UMEM, and the record of who owns each.

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
    /// `None` if the memory is somebody else's.
    pub(crate) _memfd: Option<OwnedFd>,
    pub(crate) huge: bool,
    /// A bit per slot that a port has.
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
        // Frames are views of these bytes.
        assert!(memory.len() >= config.bytes(), "a mapping of {} bytes is too short", memory.len());
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

    /// Bytes of all chunks; the mapping may be longer, by what rounding to huge pages added.
    pub(crate) fn len(&self) -> usize {
        self.frame_size as usize * self.frames as usize
    }

    #[inline]
    pub(crate) fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Takes a slot for a port; `false` if another port has it.
    pub(crate) fn claim(&self, slot: Slot) -> bool {
        let taken = self.slots.get();
        self.slots.set(taken | slot.bit());
        taken & slot.bit() == 0
    }

    /// Gives a slot up: its port is gone.
    pub(crate) fn release(&self, slot: Slot) {
        self.slots.set(self.slots.get() & !slot.bit());
    }

    /// By value, for a loop.
    #[inline]
    pub(crate) fn chunks(&self) -> Chunks<'_> {
        Chunks {
            region: self,
            base: self.base(),
            owners: self.owners.cells(),
            shift: self.frame_size.trailing_zeros(),
        }
    }

    /// As [`Chunks::split`].
    #[cfg(feature = "fake-kernel")]
    #[inline]
    pub(crate) fn split(&self, address: u64) -> (u32, u32) {
        let shift = self.frame_size.trailing_zeros();
        let chunk = u32::try_from(address >> shift).unwrap_or(u32::MAX);
        (chunk, address as u32 & (self.frame_size - 1))
    }

    /// The address within the UMEM of an offset in a chunk; the offset may be the chunk's end,
    /// where an empty packet can lie.
    #[inline]
    pub(crate) fn join(&self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.frame_size.trailing_zeros()) + u64::from(offset)
    }
}

/// A region as the loops over packets have it: by value. Each owner byte that is written through a
/// reference to the region could be a change of the region itself, for all the compiler knows, and
/// it would read everything anew.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    pub(crate) region: &'a Region,
    pub(crate) base: NonNull<u8>,
    owners: &'a [Cell<Owner>],
    shift: u32,
}

impl Chunks<'_> {
    /// Splits an address within the UMEM into chunk and offset. The chunk may not exist: the
    /// address is the kernel's word.
    #[inline]
    pub(crate) fn split(self, address: u64) -> (u64, u32) {
        (address >> self.shift, address as u32 & (self.frame_size() - 1))
    }

    /// As [`Region::join`].
    #[inline]
    pub(crate) fn join(self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.shift) + u64::from(offset)
    }

    #[inline]
    pub(crate) fn frame_size(self) -> u32 {
        1 << self.shift
    }

    /// Hands a chunk from one owner to the next; `false` (and no change) if it is another one's, or
    /// if there is none such.
    #[inline]
    pub(crate) fn hand_over(self, chunk: u64, from: Owner, to: Owner) -> bool {
        Owners::hand_over(self.owners, chunk, from, to)
    }

    /// Writes the owner of a chunk that the caller knows to hold.
    #[inline]
    pub(crate) fn set(self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.owners.get(chunk as usize) {
            cell.set(owner);
        }
    }
}
