//! The worker on the fake kernel: packets are sent or counted, the worker never blocks, and no
//! frame leaks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xdpfwd_pipeline::{
    BuildError, Cx, DropReason, Idle, NamedStage, PortId, Reason, SnapshotError, Stage, Stopped,
    Verdict, View, Worker, mailbox,
};
use xdpfwd_testkit::wires::{
    LAN, WAN, assert_conserved, cross_connect, cross_connect_with, number, numbers, packet,
    umem_config,
};
use xdpfwd_xsk::fake_kernel::{Behaviour, FakeKernel, Sizes};
use xdpfwd_xsk::{Frame, Umem, UmemConfig};

#[test]
fn worker_forwards_both_ways_unchanged_and_in_order() {
    let (mut worker, wires) = cross_connect((), ());
    let mut sent = (vec![], vec![]);
    for round in 0..50u64 {
        for offset in 0..20 {
            wires.lan.deliver(&packet(round * 20 + offset)).unwrap();
            wires.wan.deliver(&packet(100_000 + round * 20 + offset)).unwrap();
        }
        assert_eq!(worker.poll_once(), 40);
        sent.0.extend(wires.wan.take_sent());
        sent.1.extend(wires.lan.take_sent());
        assert_conserved(&mut worker);
    }
    assert_eq!(sent.0, (0..1000).map(packet).collect::<Vec<_>>());
    assert_eq!(sent.1, (100_000..101_000).map(packet).collect::<Vec<_>>());
    let report = worker.report();
    assert_eq!(report.drops.total(), 0);
    assert_eq!(
        (report.queues[0].counters.rx_packets, report.queues[1].counters.tx_packets),
        (1000, 1000)
    );
}

#[test]
fn single_packet_is_sent_in_same_iteration() {
    let (mut worker, wires) = cross_connect((), ());
    wires.lan.deliver(&packet(1)).unwrap();
    worker.poll_once();
    assert_eq!(numbers(&wires.wan.take_sent()), [1]);
}

/// Sets a verdict by the packet's number.
struct Sorter;

impl Sorter {
    fn verdict(number: u64) -> Verdict {
        match number % 7 {
            0 => Verdict::Drop(Reason::POLICY),
            1 => Verdict::To(LAN),
            2 => Verdict::To(PortId(9)),
            _ => Verdict::Next,
        }
    }
}

impl Stage for Sorter {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for place in 0..view.len() {
            let number = number(view.packet(place).unwrap().frame);
            view.set(place, Self::verdict(number));
        }
        view.set(view.len(), Verdict::To(LAN)); // behind the end: nothing happens
    }
}

/// Counts packets, and checks their order.
#[derive(Default)]
struct InOrder {
    seen: u64,
    last: Option<u64>,
}

impl Stage for InOrder {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            let number = number(packet.frame);
            assert!(self.last.is_none_or(|last| last < number), "out of order");
            self.last = Some(number);
            self.seen += 1;
        }
    }
}

#[test]
fn verdicts_are_applied_and_next_stage_gets_rest_in_order() {
    let (mut worker, wires) =
        cross_connect((Sorter, InOrder::default()), (Sorter, InOrder::default()));
    for n in 0..100 {
        wires.lan.deliver(&packet(n)).unwrap();
    }
    while worker.poll_once() > 0 {}
    let with = |verdict: Verdict| {
        (0..100).filter(|&n| Sorter::verdict(n) == verdict).collect::<Vec<u64>>()
    };
    assert_eq!(numbers(&wires.wan.take_sent()), with(Verdict::Next));
    assert_eq!(numbers(&wires.lan.take_sent()), with(Verdict::To(LAN)));
    let report = worker.report();
    assert_eq!(report.drops[Reason::POLICY], with(Verdict::Drop(Reason::POLICY)).len() as u64);
    assert_eq!(report.drops[Reason::NO_SUCH_PORT], with(Verdict::To(PortId(9))).len() as u64);
    let [sorter, in_order] = &report.paths[0].stages[..] else { panic!("two stages") };
    assert_eq!((sorter.name.as_str(), sorter.account.packets), ("Sorter", 100));
    assert_eq!(sorter.account.drops, report.drops.total());
    assert_eq!(in_order.account.packets, with(Verdict::Next).len() as u64);
    assert_conserved(&mut worker);
}

/// Cuts every packet to nothing, or requests impossible changes.
struct Vandal;

impl Stage for Vandal {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for (place, packet) in view.packets().enumerate() {
            match place % 2 {
                0 => packet.frame.truncate(13),
                _ => packet.frame.trim_front(usize::MAX),
            }
        }
    }
}

#[test]
fn frame_shorter_than_ethernet_header_is_dropped_as_runt() {
    let (mut worker, wires) = cross_connect((Vandal,), (Vandal,));
    (0..10).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
    worker.poll_once();
    assert_eq!(worker.report().drops[Reason::RUNT], 10);
    assert_conserved(&mut worker);
}

/// Replaces the frames in the batch by frames of another UMEM.
struct Smuggler(Vec<Frame>);

impl Stage for Smuggler {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            if let Some(own) = self.0.pop() {
                self.0.insert(0, std::mem::replace(packet.frame, own));
            }
        }
    }
}

#[test]
fn frame_of_another_umem_is_dropped_as_foreign_frame() {
    let (_other, mut other_pool) = Umem::new(&umem_config()).unwrap();
    let mut smuggled = other_pool.alloc().unwrap();
    smuggled.append(60).unwrap().fill(1);
    let (mut worker, wires) = cross_connect((Smuggler(vec![smuggled]),), (Smuggler(vec![]),));
    wires.lan.deliver(&packet(1)).unwrap();
    wires.lan.deliver(&packet(2)).unwrap();
    worker.poll_once();
    assert_eq!(worker.report().drops[Reason::FOREIGN_FRAME], 1);
    assert!(wires.wan.take_sent().len() <= 1, "frames of another UMEM are not sent");
}

/// Holds every packet until the next one arrives, and then emits it to its destination port. Copies
/// each fifth packet.
#[derive(Default)]
struct OneBehind {
    held: Option<Frame>,
}

impl Stage for OneBehind {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for place in 0..view.len() {
            let n = number(view.packet(place).unwrap().frame);
            if let Some(before) = self.held.take() {
                cx.emit(before, WAN);
            }
            match view.hold(place, cx) {
                Some(frame) => {
                    if n.is_multiple_of(5)
                        && let Some(mut copy) = cx.alloc()
                    {
                        copy.append(frame.len()).unwrap().copy_from_slice(&frame);
                        cx.emit(copy, LAN);
                    }
                    self.held = Some(frame);
                }
                None => view.set(place, Verdict::Drop(Reason::HOLD_QUOTA)),
            }
        }
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        if let Some(frame) = self.held.take() {
            cx.emit(frame, WAN);
        }
    }
}

#[test]
fn stage_can_hold_emit_and_allocate_frames() {
    let (mut worker, wires) = cross_connect((OneBehind::default(),), (OneBehind::default(),));
    for n in 0..100 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
        assert_conserved(&mut worker);
    }
    assert_eq!(numbers(&wires.wan.take_sent()), (0..99).collect::<Vec<_>>());
    assert_eq!(numbers(&wires.lan.take_sent()), (0..100).step_by(5).collect::<Vec<_>>());
    assert_eq!(worker.frames().in_flight, 1);
    worker.drain(Duration::from_secs(5));
    assert_eq!(numbers(&wires.wan.take_sent()), [99], "the held frame is sent at the end");
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

/// Holds and allocates as many frames as possible.
#[derive(Default)]
struct Hoarder(Vec<Frame>);

impl Stage for Hoarder {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for place in 0..view.len() {
            match view.hold(place, cx) {
                Some(frame) => self.0.push(frame),
                None => view.set(place, Verdict::Drop(Reason::HOLD_QUOTA)),
            }
        }
        if self.0.len() == 256 {
            assert!(cx.alloc().is_none(), "the quota also limits alloc");
        }
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        self.0.drain(..).for_each(|frame| cx.drop(frame, Reason::SHUTDOWN));
    }
}

#[test]
fn hold_beyond_quota_is_refused() {
    let (mut worker, wires) = cross_connect((Hoarder::default(),), (Hoarder::default(),));
    for n in 0..1000 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    let report = worker.report();
    assert_eq!(report.frames.in_flight, 256, "a quarter of the frames");
    assert_eq!(report.drops[Reason::HOLD_QUOTA], 1000 - 256);
    assert_conserved(&mut worker);
    worker.drain(Duration::from_secs(5));
    assert_eq!(worker.report().drops[Reason::SHUTDOWN], 256);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

/// Counts packets; its snapshot is the number of its predecessors.
#[derive(Default)]
struct Counting {
    packets: u64,
    predecessors: u64,
}

impl Stage for Counting {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        self.packets += view.len() as u64;
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("count", self.packets)]
    }

    fn row_counters(&self) -> Vec<u64> {
        vec![self.packets, self.predecessors]
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        Some((self.predecessors + 1).to_le_bytes().to_vec())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let bytes = snapshot.try_into().map_err(|_| SnapshotError("not eight bytes".into()))?;
        self.predecessors = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// Has counters like `Counting`, and cannot restore a snapshot.
#[derive(Default)]
struct Forgetful(Counting);

impl Stage for Forgetful {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        self.0.process(view, cx);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters()
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(b"anything".to_vec())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), SnapshotError> {
        Err(SnapshotError("unreadable".into()))
    }
}

fn named(name: &str, stage: impl Stage + 'static) -> NamedStage {
    NamedStage::new(name, stage)
}

#[test]
fn swap_named_keeps_packets_counters_and_held_frames() {
    let chain = || vec![named("count", Counting::default()), named("behind", OneBehind::default())];
    let (mut worker, wires) = cross_connect(chain(), vec![]);
    for n in 0..10 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    assert_eq!(worker.frames().in_flight, 1);
    let afresh = worker.swap_named(
        LAN,
        vec![named("other", Counting::default()), named("count", Counting::default())],
    );
    let swapped = afresh.unwrap();
    assert_eq!(swapped.afresh, Vec::<String>::new());
    assert_eq!(swapped.row_counters, [vec![10, 0], vec![]], "row counters of the old stages");
    for n in 10..20 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    assert_eq!(numbers(&wires.wan.take_sent()), (0..20).collect::<Vec<_>>());
    let report = worker.report();
    let stages: Vec<_> = report.paths[0]
        .stages
        .iter()
        .map(|s| (s.name.as_str(), s.counters[0].1, s.account.packets))
        .collect();
    assert_eq!(stages, [("other", 10, 10), ("count", 20, 20)]);
    // Row counters are the stage's own: the engine adds those of its predecessors.
    assert_eq!(worker.row_counters(), [vec![vec![10, 0], vec![10, 1]], vec![]]);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);

    // A stage of another kind starts at zero, and the swap reports it.
    let count =
        |worker: &mut Worker<Vec<NamedStage>>| worker.report().paths[0].stages[0].counters.clone();
    let swapped = worker.swap_named(LAN, vec![named("count", Forgetful::default())]).unwrap();
    assert_eq!(swapped.afresh, ["count"]);
    assert_eq!(count(&mut worker), [("count", 0)]);
    // A stage that cannot read the state of its predecessor keeps the counters.
    wires.lan.deliver(&packet(20)).unwrap();
    worker.poll_once();
    let swapped = worker.swap_named(LAN, vec![named("count", Forgetful::default())]).unwrap();
    assert_eq!(swapped.afresh, ["count"]);
    assert_eq!(count(&mut worker), [("count", 1)]);
    assert_eq!(worker.swap_named(PortId(7), vec![]).unwrap_err(), BuildError::NoSuchPort(7));
}

#[test]
fn swap_matches_counters_of_same_named_stages_in_order() {
    let chain = || vec![named("count", Counting::default()), named("count", Counting::default())];
    let (mut worker, wires) = cross_connect(chain(), vec![]);
    wires.lan.deliver(&packet(0)).unwrap();
    worker.poll_once();
    worker.swap_named(LAN, chain()).unwrap();
    let report = worker.report();
    let stages: Vec<_> =
        report.paths[0].stages.iter().map(|s| (s.counters[0].1, s.account.packets)).collect();
    assert_eq!(stages, [(1, 1), (1, 1)]);
}

static ODD_NUMBER: DropReason = DropReason::new("odd_number", "The number in the packet is odd.");

/// Drops packets with an odd number, under its own reason.
struct EvenNumbers;

impl Stage for EvenNumbers {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for mut packet in view.packets() {
            if number(packet.frame) % 2 == 1 {
                packet.drop(&ODD_NUMBER);
            }
        }
    }
}

#[test]
fn drop_is_counted_under_registered_reason_of_stage() {
    ODD_NUMBER.register().unwrap();
    let (mut worker, wires) = cross_connect((EvenNumbers,), (EvenNumbers,));
    (0..10).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
    worker.poll_once();
    assert_eq!(numbers(&wires.wan.take_sent()), [0, 2, 4, 6, 8]);
    let drops = worker.report().drops;
    assert_eq!((drops[ODD_NUMBER.reason()], drops.total()), (5, 5));
    assert!(drops.iter().any(|(reason, count)| reason.name() == "odd_number" && count == 5));
    assert_conserved(&mut worker);
}

#[test]
fn drop_under_unregistered_reason_is_counted_as_unregistered() {
    static FORGOTTEN: DropReason = DropReason::new("forgotten", "Never registered.");
    struct DropAll;
    impl Stage for DropAll {
        fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
            view.packets().for_each(|mut packet| packet.drop(&FORGOTTEN));
        }
    }
    let (mut worker, wires) = cross_connect((DropAll,), (DropAll,));
    wires.lan.deliver(&packet(0)).unwrap();
    worker.poll_once();
    assert_eq!(worker.report().drops[Reason::UNREGISTERED], 1);
    assert_conserved(&mut worker);
}

#[test]
fn builder_rejects_invalid_ports_paths_and_memory() {
    let build = |ports: &[usize], paths: &[(u8, u8)]| {
        let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
        let mut index = 0;
        let mut all: Vec<Vec<Box<dyn xdpfwd_xsk::Port>>> = vec![];
        for &lanes in ports {
            let mut port: Vec<Box<dyn xdpfwd_xsk::Port>> = vec![];
            for _ in 0..lanes {
                port.push(Box::new(FakeKernel::port(&umem, &mut pool, index).0));
                index += 1;
            }
            all.push(port);
        }
        let mut builder = Worker::builder(umem, pool);
        builder = all.into_iter().fold(builder, |builder, port| builder.port(port));
        builder = paths
            .iter()
            .fold(builder, |builder, &(from, to)| builder.path(PortId(from), PortId(to), ()));
        builder.build().err()
    };
    assert_eq!(build(&[1, 1], &[(0, 1), (1, 0)]), None);
    assert_eq!(build(&[1], &[(0, 0)]), None, "a reflector");
    assert_eq!(build(&[1, 1], &[(0, 2)]), Some(BuildError::NoSuchPort(2)));
    assert_eq!(build(&[1, 1], &[(3, 1)]), Some(BuildError::NoSuchPort(3)));
    assert_eq!(build(&[1, 1], &[(0, 1), (0, 0)]), Some(BuildError::TwoPaths(0)));
    assert_eq!(
        build(&[2, 1], &[]),
        Some(BuildError::UnequalQueues { port: 1, queues: 1, expected: 2 })
    );

    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let (other, mut other_pool) = Umem::new(&umem_config()).unwrap();
    let (port, _) = FakeKernel::port(&umem, &mut pool, 0);
    let (stranger, _) = FakeKernel::port(&other, &mut other_pool, 0);
    let mixed = Worker::<()>::builder(umem.clone(), pool)
        .port(vec![Box::new(port), Box::new(stranger)])
        .build();
    assert_eq!(mixed.err(), Some(BuildError::OtherUmem("a port")));
    assert_eq!(
        Worker::<()>::builder(umem, other_pool).build().err(),
        Some(BuildError::OtherUmem("the pool"))
    );

    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let lanes = (0..2).map(|index| {
        Box::new(FakeKernel::port(&umem, &mut pool, index).0) as Box<dyn xdpfwd_xsk::Port>
    });
    let lanes: Vec<_> = lanes.collect();
    let too_far = Worker::<()>::builder(umem, pool).queues(1, u16::MAX).port(lanes).build();
    assert_eq!(too_far.err(), Some(BuildError::QueueNumber(65536)));
}

#[test]
fn packet_leaves_on_queue_of_its_batch() {
    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let mut ports: Vec<_> = (0..4).map(|index| FakeKernel::port(&umem, &mut pool, index)).collect();
    let (wan1, wan1_wire) = ports.pop().unwrap();
    let (wan0, wan0_wire) = ports.pop().unwrap();
    let (lan1, lan1_wire) = ports.pop().unwrap();
    let (lan0, lan0_wire) = ports.pop().unwrap();
    // Worker 1 of two serves queues 1 and 3.
    let mut worker = Worker::builder(umem, pool)
        .queues(1, 2)
        .port(vec![Box::new(lan0), Box::new(lan1)])
        .port(vec![Box::new(wan0), Box::new(wan1)])
        .path(LAN, WAN, (OneBehind::default(),))
        .build()
        .unwrap();
    for n in 0..10 {
        lan0_wire.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    lan1_wire.deliver(&packet(100)).unwrap();
    lan1_wire.deliver(&packet(101)).unwrap();
    worker.poll_once();
    assert_eq!(numbers(&wan0_wire.take_sent()), (0..9).collect::<Vec<_>>());
    assert_eq!(
        numbers(&wan1_wire.take_sent()),
        [9, 100],
        "what a stage emits leaves on the queue of the batch"
    );
    assert_eq!(
        worker.report().queues.iter().map(|q| (q.port.0, q.queue)).collect::<Vec<_>>(),
        [(0, 1), (0, 3), (1, 1), (1, 3)]
    );
    assert_conserved(&mut worker);
}

#[test]
fn worker_thread_forwards_replies_and_stops() {
    for idle in [Idle::Poll, Idle::Spin] {
        let (remote, mailbox) = mailbox::<()>().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut worker, wires) = cross_connect((), ());
            (0..100).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
            worker.run(&mailbox, idle);
            numbers(&wires.wan.take_sent())
        });
        // The worker replies whether asleep or not.
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            let report = remote.ask(|worker| worker.report(), Duration::from_secs(20)).unwrap();
            assert_eq!(report.frames.leaked, 0);
            assert_eq!(report.waits > 0, idle == Idle::Poll);
        }
        remote.stop();
        assert_eq!(thread.join().unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(remote.ask(|_| (), Duration::from_secs(20)), Err(Stopped));
    }
}

/// Each command ends at most two waits of an idle worker: the current one, or the next one if the
/// worker saw the command without waiting. Every other wait lasts its full millisecond.
#[test]
fn idle_worker_waits_again_after_each_command() {
    let (remote, mailbox) = mailbox::<()>().unwrap();
    let thread = std::thread::spawn(move || cross_connect((), ()).0.run(&mailbox, Idle::Poll));
    let ask = || remote.ask(|worker| worker.report().waits, Duration::from_secs(20)).unwrap();
    let before = ask();
    let start = Instant::now();
    const QUESTIONS: u64 = 200;
    for _ in 0..QUESTIONS {
        std::thread::sleep(Duration::from_millis(2));
        ask();
    }
    let waits = ask() - before;
    let most = start.elapsed().as_millis() as u64 + 2 * QUESTIONS + 4;
    assert!(waits <= most, "{waits} waits; expected at most {most}");
    remote.stop();
    thread.join().unwrap();
}

#[test]
fn five_ports_into_one_sending_port_drop_nothing() {
    let (umem, mut pool) = Umem::new(&UmemConfig { frames: 8192, ..umem_config() }).unwrap();
    let sizes = Sizes { fill: 512, rx: 512, tx: 2048, completion: 2048, start: 0 };
    let mut ports = vec![];
    let mut wires = vec![];
    for index in 0..6 {
        let (port, wire) =
            FakeKernel::port_with(&umem, &mut pool, index, sizes, Behaviour::default());
        ports.push(port);
        wires.push(wire);
    }
    let mut builder = Worker::builder(umem, pool);
    for port in ports {
        builder = builder.port(vec![Box::new(port)]);
    }
    for from in 1..6 {
        builder = builder.path(PortId(from), LAN, ());
    }
    let mut worker = builder.build().unwrap();
    for wire in &wires[1..] {
        (0..256).for_each(|n| wire.deliver(&packet(n)).unwrap());
    }
    worker.poll_once();
    assert_eq!(worker.report().drops.total(), 0);
    assert_eq!(wires[0].take_sent().len(), 5 * 256);
    assert_conserved(&mut worker);
}

/// Loses the frames that it holds.
struct Careless;

impl Stage for Careless {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for place in 0..view.len() {
            drop(view.hold(place, cx));
        }
    }
}

#[test]
fn frame_lost_by_stage_is_reported_as_leaked() {
    let (mut worker, wires) = cross_connect((Careless,), (Careless,));
    (0..20).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
    worker.poll_once();
    let frames = worker.frames();
    assert_eq!((frames.leaked, frames.in_flight), (20, 0), "{frames:?}");
    assert_eq!(worker.umem().lost(), 20);
    assert_eq!(worker.in_user_space(), 20, "lost frames still use the quota");
    assert_eq!(worker.report().frames.leaked, 20);
    assert_eq!(worker.in_user_space(), 0, "the report returns lost frames to the quota");
}

#[test]
fn hold_quota_is_shared_by_all_stages_of_worker() {
    let (mut worker, wires) = cross_connect((Hoarder::default(),), (Hoarder::default(),));
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

/// Returns a random stage's action for packet `n`.
fn random_verdict(seed: u64, n: u64) -> u64 {
    let mut x = seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 60
}

struct Random {
    seed: u64,
    held: Vec<Frame>,
}

impl Stage for Random {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for place in 0..view.len() {
            let packet = view.packet(place).unwrap();
            match random_verdict(self.seed, number(packet.frame)) {
                0 => view.set(place, Verdict::Drop(Reason::POLICY)),
                1 => view.set(place, Verdict::To(LAN)),
                2 => view.set(place, Verdict::To(PortId(200))),
                3 => self.held.extend(view.hold(place, cx)),
                4 => {
                    if let Some(frame) = self.held.pop() {
                        cx.emit(frame, WAN);
                    }
                }
                5 => drop(packet.frame.prepend(40).map(|new| new.fill(0xee))),
                6 => drop(packet.frame.append(16).map(|new| new.fill(0xee))),
                7 => {
                    if let Some(mut frame) = cx.alloc() {
                        frame.append(64).unwrap().fill(0xee);
                        cx.emit(frame, LAN);
                    }
                }
                8 => {
                    if let Some(frame) = cx.alloc() {
                        cx.free(frame);
                    }
                }
                9 => {
                    if let Some(frame) = self.held.pop() {
                        cx.drop(frame, Reason::POLICY);
                    }
                }
                _ => {}
            }
        }
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        self.held.drain(..).for_each(|frame| cx.emit(frame, WAN));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With any stages and kernel, every frame is in one place after each iteration, and in the end
    /// no frame is in flight.
    #[test]
    fn random_stages_and_kernel_conserve_frames(
        seeds in any::<(u64, u64)>(),
        loads in prop::collection::vec((0..100u64, 0..100u64), 1..40),
        budget in 0..100u32,
        delay in prop::option::of(0..4u32),
    ) {
        let stage = |seed| (Random { seed, held: vec![] },);
        let behaviour = Behaviour { budget, completion_delay: delay, ..Behaviour::default() };
        let (mut worker, wires) = cross_connect_with(stage(seeds.0), stage(seeds.1), behaviour);
        let mut next = 0;
        for (to_lan, to_wan) in loads {
            for (count, wire) in [(to_lan, &wires.lan), (to_wan, &wires.wan)] {
                for _ in 0..count {
                    let _ = wire.deliver(&packet(next));
                    next += 1;
                }
            }
            worker.poll_once();
            assert_conserved(&mut worker);
        }
        wires.wan.set(Behaviour::default());
        // Report pending completions now: no later wake-up may come.
        wires.wan.run();
        worker.drain(Duration::from_secs(5));
        let frames = assert_conserved(&mut worker);
        prop_assert_eq!((frames.in_flight, frames.rx), (0, 0));
    }
}

/// Counts, and panics on its n-th packet, in `tick`, or later in `counters`.
#[derive(Default)]
struct Panics {
    seen: u64,
    at: u64,
    in_tick: bool,
    mute: bool,
}

impl Stage for Panics {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for _ in view.packets() {
            self.seen += 1;
            assert!(self.seen != self.at, "on purpose");
        }
    }

    fn tick(&mut self, _: &mut Cx<'_>) {
        assert!(!self.in_tick, "on purpose");
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        assert!(!self.mute || self.seen < self.at, "on purpose");
        vec![("seen", self.seen)]
    }

    fn retire(&mut self, _: &mut Cx<'_>) {
        panic!("retire called after a panic");
    }
}

#[test]
fn worker_after_stage_panic_runs_without_stages() {
    for mute in [false, true] {
        let (mut worker, wires) =
            cross_connect((Panics { at: 70, mute, ..Panics::default() },), (Panics::default(),));
        for n in 0..60 {
            wires.lan.deliver(&packet(n)).unwrap();
        }
        assert_eq!(worker.poll_once(), 60);
        assert_conserved(&mut worker);
        for n in 60..80 {
            wires.lan.deliver(&packet(n)).unwrap();
        }
        catch_unwind(AssertUnwindSafe(|| worker.poll_once())).unwrap_err();
        worker.abandon_stages();
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
            "packets received after the panic"
        );
        assert_eq!(
            (report.frames.leaked, report.frames.in_flight),
            (20, 0),
            "frames of the interrupted batch"
        );
        assert_eq!(worker.umem().lost(), 20);
        assert_eq!(report.paths[0].stages[0].account.packets, 80);
        let counters = if mute { vec![] } else { vec![("seen", 70)] };
        assert_eq!(report.paths[0].stages[0].counters, counters, "counters of the panicked stage");
        assert_eq!(report.paths[1].stages[0].counters, [("seen", 0)]);
    }
}

/// A reload command that was pending when a stage panicked may still run: its stages must not be
/// called.
#[test]
fn stages_swapped_in_after_panic_are_not_called() {
    let (mut worker, wires) =
        cross_connect((Panics { at: 1, ..Panics::default() },), (Panics::default(),));
    wires.lan.deliver(&packet(1)).unwrap();
    catch_unwind(AssertUnwindSafe(|| worker.poll_once())).unwrap_err();
    worker.abandon_stages();
    worker.swap(PortId(0), (Panics { at: 1, ..Panics::default() },)).unwrap();
    wires.lan.deliver(&packet(2)).unwrap();
    worker.drain(Duration::from_secs(5));
    let report = worker.report();
    assert_eq!((report.drops[Reason::SHUTDOWN], report.drops.total()), (1, 1));
    assert_eq!(report.paths[0].stages[0].account.packets, 1, "the account of the panicked stage");
    assert_eq!(numbers(&wires.wan.take_sent()), [0; 0]);
}

#[test]
fn panic_in_tick_loses_no_frame() {
    let (mut worker, wires) =
        cross_connect((Panics { in_tick: true, ..Panics::default() },), (Panics::default(),));
    wires.lan.deliver(&packet(1)).unwrap();
    let turns = catch_unwind(AssertUnwindSafe(|| {
        loop {
            worker.poll_once();
        }
    }));
    turns.unwrap_err();
    worker.abandon_stages();
    worker.drain(Duration::from_secs(5));
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
    assert_eq!(numbers(&wires.wan.take_sent()), [1]);
}
