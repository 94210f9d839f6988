//! The frames of a batch that a test sent, and their dispositions.

use super::disposition::Disposition;
use crate::frame_log::{FrameEvent, FrameEvents};

/// The frames of one batch, identified by chunk number. After a frame is sent, dropped or freed,
/// another packet may use its chunk, so later such events of a chunk are ignored.
pub(super) struct TrackedBatch(Vec<TrackedFrame>);

struct TrackedFrame {
    chunk: u32,
    disposition: Option<Disposition>,
    /// Whether, at the end of an iteration, no stage held the frame: it was queued for
    /// transmission. Later drops in its chunk are drops of another packet.
    is_outside_stages: bool,
}

impl TrackedBatch {
    /// `chunks` are in the order of delivery.
    pub(super) fn new(chunks: impl IntoIterator<Item = u32>) -> Self {
        let track = |chunk| TrackedFrame { chunk, disposition: None, is_outside_stages: false };
        Self(chunks.into_iter().map(track).collect())
    }

    fn find(&mut self, chunk: u32) -> Option<&mut TrackedFrame> {
        self.0.iter_mut().find(|frame| frame.chunk == chunk && frame.disposition.is_none())
    }

    /// Records the events of one iteration.
    pub(super) fn record_events(&mut self, events: FrameEvents) {
        for (chunk, event) in events {
            if let Some(frame) = self.find(chunk).filter(|frame| !frame.is_outside_stages) {
                frame.disposition = Some(match event {
                    FrameEvent::Dropped(reason) => Disposition::Dropped { reason },
                    FrameEvent::Freed => Disposition::Freed,
                });
            }
        }
    }

    /// Records that a port has sent a frame. If the frame is not from the batch, returns its bytes
    /// instead.
    pub(super) fn record_sent(
        &mut self,
        port: &str,
        chunk: u32,
        bytes: Vec<u8>,
    ) -> Option<Vec<u8>> {
        match self.find(chunk) {
            Some(frame) => {
                frame.disposition = Some(Disposition::Sent { port: port.to_owned(), frame: bytes });
                None
            }
            None => Some(bytes),
        }
    }

    /// Marks the frames that no stage holds at the end of an iteration.
    pub(super) fn mark_outside_stages(&mut self, is_held_by_stage: impl Fn(u32) -> bool) {
        for frame in self.0.iter_mut().filter(|frame| frame.disposition.is_none()) {
            frame.is_outside_stages |= !is_held_by_stage(frame.chunk);
        }
    }

    /// Returns the dispositions in the order of delivery. Call it after `TestBench::settle`.
    pub(super) fn finish(self) -> impl Iterator<Item = Disposition> {
        self.0.into_iter().map(|frame| {
            let without_event =
                if frame.is_outside_stages { Disposition::Unsent } else { Disposition::Held };
            frame.disposition.unwrap_or(without_event)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn events_of_other_packets_in_same_chunk_are_ignored() {
        let mut tracked = TrackedBatch::new([1, 2, 3]);
        let dropped = FrameEvent::Dropped(Reason::POLICY);
        tracked.record_events(vec![(1, dropped), (1, FrameEvent::Freed), (9, FrameEvent::Freed)]);
        assert_eq!(
            tracked.record_sent("wan", 1, vec![7]),
            Some(vec![7]),
            "a later packet in the chunk was taken for the tracked frame"
        );
        tracked.mark_outside_stages(|chunk| chunk == 3);
        tracked.record_events(vec![(2, FrameEvent::Freed)]);
        assert_eq!(tracked.record_sent("wan", 2, vec![8]), None);
        let policy = Disposition::dropped(Reason::POLICY);
        assert!(tracked.finish().eq([policy, Disposition::sent("wan", [8]), Disposition::Held]));
    }
}
