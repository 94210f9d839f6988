//! Tests of the test bench, which reports what became of each packet (its disposition).

#![cfg(feature = "testing")]

#[cfg(feature = "count-allocations")]
mod allocations;
mod dispositions;
mod names;
mod plans;
mod reload;
mod time;

use std::panic::{AssertUnwindSafe, catch_unwind};

use xdpfwd_pipeline::{Cx, DropReason, PortId, Stage, View};
use xdpfwd_xsk::Frame;

static ODD: DropReason = DropReason::new("test_bench_odd", "The first byte is odd.");

fn frame(first_byte: u8) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[0] = first_byte;
    frame
}

fn panic_message<R>(run: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).err().expect("the closure did not panic");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// Drops packets with an odd first byte, and counts all packets.
#[derive(Default)]
struct DropOdd {
    seen: u64,
}

impl Stage for DropOdd {
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

    /// Returns an empty state, so that a reload calls `restore`.
    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(vec![])
    }
}

/// Sends each packet to the port whose number is the packet's first byte.
struct ToPort;

impl Stage for ToPort {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        view.packets().for_each(|mut packet| packet.send_to(PortId(packet.frame[0])));
    }
}

/// Holds packets until the next tick. Then emits them on the path's egress port, and one new frame
/// on port 0.
#[derive(Default)]
struct Hold {
    held: Vec<Frame>,
    ticks: u64,
    /// Whether `process` loses the frames, by dropping the `Frame` values.
    loses_frames: bool,
    /// Whether `retire` emits no frame, so that the stage still holds its frames afterwards.
    keeps_frames: bool,
}

impl Hold {
    fn emit_held(&mut self, cx: &mut Cx<'_>) {
        self.held.drain(..).for_each(|frame| cx.emit(frame, cx.to()));
    }
}

impl Stage for Hold {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let held = (0..view.len()).filter_map(|index| view.hold(index, cx));
        self.held.extend(held);
        if self.loses_frames {
            self.held.clear();
        }
    }

    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.ticks += 1;
        if self.held.is_empty() {
            return;
        }
        self.emit_held(cx);
        let mut new_frame = cx.alloc().unwrap();
        new_frame.append(14).unwrap().fill(9);
        cx.emit(new_frame, PortId(0));
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        if !self.keeps_frames {
            self.emit_held(cx);
        }
    }
}
