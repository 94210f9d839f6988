//! Sequence numbers: the 32-bit wrap, and a crash.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::case::Case;
use crate::lab::Lab;
use crate::packets::{PacketSocket, UdpPair, esp, number};
use crate::support::{ip_batch, until};
use crate::{FROM_LINUX, LEFT, RIGHT, TO_LINUX, below_wrap, latest, until_received};

/// Returns the frames in another order, each within the window.
fn shuffle(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let count = frames.len();
    assert!(!count.is_multiple_of(7));
    (0..count).map(|index| frames[(index * 7 + 3) % count].clone()).collect()
}

#[test]
fn reordered_packets_around_32_bit_wrap_are_accepted_once() {
    const COUNT: u32 = 32;
    for high in [0, 5] {
        let start = below_wrap(high);
        let low = (start - 1) & 0xffff_ffff;
        let mut case = Case::plain();
        case.linux_in = format!("replay-seq {low} replay-seq-hi {high}");
        case.linux_out = format!("replay-oseq {low} replay-oseq-hi {high}");
        let lab = Lab::new(case);
        let hosts = UdpPair::new(&lab);
        lab.start_with_state(&[("next", start), ("highest", start - 1)]);
        // Capture ESP packets from Linux while no xdpfwd runs.
        lab.configure_linux();
        let (right, wan) = (
            PacketSocket::on(lab.chain.sink(), "sink0"),
            PacketSocket::on(lab.chain.fwd(), "fwd1"),
        );
        hosts.send(RIGHT, 0..COUNT, 100);
        let from_linux = right.receive(FROM_LINUX, COUNT as usize);
        // Capture ESP packets from xdpfwd while Linux has no SA.
        ip_batch(Some(lab.chain.sink()), "xfrm state flush\nxfrm policy flush\n");
        let running = lab.start();
        hosts.send(LEFT, 0..COUNT, 100);
        let from_xdpfwd = right.receive(TO_LINUX, COUNT as usize);
        for (frames, sender) in [(&from_linux, "Linux"), (&from_xdpfwd, "xdpfwd")] {
            let numbers: Vec<u32> = frames.iter().map(|frame| number(frame)).collect();
            let expected: Vec<u32> =
                (0..COUNT).map(|index| (start as u32).wrapping_add(index)).collect();
            assert_eq!(numbers, expected, "lower halves of the sequence numbers from {sender}");
        }
        let unknown = ("XfrmInNoStates", u64::from(COUNT));
        lab.assert_xfrm_stat(&[unknown]);
        lab.configure_linux();
        for (context, accepted) in [("first time", 0..COUNT), ("replayed", 0..0)] {
            right.send(&shuffle(&from_linux));
            hosts.assert_arrive(LEFT, accepted.clone(), &format!("to xdpfwd, {context}"));
            wan.send(&shuffle(&from_xdpfwd));
            hosts.assert_arrive(RIGHT, accepted, &format!("to Linux, {context}"));
        }
        lab.assert_xfrm_stat(&[unknown, ("XfrmInStateSeqError", u64::from(COUNT))]);
        until_received(&running, 3 * u64::from(COUNT));
        lab.assert_dropped(running, &[("replay", u64::from(COUNT))]);
        assert_eq!(lab.state("highest"), start - 1 + u64::from(COUNT));
        println!(
            "case: {COUNT} packets around {:#x}, out of order, and replayed",
            (high + 1) << 32
        );
    }
}

/// After a crash, the next run reuses no sequence number and no IV, and accepts no replay.
#[test]
fn crash_repeats_no_number_or_iv_and_accepts_no_replay() {
    const COUNT: u32 = 20;
    let lab = Lab::new(Case::plain());
    let hosts = UdpPair::new(&lab);
    let right = PacketSocket::on(lab.chain.sink(), "sink0");
    lab.configure_linux();
    let (mut numbers, mut ivs) = (BTreeSet::new(), BTreeSet::new());
    let mut from_linux = Vec::new();
    for run in 0..3 {
        let mut running = lab.start();
        // Packets of earlier runs.
        right.send(&from_linux);
        hosts.assert_arrive(LEFT, [], "replayed after a crash");
        let first = run * COUNT;
        let now = first..first + COUNT;
        for side in [LEFT, RIGHT] {
            hosts.send(side, now.clone(), 64);
            hosts.assert_arrive(1 - side, now.clone(), &format!("run {run}"));
        }
        for frame in right.receive(TO_LINUX, COUNT as usize) {
            let at = esp(&frame).unwrap().at;
            assert!(
                numbers.insert(number(&frame)),
                "run {run}: repeated number {:#x}",
                number(&frame)
            );
            assert!(ivs.insert(frame[at + 8..at + 16].to_vec()), "run {run}: repeated IV");
        }
        hosts.send(RIGHT, [u32::MAX - run], 64);
        from_linux.extend(right.receive(FROM_LINUX, 1));
        hosts.assert_arrive(LEFT, [u32::MAX - run], &format!("run {run}: packet to replay"));
        // xdpfwd writes the window to the state file once per second.
        let highest = u64::from((run + 1) * (COUNT + 1));
        until(&format!("{highest} is the highest in the file"), || lab.state("highest") == highest);
        let dropped = &latest(&running)["drops"];
        let rejected = ["replay", "late"].map(|reason| dropped[reason].as_u64().unwrap());
        assert_eq!(rejected.iter().sum::<u64>(), u64::from(run), "run {run}: {dropped}");
        running.signal(Signal::SIGKILL);
        running.wait();
        println!(
            "case: run {run}, killed: {} numbers, {} IVs, {rejected:?} rejected",
            numbers.len(),
            ivs.len()
        );
    }
    lab.assert_xfrm_stat(&[]);
}
