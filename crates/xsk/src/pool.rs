//! The pool: a worker's free frames.

#[cfg(feature = "xsk-rs")]
use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
#[cfg(feature = "xsk-rs")]
use std::ptr::NonNull;

use crate::abi::XDP_PACKET_HEADROOM;
use crate::config::{UmemConfig, UmemError};
use crate::frame::Frame;
use crate::free_list::FreeList;
use crate::mapping::{self, Mapping};
use crate::owner::{Owner, PortSlot};
use crate::region::Region;
use crate::umem::Umem;

/// The free frames of a UMEM. The frame freed last is allocated first, because its bytes are still
/// in the cache.
pub struct Pool {
    umem: Umem,
    /// Numbers of the free chunks, with capacity for all.
    free: FreeList<u32>,
}

/// The error for a frame of another UMEM. Contains the frame.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} belongs to another UMEM")]
pub struct ForeignFrame(pub Frame);

/// Constructors. Initially, all frames are in the pool.
impl Umem {
    /// Maps the memory and touches every page, so that it is on the NUMA node of the calling
    /// thread. The pool holds all frames.
    pub fn new(config: &UmemConfig) -> Result<(Self, Pool), UmemError> {
        config.check()?;
        let (memfd, memory, huge) = mapping::map(config.bytes(), config.huge_pages)?;
        Ok(Self::with_pool(config, memory, Some(memfd), huge))
    }

    /// Creates a UMEM in memory that `owner` keeps mapped.
    ///
    /// # Safety
    /// The configured number of bytes at `base` is readable and writable for as long as `owner`
    /// lives, and is accessed only through the UMEM and through descriptors of frames that the UMEM
    /// handed over to a port.
    #[cfg(feature = "xsk-rs")]
    pub(crate) unsafe fn in_mapping(
        config: &UmemConfig,
        base: NonNull<u8>,
        huge: bool,
        owner: Box<dyn Any>,
    ) -> Result<(Self, Pool), UmemError> {
        config.check()?;
        // SAFETY: guaranteed by the caller. Needs `unsafe`: the compiler cannot check this
        // guarantee, on which the mapping relies.
        let memory = unsafe { Mapping::with_owner(base, config.bytes(), owner) };
        Ok(Self::with_pool(config, memory, None, huge))
    }

    fn with_pool(
        config: &UmemConfig,
        memory: Mapping,
        memfd: Option<OwnedFd>,
        huge: bool,
    ) -> (Self, Pool) {
        let umem = Self::from_region(Region::new(config, memory, memfd, huge));
        let pool = Pool::full(umem.clone());
        (umem, pool)
    }
}

impl Pool {
    /// Headroom in bytes of a frame from the pool, and of a received packet.
    pub const HEADROOM: usize = XDP_PACKET_HEADROOM as usize;

    pub(crate) fn full(umem: Umem) -> Self {
        // Chunk 0 is allocated first.
        let free = FreeList::full((0..umem.frames()).rev());
        Self { umem, free }
    }

    /// Returns the number of free frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Returns whether no frame is free.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.free.len() == 0
    }

    /// Returns the UMEM of the frames.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Returns an empty frame with [`HEADROOM`](Self::HEADROOM) bytes of headroom, if any is free.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        let region = self.umem.region();
        region.owners.set(chunk, Owner::HELD);
        // SAFETY: the chunk was free, so no frame owns it, and it is HELD now; the headroom is
        // below the frame size; `Umem` keeps the region as long as a chunk is HELD. Needs `unsafe`:
        // the new frame is the token that owns the bytes.
        Some(unsafe { Frame::new(region.into(), chunk, XDP_PACKET_HEADROOM as u16, 0) })
    }

    /// Returns a frame to the pool. Fails, and returns the frame, if it belongs to another UMEM.
    ///
    /// ```
    /// # use xdpfwd_xsk::{Umem, UmemConfig};
    /// let (_umem, mut pool) = Umem::new(&UmemConfig::default())?;
    /// let (_other_umem, mut other_pool) = Umem::new(&UmemConfig::default())?;
    /// let frame = pool.alloc().unwrap();
    /// let frame = other_pool.free(frame).unwrap_err().0; // a frame of another UMEM
    /// pool.free(frame).unwrap();
    /// # Ok::<(), xdpfwd_xsk::UmemError>(())
    /// ```
    #[inline]
    pub fn free(&mut self, frame: Frame) -> Result<(), ForeignFrame> {
        if !self.umem.is_region(frame.region()) {
            return Err(ForeignFrame(frame));
        }
        self.push(frame.give_up(Owner::POOL));
        Ok(())
    }

    /// Takes up to `n` chunks for the kernel's fill ring and yields their addresses. The caller
    /// must consume the whole iterator: the remaining chunks would stay recorded as `POOL`, and
    /// never be reused.
    #[inline]
    pub(crate) fn take_for_fill(
        &mut self,
        slot: PortSlot,
        n: u32,
    ) -> impl ExactSizeIterator<Item = u64> {
        let chunks = self.umem.region().chunks();
        self.free.take(n as usize).map(move |chunk| {
            chunks.set(chunk, Owner::fill(slot));
            chunks.join(chunk, 0)
        })
    }

    /// Puts back chunks that are already recorded as `POOL`. Returns their number.
    #[inline]
    pub(crate) fn push_all(&mut self, chunks: impl Iterator<Item = u32>) -> u32 {
        // All fit: the free list has room for every chunk of the UMEM, and no chunk is in it twice.
        self.free.put(chunks) as u32
    }

    /// Puts back one chunk that is already recorded as `POOL`.
    #[inline]
    pub(crate) fn push(&mut self, chunk: u32) {
        let pushed = self.free.put([chunk].into_iter());
        debug_assert_eq!(pushed, 1, "the pool has more frames than the UMEM");
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("free", &self.free.len()).field("umem", &self.umem).finish()
    }
}
