//! Random stages on a random kernel.

use std::time::Duration;

use proptest::prelude::*;
use xdpfwd_pipeline::{Cx, PortId, Reason, Stage, Verdict, View};
use xdpfwd_testkit::wires::{LAN, WAN, assert_conserved, cross_connect_with, number, packet};
use xdpfwd_xsk::Frame;
use xdpfwd_xsk::fake_kernel::FakeKernelConfig;

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
        for index in 0..view.len() {
            let packet = view.packet(index).unwrap();
            match random_verdict(self.seed, number(packet.frame)) {
                0 => view.set(index, Verdict::Drop(Reason::POLICY)),
                1 => view.set(index, Verdict::To(LAN)),
                2 => view.set(index, Verdict::To(PortId(200))),
                3 => self.held.extend(view.hold(index, cx)),
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

    /// With any stages and kernel, every frame has one owner after each iteration, and in the end
    /// no frame is in flight.
    #[test]
    fn random_stages_and_kernel_conserve_frames(
        seeds in any::<(u64, u64)>(),
        loads in prop::collection::vec((0..100u64, 0..100u64), 1..40),
        budget in 0..100u32,
        delay in prop::option::of(0..4u32),
    ) {
        let stage = |seed| (Random { seed, held: vec![] },);
        let behaviour = FakeKernelConfig { budget, completion_delay: delay, ..FakeKernelConfig::default() };
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
        wires.wan.set(FakeKernelConfig::default());
        // Report pending completions now: no later wake-up may come.
        wires.wan.run();
        worker.drain(Duration::from_secs(5));
        let frames = assert_conserved(&mut worker);
        prop_assert_eq!((frames.in_flight, frames.rx), (0, 0));
    }
}
