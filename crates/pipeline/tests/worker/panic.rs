//! Stages that panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use xdpfwd_pipeline::{Cx, PortId, Reason, Stage, View};
use xdpfwd_testkit::wires::{assert_conserved, cross_connect, numbers, packet};

#[derive(Default)]
struct Panics {
    seen: u64,
    /// Packet number, from 1, on which `process` panics; 0 for none.
    panics_at: u64,
    tick_panics: bool,
    /// Whether `counters` panics after `process` has panicked.
    counters_panic: bool,
}

impl Stage for Panics {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for _ in view.packets() {
            self.seen += 1;
            assert!(self.seen != self.panics_at, "on purpose");
        }
    }

    fn tick(&mut self, _: &mut Cx<'_>) {
        assert!(!self.tick_panics, "on purpose");
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        assert!(!self.counters_panic || self.seen < self.panics_at, "on purpose");
        vec![("seen", self.seen)]
    }

    fn retire(&mut self, _: &mut Cx<'_>) {
        panic!("`retire` was called after a panic");
    }
}

/// Packets after the panic are dropped, not forwarded.
#[test]
fn worker_runs_without_stages_after_stage_panic() {
    for counters_panic in [false, true] {
        let (mut worker, wires) = cross_connect(
            (Panics { panics_at: 70, counters_panic, ..Panics::default() },),
            (Panics::default(),),
        );
        for n in 0..60 {
            wires.lan.deliver(&packet(n)).unwrap();
        }
        assert_eq!(worker.poll_once(), 60);
        assert_conserved(&mut worker);
        for n in 60..80 {
            wires.lan.deliver(&packet(n)).unwrap();
        }
        catch_unwind(AssertUnwindSafe(|| worker.poll_once())).unwrap_err();
        worker.disable_stages();
        for n in 80..120 {
            wires.lan.deliver(&packet(n)).unwrap();
        }
        worker.drain(Duration::from_secs(5));
        let report = worker.report();
        assert_eq!(numbers(&wires.wan.take_sent()), (0..60).collect::<Vec<_>>());
        assert_eq!(
            (report.queues[0].counters.rx_packets, report.queues[1].counters.tx_packets),
            (120, 60)
        );
        assert_eq!(
            (report.drops[Reason::SHUTDOWN], report.drops.total()),
            (40, 40),
            "expected only the packets received after the panic"
        );
        assert_eq!(
            (report.frames.leaked, report.frames.in_flight),
            (20, 0),
            "expected only the frames of the interrupted batch"
        );
        assert_eq!(worker.umem().lost(), 20);
        assert_eq!(report.paths[0].stages[0].account.packets, 80);
        let counters = if counters_panic { vec![] } else { vec![("seen", 70)] };
        assert_eq!(
            report.paths[0].stages[0].counters, counters,
            "wrong counters of the panicked stage"
        );
        assert_eq!(report.paths[1].stages[0].counters, [("seen", 0)]);
    }
}

/// A pending reload may still run after a panic.
#[test]
fn stages_swapped_in_after_panic_are_not_called() {
    let (mut worker, wires) =
        cross_connect((Panics { panics_at: 1, ..Panics::default() },), (Panics::default(),));
    wires.lan.deliver(&packet(1)).unwrap();
    catch_unwind(AssertUnwindSafe(|| worker.poll_once())).unwrap_err();
    worker.disable_stages();
    worker.swap(PortId(0), (Panics { panics_at: 1, ..Panics::default() },)).unwrap();
    wires.lan.deliver(&packet(2)).unwrap();
    worker.drain(Duration::from_secs(5));
    let report = worker.report();
    assert_eq!((report.drops[Reason::SHUTDOWN], report.drops.total()), (1, 1));
    assert_eq!(
        report.paths[0].stages[0].account.packets, 1,
        "expected the account of the panicked stage"
    );
    assert_eq!(wires.wan.take_sent(), Vec::<Vec<u8>>::new());
}

#[test]
fn panic_in_tick_loses_no_frame() {
    let (mut worker, wires) =
        cross_connect((Panics { tick_panics: true, ..Panics::default() },), (Panics::default(),));
    wires.lan.deliver(&packet(1)).unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| {
        loop {
            worker.poll_once();
        }
    }));
    result.unwrap_err();
    worker.disable_stages();
    worker.drain(Duration::from_secs(5));
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
    assert_eq!(numbers(&wires.wan.take_sent()), [1]);
}
