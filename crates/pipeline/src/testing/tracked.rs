//! Frames of a batch that a test sent, until their dispositions are known.

use super::disposition::Disposition;
use crate::frame_log::{FrameEvent, FrameEvents};

/// Frames of a batch that a test sent.
///
/// A chunk's number identifies the frame only until the frame has left user space; then the worker
/// may use the chunk for another packet. So only the first event of a chunk counts.
pub(super) struct Tracked(Vec<TrackedFrame>);

struct TrackedFrame {
    chunk: u32,
    disposition: Option<Disposition>,
    /// Whether the frame is queued for transmission: a later event in the frame log is about
    /// another packet.
    leaves: bool,
}

impl Tracked {
    /// Starts to track the frames in these chunks, in the order in which they were delivered.
    pub(super) fn new(chunks: impl IntoIterator<Item = u32>) -> Self {
        let track = |chunk| TrackedFrame { chunk, disposition: None, leaves: false };
        Self(chunks.into_iter().map(track).collect())
    }

    fn find(&mut self, chunk: u32) -> Option<&mut TrackedFrame> {
        self.0.iter_mut().find(|frame| frame.chunk == chunk && frame.disposition.is_none())
    }

    /// Applies the drops and frees of one iteration.
    pub(super) fn apply(&mut self, events: FrameEvents) {
        for (chunk, event) in events {
            if let Some(frame) = self.find(chunk).filter(|frame| !frame.leaves) {
                frame.disposition = Some(match event {
                    FrameEvent::Dropped(reason) => Disposition::Dropped { reason },
                    FrameEvent::Freed => Disposition::Freed,
                });
            }
        }
    }

    /// Applies a sent frame. Returns the bytes if the frame is not from the batch.
    pub(super) fn apply_sent(&mut self, port: &str, chunk: u32, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self.find(chunk) {
            Some(frame) => {
                frame.disposition = Some(Disposition::Sent { port: port.to_owned(), frame: bytes });
                None
            }
            None => Some(bytes),
        }
    }

    /// Marks frames that no stage holds at the end of an iteration as queued for transmission.
    pub(super) fn mark_leaving(&mut self, is_held_by_stage: impl Fn(u32) -> bool) {
        for frame in self.0.iter_mut().filter(|frame| frame.disposition.is_none()) {
            frame.leaves |= !is_held_by_stage(frame.chunk);
        }
    }

    /// Returns the dispositions, in the order of delivery. Call it when the worker is idle.
    pub(super) fn finish(self) -> impl Iterator<Item = Disposition> {
        self.0.into_iter().map(|frame| {
            let at_rest = if frame.leaves { Disposition::Unsent } else { Disposition::Held };
            frame.disposition.unwrap_or(at_rest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn first_event_of_a_chunk_decides() {
        let mut tracked = Tracked::new([1, 2, 3]);
        let dropped = FrameEvent::Dropped(Reason::POLICY);
        tracked.apply(vec![(1, dropped), (1, FrameEvent::Freed), (9, FrameEvent::Freed)]);
        assert_eq!(tracked.apply_sent("wan", 1, vec![7]), Some(vec![7]), "the chunk's next packet");
        tracked.mark_leaving(|chunk| chunk == 3);
        tracked.apply(vec![(2, FrameEvent::Freed)]);
        assert_eq!(tracked.apply_sent("wan", 2, vec![8]), None);
        let policy = Disposition::dropped(Reason::POLICY);
        assert!(tracked.finish().eq([policy, Disposition::sent("wan", [8]), Disposition::Held]));
    }
}
