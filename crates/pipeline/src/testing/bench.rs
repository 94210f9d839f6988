//! The test bench: a worker on the fake kernel.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xdpfwd_xsk::fake_kernel::{DeliveryError, FakeKernel};
use xdpfwd_xsk::{Batch, clock};

use super::conserved::assert_conserved;
use super::disposition::Disposition;
use super::error::TestBenchError;
use super::plans::{Plans, build};
use super::stages::IntoStages;
use super::tracked::TrackedBatch;
use crate::capability::Table;
use crate::chain::NamedStage;
use crate::frame_log;
use crate::plan::{BuildCx, StagePlan};
use crate::ports::Ports;
use crate::report::{FrameCounts, WorkerReport};
use crate::verdict::PortId;
use crate::worker::{SwapResult, Worker};

/// Interval of ticks while a stage holds frames.
const BUSY_TICK: Duration = Duration::from_millis(1);

/// Interval of ticks while no stage holds frames.
const IDLE_TICK: Duration = Duration::from_millis(100);

/// [`TestBench::settle`] gives up if no frame is sent for this real time. A port repeats wake-ups
/// at intervals of at most 640 µs, so the timeout includes a repetition.
const STALL_TIMEOUT: Duration = Duration::from_millis(2);

/// Stages on a worker, between ports of the fake kernel. See the [module](super).
///
/// After each call and on drop, the bench checks that no frame is lost, see
/// [`assert_conserved`](Self::assert_conserved).
pub struct TestBench {
    // Dropped before the next field: dropping `plans` releases the resources of the stages.
    worker: Worker<Vec<NamedStage>>,
    plans: Plans,
    kernels: Vec<FakeKernel>,
    ports: Ports,
    /// Ingress and egress port of each path.
    paths: Vec<(PortId, PortId)>,
    /// The number of workers in `BuildCx`.
    workers: usize,
    /// For each port, the sent frames that no [`Disposition`] contains, until
    /// [`take_sent`](Self::take_sent) returns them.
    sent: Vec<Vec<Vec<u8>>>,
    /// The time when the bench was created, in cycles.
    start: u64,
    /// How far [`advance`](Self::advance) has advanced the stopped clock since `start`.
    elapsed: Duration,
    /// Whether a call into the worker has not returned. True after a stage has panicked, which
    /// loses frames of its batch.
    is_interrupted: bool,
}

impl TestBench {
    /// Creates a bench and stops the clock that stages see.
    pub(super) fn start(
        mut worker: Worker<Vec<NamedStage>>,
        kernels: Vec<FakeKernel>,
        ports: Ports,
        paths: Vec<(PortId, PortId)>,
        workers: usize,
        plans: Plans,
    ) -> Self {
        let start = clock::cycles();
        worker.freeze_clock(start);
        let sent = vec![Vec::new(); kernels.len()];
        let elapsed = Duration::ZERO;
        let is_interrupted = false;
        Self { worker, plans, kernels, ports, paths, workers, sent, start, elapsed, is_interrupted }
    }

    /// Sends one packet to a port and returns its disposition. [`take_sent`](Self::take_sent)
    /// returns other frames that a port sends meanwhile.
    ///
    /// # Panics
    ///
    /// In the same cases as [`send_all`](Self::send_all).
    #[track_caller]
    pub fn send(&mut self, port: &str, frame: &[u8]) -> Disposition {
        self.send_all(port, [frame]).remove(0)
    }

    /// Sends packets to a port, in batches of 64 and a last shorter one, and returns the
    /// disposition of each.
    ///
    /// # Panics
    ///
    /// - If no port has the name, or no path starts from the port.
    /// - If a packet does not fit into a frame: more than 1792 bytes, unless
    ///   [`TestBenchBuilder::umem`](super::TestBenchBuilder::umem) sets longer frames.
    /// - If a stage loses a frame, see [`assert_conserved`](Self::assert_conserved).
    #[track_caller]
    pub fn send_all<I>(&mut self, port: &str, frames: I) -> Vec<Disposition>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let port = self.ingress(port);
        let frames: Vec<_> = frames.into_iter().collect();
        let mut dispositions = Vec::with_capacity(frames.len());
        for batch in frames.chunks(Batch::CAPACITY) {
            self.keep_sent();
            let chunks = batch.iter().map(|frame| self.deliver(port, frame.as_ref()));
            let mut tracked = TrackedBatch::new(chunks);
            self.settle(&mut tracked);
            dispositions.extend(tracked.finish());
            self.assert_conserved();
        }
        dispositions
    }

    /// Returns, in order, the frames that a port has sent since the last call and that are not the
    /// disposition of a packet: frames that a stage held longer than their batch, and frames from
    /// [`Cx::alloc`](crate::Cx::alloc).
    ///
    /// # Panics
    ///
    /// If no port has the name.
    #[track_caller]
    pub fn take_sent(&mut self, port: &str) -> Vec<Vec<u8>> {
        let port = self.port(port);
        self.keep_sent();
        std::mem::take(&mut self.sent[port])
    }

    /// Advances the time of [`Cx::now`](crate::Cx::now), and calls
    /// [`Stage::tick`](crate::Stage::tick) meanwhile.
    ///
    /// Stages tick as often as on an idle worker: every millisecond while a stage holds frames,
    /// else every 100 ms; in addition, at the end of the call. Between calls the clock is stopped,
    /// so results do not depend on the speed of the test.
    ///
    /// # Panics
    ///
    /// If a stage loses a frame.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        let end = self.elapsed + by;
        loop {
            let tick = if self.worker.held_by_stages() > 0 { BUSY_TICK } else { IDLE_TICK };
            self.elapsed = end.min(self.elapsed + tick);
            let now = self.now();
            self.call_worker(|worker| worker.tick_at(now));
            self.flush();
            if self.elapsed >= end {
                break;
            }
        }
        self.assert_conserved();
    }

    /// Returns the time that stages see, in cycles of [`xdpfwd_xsk::clock`].
    pub fn now(&self) -> u64 {
        let cycles = self.elapsed.as_secs_f64() * clock::cycles_per_second();
        // Rounded up, so that a rate limit of one packet per millisecond lets a packet pass after
        // `advance` by exactly one millisecond.
        self.start + cycles.ceil() as u64
    }

    /// Replaces the stages of the first path, as a reload does. A new stage takes over the counters
    /// and the state of the old stage with the same name and type
    /// ([`Stage::snapshot`](crate::Stage::snapshot) and [`Stage::restore`](crate::Stage::restore));
    /// [`SwapResult::afresh`] names stages without the old state. The old stages are retired:
    /// [`take_sent`](Self::take_sent) returns frames that they emit.
    ///
    /// # Panics
    ///
    /// If the bench has no path, or a stage loses a frame.
    #[track_caller]
    pub fn reload(&mut self, stages: impl IntoStages) -> SwapResult {
        let Some(&(from, _)) = self.paths.first() else { panic!("the bench has no path") };
        let new_plans = 0;
        self.replace(from, stages.into_stages(), new_plans)
    }

    /// Replaces the stages of the path from a port, as [`reload`](Self::reload) does.
    ///
    /// # Panics
    ///
    /// If no port has the name, no path starts from the port, or a stage loses a frame.
    #[track_caller]
    pub fn reload_path(&mut self, from: &str, stages: impl IntoStages) -> SwapResult {
        let from = self.paths[self.path(from)].0;
        let new_plans = 0;
        self.replace(from, stages.into_stages(), new_plans)
    }

    /// Replaces the stages of the path from a port by stages built from plans. Acquires the
    /// resources of the new plans first and releases those of the old plans last.
    ///
    /// # Errors
    ///
    /// If a stage cannot acquire its resources. The path then keeps its stages.
    ///
    /// # Panics
    ///
    /// If no port has the name, no path starts from the port, or a stage loses a frame.
    #[track_caller]
    pub fn reload_plans<N: Into<String>>(
        &mut self,
        from: &str,
        plans: impl IntoIterator<Item = (N, Arc<dyn StagePlan>)>,
    ) -> Result<SwapResult, TestBenchError> {
        let (from, to) = self.paths[self.path(from)];
        let plans: Vec<_> = plans.into_iter().map(|(name, plan)| (name.into(), plan)).collect();
        self.plans.acquire(from, &plans)?;
        let (workers, ports) = (self.workers, &self.ports);
        let cx = BuildCx { workers, from, to, ports, ..BuildCx::default() };
        let stages = build(&plans, &cx);
        Ok(self.replace(from, stages, plans.len()))
    }

    /// Replaces the stages of the path from a port. `new_plans` is the number of plans from which
    /// the new stages were built; their resources are already acquired.
    #[track_caller]
    fn replace(&mut self, from: PortId, stages: Vec<NamedStage>, new_plans: usize) -> SwapResult {
        let result = match self.call_worker(|worker| worker.swap_named(from, stages)) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        };
        self.plans.release_replaced(from, new_plans);
        self.flush();
        self.assert_conserved();
        result
    }

    /// Retires the stages of every path, as at program end.
    /// [`take_sent`](Self::take_sent) returns frames that they emit. Later packets are dropped as
    /// [`Reason::SHUTDOWN`](crate::Reason::SHUTDOWN).
    ///
    /// # Panics
    ///
    /// If a stage still holds a frame: see [`Stage::retire`](crate::Stage::retire).
    #[track_caller]
    pub fn retire(&mut self) {
        self.call_worker(Worker::retire_all);
        self.flush();
        self.assert_conserved();
        let held = self.worker.held_by_stages();
        assert_eq!(held, 0, "frames that stages still hold after `Stage::retire`");
    }

    /// Returns the sum of the counters of all stages with this name, including stages that a reload
    /// has replaced.
    ///
    /// # Panics
    ///
    /// If no stage has the name.
    #[track_caller]
    pub fn counters(&mut self, stage: &str) -> Vec<(&'static str, u64)> {
        let report = self.worker.report();
        let stages: Vec<_> = report.paths.into_iter().flat_map(|path| path.stages).collect();
        let mut sum: Vec<(&'static str, u64)> = Vec::new();
        let matching = stages.iter().filter(|report| report.name == stage);
        for (name, count) in matching.flat_map(|report| &report.counters) {
            match sum.iter_mut().find(|(other, _)| other == name) {
                Some((_, total)) => *total += count,
                None => sum.push((name, *count)),
            }
        }
        if !stages.iter().any(|report| report.name == stage) {
            let names: Vec<_> = stages.iter().map(|report| format!("{:?}", report.name)).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            panic!("no stage is called {stage:?}; the stages are: {known}");
        }
        sum
    }

    /// Returns the inspection table with this name of the first stage that has one. [Row
    /// counters](crate::Stage::row_counters) exclude counts from before the last reload.
    ///
    /// # Panics
    ///
    /// If no stage built from a plan has such a table.
    #[track_caller]
    pub fn table(&self, name: &str) -> Table {
        let row_counters = self.worker.row_counters();
        let tables: Vec<_> = self
            .plans
            .each_on_path()
            .flat_map(|(from, index, plan)| {
                let path = self.paths.iter().position(|(ingress, _)| *ingress == from);
                let counters = path.and_then(|path| row_counters.get(path)?.get(index));
                let counters = counters.map(Vec::as_slice).unwrap_or_default();
                plan.as_inspectable().map_or_else(Vec::new, |plan| plan.tables(counters))
            })
            .collect();
        let names: Vec<_> = tables.iter().map(|table| table.name).collect();
        let table = tables.into_iter().find(|table| table.name == name);
        table.unwrap_or_else(|| {
            panic!("no table is called {name:?}; the tables are: {}", names.join(", "))
        })
    }

    /// Returns the nonzero drop counts by reason name.
    pub fn drops(&mut self) -> Vec<(&'static str, u64)> {
        let drops = self.worker.report().drops;
        let counted = drops.iter().filter(|(_, count)| *count > 0);
        counted.map(|(reason, count)| (reason.name(), count)).collect()
    }

    /// Returns all counters of the worker.
    pub fn report(&mut self) -> WorkerReport {
        self.worker.report()
    }

    /// Returns the worker.
    pub fn worker(&mut self) -> &mut Worker<Vec<NamedStage>> {
        &mut self.worker
    }

    /// Returns a port's fake kernel, whose
    /// [`FakeKernelConfig`](xdpfwd_xsk::fake_kernel::FakeKernelConfig) can make the port stall,
    /// refuse wake-ups or disappear.
    ///
    /// # Panics
    ///
    /// If no port has the name.
    #[track_caller]
    pub fn kernel(&self, port: &str) -> &FakeKernel {
        &self.kernels[self.port(port)]
    }

    /// Returns the ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Returns each path's ingress and egress port.
    pub fn paths(&self) -> impl Iterator<Item = (&str, &str)> {
        let name = |id: PortId| self.ports.get(id).map_or("", |port| &*port.name);
        self.paths.iter().map(move |&(from, to)| (name(from), name(to)))
    }

    /// Asserts that every frame is in exactly one place, and returns the frame counts.
    ///
    /// # Panics
    ///
    /// If a stage has lost a frame, for example by dropping the `Frame` value.
    #[track_caller]
    pub fn assert_conserved(&mut self) -> FrameCounts {
        assert_conserved(&mut self.worker)
    }

    /// Sends packets as [`send_all`](Self::send_all) does, and asserts that worker and stages
    /// allocate no memory meanwhile. Discards the frames that the ports send, and returns their
    /// number. Check it: packets dropped early may not reach the tested code. If a stage
    /// may allocate for its first packets, send some packets first.
    ///
    /// # Panics
    ///
    /// If memory is allocated, and in the same cases as [`send_all`](Self::send_all).
    #[cfg(feature = "count-allocations")]
    #[track_caller]
    pub fn assert_no_allocation<I>(&mut self, port: &str, frames: I) -> u64
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let port = self.ingress(port);
        let frames: Vec<_> = frames.into_iter().collect();
        self.keep_sent();
        let sent_before = self.transmitted();
        // Recording sent frames allocates copies.
        self.kernels.iter().for_each(|kernel| kernel.set_recording(false));
        for batch in frames.chunks(Batch::CAPACITY) {
            batch.iter().for_each(|frame| _ = self.deliver(port, frame.as_ref()));
            super::assert_no_allocation(|| self.poll_once());
            self.assert_conserved();
        }
        self.kernels.iter().for_each(|kernel| kernel.set_recording(true));
        self.transmitted() - sent_before
    }

    #[cfg(feature = "count-allocations")]
    fn transmitted(&mut self) -> u64 {
        self.worker.report().queues.iter().map(|queue| queue.counters.tx_packets).sum()
    }

    #[track_caller]
    fn port(&self, name: &str) -> usize {
        match self.ports.by_name(name) {
            Some(port) => usize::from(port.id.0),
            None => panic!("no port is called {name:?}; the ports are: {}", self.ports.names()),
        }
    }

    #[track_caller]
    fn path(&self, from: &str) -> usize {
        let port = self.port(from);
        let path = self.paths.iter().position(|(ingress, _)| usize::from(ingress.0) == port);
        path.unwrap_or_else(|| panic!("no path starts from port {from:?}"))
    }

    /// Returns the port's index; panics if no path starts from it.
    #[track_caller]
    fn ingress(&self, name: &str) -> usize {
        usize::from(self.paths[self.path(name)].0.0)
    }

    /// Makes a port receive a packet. Returns the number of the chunk that holds it.
    #[track_caller]
    fn deliver(&self, port: usize, frame: &[u8]) -> u32 {
        let kernel = &self.kernels[port];
        kernel.deliver_in_chunk(frame).unwrap_or_else(|error| match error {
            DeliveryError::TooLong => panic!(
                "the packet has {} bytes, and a frame has room for {}; build the bench with a \
                 larger `frame_size` (`TestBenchBuilder::umem`)",
                frame.len(),
                kernel.longest_packet()
            ),
            DeliveryError::FillRingEmpty => {
                panic!("no free frame to receive the packet: all frames are held or unsent")
            }
            error => panic!("the fake kernel did not deliver the packet: {error:?}"),
        })
    }

    fn poll_once(&mut self) {
        self.call_worker(|worker| _ = worker.poll_once());
    }

    /// Calls the closure. `is_interrupted` stays true if it panics.
    fn call_worker<R>(&mut self, run: impl FnOnce(&mut Worker<Vec<NamedStage>>) -> R) -> R {
        self.is_interrupted = true;
        let result = run(&mut self.worker);
        self.is_interrupted = false;
        result
    }

    /// Passes each newly sent frame to the closure, with port name and chunk number. If the closure
    /// returns the frame, adds it to `self.sent`. Returns the number of newly sent frames.
    fn collect(&mut self, mut visit: impl FnMut(&str, u32, Vec<u8>) -> Option<Vec<u8>>) -> usize {
        let mut count = 0;
        let kernels = self.kernels.iter().zip(self.ports.iter());
        for ((kernel, port), kept) in kernels.zip(&mut self.sent) {
            for (chunk, frame) in kernel.take_sent_chunks() {
                count += 1;
                kept.extend(visit(&port.name, chunk, frame));
            }
        }
        count
    }

    /// Adds all newly sent frames to `self.sent`.
    fn keep_sent(&mut self) {
        self.collect(|_, _, frame| Some(frame));
    }

    /// Sends frames that stages emitted outside a batch.
    fn flush(&mut self) {
        self.settle(&mut TrackedBatch::new([]));
    }

    /// Runs iterations until all frames are sent, or no frame is sent for [`STALL_TIMEOUT`].
    /// Records what happens to the tracked frames.
    fn settle(&mut self, tracked: &mut TrackedBatch) {
        let mut last_sent = Instant::now();
        loop {
            let ((), events) = frame_log::record(|| self.poll_once());
            tracked.record_events(events);
            let sent = self.collect(|port, chunk, frame| tracked.record_sent(port, chunk, frame));
            let (worker, umem) = (&self.worker, self.worker.umem());
            // A frame in user space, but in no egress queue, is held by a stage.
            tracked.mark_outside_stages(|chunk| umem.is_held(chunk) && !worker.is_queued(chunk));
            if sent > 0 {
                last_sent = Instant::now();
            }
            if !self.worker.has_unsent() || last_sent.elapsed() > STALL_TIMEOUT {
                return;
            }
        }
    }
}

impl Drop for TestBench {
    fn drop(&mut self) {
        // A second panic would abort the process.
        if !std::thread::panicking() && !self.is_interrupted {
            self.assert_conserved();
        }
    }
}

impl fmt::Debug for TestBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.ports.iter().map(|port| &port.name).collect::<Vec<_>>();
        f.debug_struct("TestBench").field("ports", &names).finish_non_exhaustive()
    }
}
