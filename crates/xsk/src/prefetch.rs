//! Prefetches a packet's first bytes.

/// Prefetches the first cache line for writing, because most stages rewrite the headers. No effect
/// on processors other than x86-64.
#[inline(always)]
pub fn prefetch_for_write(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing and faults on no address. Needs `unsafe`: the
        // intrinsic takes a raw pointer.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(bytes.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
