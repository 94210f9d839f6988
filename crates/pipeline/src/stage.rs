//! A stage: one step of a path, which processes packets a batch at a time.

use std::any::Any;

use crate::cx::Cx;
use crate::view::View;

/// One step of a path. It sees every packet that the steps before it let pass, a batch at a time,
/// may rewrite, shrink or grow each, and gives each a verdict; without one a packet goes on to the
/// next step.
///
/// `process` runs on the data path: it must not block, allocate or log. All methods but `process`
/// have a default that suits a stage which holds no packets and has no state.
///
/// ```
/// use xdpfwd_pipeline::{Cx, Reason, Stage, View};
///
/// /// Drops packets with an odd length.
/// struct EvenOnly;
///
/// impl Stage for EvenOnly {
///     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
///         for mut packet in view.packets() {
///             if packet.frame.len() % 2 != 0 {
///                 packet.drop(Reason::POLICY);
///             }
///         }
///     }
///
///     fn needs_headers(&self) -> bool {
///         false
///     }
/// }
/// ```
pub trait Stage: Any {
    /// Processes a batch.
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>);

    /// Returns whether the stage reads the parsed headers
    /// ([`Meta::headers`](crate::Meta::headers)). If no stage of a path does, the worker parses
    /// nothing there. True unless the stage says otherwise.
    fn needs_headers(&self) -> bool {
        true
    }

    /// Runs between batches, about once a millisecond while packets flow or the stage holds some,
    /// and at least every 100 ms, for work that no packet triggers.
    fn tick(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Returns the stage's own counters, by name, for reports. They only grow. On a reload the
    /// worker adds what the predecessor of the same name and kind had counted, so a new stage
    /// starts at zero.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Returns the counters of the rows of the plan's inspection tables, in the order of
    /// [`Inspectable::counter_keys`](crate::Inspectable::counter_keys). Empty if it counts none.
    /// The engine adds them up over workers and over reloads.
    fn row_counters(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Returns state for a successor of the same kind and name, which gets it on a reload. Counters
    /// do not belong here.
    fn snapshot(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over the state of a predecessor. On an error the stage starts without it, and the
    /// reload reports that.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let _ = snapshot;
        Ok(())
    }

    /// Runs once, as the stage's last call: frames that it holds must be emitted or freed now, or
    /// they are lost.
    fn retire(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// A snapshot could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore the state of the stage: {0}")]
pub struct SnapshotError(pub String);

impl Stage for Box<dyn Stage> {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        (**self).process(view, cx);
    }

    fn needs_headers(&self) -> bool {
        (**self).needs_headers()
    }

    fn tick(&mut self, cx: &mut Cx<'_>) {
        (**self).tick(cx);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        (**self).counters()
    }

    fn row_counters(&self) -> Vec<u64> {
        (**self).row_counters()
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        (**self).snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        (**self).restore(snapshot)
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        (**self).retire(cx);
    }
}
