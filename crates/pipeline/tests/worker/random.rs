//! Random stages on a fake kernel with a random configuration.

use std::time::Duration;

use proptest::prelude::*;
use xdpfwd_pipeline::{Cx, PortId, Reason, Stage, Verdict, View};
use xdpfwd_testkit::wires::{LAN, WAN, assert_conserved, cross_connect_with, number, packet};
use xdpfwd_xsk::Frame;
use xdpfwd_xsk::fake_kernel::FakeKernelConfig;

/// Returns 0 to 15; depends only on the arguments.
fn random_action(seed: u64, packet_number: u64) -> u64 {
    let mut state = seed ^ packet_number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^= state >> 29;
    state.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 60
}

struct RandomStage {
    seed: u64,
    held: Vec<Frame>,
}

impl Stage for RandomStage {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for index in 0..view.len() {
            let packet = view.packet(index).unwrap();
            match random_action(self.seed, number(packet.frame)) {
                0 => view.set_verdict(index, Verdict::Drop(Reason::POLICY)),
                1 => view.set_verdict(index, Verdict::To(LAN)),
                2 => view.set_verdict(index, Verdict::To(PortId(200))), // no such port
                3 => self.held.extend(view.hold(index, cx)),
                4 => {
                    if let Some(frame) = self.held.pop() {
                        cx.emit(frame, WAN);
                    }
                }
                // `drop` discards the result, not the packet.
                5 => drop(packet.frame.prepend(40).map(|added| added.fill(0xee))),
                6 => drop(packet.frame.append(16).map(|added| added.fill(0xee))),
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

    /// After each iteration, every frame must have one owner. After `drain`, no frame may be in
    /// flight.
    #[test]
    fn random_stages_and_kernel_conserve_frames(
        seeds in any::<(u64, u64)>(),
        packet_counts in prop::collection::vec((0..100u64, 0..100u64), 1..40),
        budget in 0..100u32,
        completion_delay in prop::option::of(0..4u32),
    ) {
        let stage = |seed| (RandomStage { seed, held: vec![] },);
        let wan_config =
            FakeKernelConfig { budget, completion_delay, ..FakeKernelConfig::default() };
        let (mut worker, wires) = cross_connect_with(stage(seeds.0), stage(seeds.1), wan_config);
        let mut next_number = 0;
        for (lan_count, wan_count) in packet_counts {
            for (count, wire) in [(lan_count, &wires.lan), (wan_count, &wires.wan)] {
                for _ in 0..count {
                    // Fails if the fill ring is empty or the RX ring is full.
                    let _ = wire.deliver(&packet(next_number));
                    next_number += 1;
                }
            }
            worker.poll_once();
            assert_conserved(&mut worker);
        }
        wires.wan.set(FakeKernelConfig::default());
        // Transmit now: possibly the worker does not wake this fake kernel again.
        wires.wan.run();
        worker.drain(Duration::from_secs(5));
        let frames = assert_conserved(&mut worker);
        prop_assert_eq!((frames.in_flight, frames.rx), (0, 0));
    }
}
