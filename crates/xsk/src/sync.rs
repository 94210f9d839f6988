//! The types and the fence with which both sides of a ring share data. `tests/loom.rs` compiles
//! `ring.rs` with loom's types instead.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::abi::Descriptor;

/// A type for which any bytes from the kernel are a valid value.
///
/// # Safety
/// The type has no padding that is ever read as a value, no niche, and no references.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: `u64` is an integer. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for u64 {}
// SAFETY: a struct of integers. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for Descriptor {}
// SAFETY: a struct of integers. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: a struct of integers. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: a struct of integers. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for libc::xdp_statistics {}

/// A ring entry, in memory that the other side also writes to.
#[repr(transparent)]
pub(crate) struct Entry<T>(UnsafeCell<MaybeUninit<T>>);

impl<T: Plain> Entry<T> {
    /// Returns an entry of zeros, as in the kernel's rings. A consumer can read such an entry if
    /// the producer index of the ring is invalid.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub(crate) fn unwritten() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// # Safety
    /// The caller owns the entry: the other side neither reads nor writes it during the call.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: the caller guarantees exclusive access. Needs `unsafe`: the type cannot check
        // that.
        unsafe { self.0.get().write(MaybeUninit::new(value)) };
    }

    /// # Safety
    /// The caller owns the entry, which was written or is still zeroed.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: the caller guarantees that the entry is initialised and that nothing writes to it
        // during the call; any bytes are valid for a plain type. Needs `unsafe`: the type cannot
        // check that.
        unsafe { self.0.get().read().assume_init() }
    }
}
