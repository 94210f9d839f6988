//! Frames that stages hold, allocate or lose, and the limit on held and allocated frames (the hold
//! quota).

use std::time::Duration;

use xdpfwd_pipeline::{Cx, PortId, Reason, Stage, Verdict, View};
use xdpfwd_testkit::wires::{assert_conserved, cross_connect, numbers, packet};
use xdpfwd_xsk::Frame;

use crate::DelayByOne;

#[test]
fn stage_can_hold_emit_and_allocate_frames() {
    let (mut worker, wires) = cross_connect((DelayByOne::default(),), (DelayByOne::default(),));
    for n in 0..100 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
        assert_conserved(&mut worker);
    }
    assert_eq!(numbers(&wires.wan.take_sent()), (0..99).collect::<Vec<_>>());
    // `DelayByOne` emits a copy of every fifth packet on lan.
    assert_eq!(numbers(&wires.lan.take_sent()), (0..100).step_by(5).collect::<Vec<_>>());
    assert_eq!(worker.frames().in_flight, 1);
    worker.drain(Duration::from_secs(5));
    assert_eq!(numbers(&wires.wan.take_sent()), [99], "`drain` did not send the held frame");
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

#[test]
fn drain_that_times_out_drops_held_frames_as_shutdown() {
    let (mut worker, wires) = cross_connect((DelayByOne::default(),), (DelayByOne::default(),));
    wires.lan.deliver(&packet(0)).unwrap();
    worker.poll_once();
    worker.drain(Duration::ZERO);
    assert_eq!(worker.report().drops[Reason::SHUTDOWN], 1);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

/// Holds as many frames as the hold quota allows (256, a quarter of the worker's frames), and drops
/// other packets. When the quota is used up, `alloc` must fail.
#[derive(Default)]
struct HoldAll(Vec<Frame>);

impl Stage for HoldAll {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for index in 0..view.len() {
            match view.hold(index, cx) {
                Some(frame) => self.0.push(frame),
                None => view.set_verdict(index, Verdict::Drop(Reason::HOLD_QUOTA)),
            }
        }
        if self.0.len() == 256 {
            assert!(cx.alloc().is_none(), "`alloc` exceeded the quota");
        }
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        self.0.drain(..).for_each(|frame| cx.drop(frame, Reason::SHUTDOWN));
    }
}

#[test]
fn packets_beyond_hold_quota_are_not_held() {
    let (mut worker, wires) = cross_connect((HoldAll::default(),), (HoldAll::default(),));
    for n in 0..1000 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    let report = worker.report();
    assert_eq!(report.frames.in_flight, 256, "expected a quarter of the worker's frames");
    assert_eq!(report.drops[Reason::HOLD_QUOTA], 1000 - 256);
    assert_conserved(&mut worker);
    worker.drain(Duration::from_secs(5));
    assert_eq!(worker.report().drops[Reason::SHUTDOWN], 256);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

#[test]
fn hold_quota_is_shared_by_all_stages_of_worker() {
    let (mut worker, wires) = cross_connect((HoldAll::default(),), (HoldAll::default(),));
    for n in 0..200 {
        wires.lan.deliver(&packet(n)).unwrap();
        wires.wan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    let report = worker.report();
    assert_eq!((report.frames.in_flight, report.drops[Reason::HOLD_QUOTA]), (256, 400 - 256));
    worker.drain(Duration::from_secs(5));
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

/// Loses every frame by dropping the `Frame` value.
struct LoseHeld;

impl Stage for LoseHeld {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for index in 0..view.len() {
            drop(view.hold(index, cx));
        }
    }
}

#[test]
fn frame_lost_by_stage_is_reported_as_leaked() {
    let (mut worker, wires) = cross_connect((LoseHeld,), (LoseHeld,));
    (0..20).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
    worker.poll_once();
    let frames = worker.frames();
    assert_eq!((frames.leaked, frames.in_flight), (20, 0), "{frames:?}");
    assert_eq!(worker.umem().lost(), 20);
    // The egress queues are empty, so these are the frames that count toward the hold quota.
    assert_eq!(
        worker.frames_in_user_space(),
        20,
        "before a report, lost frames must count toward the quota"
    );
    assert_eq!(worker.report().frames.leaked, 20);
    assert_eq!(
        worker.frames_in_user_space(),
        0,
        "after a report, lost frames must not count toward the quota"
    );
}

#[test]
fn report_and_swap_release_hold_quota_of_lost_frames_only_once() {
    let (mut worker, wires) = cross_connect((LoseHeld,), (LoseHeld,));
    (0..20).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
    worker.poll_once();
    // `report` recounts the quota, so lost frames no longer count toward it.
    worker.report();
    worker.swap(PortId(0), (LoseHeld,)).unwrap();
    assert_eq!(worker.frames_in_user_space(), 0);
    assert_eq!(worker.report().frames.leaked, 20);
}
