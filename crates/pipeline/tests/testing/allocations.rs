//! Assertions that no memory is allocated.

use xdpfwd_pipeline::testing::{Disposition, TestBench, assert_no_allocation};
use xdpfwd_pipeline::{Cx, Stage, View};

use crate::{DropOdd, ODD, ToPort, frame, panic_message};

#[test]
fn assert_no_allocation_returns_result_or_panics_with_counts() {
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
    let mut bench = TestBench::new((DropOdd::default(), ToPort));
    bench.assert_no_allocation("lan", &frames); // discards the sent frames
    assert_eq!(bench.counters("DropOdd"), [("seen", 200)]);
    assert!(bench.take_sent("lan").is_empty());
    assert_eq!(bench.send("lan", &frame(0)), Disposition::sent("lan", frame(0)));
    let mut bench = TestBench::new(Allocates);
    let message = panic_message(|| bench.assert_no_allocation("lan", &frames));
    // The first batch has 64 packets; `Allocates` allocates once for each.
    assert!(message.contains("64 allocations"), "{message}");
}
