//! Frames: Ethernet headers, VLAN tags and ARP messages.

use serde_json::json;
use xdpfwd_wire::{EtherType, VlanId, arp, ethernet, vlan};

use crate::case::{Case, Random};
use crate::network::packet;
use crate::transport::upper_layer;
use crate::tunnel::gtpu_datagram;

/// Returns a frame with up to two VLAN tags, then ARP or IP.
pub(super) fn frame(random: &mut Random) -> Case {
    let (mut ethertype, mut case) = match random.below(20) {
        0 => (EtherType::ARP, arp_message(random)),
        1..8 => packet(random, gtpu_datagram),
        _ => packet(random, upper_layer),
    };
    let tags: &[EtherType] = match random.below(4) {
        0 => &[EtherType::SERVICE_VLAN, EtherType::VLAN],
        1 => &[EtherType::VLAN],
        _ => &[],
    };
    for tag in tags.iter().rev() {
        let repr = vlan::Repr {
            id: VlanId::new(random.below(4096) as u16).unwrap(),
            priority: random.below(8) as u8,
            drop_eligible: random.bool(),
            ethertype,
        };
        let mut header = vec![0xee; repr.header_len()];
        repr.emit(&mut header).unwrap();
        let fields = json!({
            "layer": if *tag == EtherType::VLAN { "Dot1Q" } else { "Dot1AD" },
            "vlan": repr.id.get(),
            "prio": repr.priority,
            "id": u8::from(repr.drop_eligible),
            "type": ethertype.0,
        });
        case = case.with_header(header, fields);
        ethertype = *tag;
    }
    let repr = ethernet::Repr { destination: random.mac(), source: random.mac(), ethertype };
    let mut header = vec![0xee; repr.header_len()];
    repr.emit(&mut header).unwrap();
    let fields = json!({
        "layer": "Ether",
        "dst": repr.destination.to_string(),
        "src": repr.source.to_string(),
        "type": ethertype.0,
    });
    case.with_header(header, fields)
}

fn arp_message(random: &mut Random) -> Case {
    let request = arp::Repr::request(random.mac(), random.v4(), random.v4());
    let repr = if random.bool() { request } else { request.reply(random.mac()) };
    let mut message = vec![0xee; repr.buffer_len()];
    repr.emit(&mut message).unwrap();
    let fields = json!({
        "layer": "ARP",
        "op": repr.operation.0,
        "hwsrc": repr.sender_mac.to_string(),
        "psrc": repr.sender_ip.to_string(),
        "hwdst": repr.target_mac.to_string(),
        "pdst": repr.target_ip.to_string(),
    });
    Case::raw(Vec::new()).with_header(message, fields)
}
