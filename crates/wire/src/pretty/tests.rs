use core::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::arp;
use crate::ethernet::{self, EtherType};
use crate::gtpu::{
    DownlinkInformation, END_MARKER, ERROR_INDICATION, ErrorIndication, Extension, ExtensionHeader,
    ExtensionType, PduSessionContainer, UplinkInformation,
};
use crate::icmp;
use crate::ip::{IpProtocol, IpVersion};
use crate::tcp::Flags;
use crate::vlan::VlanId;
use crate::{MacAddr, gtpu, ipv4, ipv6, tcp, udp, vlan};

const ADDRESS_A: [u8; 4] = [192, 0, 2, 1];
const ADDRESS_B: [u8; 4] = [198, 51, 100, 2];

fn text(frame: &[u8]) -> String {
    Pretty::new(frame).to_string()
}

fn ethernet(ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let (destination, source) = (MacAddr([2, 0, 0, 0, 0, 2]), MacAddr([2, 0, 0, 0, 0, 1]));
    let mut frame = vec![0; ethernet::HEADER_LEN];
    ethernet::Repr { destination, source, ethertype }.emit(&mut frame).unwrap();
    frame.extend(payload);
    frame
}

/// Returns a VLAN tag and its payload. With priority 7, the tag is drop eligible.
fn vlan(id: u16, priority: u8, ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let (id, drop_eligible) = (VlanId::new(id).unwrap(), priority == 7);
    let mut tagged = vec![0; vlan::TAG_LEN];
    vlan::Repr { id, priority, drop_eligible, ethertype }.emit(&mut tagged).unwrap();
    tagged.extend(payload);
    tagged
}

fn ipv4(protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let payload_len = payload.len() as u16;
    let (source, destination) = (ADDRESS_A.into(), ADDRESS_B.into());
    let repr = ipv4::Repr { protocol, source, destination, payload_len, ..ipv4::Repr::default() };
    let mut packet = vec![0; ipv4::HEADER_LEN];
    repr.emit(&mut packet).unwrap();
    packet.extend(payload);
    packet
}

fn ipv6(next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = ipv6::Repr {
        next_header,
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8::2".parse().unwrap(),
        payload_len: payload.len() as u16,
        ..ipv6::Repr::default()
    };
    let mut packet = vec![0; ipv6::HEADER_LEN];
    repr.emit(&mut packet).unwrap();
    packet.extend(payload);
    packet
}

fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let repr = udp::Repr { source_port, destination_port, payload_len: payload.len() as u16 };
    let mut datagram = vec![0; udp::HEADER_LEN];
    repr.emit(&mut datagram).unwrap();
    datagram.extend(payload);
    datagram
}

fn gtpu(repr: gtpu::Repr<'_>, payload: &[u8]) -> Vec<u8> {
    let repr = gtpu::Repr { payload_len: payload.len() as u16, ..repr };
    let mut message = vec![0; repr.header_len()];
    repr.emit(&mut message).unwrap();
    message.extend(payload);
    message
}

/// Returns a UDP datagram with a G-PDU (a GTP-U message with a user packet), which has an uplink
/// PDU session container.
fn g_pdu(payload: &[u8]) -> Vec<u8> {
    let information = UplinkInformation { qfi: 9, ..UplinkInformation::default() };
    let container = PduSessionContainer::Uplink(information);
    let extensions = [container.into()];
    let repr = gtpu::Repr { teid: 0x1234, extensions: &extensions, ..gtpu::Repr::default() };
    udp(gtpu::PORT, gtpu::PORT, &gtpu(repr, payload))
}

const ETHERNET: &str = "Ethernet: 02:00:00:00:00:01 > 02:00:00:00:00:02";
const IPV4: &str = "IPv4: 192.0.2.1 > 198.51.100.2";
const IPV6: &str = "IPv6: 2001:db8::1 > 2001:db8::2";

#[test]
fn pretty_prints_tcp_over_ipv4_with_vlan_tags() {
    let repr = tcp::Repr {
        source_port: 48896,
        destination_port: 80,
        sequence: 1000,
        acknowledgment: 2000,
        flags: Flags::SYN | Flags::ACK,
        window: 4096,
        options: &[2, 4, 5, 0xb4],
        ..tcp::Repr::default()
    };
    let mut segment = vec![0; repr.header_len()];
    repr.emit(&mut segment).unwrap();
    let packet = ipv4(IpProtocol::TCP, &segment);
    let inner = vlan(100, 0, EtherType::IPV4, &packet);
    let frame = ethernet(EtherType::SERVICE_VLAN, &vlan(4000, 7, EtherType::VLAN, &inner));
    assert_eq!(
        text(&frame),
        format!(
            "{ETHERNET}, 802.1ad, 66 bytes\n\
             VLAN: id 4000, priority 7, drop eligible, 802.1q\n\
             VLAN: id 100, priority 0, ipv4\n\
             {IPV4}, tcp, ttl 64, 44 bytes\n\
             TCP: 48896 > 80 [SYN ACK], seq 1000, ack 2000, window 4096, 4 bytes of options, \
             0 bytes of payload"
        )
    );
    let frame = ethernet(EtherType(0x9100), &vlan(5, 0, EtherType(0x9300), &inner));
    assert!(
        text(&frame).starts_with(&format!(
            "{ETHERNET}, 0x9100, 66 bytes\n\
             VLAN: id 5, priority 0, 0x9300\n\
             VLAN: id 100, priority 0, ipv4\n{IPV4}, tcp"
        )),
        "{}",
        text(&frame)
    );
}

#[test]
fn pretty_prints_arp_reply_and_unknown_operation() {
    let (mac, ip) = (MacAddr([2, 0, 0, 0, 0, 1]), ADDRESS_A.into());
    let request = arp::Repr::request(MacAddr([2, 0, 0, 0, 0, 2]), ADDRESS_B.into(), ip);
    let mut message = [0; arp::LEN];
    request.reply(mac).emit(&mut message).unwrap();
    let frame = ethernet(EtherType::ARP, &message);
    assert_eq!(
        text(&frame),
        format!("{ETHERNET}, arp, 42 bytes\nARP: 192.0.2.1 is-at 02:00:00:00:00:01")
    );
    request.emit(&mut message).unwrap();
    message[7] = 9;
    let printed = text(&ethernet(EtherType::ARP, &message));
    assert_eq!(
        printed.lines().last().unwrap(),
        "ARP: operation 9, sender 198.51.100.2 at 02:00:00:00:00:02, \
         target 192.0.2.1 at 00:00:00:00:00:00"
    );
}

#[test]
fn pretty_prints_g_pdu_over_ipv6_and_icmp_inside_it() {
    let echo = icmp::Repr::echo_request(IpVersion::V4, 7, 1, 0);
    let mut message = [0; icmp::Repr::LEN];
    echo.emit(&mut message).unwrap();
    let packet = ipv6(IpProtocol::UDP, &g_pdu(&ipv4(IpProtocol::ICMP, &message)));
    assert_eq!(
        text(&ethernet(EtherType::IPV6, &packet)),
        format!(
            "{ETHERNET}, ipv6, 106 bytes\n\
             {IPV6}, udp, hop limit 64, 92 bytes\n\
             UDP: 2152 > 2152, no checksum, 44 bytes of payload\n\
             GTP-U: G-PDU, teid 0x00001234, uplink, qfi 9\n  \
               {IPV4}, icmp, ttl 64, 28 bytes\n  \
               ICMP: echo request, id 7, seq 1, 8 bytes"
        )
    );
}

#[test]
fn pretty_prints_all_header_fields_of_g_pdu() {
    let information = DownlinkInformation {
        qfi: 63,
        reflective_qos: true,
        paging_policy: Some(3),
        sequence_number: Some(77),
        ..DownlinkInformation::default()
    };
    let port = ExtensionHeader { kind: ExtensionType::UDP_PORT, content: &[8, 104] };
    let unknown = ExtensionHeader { kind: ExtensionType(0x42), content: &[0, 0] };
    let malformed =
        ExtensionHeader { kind: ExtensionType::PDU_SESSION_CONTAINER, content: &[0xf0, 0] };
    let extensions = [
        Extension::PduSessionContainer(PduSessionContainer::Downlink(information)),
        Extension::Other(port),
        Extension::Other(unknown),
        Extension::Other(malformed),
    ];
    let repr = gtpu::Repr {
        teid: 0xffff_ffff,
        sequence_number: Some(5),
        n_pdu_number: Some(6),
        extensions: &extensions,
        ..gtpu::Repr::default()
    };
    let not_ip = b"\x02other"; // the first four bits are neither 4 nor 6
    let datagram = udp(1024, gtpu::PORT, &gtpu(repr, not_ip));
    let printed = Pretty::ip(&ipv4(IpProtocol::UDP, &datagram)).to_string();
    assert_eq!(
        printed,
        format!(
            "{IPV4}, udp, ttl 64, 66 bytes\n\
             UDP: 1024 > 2152, 38 bytes of payload\n\
             GTP-U: G-PDU, teid 0xffffffff, seq 5, n-pdu 6, downlink, qfi 63, reflective qos, \
             paging policy 3, qfi seq 77, extension UDP port, extension 0x42, \
             malformed PDU session container\n  \
               Payload: 6 bytes"
        )
    );
}

#[test]
fn pretty_prints_gtpu_messages_between_nodes() {
    let printed = |message_type, payload: &[u8]| {
        let repr = gtpu::Repr { message_type, sequence_number: Some(1), ..gtpu::Repr::default() };
        let packet = ipv4(IpProtocol::UDP, &udp(gtpu::PORT, 1024, &gtpu(repr, payload)));
        Pretty::ip(&packet).to_string().lines().last().unwrap().to_owned()
    };
    assert_eq!(
        printed(gtpu::ECHO_RESPONSE, &gtpu::RECOVERY),
        "GTP-U: echo response, teid 0x00000000, seq 1, 2 bytes of payload"
    );
    assert_eq!(
        printed(END_MARKER, &[]),
        "GTP-U: end marker, teid 0x00000000, seq 1, 0 bytes of payload"
    );
    assert_eq!(printed(200, &[]), "GTP-U: type 200, teid 0x00000000, seq 1, 0 bytes of payload");
    let mut payload = [0; 12];
    ErrorIndication { teid: 0x99, peer: ADDRESS_A.into() }.emit(&mut payload).unwrap();
    assert_eq!(
        printed(ERROR_INDICATION, &payload),
        "GTP-U: error indication, teid 0x00000000, seq 1, no tunnel 0x00000099 at 192.0.2.1, \
         12 bytes of payload"
    );
}

#[test]
fn pretty_prints_ipv6_extensions_and_first_fragment() {
    let fragment = ipv6::FragmentHeader { offset: 0, more: true, ident: 0xdead_beef };
    let routing = ipv6::ExtensionHeader {
        kind: IpProtocol::ROUTING,
        next_header: IpProtocol::FRAGMENT,
        content: &[4, 1, 0, 0, 0, 0],
    };
    let mut payload = vec![0; 16];
    routing.emit(&mut payload).unwrap();
    fragment.emit(IpProtocol::UDP, &mut payload[8..]).unwrap();
    payload.extend(&udp(1, 2, &[0; 2000])[..1200]);
    assert_eq!(
        text(&ethernet(EtherType::IPV6, &ipv6(IpProtocol::ROUTING, &payload))),
        format!(
            "{ETHERNET}, ipv6, 1270 bytes\n\
             {IPV6}, routing, hop limit 64, 1256 bytes\n\
             IPv6 extension: routing, type 4, 1 segments left, 8 bytes\n\
             IPv6 extension: fragment, at 0, more follow, id 0xdeadbeef, 8 bytes\n\
             UDP: 1 > 2, no checksum, 1192 of 2000 bytes of payload"
        )
    );
}

#[test]
fn pretty_prints_later_ipv4_fragment() {
    let mut packet = ipv4(IpProtocol::UDP, &[0; 100]);
    packet[1] = 46 << 2 | 1; // DSCP, ECN
    packet[6..8].copy_from_slice(&(1480_u16 / 8).to_be_bytes()); // flags (none), fragment offset
    assert_eq!(
        Pretty::ip(&packet).to_string(),
        format!(
            "{IPV4}, udp, ttl 64, dscp 46, ecn 1, fragment at 1480, the last, id 0x0000, \
             120 bytes, invalid checksum\n\
             Fragment: 100 bytes"
        )
    );
}

#[test]
fn pretty_prints_esp_alone_and_in_udp() {
    let esp = [0, 0, 0x12, 0x34, 0, 0, 0, 7, 0xee, 0xee];
    let line = "ESP: spi 0x00001234, seq 7, 10 bytes";
    assert_eq!(
        Pretty::ip(&ipv4(IpProtocol::ESP, &esp)).to_string(),
        format!("{IPV4}, esp, ttl 64, 30 bytes\n{line}")
    );
    assert_eq!(
        Pretty::ip(&ipv4(IpProtocol::UDP, &udp(4500, 4500, &esp))).to_string(),
        format!("{IPV4}, udp, ttl 64, 38 bytes\nUDP: 4500 > 4500, 10 bytes of payload\n{line}")
    );
    // IKE on port 4500 begins with four zero bytes.
    let ike = Pretty::ip(&ipv4(IpProtocol::UDP, &udp(4500, 4500, &[0; 20]))).to_string();
    assert!(ike.ends_with("20 bytes of payload"), "{ike}");
}

#[test]
fn pretty_prints_icmp_and_icmpv6_messages() {
    let printed = |message: &[u8]| {
        let packet = ipv6(IpProtocol::ICMPV6, message);
        Pretty::ip(&packet).to_string().lines().last().unwrap().to_owned()
    };
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(Ipv6Addr::LOCALHOST.octets());
    assert_eq!(printed(&solicitation), "ICMPv6: neighbor solicitation, target ::1, 24 bytes");
    assert_eq!(printed(&[2, 0, 0, 0, 0, 0, 5, 0]), "ICMPv6: packet too big, mtu 1280, 8 bytes");
    assert_eq!(printed(&[200, 3, 0, 0]), "ICMPv6: type 200, code 3, 4 bytes");
    let packet = ipv4(IpProtocol::ICMP, &[3, 4, 0, 0, 0, 0, 5, 0]);
    let line = "ICMP: destination unreachable, code 4, mtu 1280, 8 bytes";
    assert_eq!(Pretty::ip(&packet).to_string().lines().last(), Some(line));
}

#[test]
fn pretty_prints_sctp_and_unknown_protocols() {
    let chunks = [0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0xee];
    let printed = Pretty::ip(&ipv4(IpProtocol::SCTP, &chunks)).to_string();
    assert_eq!(printed.lines().last(), Some("SCTP: 1 > 2, tag 0x00000003, 1 bytes of chunks"));
    assert_eq!(
        Pretty::ip(&ipv4(IpProtocol(253), &[0; 7])).to_string(),
        format!("{IPV4}, 253, ttl 64, 27 bytes\nPayload: 7 bytes")
    );
    assert_eq!(
        text(&ethernet(EtherType(0x88cc), &[0; 46])),
        format!("{ETHERNET}, 0x88cc, 60 bytes")
    );
    let llc = text(&ethernet(EtherType(38), &[0; 46]));
    assert_eq!(llc, format!("{ETHERNET}, 802.3 length 38, 60 bytes"));
}

#[test]
fn truncated_layer_is_printed_with_lengths() {
    let last_line = |frame: &[u8]| text(frame).lines().last().unwrap().to_owned();
    assert_eq!(text(&[]), "Ethernet: truncated, 0 of 14 bytes");
    assert_eq!(last_line(&ethernet(EtherType::VLAN, &[0; 2])), "VLAN: truncated, 2 of 4 bytes");
    assert_eq!(
        last_line(&ethernet(EtherType::IPV4, &[0x45; 12])),
        "IPv4: truncated, 12 of 20 bytes"
    );
    assert_eq!(
        last_line(&ethernet(EtherType::IPV6, &[0x60; 39])),
        "IPv6: truncated, 39 of 40 bytes"
    );
    assert_eq!(last_line(&ethernet(EtherType::ARP, &[0; 27])), "ARP: truncated, 27 of 28 bytes");
    let packet = ipv4(IpProtocol::UDP, &udp(1, 2, &[0; 10]));
    assert_eq!(
        last_line(&ethernet(EtherType::IPV4, &packet[..30])),
        "IPv4: truncated, 30 of 38 bytes"
    );
    let packet = ipv6(IpProtocol::UDP, &udp(1, 2, &[0; 10]));
    assert_eq!(
        last_line(&ethernet(EtherType::IPV6, &packet[..50])),
        "IPv6: truncated, 50 of 58 bytes"
    );

    let upper =
        |protocol, bytes: &[u8]| last_line(&ethernet(EtherType::IPV4, &ipv4(protocol, bytes)));
    assert_eq!(upper(IpProtocol::UDP, &[0; 7]), "UDP: truncated, 7 of 8 bytes");
    assert_eq!(upper(IpProtocol::UDP, &udp(1, 2, &[0; 9])[..12]), "UDP: truncated, 12 of 17 bytes");
    assert_eq!(upper(IpProtocol::TCP, &[0x60; 19]), "TCP: truncated, 19 of 20 bytes");
    assert_eq!(upper(IpProtocol::TCP, &[0x60; 23]), "TCP: truncated, 23 of 24 bytes");
    assert_eq!(upper(IpProtocol::ICMP, &[8, 0, 0]), "ICMP: truncated, 3 of 4 bytes");
    assert_eq!(upper(IpProtocol::ESP, &[0; 7]), "ESP: truncated, 7 of 8 bytes");
    assert_eq!(upper(IpProtocol::SCTP, &[0; 11]), "SCTP: truncated, 11 of 12 bytes");
    let message = udp(1, gtpu::PORT, &[0x30, 255, 0, 9, 0, 0, 0, 0, 0]);
    assert_eq!(upper(IpProtocol::UDP, &message), "GTP-U: truncated, 9 of 17 bytes");
    let message = udp(1, gtpu::PORT, &[]);
    assert_eq!(upper(IpProtocol::UDP, &message), "GTP-U: truncated, 0 of 8 bytes");
    let inner = g_pdu(&ipv4(IpProtocol::UDP, &[])[..10]);
    assert_eq!(upper(IpProtocol::UDP, &inner), "  IPv4: truncated, 10 of 20 bytes");
}

#[test]
fn malformed_layer_is_printed_with_reason() {
    let last_line = |frame: &[u8]| text(frame).lines().last().unwrap().to_owned();
    let ipv4_error = |bytes: &[u8]| last_line(&ethernet(EtherType::IPV4, bytes));
    assert_eq!(ipv4_error(&[0x65; 20]), "IPv4: malformed, version 6");
    assert_eq!(ipv4_error(&[0x44; 20]), "IPv4: malformed, header length 16 is below 20");
    let mut packet = ipv4(IpProtocol::UDP, &[]);
    packet[3] = 19;
    let line = "IPv4: malformed, total length 19 is below header length 20";
    assert_eq!(ipv4_error(&packet), line);
    assert_eq!(last_line(&ethernet(EtherType::IPV6, &[0x45; 40])), "IPv6: malformed, version 4");
    let line = "ARP: address types other than Ethernet and IPv4";
    assert_eq!(last_line(&ethernet(EtherType::ARP, &[0; 28])), line);
    let tags = vlan(1, 0, EtherType::VLAN, &vlan(2, 0, EtherType::VLAN, &[0; 4]));
    let line = "VLAN: more than 2 tags; the rest of the packet is not printed";
    assert_eq!(last_line(&ethernet(EtherType::VLAN, &tags)), line);

    // The zeros are a routing and a hop-by-hop header, which must be first.
    let late_hop_by_hop = ipv6(IpProtocol::ROUTING, &[0; 16]);
    assert_eq!(
        last_line(&ethernet(EtherType::IPV6, &late_hop_by_hop)),
        "IPv6 extension: malformed"
    );
    let partial_header = ipv6(IpProtocol::ROUTING, &[0; 7]);
    assert_eq!(last_line(&ethernet(EtherType::IPV6, &partial_header)), "IPv6 extension: truncated");
    let nine_headers = ipv6(IpProtocol::ROUTING, &[43, 0, 0, 0, 0, 0, 0, 0].repeat(9));
    let line = "IPv6 extension: more than 8 headers; the rest of the packet is not printed";
    assert_eq!(last_line(&ethernet(EtherType::IPV6, &nine_headers)), line);

    let upper =
        |protocol, bytes: &[u8]| last_line(&ethernet(EtherType::IPV4, &ipv4(protocol, bytes)));
    assert_eq!(upper(IpProtocol::UDP, &[0; 8]), "UDP: malformed, length 0 is below 8");
    assert_eq!(upper(IpProtocol::TCP, &[0x40; 20]), "TCP: malformed, header length 16 is below 20");
    let gtpu_error = |message: &[u8]| upper(IpProtocol::UDP, &udp(1, gtpu::PORT, message));
    assert_eq!(gtpu_error(&[0x48, 0, 0, 0, 0, 0, 0, 0]), "GTP-U: malformed, version 2");
    assert_eq!(gtpu_error(&[0x20, 0, 0, 0, 0, 0, 0, 0]), "GTP-U: malformed, protocol type GTP'");
    let line = "GTP-U: malformed, length 9 ends within the header";
    assert_eq!(gtpu_error(&[0x34, 255, 0, 1, 0, 0, 0, 0, 0]), line);
    let zero_length = [0x34, 255, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(gtpu_error(&zero_length), "GTP-U: malformed, extension header of length 0");
    let mut nine_extensions = vec![0x34, 255, 0, 40, 0, 0, 0, 0, 0, 0, 0, 1];
    nine_extensions.extend([1, 0, 0, 1].repeat(9));
    let line = "GTP-U: more than 8 extension headers; the message is not printed";
    assert_eq!(gtpu_error(&nine_extensions), line);
}

#[test]
fn packet_deeper_than_max_depth_is_not_printed() {
    let mut packet = ipv4(IpProtocol::NO_NEXT_HEADER, &[]);
    for _ in 0..Pretty::MAX_DEPTH {
        packet = ipv4(IpProtocol::IPV4, &packet);
    }
    let printed = Pretty::ip(&packet).to_string();
    assert_eq!(printed.lines().count(), Pretty::MAX_DEPTH + 1);
    assert!(printed.lines().last().unwrap().starts_with("        IPv4: "), "{printed}");
    let printed = Pretty::ip(&ipv4(IpProtocol::IPV4, &packet)).to_string();
    let line = "          Packet: not printed, nested too deeply";
    assert_eq!(printed.lines().last(), Some(line));
}

/// Prints nested packets with the longest possible lines for IPv6, UDP and GTP-U.
#[test]
fn longest_output_is_within_max_len() {
    let information = DownlinkInformation {
        qfi: 63,
        reflective_qos: true,
        paging_policy: Some(7),
        sequence_number: Some(0xff_ffff),
        ..DownlinkInformation::default()
    };
    let container = PduSessionContainer::Downlink(information);
    let extensions = [Extension::PduSessionContainer(container); gtpu::MAX_EXTENSIONS];
    let repr = gtpu::Repr {
        teid: u32::MAX,
        sequence_number: Some(u16::MAX),
        n_pdu_number: Some(u8::MAX),
        extensions: &extensions,
        ..gtpu::Repr::default()
    };
    let ah = ipv6::ExtensionHeader {
        kind: IpProtocol::AH,
        next_header: IpProtocol::AH,
        content: &[0xff; 10],
    };
    let mut headers = [0; 96];
    for header in headers.chunks_mut(12) {
        ah.emit(header).unwrap();
    }
    headers[84] = IpProtocol::UDP.0; // after the last of eight headers
    let mut packet = vec![0x50; 10];
    for _ in 0..=Pretty::MAX_DEPTH + 1 {
        let datagram = udp(u16::MAX, gtpu::PORT, &gtpu(repr, &packet));
        packet = ipv6(IpProtocol::AH, &[&headers[..], &datagram].concat());
        packet[..4].fill(0x6f); // version 6, traffic class, flow label
        packet[7] = 0xff; // hop limit
        packet[8..40].fill(0xff); // addresses
    }
    let tagged = vlan(4095, 7, EtherType::VLAN, &vlan(4095, 7, EtherType::IPV6, &packet));
    let printed = text(&ethernet(EtherType::SERVICE_VLAN, &tagged));
    let line = "          Packet: not printed, nested too deeply";
    assert_eq!(printed.lines().last(), Some(line));
    assert!(printed.len() <= Pretty::MAX_LEN, "{} bytes", printed.len());
    assert!(printed.len() > Pretty::MAX_LEN / 2, "{} bytes", printed.len());
}

/// Returns frames that together contain every kind of [`Layer`].
fn frames() -> Vec<Vec<u8>> {
    let inner = ipv6(IpProtocol::TCP, &[0x50; 24]);
    let gtpu = ipv4(IpProtocol::UDP, &g_pdu(&inner));
    let mut arp = [0; arp::LEN];
    arp::Repr::request(MacAddr::BROADCAST, ADDRESS_A.into(), ADDRESS_B.into())
        .emit(&mut arp)
        .unwrap();
    let headers = [0, 0, 0, 0, 0, 0, 0, 0].repeat(3);
    vec![
        ethernet(EtherType::IPV4, &gtpu),
        ethernet(EtherType::VLAN, &vlan(1, 2, EtherType::IPV6, &ipv6(IpProtocol::IPV4, &gtpu))),
        ethernet(EtherType::IPV6, &ipv6(IpProtocol::HOP_BY_HOP, &headers)),
        ethernet(EtherType::IPV4, &ipv4(IpProtocol::UDP, &udp(4500, 4500, &inner))),
        ethernet(EtherType::IPV6, &ipv6(IpProtocol::ICMPV6, &[135; 24])),
        ethernet(EtherType::ARP, &arp),
    ]
}

proptest! {
    #[test]
    fn output_of_any_bytes_is_within_max_len(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for printer in [Pretty::new(&bytes), Pretty::ip(&bytes)] {
            let printed = printer.to_string();
            prop_assert!(!printed.ends_with('\n'));
            prop_assert!(printed.len() <= Pretty::MAX_LEN);
        }
        for ethertype in [EtherType::IPV4, EtherType::IPV6, EtherType::ARP, EtherType::VLAN] {
            prop_assert!(text(&ethernet(ethertype, &bytes)).len() <= Pretty::MAX_LEN);
        }
        for port in [4500, gtpu::PORT] {
            let packet = ipv4(IpProtocol::UDP, &udp(port, 1, &bytes));
            prop_assert!(Pretty::ip(&packet).to_string().len() <= Pretty::MAX_LEN);
        }
        for protocol in 0..=u8::MAX {
            let packet = ipv6(IpProtocol(protocol), &bytes);
            prop_assert!(Pretty::ip(&packet).to_string().len() <= Pretty::MAX_LEN);
        }
    }

    #[test]
    fn output_of_changed_frame_is_within_max_len(
        frame in prop::sample::select(frames()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len in any::<prop::sample::Index>(),
        is_truncated: bool,
    ) {
        let mut frame = frame;
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if is_truncated {
            frame.truncate(len.index(frame.len()));
        }
        let printed = text(&frame);
        prop_assert!(!printed.is_empty() && printed.len() <= Pretty::MAX_LEN);
    }
}
