//! The event that all samples come from.

use perf_event::events::Software;
use perf_event::{Builder, SampleFlag};

/// Returns a builder of the event that all samples come from: a timer of the core's clock, with the
/// call chain in the kernel.
pub(crate) fn event(frequency: u64) -> Builder<'static> {
    let mut builder = Builder::new(Software::CPU_CLOCK);
    builder
        .sample_frequency(frequency)
        // The weight is always 0. perf-event-data 0.1.8 rejects a record that ends with an empty
        // call chain, as samples of user-space code would.
        .sample(SampleFlag::TID | SampleFlag::CALLCHAIN | SampleFlag::WEIGHT)
        .include_kernel()
        .exclude_callchain_user(true);
    builder
}
