//! Reload, `Stage::retire`, and frames that a stage loses.

use xdpfwd_pipeline::testing::{Disposition, TestBench};
use xdpfwd_pipeline::{Cx, NamedStage, Reason, SnapshotError, Stage, View};

use crate::{DropOdd, Hold, ODD, frame, panic_message};

#[test]
fn reload_keeps_counters_and_state() {
    /// A stage whose state is its count. `restore` adds 100 to the old stage's count.
    struct Count(u8);
    impl Stage for Count {
        fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
            self.0 += view.len() as u8;
        }

        fn counters(&self) -> Vec<(&'static str, u64)> {
            vec![("count", self.0.into())]
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
    let mut bench = TestBench::new((Count(0), DropOdd::default()));
    bench.send_all("lan", [frame(0), frame(1)]);
    assert_eq!(bench.counters("DropOdd"), [("seen", 2)]);

    let result = bench.reload((DropOdd::default(), Count(0)));
    // `afresh` names the new stages that do not continue the state of an old stage.
    assert_eq!(result.afresh, Vec::<String>::new());
    bench.send("lan", &frame(0));
    assert_eq!(bench.counters("DropOdd"), [("seen", 3)]);
    // The reload adds the old stage's counter (2) to that of the new stage, which has restored its
    // state (2 + 100) and counted one packet.
    assert_eq!(bench.counters("Count"), [("count", 2 + 102 + 1)]);
    assert_eq!(bench.worker().stages_mut(|_, count: &mut Count| count.0), [103]);

    // A stage with the same name but another type starts without the old state and counters.
    let result = bench.reload(vec![NamedStage::new("DropOdd", Hold::default())]);
    assert_eq!(result.afresh, ["DropOdd"]);
    assert_eq!(bench.counters("DropOdd"), []);
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
fn retire_panics_if_stage_still_holds_frames() {
    let mut bench = TestBench::new(Hold { keeps_frames: true, ..Hold::default() });
    bench.send("lan", &frame(1));
    let message = panic_message(|| bench.retire());
    assert!(message.contains("frames that stages still hold after `Stage::retire`"), "{message}");
}

#[test]
fn bench_panics_on_send_and_on_drop_if_stage_lost_frame() {
    let mut bench = TestBench::new(Hold { loses_frames: true, ..Hold::default() });
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
