//! The cost of copies of known memory.

use std::{
    fs::File,
    hint::{black_box, spin_loop},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use xdpfwd_xsk::clock;

use crate::{common::on_core, stats::Median};

/// The memory is laid out as a UMEM: frames with 256 bytes of headroom. As many frames circulate in
/// the lab: those of a fill ring and of an RX ring.
const FRAMES: usize = 4096 + 2048;
/// Frame size of the lab's runs with the stage `memcpy`.
const CONTROL_FRAME_SIZE: usize = 2048;
const HEADROOM: usize = 256;
/// Frames that change hands together, and a stage's batch.
const BATCH: usize = 64;
/// Batches between writing and reading a frame that changes hands: a full receive ring.
const LEAD: usize = 2048 / BATCH;
/// Batches of a measurement. The result is the median of their costs.
const BATCHES: usize = 4 * FRAMES / BATCH;

/// Cycles of one copy.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Costs {
    /// By the kernel (`pread`), of a burst of frames that this core has just read: in the L2 cache.
    pub(super) warm: f64,
    /// By the kernel, of frames that this core wrote, but which do not fit into its L2 cache.
    pub(super) cold: f64,
    /// By the kernel, of frames that another core has just written.
    pub(super) source_of_other_core: f64,
    /// By the kernel (`pwrite`), to frames that another core has just read.
    pub(super) target_of_other_core: f64,
}

/// Time of a measurement of [`memcpy`].
const MEMCPY_TIME: Duration = Duration::from_millis(200);

/// Returns cycles per packet of `copies` copies as the stage `memcpy` makes them: from each frame
/// of a batch to one buffer. Returns the mean, as the ledger does, so that both include
/// interruptions.
pub(super) fn memcpy(core: usize, size: usize, copies: u16) -> Result<f64> {
    let frame_size = CONTROL_FRAME_SIZE;
    on_core(core, || {
        let mut memory = PageAligned::new(FRAMES * frame_size);
        let mut buffer = PageAligned::new(2 * PAGE);
        let frames = memory.bytes();
        // The offset of the stage's buffer.
        let target = &mut buffer.bytes()[2368..2368 + size];
        let (start, start_cycles, mut packets) = (Instant::now(), clock::cycles(), 0);
        for batch in frames.chunks_exact(BATCH * frame_size).cycle() {
            for frame in batch.chunks_exact(frame_size) {
                let source = &frame[HEADROOM..HEADROOM + size];
                for _ in 0..copies {
                    target.copy_from_slice(black_box(source));
                    black_box(&mut *target);
                }
            }
            packets += BATCH;
            if start.elapsed() > MEMCPY_TIME {
                break;
            }
        }
        Ok((clock::cycles() - start_cycles) as f64 / packets as f64)
    })
}

const PAGE: usize = 4096;

/// Memory that starts at a page, as a UMEM does.
struct PageAligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl PageAligned {
    fn new(len: usize) -> Self {
        let memory = vec![1; len + PAGE];
        let start = (PAGE - memory.as_ptr().addr() % PAGE) % PAGE;
        Self { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Measures copies of `size` bytes that the kernel makes between a file in memory and a buffer,
/// with the instructions with which it copies packets. The cost includes that of the system call,
/// which does not depend on the size. Frames are `frame_size` bytes apart.
pub(super) fn kernel(
    forwarding: usize,
    receiving: usize,
    size: usize,
    frame_size: usize,
) -> Result<Costs> {
    let mut file = File::from(memfd_create("xdpfwd-bench-copies", MFdFlags::empty())?);
    file.write_all(&vec![1; FRAMES * frame_size]).context("filling a file in memory")?;
    let read = |frame: fn(usize) -> usize| {
        let mut buffer = vec![0u8; size];
        time_batches(
            |number| file.read_exact_at(&mut buffer, offset(frame(number), frame_size)),
            |_| (),
        )
    };
    let (warm, cold) =
        on_core(forwarding, || Ok((read(|number| number % BATCH)?, read(|number| number)?)))?;
    let (target, source) = hand_over(&file, forwarding, receiving, size, frame_size)?;
    Ok(Costs { warm, cold, source_of_other_core: source, target_of_other_core: target })
}

/// Writes frames on the receiving core and reads them on the forwarding core, [`LEAD`] batches
/// later. Returns the cycles of a write and of a read.
fn hand_over(
    file: &File,
    forwarding: usize,
    receiving: usize,
    size: usize,
    frame_size: usize,
) -> Result<(f64, f64)> {
    let (written, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wait = |counter: &AtomicUsize, batches: usize| {
        // Lets the other thread run if both share a core.
        let mut spins = 0u32;
        while counter.load(Ordering::Acquire) < batches {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(10_000) { thread::yield_now() } else { spin_loop() }
        }
    };
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let cost = on_core(receiving, || {
                let buffer = vec![2u8; size];
                time_batches(
                    |number| file.write_all_at(&buffer, offset(number, frame_size)),
                    |batch| {
                        written.store(batch, Ordering::Release);
                        wait(&read, batch.saturating_sub(LEAD));
                    },
                )
            });
            // A failed writer must not leave the reader waiting.
            written.store(BATCHES, Ordering::Release);
            cost
        });
        let reader = on_core(forwarding, || {
            let mut buffer = vec![0u8; size];
            wait(&written, LEAD);
            time_batches(
                |number| file.read_exact_at(&mut buffer, offset(number, frame_size)),
                |batch| {
                    read.store(batch, Ordering::Release);
                    wait(&written, (batch + LEAD).min(BATCHES));
                },
            )
        });
        // A failed reader must not leave the writer waiting.
        read.store(BATCHES, Ordering::Release);
        let writer = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((writer?, reader?))
    })
}

/// Returns the median cycles of a copy. Calls `copy` with the number of each copy, and `after` with
/// the number of batches so far, which does not count as time.
fn time_batches(
    mut copy: impl FnMut(usize) -> io::Result<()>,
    after: impl Fn(usize),
) -> Result<f64> {
    let mut costs = Vec::with_capacity(BATCHES);
    for batch in 0..BATCHES {
        let start = clock::cycles();
        for number in batch * BATCH..(batch + 1) * BATCH {
            copy(number)?;
        }
        costs.push((clock::cycles() - start) as f64 / BATCH as f64);
        after(batch + 1);
    }
    median(costs)
}

/// Returns the position of a packet in the file.
fn offset(number: usize, frame_size: usize) -> u64 {
    (number % FRAMES * frame_size + HEADROOM) as u64
}

fn median(costs: Vec<f64>) -> Result<f64> {
    Ok(Median::of(costs).context("no batch was measured")?.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one core, the threads of the hand-over alternate by preemption.
    #[test]
    fn kernel_copies_have_positive_costs_and_end() {
        let costs = kernel(0, 0, 60, 2048).unwrap();
        for cost in [costs.warm, costs.cold, costs.source_of_other_core, costs.target_of_other_core]
        {
            assert!(cost > 0.0, "{costs:?}");
        }
    }

    #[test]
    fn memcpy_of_many_copies_costs_more_than_of_few() {
        let (few, many) = (memcpy(0, 1514, 8).unwrap(), memcpy(0, 1514, 256).unwrap());
        assert!(many > 4.0 * few, "8 copies: {few}, 256 copies: {many} cycles");
    }
}
