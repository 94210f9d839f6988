//! When a stage panics under load, the other workers drain, every packet is counted, and nothing
//! leaks. Needs root.

mod support;

use std::sync::Arc;

use support::{LONG, chain, cross_connect, stop, wait_until};
use xdpfwd_engine::{Control, DataPlane, WorkerFailure};
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_pipeline::{BuildCx, Cx, Stage, StagePlan, View};

/// The stage method that panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Build,
    /// On its 2000th packet.
    Process,
    Tick,
    /// On a request for its counters.
    Counters,
    Nowhere,
}

/// A stage that panics in the last worker.
#[derive(Clone, Debug)]
struct Panics {
    place: Place,
    seen: u64,
}

impl StagePlan for Panics {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let place = if cx.worker + 1 == cx.workers { self.place } else { Place::Nowhere };
        assert!(place != Place::Build, "on purpose");
        Box::new(Self { place, seen: 0 })
    }

    fn summary(&self) -> String {
        format!("{self:?}")
    }
}

impl Stage for Panics {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for _ in view.packets() {
            self.seen += 1;
            assert!(self.place != Place::Process || self.seen < 2000, "on purpose");
        }
    }

    fn tick(&mut self, _: &mut Cx<'_>) {
        assert!(self.place != Place::Tick || self.seen < 2000, "on purpose");
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        assert!(self.place != Place::Counters || self.seen < 2000, "on purpose");
        vec![("seen", self.seen)]
    }
}

fn interfaces_with_xdp(chain: &Chain) -> usize {
    let output = chain.fwd().command("ip").args(["-json", "link", "show"]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links.as_array().unwrap().iter().filter(|link| link.get("xdp").is_some()).count()
}

#[test]
fn a_panic_stops_everything_and_everything_is_counted() {
    for workers in [1, 2] {
        for place in [Place::Process, Place::Tick, Place::Counters] {
            let chain = chain(Chain::builder().queues(workers));
            let sink = Sink::attach(chain.sink(), "sink0").unwrap();
            // veth selects the queue by the sender's core; send from several cores to load every
            // worker.
            let flat_out = |core| Traffic::new().core(core).start(chain.gen_(), "gen0").unwrap();
            let generators: Vec<_> = (0..usize::from(workers)).map(flat_out).collect();
            let run = || {
                let mut control = Control::new().unwrap();
                let plan = cross_connect(workers, Some(Arc::new(Panics { place, seen: 0 })));
                let mut data_plane = DataPlane::start(plan, &control).unwrap();
                wait_until(&mut control, || {
                    let asks = place == Place::Counters;
                    if asks {
                        data_plane.report();
                    }
                    data_plane.failed_worker().is_some()
                });
                let failure = data_plane.failed_worker();
                (failure, stop(data_plane))
            };
            let (failure, report) = chain.fwd().run(run).unwrap();
            for generator in generators {
                generator.stop().unwrap();
            }

            let worker = usize::from(workers) - 1;
            assert_eq!(
                failure,
                Some(WorkerFailure { worker, panic: Some("on purpose".into()) }),
                "{place:?}"
            );
            assert_eq!(report.failure, failure.map(|failure| failure.to_string()));
            assert_eq!(interfaces_with_xdp(&chain), 0);
            let wan = &report.ports[1];
            assert_eq!(
                sink.seen().unwrap().arrived.packets + report.kernel.tx_dropped,
                wan.tx_packets,
                "{report:?}"
            );
            if place == Place::Process {
                assert!(
                    (1..=64).contains(&report.frames.leaked),
                    "the batch that was broken off: {:?}",
                    report.frames
                );
            } else {
                assert_eq!(report.frames.leaked, 0, "between batches: {:?}", report.frames);
            }
            let own = &report.stages[0];
            assert_eq!(
                own.packets,
                report.ports[0].rx_packets - report.drops["shutdown"],
                "{workers} {place:?}: {report:?}"
            );
            if place != Place::Counters {
                assert!(own.counters["seen"] >= 2000, "its own counters: {report:?}");
            }
            assert_eq!(
                report.frames.total,
                u64::from(workers) * 4096,
                "all workers are in the report"
            );
        }
    }
}

#[test]
fn a_panic_while_a_stage_is_built_starts_nothing_and_names_it() {
    for workers in [1, 2] {
        let chain = chain(Chain::builder().queues(workers));
        let run = || {
            let control = Control::new().unwrap();
            let start = |place| {
                let plan = cross_connect(workers, Some(Arc::new(Panics { place, seen: 0 })));
                DataPlane::start(plan, &control)
            };
            let error = start(Place::Build).err().expect("it panics").to_string();
            assert_eq!(interfaces_with_xdp(&chain), 0);
            stop(start(Place::Nowhere).unwrap());
            error
        };
        let error = chain.fwd().run(run).unwrap();
        let worker = workers - 1;
        let expected = format!("worker {worker}: panicked while it was getting ready: stage own: ");
        assert!(error.starts_with(&expected) && error.ends_with("on purpose"), "{error}");
    }
}

/// The worker wakes the control thread itself.
#[test]
fn a_worker_that_fails_is_noticed_without_asking() {
    let chain = chain(Chain::builder());
    let run = || {
        let mut control = Control::new().unwrap();
        let plan = cross_connect(1, Some(Arc::new(Panics { place: Place::Process, seen: 0 })));
        let data_plane = DataPlane::start(plan, &control).unwrap();
        let generator = Traffic::new().rate(20_000).core(0).start(chain.gen_(), "gen0").unwrap();
        // No clock: the wake-up must come from the worker.
        let deadline = std::time::Instant::now() + LONG;
        let event = loop {
            match control.wait(deadline).unwrap() {
                // Promiscuous mode changed the interfaces.
                xdpfwd_engine::Event::HostChanged => {}
                event => break event,
            }
        };
        assert_eq!(event, xdpfwd_engine::Event::Woken);
        assert!(data_plane.failed_worker().is_some());
        stop(data_plane);
        generator.stop().unwrap();
    };
    chain.fwd().run(run).unwrap();
}
