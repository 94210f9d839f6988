//! Tests of packets that `esp-seal` encapsulates or drops.

use std::collections::HashSet;

use xdpfwd_pipeline::{Cx, NamedStage, Stage, View};

use super::support::*;

#[test]
fn fragments_are_encapsulated_in_tunnel_mode_only() {
    let folder = Folder::new();
    let fragment = |offset: u16, more: u16| {
        let field = (offset << 3 | more).to_be_bytes();
        ipv6(
            44,
            SOURCE_V6,
            DESTINATION_V6,
            64,
            &[&[UDP, 0, field[0], field[1], 0, 0, 0, 9][..], &udp(1, 2, b"payload")].concat(),
        )
    };
    let with_hop_by_hop_header = |mut frame: Vec<u8>| {
        frame[20] = 0;
        frame.splice(54..54, [44, 0, 1, 4, 0, 0, 0, 0]);
        frame[19] += 8;
        frame
    };
    let cases = [
        (
            "first IPv4 fragment",
            ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0x2000, &udp(1, 2, b"payload")),
        ),
        ("middle IPv4 fragment", ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0x2007, b"payload")),
        ("last IPv4 fragment", ipv4(UDP, SOURCE_V4, DESTINATION_V4, 7, b"payload")),
        ("first IPv6 fragment", fragment(0, 1)),
        ("middle IPv6 fragment", fragment(7, 1)),
        ("last IPv6 fragment", fragment(7, 0)),
        ("last IPv6 fragment after a hop-by-hop header", with_hop_by_hop_header(fragment(7, 0))),
    ];
    let stages = vec![
        build(&plan("esp-seal", &table(&folder, "tunnel.state", &[SEAL], ""))),
        build(&plan_open(&folder, OPEN, "")),
    ];
    let mut tunnel = EspBench::new(stages);
    // In transport mode, an SA has no addresses: use the SA of `OPEN`, which has none.
    let mut transport = bench(&plan_seal(&folder, &format!("{OPEN}, mode = 'transport'"), ""));
    for (name, frame) in cases {
        assert_eq!(transport.send_one(&frame), Disposition::Dropped("esp_fragment"), "{name}");
        assert_eq!(tunnel.send_one(&frame), Disposition::Passed(frame.clone()), "{name}");
    }
    transport.assert_balanced();
    tunnel.assert_balanced();
}

#[test]
fn malformed_packet_is_not_encapsulated() {
    let folder = Folder::new();
    let (v4, v6) = (udp_v4(20), udp_v6(20));
    let changed = |frame: &[u8], offset: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[offset] = byte;
        frame
    };
    let mut cases = vec![
        ("IPv4 header length of 16".to_owned(), changed(&v4, 14, 0x44)),
        ("version 5 as IPv4".to_owned(), changed(&v4, 14, 0x55)),
        ("version 6 as IPv4".to_owned(), changed(&v4, 14, 0x65)),
        ("IPv4 total length of 19".to_owned(), changed(&v4, 17, 19)),
        ("IPv4 total length beyond the frame".to_owned(), changed(&v4, 16, 9)),
        ("version 4 as IPv6".to_owned(), changed(&v6, 14, 0x40)),
        ("version 5 as IPv6".to_owned(), changed(&v6, 14, 0x50)),
        ("IPv6 payload length beyond the frame".to_owned(), changed(&v6, 18, 9)),
    ];
    cases.extend(
        [15, 20, 33, v4.len() - 1]
            .map(|len| (format!("IPv4, truncated to {len} bytes"), v4[..len].to_vec())),
    );
    cases.extend(
        [15, 40, 53, v6.len() - 1]
            .map(|len| (format!("IPv6, truncated to {len} bytes"), v6[..len].to_vec())),
    );
    // In transport mode, an SA has no addresses: use the SA of `OPEN`, which has none.
    for (sa_index, sa) in
        [SEAL.to_owned(), format!("{OPEN}, mode = 'transport'")].iter().enumerate()
    {
        for bypass in ["", ", bypass = ['not-ip', 'unmatched', 'nd', 'ike', 'arp']"] {
            let mut bench = bench(&plan(
                "esp-seal",
                &table(&folder, &format!("{sa_index}.state"), &[sa], bypass),
            ));
            for (name, frame) in &cases {
                assert_eq!(
                    bench.send_one(frame),
                    Disposition::Dropped("malformed"),
                    "{name}: {sa} {bypass}"
                );
            }
            bench.assert_balanced();
        }
    }
}

/// Moves each packet within its frame, to leave this headroom in bytes.
struct SetHeadroom(usize);

impl Stage for SetHeadroom {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            let bytes = packet.frame.to_vec();
            let shift = packet.frame.headroom() - self.0;
            packet.frame.prepend(shift).unwrap();
            packet.frame[..bytes.len()].copy_from_slice(&bytes);
            packet.frame.truncate(bytes.len());
        }
    }
}

#[test]
fn frame_without_room_is_dropped_as_no_room() {
    let folder = Folder::new();
    let set_headroom = |headroom: usize| NamedStage::new("set-headroom", SetHeadroom(headroom));
    // The headroom must hold outer header, UDP header, SPI, sequence number, IV.
    for (sa_index, sa) in encapsulations().iter().enumerate() {
        let outer_len = if sa.contains("transport") {
            0
        } else if sa.contains("2001") {
            40
        } else {
            20
        };
        let needed = outer_len + if sa.contains("udp") { 8 } else { 0 } + 16;
        for (headroom, fits) in
            [(0, false), (needed - 1, false), (needed, true), (needed + 1, true)]
        {
            let stage = build(&plan(
                "esp-seal",
                &table(&folder, &format!("{sa_index}-{headroom}.state"), &[sa], ""),
            ));
            let mut bench = EspBench::new(vec![set_headroom(headroom), stage]);
            for frame in [udp_v4(40), udp_v6(40), tagged(&udp_v4(40), 2)] {
                match bench.send_one(&frame) {
                    Disposition::Passed(_) => assert!(fits, "headroom {headroom}: {sa}"),
                    other => assert_eq!(
                        (other, fits),
                        (Disposition::Dropped("no_room"), false),
                        "headroom {headroom}: {sa}"
                    ),
                }
            }
            bench.assert_balanced();
        }
    }
    // The tailroom must hold padding, pad length, next header, ICV. A frame has 2048 bytes, 256 of
    // them headroom.
    let stage =
        build(&plan("esp-seal", &table(&folder, "tailroom.state", &[SEAL], ", mtu = 9216")));
    let mut bench = EspBench::new(vec![stage]);
    for size in 1740..=1778 {
        let frame = packet_of_size(size, false);
        let trailer_len = (4 - (size + 2) % 4) % 4 + 2 + 16;
        let fits = 256 + frame.len() + trailer_len <= 2048;
        match bench.send_one(&frame) {
            Disposition::Passed(sealed) => {
                assert_eq!((sealed.len(), fits), (frame.len() + 36 + trailer_len, true), "{size}")
            }
            other => assert_eq!((other, fits), (Disposition::Dropped("no_room"), false), "{size}"),
        }
    }
    bench.assert_balanced();
}

/// RFC 6864, section 4.1, requires this.
#[test]
fn packets_that_may_be_fragmented_have_distinct_identifications() {
    let folder = Folder::new();
    let sealed = bench(&plan_seal(&folder, &format!("{SEAL}, df = 'clear'"), "")).forward(&vec![
        packet_of_size(
            100, false
        );
        1000
    ]);
    let idents: HashSet<&[u8]> = sealed.iter().map(|frame| &frame[18..20]).collect();
    assert_eq!((idents.len(), sealed[0][20]), (1000, 0));
}
