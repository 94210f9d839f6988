//! Verdicts of stages, and drop reasons.

use xdpfwd_pipeline::{Cx, DropReason, PortId, Reason, Stage, Verdict, View};
use xdpfwd_testkit::wires::{
    LAN, assert_conserved, cross_connect, number, numbers, packet, umem_config,
};
use xdpfwd_xsk::{Frame, Umem};

struct VerdictByNumber;

impl VerdictByNumber {
    fn verdict(number: u64) -> Verdict {
        match number % 7 {
            0 => Verdict::Drop(Reason::POLICY),
            1 => Verdict::To(LAN),
            2 => Verdict::To(PortId(9)),
            _ => Verdict::Next,
        }
    }
}

impl Stage for VerdictByNumber {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for index in 0..view.len() {
            let number = number(view.packet(index).unwrap().frame);
            view.set_verdict(index, Self::verdict(number));
        }
        view.set_verdict(view.len(), Verdict::To(LAN)); // beyond the last index: has no effect
    }
}

#[derive(Default)]
struct AssertOrder {
    last: Option<u64>,
}

impl Stage for AssertOrder {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            let number = number(packet.frame);
            assert!(self.last.is_none_or(|last| last < number), "packets are out of order");
            self.last = Some(number);
        }
    }
}

#[test]
fn verdicts_are_applied_and_next_stage_gets_remaining_packets_in_order() {
    let (mut worker, wires) = cross_connect(
        (VerdictByNumber, AssertOrder::default()),
        (VerdictByNumber, AssertOrder::default()),
    );
    for n in 0..100 {
        wires.lan.deliver(&packet(n)).unwrap();
    }
    while worker.poll_once() > 0 {}
    let numbers_with = |verdict: Verdict| {
        (0..100).filter(|&n| VerdictByNumber::verdict(n) == verdict).collect::<Vec<u64>>()
    };
    assert_eq!(numbers(&wires.wan.take_sent()), numbers_with(Verdict::Next));
    assert_eq!(numbers(&wires.lan.take_sent()), numbers_with(Verdict::To(LAN)));
    let report = worker.report();
    assert_eq!(
        report.drops[Reason::POLICY],
        numbers_with(Verdict::Drop(Reason::POLICY)).len() as u64
    );
    assert_eq!(
        report.drops[Reason::NO_SUCH_PORT],
        numbers_with(Verdict::To(PortId(9))).len() as u64
    );
    let [first, second] = &report.paths[0].stages[..] else { panic!("expected two stages") };
    assert_eq!((first.name.as_str(), first.account.packets), ("VerdictByNumber", 100));
    assert_eq!(first.account.drops, report.drops.total());
    assert_eq!(second.account.packets, numbers_with(Verdict::Next).len() as u64);
    assert_conserved(&mut worker);
}

/// Cuts frames to 13 and to 0 bytes, alternately.
struct CutFrames;

impl Stage for CutFrames {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for (index, packet) in view.packets().enumerate() {
            match index % 2 {
                0 => packet.frame.truncate(13),
                _ => packet.frame.trim_front(usize::MAX),
            }
        }
    }
}

#[test]
fn frame_shorter_than_ethernet_header_is_dropped_as_runt() {
    let (mut worker, wires) = cross_connect((CutFrames,), (CutFrames,));
    (0..10).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
    worker.poll_once();
    assert_eq!(worker.report().drops[Reason::RUNT], 10);
    assert_conserved(&mut worker);
}

/// Replaces the frame of each packet by the last frame in its list, and puts the packet's frame at
/// the front of the list.
struct ExchangeFrames(Vec<Frame>);

impl Stage for ExchangeFrames {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            if let Some(frame) = self.0.pop() {
                self.0.insert(0, std::mem::replace(packet.frame, frame));
            }
        }
    }
}

#[test]
fn frame_of_another_umem_is_dropped_as_foreign_frame() {
    let (_other, mut other_pool) = Umem::new(&umem_config()).unwrap();
    let mut foreign = other_pool.alloc().unwrap();
    foreign.append(60).unwrap().fill(1);
    let (mut worker, wires) =
        cross_connect((ExchangeFrames(vec![foreign]),), (ExchangeFrames(vec![]),));
    wires.lan.deliver(&packet(1)).unwrap();
    wires.lan.deliver(&packet(2)).unwrap();
    worker.poll_once();
    assert_eq!(worker.report().drops[Reason::FOREIGN_FRAME], 1);
    assert!(wires.wan.take_sent().len() <= 1, "a frame of another UMEM was sent");
}

static ODD_NUMBER: DropReason = DropReason::new("odd_number", "The number in the packet is odd.");

struct DropOddNumbers;

impl Stage for DropOddNumbers {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for mut packet in view.packets() {
            if number(packet.frame) % 2 == 1 {
                packet.drop(&ODD_NUMBER);
            }
        }
    }
}

#[test]
fn drop_is_counted_under_reason_that_stage_registered() {
    ODD_NUMBER.register().unwrap();
    let (mut worker, wires) = cross_connect((DropOddNumbers,), (DropOddNumbers,));
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
    static FORGOTTEN: DropReason =
        DropReason::new("forgotten", "A reason that is never registered.");
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
