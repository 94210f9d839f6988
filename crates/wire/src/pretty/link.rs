//! Prints Ethernet headers, VLAN tags and ARP messages.

use core::fmt;

use super::layer::{Layer, Lines};
use crate::arp::{self, Operation};
use crate::error::Error;
use crate::ethernet::{self, EtherType, Frame};
use crate::limits::MAX_TAGS;
use crate::vlan;

/// The smallest EtherType: a smaller value is the length of an LLC frame (IEEE 802.3-2018, clause
/// 3.2.6).
const MIN_ETHERTYPE: u16 = 0x0600;

pub(super) fn print_ethernet<'a>(
    lines: &mut Lines,
    bytes: &'a [u8],
) -> Result<Layer<'a>, fmt::Error> {
    let Ok(frame) = Frame::new_checked(bytes) else {
        lines.truncated("Ethernet", bytes.len(), ethernet::HEADER_LEN)?;
        return Ok(Layer::End);
    };
    lines.line(format_args!("Ethernet: {} > {}", frame.source(), frame.destination()))?;
    print_ethertype(lines, frame.ethertype())?;
    lines.item(format_args!("{} bytes", bytes.len()))?;

    let mut next = frame.ethertype();
    let mut rest = frame.into_payload();
    for _ in 0..MAX_TAGS {
        if !next.is_vlan() {
            break;
        }
        let Ok(tag) = vlan::Tag::new_checked(rest) else {
            lines.truncated("VLAN", rest.len(), vlan::TAG_LEN)?;
            return Ok(Layer::End);
        };
        lines.line(format_args!("VLAN: id {}, priority {}", tag.id(), tag.priority()))?;
        if tag.drop_eligible() {
            lines.item(format_args!("drop eligible"))?;
        }
        print_ethertype(lines, tag.ethertype())?;
        next = tag.ethertype();
        rest = tag.into_payload();
    }
    Ok(match next {
        EtherType::IPV4 => Layer::Ipv4(rest),
        EtherType::IPV6 => Layer::Ipv6(rest),
        EtherType::ARP => Layer::Arp(rest),
        next if next.is_vlan() => {
            lines.line(format_args!(
                "VLAN: more than {MAX_TAGS} tags; the rest of the packet is not printed"
            ))?;
            Layer::End
        }
        _ => Layer::End,
    })
}

fn print_ethertype(lines: &mut Lines, ethertype: EtherType) -> fmt::Result {
    match ethertype {
        EtherType(len) if len < MIN_ETHERTYPE => lines.item(format_args!("802.3 length {len}")),
        ethertype => lines.item(format_args!("{ethertype}")),
    }
}

pub(super) fn print_arp<'a>(lines: &mut Lines, bytes: &[u8]) -> Result<Layer<'a>, fmt::Error> {
    let message = match arp::Packet::new_checked(bytes) {
        Ok(packet) => arp::Repr::parse(&packet),
        Err(Error::Truncated) => {
            lines.truncated("ARP", bytes.len(), arp::LEN)?;
            return Ok(Layer::End);
        }
        Err(_) => {
            lines.line(format_args!("ARP: address types other than Ethernet and IPv4"))?;
            return Ok(Layer::End);
        }
    };
    let arp::Repr { operation, sender_mac, sender_ip, target_mac, target_ip } = message;
    match operation {
        Operation::REQUEST => {
            lines.line(format_args!("ARP: who-has {target_ip} tell {sender_ip}"))?;
        }
        Operation::REPLY => lines.line(format_args!("ARP: {sender_ip} is-at {sender_mac}"))?,
        other => {
            lines.line(format_args!("ARP: {other}"))?;
            lines.item(format_args!("sender {sender_ip} at {sender_mac}"))?;
            lines.item(format_args!("target {target_ip} at {target_mac}"))?;
        }
    }
    Ok(Layer::End)
}
