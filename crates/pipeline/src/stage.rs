//! Stages: the steps of a path, which process packets in batches.

use std::any::Any;

use crate::cx::Cx;
use crate::view::View;

/// One step of a path. A stage processes every packet that the previous stages let pass, in
/// batches. It may rewrite, shrink or grow each packet, and gives it a verdict; a packet without a
/// verdict goes on to the next stage.
///
/// `process` runs on the data path: it must not block, allocate or log. The defaults of the other
/// methods suit a stage without held packets and without state.
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
    /// ([`Meta::headers`](crate::Meta::headers)). The worker parses no headers on a path where no
    /// stage does. True by default.
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

    /// Returns the row counters of the plan's inspection tables, in the order of
    /// [`Inspectable::counter_keys`](crate::Inspectable::counter_keys). Empty by default. The
    /// engine adds them up over workers and over reloads.
    fn row_counters(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Returns the state that a successor of the same kind and name takes over on a reload. Do not
    /// include counters.
    fn snapshot(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over the state of a predecessor. On an error the stage starts without it, and the
    /// reload reports the stage.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let _ = snapshot;
        Ok(())
    }

    /// Retires the stage. This is the last call: frames that the stage does not emit or free now
    /// are lost.
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
