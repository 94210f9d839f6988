//! Tests of the test bench.

#![cfg(feature = "testing")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use xdpfwd_pipeline::testing::{Disposition, TestBench, TestBenchBuilder, TestBenchError};
use xdpfwd_pipeline::{BuildCx, Cx, DropReason, NamedStage, PortId, PortInfo, Ports, Reason};
use xdpfwd_pipeline::{ResourceError, ResourceOwner, SnapshotError, Stage, StagePlan, View};
use xdpfwd_wire::MacAddr;
use xdpfwd_xsk::fake_kernel::Behaviour;
use xdpfwd_xsk::{Frame, HugePages, UmemConfig, clock};

static ODD: DropReason = DropReason::new("test_bench_odd", "The first byte is odd.");

/// Returns a frame of 60 bytes, which begins with this byte.
fn frame(first: u8) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[0] = first;
    frame
}

/// Returns the message of the panic in the closure.
fn panic_message<R>(run: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).err().expect("a panic");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// Drops packets whose first byte is odd, and counts all.
#[derive(Default)]
struct Even {
    seen: u64,
}

impl Stage for Even {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for mut packet in view.packets() {
            self.seen += 1;
            if packet.frame[0] % 2 == 1 {
                packet.drop(&ODD);
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("seen", self.seen)]
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(vec![])
    }
}

/// Sends each packet to the port whose number is the first byte.
struct ToPort;

impl Stage for ToPort {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        view.packets().for_each(|mut packet| packet.send_to(PortId(packet.frame[0])));
    }
}

/// Holds packets until the next tick, which emits them and one frame of its own.
#[derive(Default)]
struct Hold {
    held: Vec<Frame>,
    ticks: u64,
    /// Whether the stage loses frames instead of giving them back.
    loses: bool,
    /// Whether the stage still holds frames after it is retired.
    keeps: bool,
}

impl Hold {
    fn emit(&mut self, cx: &mut Cx<'_>) {
        self.held.drain(..).for_each(|frame| cx.emit(frame, cx.to()));
    }
}

impl Stage for Hold {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let held = (0..view.len()).filter_map(|index| view.hold(index, cx));
        self.held.extend(held);
        if self.loses {
            self.held.clear();
        }
    }

    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.ticks += 1;
        if self.held.is_empty() {
            return;
        }
        self.emit(cx);
        let mut own = cx.alloc().unwrap();
        own.append(14).unwrap().fill(9);
        cx.emit(own, PortId(0));
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        if !self.keeps {
            self.emit(cx);
        }
    }
}

#[test]
fn send_returns_egress_port_and_frame() {
    let mut bench = TestBench::new(());
    assert_eq!(bench.send("lan", &frame(1)), Disposition::sent("wan", frame(1)));
    assert_eq!(bench.send("wan", &frame(2)), Disposition::sent("lan", frame(2)));
    assert_eq!(bench.send("lan", &frame(3)).expect_sent("wan"), frame(3));
    assert!(bench.take_sent("wan").is_empty() && bench.take_sent("lan").is_empty());
}

#[test]
fn disposition_of_dropped_packet_names_reason() {
    ODD.register().unwrap();
    let mut bench = TestBench::new((Even::default(),));
    let disposition = bench.send("lan", &frame(1));
    assert_eq!(disposition, Disposition::dropped(&ODD));
    assert_eq!(disposition.drop_reason(), Some("test_bench_odd"));
    assert_eq!(disposition.sent_frame(), None);
    assert_eq!(format!("{disposition:?}"), "Dropped { reason: test_bench_odd }");
    assert_eq!(bench.drops(), [("test_bench_odd", 1)]);
    assert_eq!(bench.report().paths[0].stages[0].account.drops, 1);
}

#[test]
fn drop_under_unregistered_reason_is_named_unregistered() {
    static FORGOTTEN: DropReason = DropReason::new("test_bench_forgotten", "Is not registered.");
    struct Forgetful;
    impl Stage for Forgetful {
        fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
            view.packets().for_each(|mut packet| packet.drop(&FORGOTTEN));
        }
    }
    let disposition = TestBench::new(Forgetful).send("lan", &frame(1));
    assert_eq!(disposition.drop_reason(), Some("unregistered"));
}

#[test]
fn packet_leaves_on_port_of_verdict() {
    let builder = TestBench::builder().port("n3").port("n6").port("n9");
    let mut bench = builder.path("n3", "n6", ToPort).build().unwrap();
    for (port, name) in [(0, "n3"), (1, "n6"), (2, "n9")] {
        assert_eq!(bench.send("n3", &frame(port)), Disposition::sent(name, frame(port)));
    }
    assert_eq!(bench.send("n3", &frame(3)), Disposition::dropped(Reason::NO_SUCH_PORT));
}

#[test]
fn send_all_returns_one_disposition_per_packet_in_order() {
    ODD.register().unwrap();
    let mut bench = TestBench::new((Even::default(), ToPort));
    let frames: Vec<_> = (0..200_u8).map(|number| frame(number % 4)).collect();
    let dispositions = bench.send_all("lan", &frames);
    for (number, disposition) in dispositions.iter().enumerate() {
        let expected = match number % 4 {
            0 => Disposition::sent("lan", frame(0)),
            2 => Disposition::dropped(Reason::NO_SUCH_PORT),
            _ => Disposition::dropped(&ODD),
        };
        assert_eq!(*disposition, expected, "{number}");
    }
    assert_eq!(dispositions.len(), 200);
    let report = bench.report();
    let account = &report.paths[0].stages[0].account;
    assert_eq!((account.calls, account.packets), (4, 200), "64 + 64 + 64 + 8");
}

#[test]
fn held_frame_is_sent_by_tick() {
    let mut bench = TestBench::new(Hold::default());
    let both = bench.send_all("lan", [frame(1), frame(2)]);
    assert_eq!(both, [Disposition::Held, Disposition::Held]);
    assert_eq!(bench.assert_conserved().in_flight, 2);
    assert!(bench.take_sent("wan").is_empty(), "no tick without `advance`");
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.take_sent("wan"), [frame(1), frame(2)]);
    assert_eq!(bench.take_sent("lan"), [[9; 14]]);
    assert!(bench.take_sent("wan").is_empty());
    assert_eq!(bench.assert_conserved().in_flight, 0);
}

#[test]
fn frame_emitted_within_its_batch_is_sent() {
    /// Holds each packet and emits it at once.
    struct Through;
    impl Stage for Through {
        fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
            for index in 0..view.len() {
                let frame = view.hold(index, cx).unwrap();
                cx.emit(frame, cx.to());
            }
        }
    }
    let disposition = TestBench::new(Through).send("lan", &frame(1));
    assert_eq!(disposition, Disposition::sent("wan", frame(1)));
}

#[test]
fn copy_in_reused_chunk_is_not_taken_for_dropped_packet() {
    /// Drops each packet, then emits a frame that it allocates.
    struct Replace;
    impl Stage for Replace {
        fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
            for index in 0..view.len() {
                let frame = view.hold(index, cx).unwrap();
                let chunk = frame.chunk();
                cx.drop(frame, Reason::POLICY);
                let mut copy = cx.alloc().unwrap();
                assert_eq!(copy.chunk(), chunk, "the pool hands out the last frame first");
                copy.append(60).unwrap().fill(5);
                cx.emit(copy, cx.to());
            }
        }
    }
    let mut bench = TestBench::new(Replace);
    assert_eq!(bench.send("lan", &frame(1)), Disposition::dropped(Reason::POLICY));
    assert_eq!(bench.take_sent("wan"), [[5; 60]]);
}

#[test]
fn freed_packet_has_disposition_freed() {
    struct Free;
    impl Stage for Free {
        fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
            let frame = view.hold(0, cx).unwrap();
            cx.free(frame);
        }
    }
    let mut bench = TestBench::new(Free);
    assert_eq!(bench.send("lan", &frame(1)), Disposition::Freed);
    assert!(bench.drops().is_empty());
}

#[test]
fn stalled_port_leaves_packets_unsent() {
    let mut bench = TestBench::new(());
    bench.kernel("wan").set(Behaviour { budget: 0, ..Behaviour::default() });
    let frames: Vec<_> = (0..200).map(frame).collect();
    assert_eq!(bench.send_all("lan", &frames), vec![Disposition::Unsent; 200]);
    bench.kernel("wan").set(Behaviour::default());
    assert_eq!(bench.send("lan", &frame(250)), Disposition::sent("wan", frame(250)));
    assert_eq!(bench.take_sent("wan"), frames);
}

#[test]
fn frames_beyond_tx_ring_size_are_all_sent() {
    /// Emits four copies of each packet before the packet itself.
    struct Copies;
    impl Stage for Copies {
        fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
            for packet in view.packets() {
                for _ in 0..4 {
                    let mut copy = cx.alloc().unwrap();
                    copy.append(packet.frame.len()).unwrap().copy_from_slice(packet.frame);
                    cx.emit(copy, cx.to());
                }
            }
        }
    }
    let mut bench = TestBench::new(Copies);
    let frames: Vec<_> = (0..64).map(frame).collect();
    let sent = bench.send_all("lan", &frames);
    assert!(sent.into_iter().map(|one| one.expect_sent("wan")).eq(frames));
    assert_eq!(bench.take_sent("wan").len(), 4 * 64);
}

#[test]
fn reload_keeps_counters_and_state() {
    /// Counts packets. The count is also its state.
    struct Count(u8);
    impl Stage for Count {
        fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
            self.0 += view.len() as u8;
        }

        fn counters(&self) -> Vec<(&'static str, u64)> {
            vec![("since_reload", self.0.into())]
        }

        fn snapshot(&self) -> Option<Vec<u8>> {
            Some(vec![self.0])
        }

        fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
            self.0 = snapshot[0] + 100;
            Ok(())
        }
    }
    ODD.register().unwrap();
    let mut bench = TestBench::new((Count(0), Even::default()));
    bench.send_all("lan", [frame(0), frame(1)]);
    assert_eq!(bench.counters("Even"), [("seen", 2)]);

    let swapped = bench.reload((Even::default(), Count(0)));
    assert_eq!(swapped.afresh, Vec::<String>::new());
    bench.send("lan", &frame(0));
    assert_eq!(bench.counters("Even"), [("seen", 3)]);
    assert_eq!(bench.counters("Count"), [("since_reload", 2 + 102 + 1)]);
    assert_eq!(bench.worker().stages_mut(|_, count: &mut Count| count.0), [103]);

    // Another stage with the same name starts at zero.
    let swapped = bench.reload(vec![NamedStage::new("Even", Hold::default())]);
    assert_eq!(swapped.afresh, ["Even"]);
    assert_eq!(bench.counters("Even"), []);
}

#[test]
fn reload_flushes_held_frames() {
    let mut bench = TestBench::new(Hold::default());
    bench.send("lan", &frame(1));
    bench.reload_path("lan", ());
    assert_eq!(bench.take_sent("wan"), [frame(1)]);
    assert_eq!(bench.send("lan", &frame(2)), Disposition::sent("wan", frame(2)));
}

#[test]
fn retire_flushes_held_frames() {
    let mut bench = TestBench::new(Hold::default());
    bench.send("lan", &frame(1));
    bench.retire();
    assert_eq!(bench.take_sent("wan"), [frame(1)]);
    assert_eq!(bench.send("lan", &frame(2)), Disposition::dropped(Reason::SHUTDOWN));
}

#[test]
fn retire_panics_if_stage_keeps_frames() {
    let mut bench = TestBench::new(Hold { keeps: true, ..Hold::default() });
    bench.send("lan", &frame(1));
    let message = panic_message(|| bench.retire());
    assert!(message.contains("frames that stages still hold after `Stage::retire`"), "{message}");
}

#[test]
fn lost_frame_panics() {
    let mut bench = TestBench::new(Hold { loses: true, ..Hold::default() });
    let message = panic_message(|| bench.send("lan", &frame(1)));
    assert!(message.contains("dropped the `Frame` value"), "{message}");
    let message = panic_message(|| drop(bench));
    assert!(message.contains("dropped the `Frame` value"), "{message}");
}

#[test]
fn drop_of_bench_after_stage_panic_does_not_panic() {
    struct Panics;
    impl Stage for Panics {
        fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {
            panic!("the stage's own message");
        }
    }
    let mut bench = TestBench::new(Panics);
    assert_eq!(panic_message(|| bench.send("lan", &frame(1))), "the stage's own message");
    drop(bench);
}

/// Lets one packet pass per 10 ms, with a burst of one.
struct TokenBucket {
    full_at: u64,
}

impl Stage for TokenBucket {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for mut packet in view.packets() {
            if cx.now() < self.full_at {
                packet.drop(Reason::RATE_LIMIT);
            } else {
                self.full_at = cx.now() + (clock::cycles_per_second() / 100.0) as u64;
            }
        }
    }
}

#[test]
fn only_advance_fills_token_bucket() {
    let mut bench = TestBench::new(TokenBucket { full_at: 0 });
    let limited = Disposition::dropped(Reason::RATE_LIMIT);
    for round in 0..5 {
        let passed = Disposition::sent("wan", frame(round));
        assert_eq!(bench.send("lan", &frame(round)), passed);
        std::thread::sleep(Duration::from_millis(11));
        assert_eq!(bench.send("lan", &frame(round)), limited, "the clock stands still");
        bench.advance(Duration::from_micros(9999));
        assert_eq!(bench.send("lan", &frame(round)), limited);
        bench.advance(Duration::from_micros(1));
    }
}

#[test]
fn clock_stands_still_with_ledger_off() {
    let mut bench = TestBench::new(TokenBucket { full_at: 0 });
    bench.worker().switch_ledger(false);
    let now = bench.now();
    assert!(bench.send("lan", &frame(0)).sent_frame().is_some());
    std::thread::sleep(Duration::from_millis(11));
    assert_eq!(bench.send("lan", &frame(0)), Disposition::dropped(Reason::RATE_LIMIT));
    assert_eq!(bench.now(), now);
}

#[test]
fn stages_tick_every_1_ms_while_holding_else_every_100_ms() {
    fn ticks(bench: &mut TestBench) -> u64 {
        bench.worker().stages_mut(|_, hold: &mut Hold| std::mem::take(&mut hold.ticks))[0]
    }
    let mut bench = TestBench::new(Hold::default());
    bench.advance(Duration::ZERO);
    assert_eq!(ticks(&mut bench), 1);
    bench.advance(Duration::from_millis(250));
    assert_eq!(ticks(&mut bench), 3);
    bench.send("lan", &frame(1));
    bench.advance(Duration::from_millis(1));
    assert_eq!(ticks(&mut bench), 1);
    bench.send("lan", &frame(1));
    bench.advance(Duration::from_millis(101));
    assert_eq!(ticks(&mut bench), 2);
}

#[test]
fn advance_of_idle_hour_takes_little_real_time() {
    let mut bench = TestBench::new(Hold::default());
    let start = std::time::Instant::now();
    bench.advance(Duration::from_secs(3600));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn send_of_too_long_packet_panics_with_both_lengths() {
    let mut bench = TestBench::new(());
    assert_eq!(bench.send("lan", &[1; 1792]), Disposition::sent("wan", [1; 1792]));
    let message = panic_message(|| bench.send("lan", &[1; 1793]));
    assert!(message.contains("1793 bytes") && message.contains("room for 1792"), "{message}");
    assert_eq!(bench.send("lan", &[1; 60]), Disposition::sent("wan", [1; 60]));

    let umem = UmemConfig { frame_size: 4096, frames: 1024, huge_pages: HugePages::Off };
    let mut bench = TestBench::builder().umem(umem).path("lan", "wan", ()).build().unwrap();
    assert_eq!(bench.send("lan", &[1; 3840]), Disposition::sent("wan", [1; 3840]));
}

#[test]
fn packet_shorter_than_14_bytes_is_dropped_as_runt() {
    let mut bench = TestBench::new(());
    for length in 0..14 {
        let disposition = bench.send("lan", &vec![1; length]);
        assert_eq!(disposition, Disposition::dropped(Reason::RUNT), "{length}");
    }
    assert_eq!(bench.send("lan", &[1; 14]), Disposition::sent("wan", [1; 14]));
}

#[test]
fn unknown_names_panic_with_existing_names() {
    let mut bench = TestBench::new(Even::default());
    let expected = "no port is called \"dmz\"; the ports are: \"lan\", \"wan\"";
    assert_eq!(panic_message(|| bench.send("dmz", &frame(1))), expected);
    assert_eq!(panic_message(|| bench.take_sent("dmz")), expected);
    assert_eq!(panic_message(|| bench.reload_path("dmz", ())), expected);
    let expected = "no stage is called \"even\"; the stages are: \"Even\"";
    assert_eq!(panic_message(|| bench.counters("even")), expected);
    let mut bench = TestBench::builder().path("lan", "wan", ()).build().unwrap();
    assert_eq!(panic_message(|| bench.send("wan", &frame(1))), "no path starts from port \"wan\"");
}

#[test]
fn builder_rejects_unknown_and_duplicate_names() {
    let error = |builder: TestBenchBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(
        error(TestBench::builder().port("a").path("a", "b", ())),
        "no port is called \"b\"; the ports are: \"a\""
    );
    assert_eq!(
        error(TestBench::builder().port("a").port("a")),
        "two ports are called \"a\"; give each port a name of its own"
    );
    assert_eq!(
        error(TestBench::builder().path("lan", "wan", ()).path("lan", "lan", ())),
        "two paths start from port \"lan\"; a port has at most one"
    );
    let many = (0..127).fold(TestBench::builder(), |builder, n| builder.port(n.to_string()));
    assert_eq!(error(many), "127 ports: a test bench has at most 126");
    let most = (0..126).fold(TestBench::builder(), |builder, n| builder.port(n.to_string()));
    let mut bench = most.path("0", "125", ()).build().unwrap();
    assert_eq!(bench.send("0", &frame(1)), Disposition::sent("125", frame(1)));
}

/// A plan that counts how often its resource is acquired.
#[derive(Debug, Default)]
struct Planned {
    acquired: AtomicI32,
    fails: bool,
}

/// The context in which a stage was built, as text.
struct Told(String);

impl Stage for Told {
    fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {}
}

impl StagePlan for Planned {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        assert_eq!(self.acquired.load(Ordering::Relaxed), 1, "acquired before the first build");
        let (from, to) = (cx.from_port().unwrap(), cx.to_port().unwrap());
        let source = cx.ethernet_to(MacAddr([2; 6])).source;
        Box::new(Told(format!("{} {} {:?} {} {source}", from.name, to.name, to.mtu, cx.workers)))
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        Some(self)
    }
}

impl ResourceOwner for Planned {
    fn acquire(&self, _: &[&dyn Any]) -> Result<(), ResourceError> {
        if self.fails {
            return Err(ResourceError("another process has the lock".into()));
        }
        self.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self) {
        self.acquired.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn planned_stages_know_ports_and_acquire_resources_once() {
    let lan = PortInfo::new(PortId(0), "lan", "eth0");
    let wan = PortInfo { mtu: Some(1400), ..PortInfo::new(PortId(0), "wan", "eth1") };
    let [first, second] = [(); 2].map(|()| Arc::new(Planned::default()));
    let named = |plan: &Arc<Planned>| [("told", Arc::clone(plan) as Arc<dyn StagePlan>)];
    let acquired = || [&first, &second].map(|plan| plan.acquired.load(Ordering::Relaxed));

    let builder = TestBench::builder().ports(Ports::from_iter([lan, wan])).workers(4);
    let builder = builder.plans("lan", "wan", named(&first)).plans("wan", "lan", named(&first));
    let mut bench = builder.build().unwrap();
    let told = bench.worker().stages_mut(|_, told: &mut Told| told.0.clone());
    let [to_wan, to_lan] =
        ["lan wan Some(1400) 4 02:00:00:00:00:02", "wan lan None 4 02:00:00:00:00:01"];
    assert_eq!(told, [to_wan, to_lan]);
    assert_eq!(acquired(), [1, 0]);

    bench.reload_plans("lan", named(&second)).unwrap();
    assert_eq!(acquired(), [1, 1], "the way back still has the first");
    let fails: Arc<dyn StagePlan> = Arc::new(Planned { fails: true, ..Planned::default() });
    let error = bench.reload_plans("wan", [("bad", fails)]).unwrap_err();
    assert_eq!(error.to_string(), "stage \"bad\": another process has the lock");
    bench.reload_path("wan", ());
    assert_eq!(acquired(), [0, 1]);
    drop(bench);
    assert_eq!(acquired(), [0, 0]);
}

#[test]
fn failed_acquire_error_names_stage() {
    let fails: Arc<dyn StagePlan> = Arc::new(Planned { fails: true, ..Planned::default() });
    let error = TestBench::builder().plans("lan", "wan", [("bad", fails)]).build().unwrap_err();
    assert!(matches!(&error, TestBenchError::Resource { stage, .. } if stage == "bad"));
    assert_eq!(error.to_string(), "stage \"bad\": another process has the lock");
}

#[cfg(feature = "count-allocations")]
mod allocations {
    use xdpfwd_pipeline::testing::assert_no_allocation;

    use super::*;

    #[test]
    fn assert_no_allocation_returns_result_or_panics() {
        assert_eq!(assert_no_allocation(|| 7), 7);
        let message = panic_message(|| assert_no_allocation(|| vec![0_u8; 100]));
        assert!(message.contains("1 allocations of 100 bytes"), "{message}");
    }

    #[test]
    fn bench_assert_no_allocation_detects_allocating_stage() {
        struct Allocates;
        impl Stage for Allocates {
            fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
                view.packets().for_each(|packet| drop(std::hint::black_box(packet.frame.to_vec())));
            }
        }
        ODD.register().unwrap();
        let frames: Vec<_> = (0..200).map(frame).collect();
        let mut bench = TestBench::new((Even::default(), ToPort));
        bench.assert_no_allocation("lan", &frames);
        assert_eq!(bench.counters("Even"), [("seen", 200)]);
        assert!(bench.take_sent("lan").is_empty());
        assert_eq!(bench.send("lan", &frame(0)), Disposition::sent("lan", frame(0)));
        let mut bench = TestBench::new(Allocates);
        let message = panic_message(|| bench.assert_no_allocation("lan", &frames));
        assert!(message.contains("64 allocations"), "{message}");
    }
}
