//! Tests the UPF on the test bench, without root and without interfaces.

use std::net::Ipv4Addr;

use clap::Parser;
use xdpfwd_pipeline::testing::TestBench;
use xdpfwd_wire::gtpu::{self, Extension, ExtensionHeader, ExtensionType, PduSessionContainer};
use xdpfwd_wire::{Header, HeaderStack, Pretty, ethernet, ipv4};

use crate::sessions::{Command, Sessions, run};

const CONFIG: &str = include_str!("../mini-upf.toml");
const UE: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TEID: u32 = 4097;
/// Arguments of `ctl sessions`: UE address, TEID, gNB address, TEID at the gNB, QFI.
const ADD: &str = "add 10.45.0.2 4097 172.16.0.2 8193 9";

fn ctl(sessions: &Sessions, words: &str) -> Result<(), &'static str> {
    let workers = 1;
    run(sessions, workers, Command::parse_from(format!("sessions {words}").split(' ')))
}

fn bench() -> (TestBench, Sessions) {
    let sessions = Sessions::default();
    ctl(&sessions, ADD).unwrap();
    (crate::app(sessions.clone()).test_bench(CONFIG).unwrap(), sessions)
}

/// Returns an Ethernet frame: the `outer` headers, if any, and an IP packet from or to a UE.
fn frame(outer: &[Header<'_>], source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let ip = ipv4::Repr::new(source, destination).into();
    let headers = [&[ethernet::Repr::default().into()], outer, &[ip]].concat();
    HeaderStack(&headers).packet(b"hello").unwrap()
}

/// Returns an uplink frame on N3, from `source` to the server.
fn uplink(teid: u32, source: Ipv4Addr, extensions: &[Extension<'_>]) -> Vec<u8> {
    let ip = ipv4::Repr::new([172, 16, 0, 2].into(), [172, 16, 0, 1].into());
    let tunnel = gtpu::tunnel(ethernet::Repr::default(), ip, teid, extensions);
    frame(&tunnel[1..], source, SERVER)
}

#[test]
fn decap_strips_tunnels_with_and_without_extension_headers() {
    // A second extension header, which the stage skips.
    let udp_port = ExtensionHeader { kind: ExtensionType::UDP_PORT, content: &[0, 1] };
    let extensions = [PduSessionContainer::uplink(9).into(), udp_port.into()];
    for count in 0..=2 {
        let sent = bench().0.send("n3", &uplink(TEID, UE, &extensions[..count])).expect_sent("n6");
        // The Ethernet header: from port n6 to `next_hop` of the configuration, EtherType IPv4.
        let ethernet = b"\x02\0\0\0\x06\x01\x02\0\0\0\0\x02\x08\0";
        assert_eq!(sent, [ethernet, &frame(&[], UE, SERVER)[14..]].concat());
    }
}

#[test]
fn encap_adds_tunnel_headers_of_session() {
    let sent = bench().0.send("n6", &frame(&[], SERVER, UE)).expect_sent("n3");
    assert_eq!(
        Pretty::new(&sent).to_string(),
        "Ethernet: 02:00:00:00:00:01 > 02:00:00:00:03:01, ipv4, 83 bytes\n\
         IPv4: 172.16.0.1 > 172.16.0.2, udp, ttl 64, 69 bytes\n\
         UDP: 2152 > 2152, 41 bytes of payload\n\
         GTP-U: G-PDU, teid 0x00002001, downlink, qfi 9\n\
         \x20 IPv4: 192.0.2.1 > 10.45.0.2, hop-by-hop, ttl 64, 25 bytes\n\
         \x20 Payload: 5 bytes"
    );
}

#[test]
fn packet_without_valid_session_is_dropped_with_reason() {
    // An extension header that a UPF must understand; the stage does not.
    let pdcp = ExtensionHeader { kind: ExtensionType::PDCP_PDU_NUMBER, content: &[0, 1] };
    for (port, frame, reason) in [
        ("n3", uplink(TEID + 1, UE, &[]), "no_session"),
        ("n6", frame(&[], UE, SERVER), "no_session"),
        ("n3", uplink(TEID, SERVER, &[]), "wrong_ue_address"),
        ("n3", uplink(TEID, UE, &[pdcp.into()]), "invalid_gtpu"),
        ("n3", frame(&[], UE, SERVER), "invalid_gtpu"),
        ("n6", vec![0; 60], "not_ip"),
    ] {
        assert_eq!(bench().0.send(port, &frame).drop_reason(), Some(reason));
    }
}

#[test]
fn session_change_applies_to_next_packet() {
    let (mut bench, sessions) = bench();
    let up = uplink(TEID, UE, &[]);
    bench.send("n3", &up).expect_sent("n6");
    bench.send_all("n6", [frame(&[], SERVER, UE), frame(&[], SERVER, UE)]);
    // Uplink packets, downlink packets, uplink bytes, downlink bytes.
    assert_eq!(bench.table("sessions").rows[0][5..], [1_u64, 2, 25, 50].map(Into::into));
    ctl(&sessions, "add 10.45.0.3 4097 172.16.0.2 1 9").unwrap_err(); // the TEID is in use
    ctl(&sessions, "remove 10.45.0.2").unwrap();
    assert_eq!(bench.send("n3", &up).drop_reason(), Some("no_session"));
    ctl(&sessions, ADD).unwrap();
    bench.send("n3", &up).expect_sent("n6");
}

#[test]
fn stages_do_not_allocate() {
    let mut bench = bench().0;
    assert_eq!(bench.assert_no_allocation("n3", vec![uplink(TEID, UE, &[]); 640]), 640);
    assert_eq!(bench.assert_no_allocation("n6", vec![frame(&[], SERVER, UE); 640]), 640);
}

#[test]
fn configuration_error_has_line_and_column() {
    let config = CONFIG.replace("02:00:00:00:06:01", "02:00");
    let error = crate::app(Sessions::default()).test_bench(&config).unwrap_err();
    assert!(error.starts_with("test.toml:26:12: "), "{error}");
}
