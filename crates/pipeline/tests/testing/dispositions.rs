//! The disposition of each packet: what became of it.

use std::time::Duration;

use xdpfwd_pipeline::testing::{Disposition, TestBench};
use xdpfwd_pipeline::{Cx, DropReason, Reason, Stage, View};
use xdpfwd_xsk::fake_kernel::FakeKernelConfig;
use xdpfwd_xsk::{HugePages, UmemConfig};

use crate::{DropOdd, Hold, ODD, ToPort, frame, panic_message};

#[test]
fn disposition_of_sent_packet_has_egress_port_and_frame() {
    let mut bench = TestBench::new(());
    assert_eq!(bench.send("lan", &frame(1)), Disposition::sent("wan", frame(1)));
    assert_eq!(bench.send("wan", &frame(2)), Disposition::sent("lan", frame(2)));
    assert_eq!(bench.send("lan", &frame(3)).expect_sent("wan"), frame(3));
    assert!(bench.take_sent("wan").is_empty() && bench.take_sent("lan").is_empty());
}

#[test]
fn disposition_of_dropped_packet_names_reason() {
    ODD.register().unwrap();
    let mut bench = TestBench::new((DropOdd::default(),));
    let disposition = bench.send("lan", &frame(1));
    assert_eq!(disposition, Disposition::dropped(&ODD));
    assert_eq!(disposition.drop_reason(), Some("test_bench_odd"));
    assert_eq!(disposition.sent_frame(), None);
    assert_eq!(format!("{disposition:?}"), "Dropped { reason: test_bench_odd }");
    assert_eq!(bench.drops(), [("test_bench_odd", 1)]);
    assert_eq!(bench.report().paths[0].stages[0].account.drops, 1);
}

#[test]
fn drop_under_unregistered_reason_has_drop_reason_unregistered() {
    static FORGOTTEN: DropReason =
        DropReason::new("test_bench_forgotten", "A reason that is never registered.");
    struct DropAll;
    impl Stage for DropAll {
        fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
            view.packets().for_each(|mut packet| packet.drop(&FORGOTTEN));
        }
    }
    let disposition = TestBench::new(DropAll).send("lan", &frame(1));
    assert_eq!(disposition.drop_reason(), Some("unregistered"));
}

#[test]
fn packet_leaves_on_port_of_verdict() {
    let builder = TestBench::builder().port("n3").port("n6").port("n9");
    let mut bench = builder.path("n3", "n6", ToPort).build().unwrap();
    for (number, name) in [(0, "n3"), (1, "n6"), (2, "n9")] {
        assert_eq!(bench.send("n3", &frame(number)), Disposition::sent(name, frame(number)));
    }
    assert_eq!(bench.send("n3", &frame(3)), Disposition::dropped(Reason::NO_SUCH_PORT));
}

#[test]
fn send_all_returns_one_disposition_per_packet_in_order() {
    ODD.register().unwrap();
    let mut bench = TestBench::new((DropOdd::default(), ToPort));
    let frames: Vec<_> = (0..200_u8).map(|number| frame(number % 4)).collect();
    let dispositions = bench.send_all("lan", &frames);
    for (number, disposition) in dispositions.iter().enumerate() {
        let expected = match number % 4 {
            0 => Disposition::sent("lan", frame(0)),
            2 => Disposition::dropped(Reason::NO_SUCH_PORT), // the bench has only ports 0 and 1
            _ => Disposition::dropped(&ODD),
        };
        assert_eq!(*disposition, expected, "{number}");
    }
    assert_eq!(dispositions.len(), 200);
    let report = bench.report();
    let account = &report.paths[0].stages[0].account;
    assert_eq!((account.calls, account.packets), (4, 200), "expected batches of 64, 64, 64 and 8");
}

#[test]
fn held_frame_is_emitted_by_tick_and_returned_by_take_sent() {
    let mut bench = TestBench::new(Hold::default());
    let dispositions = bench.send_all("lan", [frame(1), frame(2)]);
    assert_eq!(dispositions, [Disposition::Held, Disposition::Held]);
    assert_eq!(bench.assert_conserved().in_flight, 2);
    assert!(bench.take_sent("wan").is_empty(), "a stage ticked without `advance`");
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.take_sent("wan"), [frame(1), frame(2)]);
    assert_eq!(bench.take_sent("lan"), [[9; 14]], "the new frame of `Hold::tick`");
    assert!(bench.take_sent("wan").is_empty());
    assert_eq!(bench.assert_conserved().in_flight, 0);
}

#[test]
fn frame_emitted_within_its_batch_is_sent() {
    struct HoldAndEmit;
    impl Stage for HoldAndEmit {
        fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
            for index in 0..view.len() {
                let frame = view.hold(index, cx).unwrap();
                cx.emit(frame, cx.to());
            }
        }
    }
    let disposition = TestBench::new(HoldAndEmit).send("lan", &frame(1));
    assert_eq!(disposition, Disposition::sent("wan", frame(1)));
}

#[test]
fn frame_in_reused_chunk_does_not_change_disposition_of_dropped_packet() {
    struct Replace;
    impl Stage for Replace {
        fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
            for index in 0..view.len() {
                let frame = view.hold(index, cx).unwrap();
                let chunk = frame.chunk();
                cx.drop(frame, Reason::POLICY);
                let mut new_frame = cx.alloc().unwrap();
                assert_eq!(new_frame.chunk(), chunk, "the pool did not reuse the chunk");
                new_frame.append(60).unwrap().fill(5);
                cx.emit(new_frame, cx.to());
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
fn packets_to_stalled_port_are_unsent_until_it_works() {
    let mut bench = TestBench::new(());
    // With `budget: 0`, the fake kernel sends no packet.
    bench.kernel("wan").set(FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() });
    let frames: Vec<_> = (0..200).map(frame).collect();
    assert_eq!(bench.send_all("lan", &frames), vec![Disposition::Unsent; 200]);
    bench.kernel("wan").set(FakeKernelConfig::default());
    assert_eq!(bench.send("lan", &frame(250)), Disposition::sent("wan", frame(250)));
    assert_eq!(bench.take_sent("wan"), frames);
}

#[test]
fn more_frames_than_tx_ring_entries_are_all_sent() {
    /// Emits four copies of each packet: with 64 packets, the worker has 320 frames to send, but
    /// the TX ring has 128 entries.
    struct EmitCopies;
    impl Stage for EmitCopies {
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
    let mut bench = TestBench::new(EmitCopies);
    let frames: Vec<_> = (0..64).map(frame).collect();
    let dispositions = bench.send_all("lan", &frames);
    assert!(dispositions.into_iter().map(|it| it.expect_sent("wan")).eq(frames));
    assert_eq!(bench.take_sent("wan").len(), 4 * 64);
}

#[test]
fn send_of_too_long_packet_panics_with_its_length_and_limit() {
    // A chunk has 2048 bytes, of which 256 are headroom.
    let mut bench = TestBench::new(());
    assert_eq!(bench.send("lan", &[1; 1792]), Disposition::sent("wan", [1; 1792]));
    let message = panic_message(|| bench.send("lan", &[1; 1793]));
    assert!(message.contains("1793 bytes") && message.contains("room for 1792"), "{message}");
    assert_eq!(bench.send("lan", &[1; 60]), Disposition::sent("wan", [1; 60]));

    let umem = UmemConfig { frame_size: 4096, frames: 1024, huge_pages: HugePages::Off };
    let mut bench = TestBench::builder().umem(umem).path("lan", "wan", ()).build().unwrap();
    assert_eq!(bench.send("lan", &[1; 4096 - 256]), Disposition::sent("wan", [1; 3840]));
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
