//! Packets that Linux or xdpfwd must reject.

use std::process::Command;

use nix::errno::Errno;
use xdpfwd_testkit::process::run;

use crate::case::Version::V4;
use crate::case::{AES_128, Case, GMAC_256};
use crate::lab::Lab;
use crate::packets::{
    PacketSocket, UdpPair, fix_ipv4_header, flip_bits, parse_esp, replace_word, sequence_number,
};
use crate::support::until;
use crate::{LEFT, RIGHT, SPI_FROM_LINUX, SPI_TO_LINUX, wait_until_received};

#[test]
fn linux_rejects_altered_replayed_and_late_packets() {
    const CAPTURED: u32 = 200;
    /// Captured packets that are altered and replayed.
    const COUNT: u32 = 40;
    const WINDOW: u32 = 64;
    for esn in [true, false] {
        let mut case = Case { esn, ..Case::ipv4_tunnel() };
        let window = if esn { WINDOW } else { 32 };
        case.linux_in = format!("replay-window {window}");
        let lab = Lab::new(case);
        let name = lab.case.name();
        let hosts = UdpPair::new(&lab);
        let (right_socket, wan_socket) = (
            PacketSocket::open(lab.namespaces.sink(), "sink0"),
            PacketSocket::open(lab.namespaces.fwd(), "fwd1"),
        );
        let running = lab.start();
        hosts.send(LEFT, 1..=CAPTURED, 64);
        let all = right_socket.receive(SPI_TO_LINUX, CAPTURED as usize);
        let numbers: Vec<u32> = all.iter().map(|frame| sequence_number(frame)).collect();
        assert_eq!(
            numbers,
            (1..=CAPTURED).collect::<Vec<_>>(),
            "{name}: sequence numbers from xdpfwd"
        );
        let frames = &all[..COUNT as usize];
        // Linux had no SA for the captured packets.
        let (count, mut without_sa) = (u64::from(COUNT), u64::from(CAPTURED));
        lab.assert_xfrm_stat(&[("XfrmInNoStates", without_sa)]);
        lab.configure_linux();
        wan_socket.send(&flip_bits(frames));
        wan_socket.send(&replace_word(frames, 0, SPI_TO_LINUX + 1));
        without_sa += count;
        lab.assert_xfrm_stat(&[("XfrmInNoStates", without_sa), ("XfrmInStateProtoError", count)]);
        hosts.assert_arrive(RIGHT, [], &format!("{name}: altered"));
        wan_socket.send(frames);
        hosts.assert_arrive(RIGHT, 1..=COUNT, &name);
        wan_socket.send(frames);
        let expected_counters = |altered, replayed| {
            [
                ("XfrmInNoStates", without_sa),
                ("XfrmInStateProtoError", altered),
                ("XfrmInStateSeqError", replayed),
            ]
        };
        lab.assert_xfrm_stat(&expected_counters(count, count));
        hosts.assert_arrive(RIGHT, [], &format!("{name}: replayed"));
        // The highest sequence number, which moves the window, then the highest number below the
        // window, and the lowest number in the window.
        let by_number = |number: u32| &all[number as usize - 1];
        wan_socket.send([
            by_number(CAPTURED),
            by_number(CAPTURED - window),
            by_number(CAPTURED - window + 1),
        ]);
        hosts.assert_arrive(
            RIGHT,
            [CAPTURED, CAPTURED - window + 1],
            &format!("{name}: around the window"),
        );
        // With ESN, Linux takes a number below the window for one that is 2^32 higher. So the ICV
        // is wrong, and Linux counts the packet as altered.
        let below_window_altered = u64::from(esn);
        lab.assert_xfrm_stat(&expected_counters(
            count + below_window_altered,
            count + 1 - below_window_altered,
        ));
        wait_until_received(&running, u64::from(CAPTURED));
        lab.assert_dropped(running, &[]);
        println!("case: {name}: Linux counts {:?}", lab.xfrm_stat());
    }
}

/// Also tests a truncated packet, a fragment, a packet for another host, a GRE packet, and
/// sequence numbers that Linux has not sent.
#[test]
fn xdpfwd_rejects_altered_replayed_and_late_packets() {
    const CAPTURED: u32 = 200;
    /// Captured packets that are altered and replayed.
    const COUNT: u32 = 40;
    const WINDOW: u32 = 64;
    for (transform, esn) in [(AES_128, true), (GMAC_256, true), (AES_128, false)] {
        let mut case = Case { esn, ..Case::new(transform, V4, Some(V4)) };
        case.open = format!("window = {WINDOW}");
        let lab = Lab::new(case);
        let name = lab.case.name();
        let hosts = UdpPair::new(&lab);
        let right_socket = PacketSocket::open(lab.namespaces.sink(), "sink0");
        lab.configure_linux();
        hosts.send(RIGHT, 1..=CAPTURED, 64);
        let all = right_socket.receive(SPI_FROM_LINUX, CAPTURED as usize);
        let numbers: Vec<u32> = all.iter().map(|frame| sequence_number(frame)).collect();
        assert_eq!(
            numbers,
            (1..=CAPTURED).collect::<Vec<_>>(),
            "{name}: sequence numbers from Linux"
        );
        let frames = &all[..COUNT as usize];
        let by_number = |number: u32| all[number as usize - 1].clone();
        let running = lab.start();
        // xdpfwd has not received this packet yet.
        let new_packet = by_number(CAPTURED - 1);
        // Linux has not sent the sequence numbers 0 and 2^32 - 1.
        let with_number = |number| replace_word(std::slice::from_ref(&new_packet), 4, number);
        right_socket.send(&with_number(0));
        right_socket.send(&with_number(u32::MAX));
        right_socket.send(&flip_bits(frames));
        right_socket.send(&replace_word(frames, 0, SPI_FROM_LINUX + 1));
        hosts.assert_arrive(LEFT, [], &format!("{name}: altered"));
        right_socket.send(frames);
        hosts.assert_arrive(LEFT, 1..=COUNT, &name);
        right_socket.send(frames);
        hosts.assert_arrive(LEFT, [], &format!("{name}: replayed"));
        // Send the highest number alone: xdpfwd checks all packets of a batch before it advances
        // the window.
        right_socket.send([&by_number(CAPTURED)]);
        hosts.assert_arrive(LEFT, [CAPTURED], &format!("{name}: highest number"));
        right_socket.send(&[CAPTURED - WINDOW, CAPTURED - WINDOW + 1].map(by_number));
        hosts.assert_arrive(LEFT, [CAPTURED - WINDOW + 1], &format!("{name}: around the window"));
        let truncated = fix_ipv4_header(new_packet[..new_packet.len() - 2].to_vec());
        let mut fragment = new_packet.clone();
        fragment[20] |= 0x20;
        let mut for_other_host = new_packet.clone();
        for_other_host[33] = 99;
        let mut gre = new_packet.clone();
        gre[23] = 47;
        right_socket.send([
            &truncated,
            &fix_ipv4_header(fragment),
            &fix_ipv4_header(for_other_host),
            &fix_ipv4_header(gre),
        ]);
        right_socket.send([&new_packet]);
        hosts.assert_arrive(LEFT, [CAPTURED - 1], &format!("{name}: unaltered"));
        let count = u64::from(COUNT);
        // The 40 packets four times (flipped, other SPI, original, replayed), 2 packets with
        // numbers that Linux has not sent, 3 packets around the window, and 5 others.
        wait_until_received(&running, 4 * count + 10);
        // Number 0 is late. With ESN, the receiver takes 2^32 - 1 for the number before 0, which is
        // late too. It takes the number below the window for one that is 2^32 higher, so the ICV is
        // wrong (`bad_tag`). Without ESN, the number below the window is late; 2^32 - 1 is new, so
        // its ICV is wrong.
        let final_report = lab.assert_dropped(
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
        println!("case: {name}: xdpfwd counts {}", final_report.json["drops"]);
    }
}

#[test]
fn udp_without_esp_and_esp_without_udp_are_dropped() {
    let lab = Lab::new(Case::ipv4_tunnel().in_udp());
    let hosts = UdpPair::new(&lab);
    let right_socket = PacketSocket::open(lab.namespaces.sink(), "sink0");
    lab.configure_linux();
    hosts.send(RIGHT, 1..=3, 64);
    let frames = right_socket.receive(SPI_FROM_LINUX, 3);
    let running = lab.start();
    // A NAT keepalive (counted as `dummy`), IKE after the non-ESP marker, ESP to another UDP port,
    // and ESP without UDP.
    let offset = parse_esp(&frames[0]).unwrap().offset;
    let udp_frame = |payload: &[u8]| {
        let mut frame = [&frames[0][..offset], payload].concat();
        let length = (8 + payload.len()) as u16;
        frame[offset - 4..offset - 2].copy_from_slice(&length.to_be_bytes());
        fix_ipv4_header(frame)
    };
    let keepalive = udp_frame(&[0xff]);
    let ike = udp_frame(&[0; 32]);
    let mut other_port = frames[0].clone();
    other_port[offset - 6..offset - 4].copy_from_slice(&4501_u16.to_be_bytes());
    let mut without_udp = [&frames[0][..offset - 8], &frames[0][offset..]].concat();
    without_udp[23] = 50;
    right_socket.send([&keepalive, &ike, &other_port, &fix_ipv4_header(without_udp)]);
    right_socket.send(&frames);
    hosts.assert_arrive(LEFT, 1..=3, "in UDP");
    wait_until_received(&running, 7);
    let final_report =
        lab.assert_dropped(running, &[("dummy", 1), ("unprotected", 2), ("no_sa", 1)]);
    println!("case: {}: xdpfwd counts {}", lab.case.name(), final_report.json["drops"]);
}

/// Both hosts send packets above the path MTU, first in tunnel mode and then in transport mode.
#[test]
fn esp_fragments_are_dropped_and_inner_fragments_pass() {
    const LARGE: usize = 3000;
    let lab = Lab::new(Case::ipv4_tunnel());
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    // A packet that is one byte too long (with 28 bytes of headers) makes the left host learn the
    // path MTU and send fragments that fit.
    hosts.send(LEFT, [1], lab.case.max_packet_len() - 27);
    let route =
        || run(Command::new("ip").args(["-n", lab.host(LEFT).name(), "route", "get", "10.77.0.2"]));
    until("the host has learned the path MTU", || {
        route().contains(&format!(" mtu {}", lab.case.max_packet_len()))
    });
    let error = hosts.0[LEFT].take_error().unwrap().and_then(|error| error.raw_os_error());
    assert_eq!(error, Some(Errno::EMSGSIZE as i32));
    hosts.send(LEFT, [2], LARGE);
    hosts.assert_arrive(RIGHT, [2], "fragments, each encapsulated");
    // The right host fragments the packet after encapsulation.
    hosts.send(RIGHT, [3], LARGE);
    // The packet that was too long, and three fragments from each side.
    wait_until_received(&running, 1 + 3 + 3);
    hosts.assert_arrive(LEFT, [], "fragments of ESP");
    let final_report = lab.assert_dropped(running, &[("esp_fragment", 3)]);
    println!(
        "case: {}: a packet of {LARGE} bytes each way: {}",
        lab.case.name(),
        final_report.json["drops"]
    );

    let lab = Lab::new(Case::new(AES_128, V4, None));
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    for side in [LEFT, RIGHT] {
        hosts.send(side, [4], LARGE);
    }
    wait_until_received(&running, 3 + 3);
    for side in [LEFT, RIGHT] {
        hosts.assert_arrive(side, [], "fragments in transport mode");
    }
    lab.assert_dropped(running, &[("esp_fragment", 3 + 3)]);
    println!("case: {}: a packet of {LARGE} bytes each way: nothing arrives", lab.case.name());
}
