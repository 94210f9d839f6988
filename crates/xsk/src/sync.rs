//! What the two sides of a ring share: atomic counters, a fence, entries. In one place, so that a
//! model checker's can stand in for them: `tests/loom.rs` compiles `ring.rs` with a `sync` of its
//! own.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::abi::Descriptor;

/// A type of which any bytes are a value: what the kernel, or a side that lies, has written can be
/// read as one.
///
/// # Safety
/// It has no padding that is ever read as a value, no niche, and refers to nothing.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer. Unsafe: it is for us to say.
unsafe impl Plain for u64 {}
// SAFETY: these are structs of integers. Unsafe: it is for us to say.
unsafe impl Plain for Descriptor {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}

/// An entry of a ring, in memory that the other side writes to, too.
#[repr(transparent)]
pub(crate) struct Entry<T>(UnsafeCell<MaybeUninit<T>>);

impl<T: Plain> Entry<T> {
    /// One that nobody has written: zeroed, as the kernel's are, for a side that is lied to may
    /// read it.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub(crate) fn unwritten() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// # Safety
    /// The entry is the caller's: the other side neither reads nor writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: nobody else looks at it, says the caller. Unsafe because the type cannot know
        // that.
        unsafe { self.0.get().write(MaybeUninit::new(value)) };
    }

    /// # Safety
    /// The entry is the caller's, and was written; or it is as the kernel made it, zeroed.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: initialised, and nobody else writes to it, says the caller; whatever was written
        // is a value of a plain type. Unsafe because the type cannot know that.
        unsafe { self.0.get().read().assume_init() }
    }
}
