//! TCP segments, UDP datagrams and ICMP echo messages.

use serde_json::json;
use xdpfwd_wire::{Addresses, IpProtocol, IpVersion, icmp, tcp, udp};

use crate::case::{Case, Random};

/// Returns a TCP segment, a UDP datagram or an ICMP echo message, and its IP protocol.
pub(super) fn upper_layer(random: &mut Random, addresses: Addresses) -> (IpProtocol, Case) {
    match random.below(3) {
        0 => (IpProtocol::TCP, tcp_segment(random, addresses)),
        1 => {
            let (ports, payload) = ((random.port(), random.port()), Case::raw(random.data()));
            (IpProtocol::UDP, udp_datagram(random, addresses, ports, payload))
        }
        _ => echo(random, addresses),
    }
}

fn tcp_segment(random: &mut Random, addresses: Addresses) -> Case {
    let options: [&[u8]; 4] = [
        &[],
        &[2, 4, 5, 0xb4],
        &[2, 4, 5, 0xb4, 1, 3, 3, 7],
        &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
    ];
    let payload = Case::raw(random.data());
    let repr = tcp::Repr {
        source_port: random.port(),
        destination_port: random.port(),
        sequence: random.u32(),
        acknowledgment: random.u32(),
        flags: tcp::Flags(random.u8()),
        window: random.u16(),
        urgent: random.u16(),
        options: options[random.below(4) as usize],
        payload_len: payload.bytes.len() as u16,
    };
    let mut segment = [&vec![0xee; repr.header_len()][..], &payload.bytes].concat();
    repr.emit_with_checksum(&mut segment, addresses).unwrap();
    let fields = json!({
        "layer": "TCP",
        "sport": repr.source_port,
        "dport": repr.destination_port,
        "seq": repr.sequence,
        "ack": repr.acknowledgment,
        "flags": repr.flags.0,
        "window": repr.window,
        "urgptr": repr.urgent,
        "dataofs": repr.header_len() / 4,
    });
    segment.truncate(repr.header_len());
    payload.with_header(segment, fields)
}

pub(super) fn udp_datagram(
    random: &mut Random,
    addresses: Addresses,
    (source_port, destination_port): (u16, u16),
    payload: Case,
) -> Case {
    let payload_len = payload.bytes.len() as u16;
    let repr = udp::Repr { source_port, destination_port, payload_len };
    let mut datagram = [&vec![0xee; repr.header_len()][..], &payload.bytes].concat();
    let may_omit_checksum = matches!(addresses, Addresses::V4 { .. });
    if may_omit_checksum && random.below(4) == 0 {
        repr.emit(&mut datagram).unwrap();
    } else {
        repr.emit_with_checksum(&mut datagram, addresses).unwrap();
    }
    let fields = json!({
        "layer": "UDP",
        "sport": source_port,
        "dport": destination_port,
        "len": repr.buffer_len(),
    });
    datagram.truncate(repr.header_len());
    payload.with_header(datagram, fields)
}

fn echo(random: &mut Random, addresses: Addresses) -> (IpProtocol, Case) {
    let (ident, sequence) = (random.u16(), random.u16());
    let payload = random.data();
    let payload_len = payload.len() as u16;
    let (version, protocol) = match addresses {
        Addresses::V4 { .. } => (IpVersion::V4, IpProtocol::ICMP),
        Addresses::V6 { .. } => (IpVersion::V6, IpProtocol::ICMPV6),
    };
    let (is_request, repr) = if random.bool() {
        (true, icmp::Repr::echo_request(version, ident, sequence, payload_len))
    } else {
        (false, icmp::Repr::echo_reply(version, ident, sequence, payload_len))
    };
    let mut message = [&vec![0xee; repr.header_len()][..], &payload].concat();
    repr.emit_with_checksum(&mut message, addresses).unwrap();
    let layer = match (version, is_request) {
        (IpVersion::V4, _) => "ICMP",
        (IpVersion::V6, true) => "ICMPv6EchoRequest",
        (IpVersion::V6, false) => "ICMPv6EchoReply",
    };
    let fields =
        json!({ "layer": layer, "type": repr.kind, "code": 0, "id": ident, "seq": sequence });
    let case = match version {
        IpVersion::V4 => {
            message.truncate(repr.header_len());
            Case::raw(payload).with_header(message, fields)
        }
        // In scapy, the data of an ICMPv6 echo is a field of the message.
        IpVersion::V6 => Case::raw(Vec::new()).with_header(message, fields),
    };
    (protocol, case)
}
