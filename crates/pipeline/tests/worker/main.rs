//! The worker on the fake kernel: packets are sent or counted, nothing blocks, and no frame leaks.

mod build;
mod drain;
mod forwarding;
mod hold;
mod panic;
mod port_loss;
mod random;
mod swap;
mod thread;
mod verdicts;

use xdpfwd_pipeline::{Cx, Reason, Stage, Verdict, View};
use xdpfwd_testkit::wires::{LAN, WAN, number};
use xdpfwd_xsk::Frame;

/// Holds each packet until the next one arrives, then emits it on wan. Also emits a copy of every
/// fifth packet on lan, at once.
#[derive(Default)]
struct DelayByOne {
    held: Option<Frame>,
}

impl Stage for DelayByOne {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for index in 0..view.len() {
            let number = number(view.packet(index).unwrap().frame);
            if let Some(previous) = self.held.take() {
                cx.emit(previous, WAN);
            }
            match view.hold(index, cx) {
                Some(frame) => {
                    if number.is_multiple_of(5)
                        && let Some(mut copy) = cx.alloc()
                    {
                        copy.append(frame.len()).unwrap().copy_from_slice(&frame);
                        cx.emit(copy, LAN);
                    }
                    self.held = Some(frame);
                }
                None => view.set_verdict(index, Verdict::Drop(Reason::HOLD_QUOTA)),
            }
        }
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        if let Some(frame) = self.held.take() {
            cx.emit(frame, WAN);
        }
    }
}
