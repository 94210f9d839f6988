//! What the two sides of a ring share: atomic counters, a fence, entries. In one place, so that a model checker's can stand
//! in for them: `tests/loom.rs` compiles `ring.rs` with a `sync` of its own.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

/// An entry of a ring, in memory that the other side writes to, too.
#[repr(transparent)]
pub(crate) struct Entry<T>(UnsafeCell<MaybeUninit<T>>);

impl<T: Copy> Entry<T> {
    /// One that nobody has written: zeroed, as the kernel's are, for a side that is lied to may read it.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub(crate) fn unwritten() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// # Safety
    /// The entry is the caller's: the other side neither reads nor writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: nobody else looks at it, says the caller. Unsafe because the type cannot know that.
        unsafe { self.0.get().write(MaybeUninit::new(value)) };
    }

    /// # Safety
    /// The entry is the caller's, and was written.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: written, and nobody else writes to it, says the caller. Unsafe because the type cannot know that.
        unsafe { self.0.get().read().assume_init() }
    }
}
