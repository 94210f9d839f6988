//! Data that both sides of a ring share: atomic counters, a fence, entries. A separate module, so
//! that a model checker can replace it: `tests/loom.rs` compiles `ring.rs` with its own `sync`.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::abi::Descriptor;

/// A type for which any bytes are valid, so that data from the kernel, correct or not, can be read
/// as one.
///
/// # Safety
/// The type has no padding that is ever read as a value, no niche, and no references.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer. Unsafe: the compiler cannot check it.
unsafe impl Plain for u64 {}
// SAFETY: these are structs of integers. Unsafe: the compiler cannot check it.
unsafe impl Plain for Descriptor {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}

/// A ring entry, in memory that the other side also writes to.
#[repr(transparent)]
pub(crate) struct Entry<T>(UnsafeCell<MaybeUninit<T>>);

impl<T: Plain> Entry<T> {
    /// Creates an entry that is zeroed, like the kernel's, because a consumer misled by an invalid
    /// counter may read it.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub(crate) fn unwritten() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// # Safety
    /// The caller owns the entry: the other side neither reads nor writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: the caller guarantees exclusive access. Unsafe because the type cannot check
        // that.
        unsafe { self.0.get().write(MaybeUninit::new(value)) };
    }

    /// # Safety
    /// The caller owns the entry, and it was written or is zeroed as allocated.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: the caller guarantees that the entry is initialised and not written meanwhile;
        // any bytes are valid for a plain type. Unsafe because the type cannot check that.
        unsafe { self.0.get().read().assume_init() }
    }
}
