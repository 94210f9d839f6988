//! The jobs of a batch: packets that wait for encryption or decryption.

use xdpfwd_pipeline::{Reason, Verdict, View};

use super::sa::Counts;

/// The SA index of a packet whose job is done, or that has none.
pub(super) const NONE: u16 = u16::MAX;

const _: () = assert!(xdpfwd_ipsec::BATCH >= xdpfwd_xsk::Batch::CAPACITY);

pub(super) trait Job {
    fn sa_index(&mut self) -> &mut u16;
}

/// Drops the packets of an SA from batch index `from` on. Counts them in the SA's `counts`, if
/// given.
#[cold]
pub(super) fn drop_all<J: Job>(
    jobs: &mut [J],
    view: &mut View<'_>,
    from: usize,
    sa_index: u16,
    reason: Reason,
    counts: Option<&Counts>,
) {
    for (index, job) in jobs.iter_mut().enumerate().skip(from) {
        if *job.sa_index() != sa_index {
            continue;
        }
        *job.sa_index() = NONE;
        view.set_verdict(index, Verdict::Drop(reason));
        if let Some(counts) = counts {
            counts.drop(reason);
        }
    }
}
