//! Panics of a stage under load. The data plane must still drain and stop, and count every packet.
//! Only frames of the current batch may leak. Needs root.

mod support;

use std::sync::Arc;

use support::{TIMEOUT, chain, cross_connect, stop, wait_until};
use xdpfwd_engine::{Control, DataPlane, WorkerFailure};
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_pipeline::{BuildCx, Cx, Stage, StagePlan, View};
use xdpfwd_testkit::process::until;

/// Methods other than `build` panic from this packet on.
const PANIC_FROM: u64 = 2000;

/// The method of the stage that panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PanicPoint {
    Build,
    Process,
    /// Runs periodically between batches.
    Tick,
    Counters,
    Never,
}

/// A stage that panics in the last worker, in the method `point`.
#[derive(Clone, Debug)]
struct PanickingStage {
    point: PanicPoint,
    seen: u64,
}

impl StagePlan for PanickingStage {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let point = if cx.worker + 1 == cx.workers { self.point } else { PanicPoint::Never };
        assert!(point != PanicPoint::Build, "on purpose");
        Box::new(Self { point, seen: 0 })
    }

    fn summary(&self) -> String {
        format!("{self:?}")
    }
}

impl Stage for PanickingStage {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for _ in view.packets() {
            self.seen += 1;
            assert!(self.point != PanicPoint::Process || self.seen < PANIC_FROM, "on purpose");
        }
    }

    fn tick(&mut self, _: &mut Cx<'_>) {
        assert!(self.point != PanicPoint::Tick || self.seen < PANIC_FROM, "on purpose");
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        assert!(self.point != PanicPoint::Counters || self.seen < PANIC_FROM, "on purpose");
        vec![("seen", self.seen)]
    }
}

fn interfaces_with_xdp(lab: &Chain) -> usize {
    let output = lab.fwd().command("ip").args(["-json", "link", "show"]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links.as_array().unwrap().iter().filter(|link| link.get("xdp").is_some()).count()
}

/// Waits until no XDP program is attached. This can take a moment: a process that another test
/// forks holds a copy of the BPF link's file descriptor until `exec`.
fn assert_detached(lab: &Chain) {
    until("no interface has an XDP program", || interfaces_with_xdp(lab) == 0);
}

#[test]
fn stage_panic_is_reported_and_all_packets_are_counted() {
    /// As in `cross_connect`.
    const FRAMES_PER_WORKER: u64 = 4096;
    for workers in [1, 2] {
        for point in [PanicPoint::Process, PanicPoint::Tick, PanicPoint::Counters] {
            let lab = chain(Chain::builder().queues(workers));
            let sink = Sink::attach(lab.sink(), "sink0").unwrap();
            // A veth selects the queue by the sender's core: send from several cores to load every
            // worker.
            let start_generator =
                |core| Traffic::new().core(core).start(lab.gen_(), "gen0").unwrap();
            let generators: Vec<_> = (0..usize::from(workers)).map(start_generator).collect();
            let run = || {
                let mut control = Control::new().unwrap();
                let plan =
                    cross_connect(workers, Some(Arc::new(PanickingStage { point, seen: 0 })));
                let mut data_plane = DataPlane::start(plan, &control).unwrap();
                wait_until(&mut control, || {
                    if point == PanicPoint::Counters {
                        data_plane.report();
                    }
                    data_plane.failed_worker().is_some()
                });
                let failure = data_plane.failed_worker();
                (failure, stop(data_plane))
            };
            let (failure, report) = lab.fwd().run(run).unwrap();
            for generator in generators {
                generator.stop().unwrap();
            }

            let worker = usize::from(workers) - 1;
            assert_eq!(
                failure,
                Some(WorkerFailure { worker, panic: Some("on purpose".into()) }),
                "{point:?}"
            );
            assert_eq!(report.failure, failure.map(|failure| failure.to_string()));
            assert_detached(&lab);
            let wan = &report.ports[1];
            assert_eq!(
                sink.seen().unwrap().arrived.packets + report.kernel.tx_dropped,
                wan.tx_packets,
                "some transmitted packets neither arrived at the sink nor were counted as dropped: \
                 {report:?}"
            );
            if point == PanicPoint::Process {
                assert!(
                    (1..=64).contains(&report.frames.leaked),
                    "the leaked frames are not those of one batch: {:?}",
                    report.frames
                );
            } else {
                assert_eq!(
                    report.frames.leaked, 0,
                    "a panic between batches leaked frames: {:?}",
                    report.frames
                );
            }
            let stage = &report.stages[0];
            assert_eq!(
                stage.packets,
                report.ports[0].rx_packets - report.drops["shutdown"],
                "{workers} workers, {point:?}: `stage.packets` is not the number of received \
                 packets that reached the stage: {report:?}"
            );
            if point != PanicPoint::Counters {
                assert!(
                    stage.counters["seen"] >= PANIC_FROM,
                    "the stage's own counter `seen` is too small: {report:?}"
                );
            }
            assert_eq!(
                report.frames.total,
                u64::from(workers) * FRAMES_PER_WORKER,
                "a worker is missing from the report"
            );
        }
    }
}

#[test]
fn start_error_names_stage_that_panics_in_build() {
    for workers in [1, 2] {
        let lab = chain(Chain::builder().queues(workers));
        let run = || {
            let control = Control::new().unwrap();
            let start = |point| {
                let plan =
                    cross_connect(workers, Some(Arc::new(PanickingStage { point, seen: 0 })));
                DataPlane::start(plan, &control)
            };
            let error = start(PanicPoint::Build)
                .err()
                .expect("start succeeded although the stage panics")
                .to_string();
            assert_detached(&lab);
            stop(start(PanicPoint::Never).unwrap());
            error
        };
        let error = lab.fwd().run(run).unwrap();
        let worker = workers - 1;
        let expected = format!("worker {worker}: panicked during startup: stage tested: ");
        assert!(error.starts_with(&expected) && error.ends_with("on purpose"), "{error}");
    }
}

#[test]
fn worker_panic_wakes_control_thread() {
    let lab = chain(Chain::builder());
    let run = || {
        let mut control = Control::new().unwrap();
        let plan = cross_connect(
            1,
            Some(Arc::new(PanickingStage { point: PanicPoint::Process, seen: 0 })),
        );
        let data_plane = DataPlane::start(plan, &control).unwrap();
        let generator = Traffic::new().rate(20_000).core(0).start(lab.gen_(), "gen0").unwrap();
        // Longer than the test may take: `wait` must return because the panicking worker wakes it.
        let deadline = std::time::Instant::now() + TIMEOUT;
        let event = loop {
            match control.wait(deadline).unwrap() {
                // The start has enabled promiscuous mode, which is a change of the link.
                xdpfwd_engine::Event::HostChanged => {}
                event => break event,
            }
        };
        assert_eq!(event, xdpfwd_engine::Event::Woken);
        assert!(data_plane.failed_worker().is_some());
        stop(data_plane);
        generator.stop().unwrap();
    };
    lab.fwd().run(run).unwrap();
}
