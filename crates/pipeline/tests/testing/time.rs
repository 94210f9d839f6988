//! The clock that stages see, and the ticks of stages.

use std::time::Duration;

use xdpfwd_pipeline::testing::{Disposition, TestBench};
use xdpfwd_pipeline::{Cx, Reason, Stage, View};
use xdpfwd_xsk::clock;

use crate::{Hold, frame};

/// Passes at most one packet per 10 ms, and drops the others.
struct TokenBucket {
    /// Time from which the next packet may pass, in cycles.
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
        assert_eq!(
            bench.send("lan", &frame(round)),
            limited,
            "the clock advanced without `advance`"
        );
        bench.advance(Duration::from_micros(9999));
        assert_eq!(bench.send("lan", &frame(round)), limited);
        bench.advance(Duration::from_micros(1));
    }
}

#[test]
fn clock_is_stopped_even_with_ledger_off() {
    let mut bench = TestBench::new(TokenBucket { full_at: 0 });
    // With the ledger on, `Cx::now` is the ledger's last time stamp; with the ledger off, a new
    // reading of the clock. The bench must stop both.
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
    assert_eq!(ticks(&mut bench), 3, "expected ticks after 100 and 200 ms, and at the end");
    bench.send("lan", &frame(1));
    bench.advance(Duration::from_millis(1));
    assert_eq!(ticks(&mut bench), 1);
    bench.send("lan", &frame(1));
    bench.advance(Duration::from_millis(101));
    assert_eq!(ticks(&mut bench), 2, "expected ticks after 1 ms (emits the frame) and at the end");
}

#[test]
fn advance_by_an_idle_hour_takes_less_than_10_s() {
    let mut bench = TestBench::new(Hold::default());
    let start = std::time::Instant::now();
    bench.advance(Duration::from_secs(3600));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
