//! Stages: the steps of a path, which process packets in batches.

use std::any::Any;
use std::ops::Range;

use crate::cx::Cx;
use crate::view::View;

/// One step of a path. A stage processes, in batches, every packet that the previous stages let
/// pass. It may rewrite, shrink or grow a packet, and may give it a verdict.
///
/// `process` runs on the data path: it must not block, allocate or log. The defaults of the other
/// methods suit a stage that holds no packets and has no state.
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
    /// ([`Meta::headers`](crate::Meta::headers)). True by default. If all stages of a path return
    /// false, the worker does not parse the headers of its packets.
    fn needs_headers(&self) -> bool {
        true
    }

    /// Does work that no packet triggers, between batches: about once per millisecond while packets
    /// arrive or the worker's stages hold frames, otherwise at least every 100 ms.
    fn tick(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Returns the stage's own counters by name. They never decrease, and start from zero: after a
    /// reload, the worker adds those of the old stage with the same name and kind.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Returns the counters in rows of the inspection tables, such as the packets of each rule, in
    /// the order of [`Inspectable::counter_keys`](crate::Inspectable::counter_keys). The engine
    /// adds them up over workers and reloads.
    fn row_counters(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Returns the row counters with these indices, as far as they exist. Override it if the stage
    /// can have many row counters: the default copies all of them each time, while packets wait.
    fn row_counters_in(&self, rows: Range<usize>) -> Vec<u64> {
        self.row_counters().into_iter().skip(rows.start).take(rows.len()).collect()
    }

    /// Returns the state, without counters, that a new stage of the same kind and name takes over
    /// on a reload.
    fn snapshot(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over the old stage's state on a reload. After an error, the stage starts without
    /// state, and the reload reports its name.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let _ = snapshot;
        Ok(())
    }

    /// Retires the stage: it processes no more packets, because it is about to be replaced or the
    /// worker ends. The stage must pass all frames that it holds to [`Cx::emit`], [`Cx::drop`] or
    /// [`Cx::free`], or they are lost. Afterwards only its counters are read.
    fn retire(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// The reason why a stage could not take over a snapshot.
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

    fn row_counters_in(&self, rows: Range<usize>) -> Vec<u64> {
        (**self).row_counters_in(rows)
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
