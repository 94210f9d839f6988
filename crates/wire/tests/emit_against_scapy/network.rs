//! IPv4 and IPv6 packets.

use serde_json::json;
use xdpfwd_wire::{Addresses, EtherType, IpProtocol, ipv4, ipv6};

use crate::case::{Case, Random};

/// Returns an IP packet and its EtherType. `upper_layer` returns the packet's protocol and payload,
/// given its addresses.
pub(super) fn packet(
    random: &mut Random,
    upper_layer: fn(&mut Random, Addresses) -> (IpProtocol, Case),
) -> (EtherType, Case) {
    let addresses = random.addresses();
    let (protocol, case) = upper_layer(random, addresses);
    match addresses {
        Addresses::V4 { source, destination } => {
            let repr = ipv4::Repr {
                dscp: random.below(64) as u8,
                ecn: random.below(4) as u8,
                ident: random.u16(),
                dont_fragment: random.bool(),
                ttl: random.u8(),
                protocol,
                source,
                destination,
                payload_len: case.bytes.len() as u16,
            };
            let mut header = vec![0xee; repr.header_len()];
            repr.emit(&mut header).unwrap();
            let fields = json!({
                "layer": "IP",
                "src": source.to_string(),
                "dst": destination.to_string(),
                "tos": repr.dscp << 2 | repr.ecn,
                "id": repr.ident,
                "flags": u8::from(repr.dont_fragment) << 1,
                "ttl": repr.ttl,
                "proto": protocol.0,
                "len": repr.buffer_len(),
            });
            (EtherType::IPV4, case.with_header(header, fields))
        }
        Addresses::V6 { source, destination } => {
            let (next_header, case) = add_destination_options(random, protocol, case);
            let repr = ipv6::Repr {
                traffic_class: random.u8(),
                flow_label: random.u32() & 0x000f_ffff,
                next_header,
                hop_limit: random.u8(),
                source,
                destination,
                payload_len: case.bytes.len() as u16,
            };
            let mut header = vec![0xee; repr.header_len()];
            repr.emit(&mut header).unwrap();
            let fields = json!({
                "layer": "IPv6",
                "src": source.to_string(),
                "dst": destination.to_string(),
                "tc": repr.traffic_class,
                "fl": repr.flow_label,
                "nh": next_header.0,
                "hlim": repr.hop_limit,
                "plen": repr.payload_len,
            });
            (EtherType::IPV6, case.with_header(header, fields))
        }
    }
}

/// Adds a destination options header with a probability of 1/4. Returns the resulting case, and the
/// protocol for the header before it.
fn add_destination_options(
    random: &mut Random,
    protocol: IpProtocol,
    case: Case,
) -> (IpProtocol, Case) {
    if random.below(4) != 0 {
        return (protocol, case);
    }
    let header = ipv6::ExtensionHeader {
        kind: IpProtocol::DESTINATION_OPTIONS,
        next_header: protocol,
        content: &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // PadN
    };
    let mut bytes = vec![0xee; header.header_len()];
    header.emit(&mut bytes).unwrap();
    let fields = json!({ "layer": "IPv6ExtHdrDestOpt", "nh": protocol.0 });
    (header.kind, case.with_header(bytes, fields))
}
