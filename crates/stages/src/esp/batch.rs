//! Jobs of a batch: packets that wait for encryption or decryption, one SA after the other.

use xdpfwd_pipeline::{Reason, Verdict, View};

use super::sa::Counts;

/// The SA index of a packet without a job, or whose job is done.
pub(super) const NONE: u16 = u16::MAX;

const _: () = assert!(xdpfwd_ipsec::BATCH >= xdpfwd_xsk::Batch::CAPACITY);

/// A packet's job.
pub(super) trait Job {
    /// Returns the index of its SA, or [`NONE`].
    fn sa(&mut self) -> &mut u16;
}

/// Drops all packets of an SA from the index `from` on, and counts them for the SA.
#[cold]
pub(super) fn drop_all<J: Job>(
    jobs: &mut [J],
    view: &mut View<'_>,
    from: usize,
    sa: u16,
    reason: Reason,
    counts: Option<&Counts>,
) {
    for (index, job) in jobs.iter_mut().enumerate().skip(from) {
        if *job.sa() != sa {
            continue;
        }
        *job.sa() = NONE;
        view.set(index, Verdict::Drop(reason));
        if let Some(counts) = counts {
            counts.drop(reason);
        }
    }
}
