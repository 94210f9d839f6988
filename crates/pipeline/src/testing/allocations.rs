//! Counting allocations.

/// Runs the closure and asserts that it allocates no memory on this thread.
///
/// Behind the feature `count-allocations`: the crate `allocation-counter` installs a global
/// allocator that counts, so the whole test binary runs on it. A binary has one global allocator;
/// do not enable the feature if your tests install another one.
///
/// A test bench itself allocates when it delivers and records frames. To check the stages of a
/// bench, use [`TestBench::assert_no_allocation`](crate::testing::TestBench::assert_no_allocation).
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
/// If the closure allocates or reallocates. The message has the numbers.
#[track_caller]
pub fn assert_no_allocation<R>(run: impl FnOnce() -> R) -> R {
    let mut result = None;
    let counts = allocation_counter::measure(|| result = Some(run()));
    let (count, bytes) = (counts.count_total, counts.bytes_total);
    assert_eq!(count, 0, "{count} allocations of {bytes} bytes in total; expected none");
    result.expect("the closure ran")
}
