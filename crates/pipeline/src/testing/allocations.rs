//! Assertions that no memory is allocated.

/// Asserts that the closure allocates no memory on this thread, and returns its result.
///
/// Requires the feature `count-allocations`, with which the crate `allocation-counter` installs a
/// counting global allocator for the test binary. Do not enable it if your tests install another.
///
/// A test bench itself allocates when it delivers and records frames: use
/// [`TestBench::assert_no_allocation`](crate::testing::TestBench::assert_no_allocation).
///
/// ```
/// use xdpfwd_pipeline::testing::assert_no_allocation;
///
/// let mut table = vec![0; 16];
/// assert_no_allocation(|| table[3] += 1);
/// ```
///
/// # Panics
///
/// If the closure allocates; the message has the number of allocations and bytes.
#[track_caller]
pub fn assert_no_allocation<R>(run: impl FnOnce() -> R) -> R {
    let mut result = None;
    let counts = allocation_counter::measure(|| result = Some(run()));
    let (count, bytes) = (counts.count_total, counts.bytes_total);
    assert_eq!(count, 0, "{count} allocations of {bytes} bytes in total; expected none");
    result.expect("the closure ran")
}
