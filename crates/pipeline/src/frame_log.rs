//! A log of the frames that stages or the worker drop or free, for the test bench.

use std::cell::RefCell;

use crate::reason::Reason;

/// What a stage or the worker did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameEvent {
    Dropped(Reason),
    /// A stage freed the frame without a drop.
    Freed,
}

/// Events in order, with the chunk number of each frame.
pub(crate) type FrameEvents = Vec<(u32, FrameEvent)>;

thread_local! {
    /// `None` while no [`record`] runs on this thread.
    static LOG: RefCell<Option<FrameEvents>> = const { RefCell::new(None) };
}

pub(crate) fn add(chunk: u32, event: FrameEvent) {
    LOG.with_borrow_mut(|log| {
        if let Some(log) = log {
            log.push((chunk, event));
        }
    });
}

/// Returns the closure's result and this thread's events during the call.
pub(crate) fn record<R>(run: impl FnOnce() -> R) -> (R, FrameEvents) {
    /// Disables the log, also after a panic of a stage.
    struct DisableLog;
    impl Drop for DisableLog {
        fn drop(&mut self) {
            LOG.set(None);
        }
    }
    LOG.set(Some(Vec::new()));
    let _guard = DisableLog;
    let result = run();
    (result, LOG.take().unwrap_or_default())
}
