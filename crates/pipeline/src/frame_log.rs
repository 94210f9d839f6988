//! A log of the frames that stages drop and free, for the test bench.

use std::cell::RefCell;

use crate::reason::Reason;

/// What happened to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameEvent {
    /// The packet in it was dropped.
    Dropped(Reason),
    /// A stage gave it back as unused.
    Freed,
}

/// Events in their order, each with the number of the frame's chunk.
pub(crate) type FrameEvents = Vec<(u32, FrameEvent)>;

thread_local! {
    /// The log of this thread, if one is kept.
    static LOG: RefCell<Option<FrameEvents>> = const { RefCell::new(None) };
}

/// Adds an event, if this thread keeps a log.
pub(crate) fn add(chunk: u32, event: FrameEvent) {
    LOG.with_borrow_mut(|log| {
        if let Some(log) = log {
            log.push((chunk, event));
        }
    });
}

/// Runs the closure and returns its result and the events on this thread meanwhile.
pub(crate) fn record<R>(run: impl FnOnce() -> R) -> (R, FrameEvents) {
    /// Ends the log, also after a panic of a stage.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            LOG.set(None);
        }
    }
    LOG.set(Some(Vec::new()));
    let _end = End;
    let result = run();
    (result, LOG.take().unwrap_or_default())
}
