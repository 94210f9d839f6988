//! Sequence numbers around the 32-bit wrap and after a crash.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::case::Case;
use crate::lab::Lab;
use crate::packets::{PacketSocket, UdpPair, parse_esp, sequence_number};
use crate::support::{ip_batch, until};
use crate::{
    LEFT, RIGHT, SPI_FROM_LINUX, SPI_TO_LINUX, latest, sequence_number_before_wrap,
    wait_until_received,
};

/// Returns the frames in another, fixed order. All must fit into the anti-replay window.
fn shuffle(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let count = frames.len();
    // Steps of 7 reach every index if 7 does not divide the number of frames.
    assert!(!count.is_multiple_of(7));
    (0..count).map(|index| frames[(index * 7 + 3) % count].clone()).collect()
}

#[test]
fn reordered_packets_around_32_bit_wrap_are_accepted_once() {
    const COUNT: u32 = 32;
    for upper in [0, 5] {
        let start = sequence_number_before_wrap(upper);
        let lower = (start - 1) & 0xffff_ffff;
        let mut case = Case::ipv4_tunnel();
        case.linux_in = format!("replay-seq {lower} replay-seq-hi {upper}");
        case.linux_out = format!("replay-oseq {lower} replay-oseq-hi {upper}");
        let lab = Lab::new(case);
        let hosts = UdpPair::new(&lab);
        lab.write_state(&[("next", start), ("highest", start - 1)]);
        // Capture ESP packets from Linux while no xdpfwd runs.
        lab.configure_linux();
        let (right_socket, wan_socket) = (
            PacketSocket::open(lab.namespaces.sink(), "sink0"),
            PacketSocket::open(lab.namespaces.fwd(), "fwd1"),
        );
        hosts.send(RIGHT, 0..COUNT, 100);
        let from_linux = right_socket.receive(SPI_FROM_LINUX, COUNT as usize);
        // Capture ESP packets from xdpfwd while Linux has no SA.
        ip_batch(Some(lab.namespaces.sink()), "xfrm state flush\nxfrm policy flush\n");
        let running = lab.start();
        hosts.send(LEFT, 0..COUNT, 100);
        let from_xdpfwd = right_socket.receive(SPI_TO_LINUX, COUNT as usize);
        for (frames, sender) in [(&from_linux, "Linux"), (&from_xdpfwd, "xdpfwd")] {
            let numbers: Vec<u32> = frames.iter().map(|frame| sequence_number(frame)).collect();
            let expected: Vec<u32> =
                (0..COUNT).map(|index| (start as u32).wrapping_add(index)).collect();
            assert_eq!(numbers, expected, "lower halves of the sequence numbers from {sender}");
        }
        let packets_without_sa = ("XfrmInNoStates", u64::from(COUNT));
        lab.assert_xfrm_stat(&[packets_without_sa]);
        lab.configure_linux();
        for (context, accepted) in [("first time", 0..COUNT), ("replayed", 0..0)] {
            right_socket.send(&shuffle(&from_linux));
            hosts.assert_arrive(LEFT, accepted.clone(), &format!("to xdpfwd, {context}"));
            wan_socket.send(&shuffle(&from_xdpfwd));
            hosts.assert_arrive(RIGHT, accepted, &format!("to Linux, {context}"));
        }
        lab.assert_xfrm_stat(&[packets_without_sa, ("XfrmInStateSeqError", u64::from(COUNT))]);
        wait_until_received(&running, 3 * u64::from(COUNT));
        lab.assert_dropped(running, &[("replay", u64::from(COUNT))]);
        assert_eq!(lab.state_value("highest"), start - 1 + u64::from(COUNT));
        println!(
            "case: {COUNT} packets around {:#x}, out of order, and replayed",
            (upper + 1) << 32
        );
    }
}

#[test]
fn run_after_crash_reuses_no_sequence_number_or_iv_and_rejects_replays() {
    const COUNT: u32 = 20;
    let lab = Lab::new(Case::ipv4_tunnel());
    let hosts = UdpPair::new(&lab);
    let right_socket = PacketSocket::open(lab.namespaces.sink(), "sink0");
    lab.configure_linux();
    let (mut sequence_numbers, mut ivs) = (BTreeSet::new(), BTreeSet::new());
    let mut from_linux = Vec::new();
    for run in 0..3 {
        let mut running = lab.start();
        // Replay packets of earlier runs.
        right_socket.send(&from_linux);
        hosts.assert_arrive(LEFT, [], "replayed after a crash");
        let first = run * COUNT;
        let numbers = first..first + COUNT;
        for side in [LEFT, RIGHT] {
            hosts.send(side, numbers.clone(), 64);
            hosts.assert_arrive(1 - side, numbers.clone(), &format!("run {run}"));
        }
        for frame in right_socket.receive(SPI_TO_LINUX, COUNT as usize) {
            let offset = parse_esp(&frame).unwrap().offset;
            assert!(
                sequence_numbers.insert(sequence_number(&frame)),
                "run {run}: repeated sequence number {:#x}",
                sequence_number(&frame)
            );
            assert!(ivs.insert(frame[offset + 8..offset + 16].to_vec()), "run {run}: repeated IV");
        }
        // Capture a packet that later runs replay.
        hosts.send(RIGHT, [u32::MAX - run], 64);
        from_linux.extend(right_socket.receive(SPI_FROM_LINUX, 1));
        hosts.assert_arrive(LEFT, [u32::MAX - run], &format!("run {run}: packet to replay"));
        // xdpfwd writes the anti-replay window to the state file four times per second.
        let highest = u64::from((run + 1) * (COUNT + 1));
        until(&format!("the state file has {highest} as the highest sequence number"), || {
            lab.state_value("highest") == highest
        });
        let dropped = &latest(&running)["drops"];
        let rejected = ["replay", "late"].map(|reason| dropped[reason].as_u64().unwrap());
        assert_eq!(rejected.iter().sum::<u64>(), u64::from(run), "run {run}: {dropped}");
        running.signal(Signal::SIGKILL);
        running.wait();
        println!(
            "case: run {run}, killed: {} sequence numbers, {} IVs, {rejected:?} rejected",
            sequence_numbers.len(),
            ivs.len()
        );
    }
    lab.assert_xfrm_stat(&[]);
}
