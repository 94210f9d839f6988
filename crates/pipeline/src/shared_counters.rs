//! Counters that workers write and other threads read.

use std::sync::atomic::{AtomicU64, Ordering};

/// `N` counters of one object, such as the packets and bytes of one session or tunnel (`N` = 2).
/// Each counter has a cell per worker.
///
/// Each worker writes only its own cells, so counting is a load and a store without a locked
/// instruction, and workers share no cache line. Any thread can read the sums. Up to eight counters
/// together take 64 bytes per worker.
///
/// ```
/// use xdpfwd_pipeline::SharedCounters;
///
/// let counters: SharedCounters<2> = SharedCounters::new(4); // packets and bytes, of 4 workers
/// counters.add(3, [1, 60]); // worker 3: a packet of 60 bytes
/// assert_eq!(counters.sums(), [1, 60]);
/// ```
#[derive(Debug)]
pub struct SharedCounters<const N: usize>(Box<[Cells<N>]>);

/// One worker's cells, alone in their cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct Cells<const N: usize>([AtomicU64; N]);

impl<const N: usize> SharedCounters<N> {
    /// Creates counters for this number of workers, all 0.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Cells([const { AtomicU64::new(0) }; N])).collect())
    }

    /// Adds to each counter. Call it only on the worker of this number, see
    /// [`BuildCx::worker`](crate::BuildCx::worker): if two threads add to the same cells, counts
    /// are lost.
    ///
    /// # Panics
    ///
    /// If the counters have no cells for this worker.
    #[inline]
    pub fn add(&self, worker: usize, amounts: [u64; N]) {
        for (cell, amount) in self.0[worker].0.iter().zip(amounts) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Returns each counter's sum over all workers. While workers count, the sum of one counter may
    /// include a few packets that the sum of another does not include yet.
    pub fn sums(&self) -> [u64; N] {
        let mut sums = [0_u64; N];
        for cells in &self.0 {
            for (sum, cell) in sums.iter_mut().zip(&cells.0) {
                *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn sums_add_the_cells_of_all_workers() {
        let counters: Arc<SharedCounters<2>> = Arc::new(SharedCounters::new(3));
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let counters = Arc::clone(&counters);
                std::thread::spawn(move || {
                    (0..10_000).for_each(|_| counters.add(worker, [1, worker as u64]))
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(counters.sums(), [30_000, 30_000]);
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn add_for_nonexistent_worker_panics() {
        SharedCounters::<1>::new(2).add(2, [1]);
    }
}
