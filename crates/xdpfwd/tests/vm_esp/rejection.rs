//! Packets that Linux or xdpfwd must not accept.

use std::process::Command;

use nix::errno::Errno;
use xdpfwd_testkit::process::run;

use crate::case::Version::V4;
use crate::case::{AES_128, Case, GMAC_256};
use crate::lab::Lab;
use crate::packets::{PacketSocket, UdpPair, esp, fix_lengths, flip_bits, number, with_word};
use crate::support::until;
use crate::{FROM_LINUX, LEFT, RIGHT, TO_LINUX, until_received};

/// Checks Linux's error counters for packets from xdpfwd that are altered, replayed or late.
#[test]
fn linux_rejects_altered_replayed_and_late_packets() {
    const COUNT: u32 = 40;
    const MANY: u32 = 200;
    const WINDOW: u32 = 64;
    for esn in [true, false] {
        let mut case = Case { esn, ..Case::plain() };
        let window = if esn { WINDOW } else { 32 };
        case.linux_in = format!("replay-window {window}");
        let lab = Lab::new(case);
        let name = lab.case.name();
        let hosts = UdpPair::new(&lab);
        let (right, wan) = (
            PacketSocket::on(lab.chain.sink(), "sink0"),
            PacketSocket::on(lab.chain.fwd(), "fwd1"),
        );
        let running = lab.start();
        hosts.send(LEFT, 1..=MANY, 64);
        let all = right.receive(TO_LINUX, MANY as usize);
        let numbers: Vec<u32> = all.iter().map(|frame| number(frame)).collect();
        assert_eq!(
            numbers,
            (1..=MANY).collect::<Vec<_>>(),
            "{name}: sequence numbers of a first run"
        );
        let frames = &all[..COUNT as usize];
        let (count, mut unknown) = (u64::from(COUNT), u64::from(MANY));
        // Linux has no SA yet.
        lab.assert_xfrm_stat(&[("XfrmInNoStates", unknown)]);
        lab.configure_linux();
        wan.send(&flip_bits(frames));
        wan.send(&with_word(frames, 0, TO_LINUX + 1));
        unknown += count;
        lab.assert_xfrm_stat(&[("XfrmInNoStates", unknown), ("XfrmInStateProtoError", count)]);
        hosts.assert_arrive(RIGHT, [], &format!("{name}: altered"));
        wan.send(frames);
        hosts.assert_arrive(RIGHT, 1..=COUNT, &name);
        wan.send(frames);
        let counted = |altered, replayed| {
            [
                ("XfrmInNoStates", unknown),
                ("XfrmInStateProtoError", altered),
                ("XfrmInStateSeqError", replayed),
            ]
        };
        lab.assert_xfrm_stat(&counted(count, count));
        hosts.assert_arrive(RIGHT, [], &format!("{name}: replayed"));
        // The highest number, the highest below the window, and the lowest in the window.
        let by_number = |number: u32| &all[number as usize - 1];
        wan.send([by_number(MANY), by_number(MANY - window), by_number(MANY - window + 1)]);
        hosts.assert_arrive(
            RIGHT,
            [MANY, MANY - window + 1],
            &format!("{name}: around the window"),
        );
        // With ESN, the receiver takes a number below the window for one 2^32 higher, so the ICV is
        // wrong.
        let below_window_altered = u64::from(esn);
        lab.assert_xfrm_stat(&counted(
            count + below_window_altered,
            count + 1 - below_window_altered,
        ));
        until_received(&running, u64::from(MANY));
        lab.assert_dropped(running, &[]);
        println!("case: {name}: Linux counts {:?}", lab.xfrm_stat());
    }
}

/// Checks xdpfwd's drops of packets from Linux that are altered, replayed or late, and of packets
/// that Linux never sends.
#[test]
fn xdpfwd_rejects_altered_replayed_and_late_packets() {
    const COUNT: u32 = 40;
    const MANY: u32 = 200;
    const WINDOW: u32 = 64;
    for (transform, esn) in [(AES_128, true), (GMAC_256, true), (AES_128, false)] {
        let mut case = Case { esn, ..Case::new(transform, V4, Some(V4)) };
        case.open = format!("window = {WINDOW}");
        let lab = Lab::new(case);
        let name = lab.case.name();
        let hosts = UdpPair::new(&lab);
        let right = PacketSocket::on(lab.chain.sink(), "sink0");
        lab.configure_linux();
        hosts.send(RIGHT, 1..=MANY, 64);
        let all = right.receive(FROM_LINUX, MANY as usize);
        let numbers: Vec<u32> = all.iter().map(|frame| number(frame)).collect();
        assert_eq!(numbers, (1..=MANY).collect::<Vec<_>>(), "{name}: sequence numbers from Linux");
        let frames = &all[..COUNT as usize];
        let by_number = |number: u32| all[number as usize - 1].clone();
        let running = lab.start();
        // Numbers that Linux did not send: 0 and 2^32 - 1.
        let fresh = by_number(MANY - 1);
        let with_number = |number| with_word(std::slice::from_ref(&fresh), 4, number);
        right.send(&with_number(0));
        right.send(&with_number(u32::MAX));
        right.send(&flip_bits(frames));
        right.send(&with_word(frames, 0, FROM_LINUX + 1));
        hosts.assert_arrive(LEFT, [], &format!("{name}: altered"));
        right.send(frames);
        hosts.assert_arrive(LEFT, 1..=COUNT, &name);
        right.send(frames);
        hosts.assert_arrive(LEFT, [], &format!("{name}: replayed"));
        // Send separately: all packets of a batch are checked before the window advances.
        right.send([&by_number(MANY)]);
        hosts.assert_arrive(LEFT, [MANY], &format!("{name}: highest number"));
        right.send(&[MANY - WINDOW, MANY - WINDOW + 1].map(by_number));
        hosts.assert_arrive(LEFT, [MANY - WINDOW + 1], &format!("{name}: around the window"));
        // A truncated packet, a fragment, a packet for another host, and a packet that is not ESP.
        let cut = fix_lengths(fresh[..fresh.len() - 2].to_vec());
        let mut fragment = fresh.clone();
        fragment[20] |= 0x20;
        let mut for_another = fresh.clone();
        for_another[33] = 99;
        let mut gre = fresh.clone();
        gre[23] = 47;
        right.send([&cut, &fix_lengths(fragment), &fix_lengths(for_another), &fix_lengths(gre)]);
        right.send([&fresh]);
        hosts.assert_arrive(LEFT, [MANY - 1], &format!("{name}: unaltered"));
        let count = u64::from(COUNT);
        // Two numbers, 40 flipped, 40 with another SPI, 40 twice, 3 around the window, 5 others.
        until_received(&running, 4 * count + 10);
        // Number 0 is late. With ESN, 2^32 - 1 precedes number 0 and is late, and the number below
        // the window is taken for one 2^32 higher, so its tag is wrong. Without ESN, the number
        // below the window is late, and 2^32 - 1 is new, so its tag is wrong.
        let last = lab.assert_dropped(
            running,
            &[
                ("bad_tag", count + 1),
                ("no_sa", count + 1),
                ("replay", count),
                ("late", 2),
                ("bad_length", 1),
                ("esp_fragment", 1),
                ("unprotected", 1),
            ],
        );
        println!("case: {name}: xdpfwd counts {}", last.json["drops"]);
    }
}

/// Packets in UDP that are not ESP, and ESP that lacks the UDP header.
#[test]
fn udp_packets_other_than_esp_are_dropped() {
    let lab = Lab::new(Case::plain().in_udp());
    let hosts = UdpPair::new(&lab);
    let right = PacketSocket::on(lab.chain.sink(), "sink0");
    lab.configure_linux();
    hosts.send(RIGHT, 1..=3, 64);
    let frames = right.receive(FROM_LINUX, 3);
    let running = lab.start();
    // A NAT keepalive, IKE after the non-ESP marker, another port, and ESP without UDP.
    let at = esp(&frames[0]).unwrap().at;
    let of_udp = |payload: &[u8]| {
        let mut frame = [&frames[0][..at], payload].concat();
        let length = (8 + payload.len()) as u16;
        frame[at - 4..at - 2].copy_from_slice(&length.to_be_bytes());
        fix_lengths(frame)
    };
    let keepalive = of_udp(&[0xff]);
    let ike = of_udp(&[0; 32]);
    let mut elsewhere = frames[0].clone();
    elsewhere[at - 6..at - 4].copy_from_slice(&4501_u16.to_be_bytes());
    let mut not_in_udp = [&frames[0][..at - 8], &frames[0][at..]].concat();
    not_in_udp[23] = 50;
    right.send([&keepalive, &ike, &elsewhere, &fix_lengths(not_in_udp)]);
    right.send(&frames);
    hosts.assert_arrive(LEFT, 1..=3, "in UDP");
    until_received(&running, 7);
    let last = lab.assert_dropped(running, &[("dummy", 1), ("unprotected", 2), ("no_sa", 1)]);
    println!("case: {}: xdpfwd counts {}", lab.case.name(), last.json["drops"]);
}

/// Packets larger than the path MTU, from either host, in tunnel and transport mode.
#[test]
fn esp_fragments_are_dropped_and_inner_fragments_pass() {
    const LARGE: usize = 3000;
    let lab = Lab::new(Case::plain());
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    // The host learns the path MTU, and then sends fragments that fit.
    hosts.send(LEFT, [1], lab.case.largest() - 27);
    let route =
        || run(Command::new("ip").args(["-n", lab.side(LEFT).name(), "route", "get", "10.77.0.2"]));
    until("the host has learned the path MTU", || {
        route().contains(&format!(" mtu {}", lab.case.largest()))
    });
    let error = hosts.0[LEFT].take_error().unwrap().and_then(|error| error.raw_os_error());
    assert_eq!(error, Some(Errno::EMSGSIZE as i32));
    hosts.send(LEFT, [2], LARGE);
    hosts.assert_arrive(RIGHT, [2], "inner fragments, each encapsulated");
    // Linux encapsulates first, and then fragments the result.
    hosts.send(RIGHT, [3], LARGE);
    until_received(&running, 1 + 3 + 3);
    hosts.assert_arrive(LEFT, [], "fragments of ESP");
    let last = lab.assert_dropped(running, &[("esp_fragment", 3)]);
    println!(
        "case: {}: a packet of {LARGE} bytes each way: {}",
        lab.case.name(),
        last.json["drops"]
    );

    let lab = Lab::new(Case::new(AES_128, V4, None));
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    for side in [LEFT, RIGHT] {
        hosts.send(side, [4], LARGE);
    }
    until_received(&running, 3 + 3);
    for side in [LEFT, RIGHT] {
        hosts.assert_arrive(side, [], "fragments in transport mode");
    }
    lab.assert_dropped(running, &[("esp_fragment", 3 + 3)]);
    println!("case: {}: a packet of {LARGE} bytes each way: nothing arrives", lab.case.name());
}
