//! A check that no frame is lost.

use crate::chain::Chain;
use crate::report::FrameCounts;
use crate::worker::Worker;

/// Asserts that every frame of a worker is in exactly one place. Compares two independent counts:
/// the frames in each place, and the UMEM's record of each frame's owner. Returns the frame counts.
///
/// # Panics
///
/// If a frame is lost or belongs to a closed port, or the counts differ.
#[track_caller]
pub fn assert_conserved<C: Chain>(worker: &mut Worker<C>) -> FrameCounts {
    let report = worker.report();
    let (frames, record) = (report.frames, worker.umem().ownership());
    assert_eq!(
        record.lost, 0,
        "frames were lost, probably by a stage that dropped the `Frame` value instead of giving \
         it to `Cx::emit`, `Cx::drop` or `Cx::free`: {frames:?} {record:?}"
    );
    assert_eq!(record.closed, 0, "frames of a closed port: {frames:?} {record:?}");
    assert_eq!(frames.leaked, 0, "{frames:?} {record:?}");
    assert_eq!(frames.in_flight, worker.frames_in_user_space() as u64, "{frames:?} {record:?}");
    assert_eq!(u64::from(record.pool), frames.pool, "{frames:?} {record:?}");
    assert_eq!(u64::from(record.held), frames.in_flight, "{frames:?} {record:?}");
    assert_eq!(u64::from(record.fill), frames.fill + frames.rx, "{frames:?} {record:?}");
    assert_eq!(u64::from(record.tx), frames.tx + frames.completion, "{frames:?} {record:?}");
    frames
}
