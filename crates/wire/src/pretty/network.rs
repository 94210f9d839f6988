//! Prints IPv4 and IPv6 packets.

use core::fmt;

use super::layer::{IpPayload, Layer, Lines};
use crate::error::Error;
use crate::field::{read_u16, read_u32};
use crate::ip::{Fragment, IpProtocol};
use crate::{ipv4, ipv6};

/// Prints an IP packet; only the length for versions other than 4 and 6.
pub(super) fn print_ip<'a>(lines: &mut Lines, bytes: &'a [u8]) -> Result<Layer<'a>, fmt::Error> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => print_ipv4(lines, bytes),
        Some(6) => print_ipv6(lines, bytes),
        _ => {
            lines.payload(bytes)?;
            Ok(Layer::End)
        }
    }
}

pub(super) fn print_ipv4<'a>(lines: &mut Lines, bytes: &'a [u8]) -> Result<Layer<'a>, fmt::Error> {
    let packet = match ipv4::Packet::new_checked(bytes) {
        Ok(packet) => packet,
        Err(error) => {
            print_ipv4_error(lines, bytes, error)?;
            return Ok(Layer::End);
        }
    };
    lines.line(format_args!("IPv4: {} > {}", packet.source(), packet.destination()))?;
    lines.item(format_args!("{}", packet.protocol()))?;
    lines.item(format_args!("ttl {}", packet.ttl()))?;
    if packet.dscp() != 0 {
        lines.item(format_args!("dscp {}", packet.dscp()))?;
    }
    if packet.ecn() != 0 {
        lines.item(format_args!("ecn {}", packet.ecn()))?;
    }
    if packet.fragment() != Fragment::Whole {
        lines.item(format_args!("fragment at {}", packet.fragment_offset()))?;
        print_more_fragments(lines, packet.more_fragments())?;
        lines.item(format_args!("id 0x{:04x}", packet.ident()))?;
    }
    if !packet.options().is_empty() {
        lines.item(format_args!("{} bytes of options", packet.options().len()))?;
    }
    lines.item(format_args!("{} bytes", packet.total_len()))?;
    if !packet.verify_checksum() {
        lines.item(format_args!("invalid checksum"))?;
    }
    Ok(Layer::Upper(IpPayload {
        addresses: packet.addresses(),
        protocol: packet.protocol(),
        fragment: packet.fragment(),
        bytes: packet.into_payload(),
    }))
}

fn print_ipv4_error(lines: &mut Lines, bytes: &[u8], error: Error) -> fmt::Result {
    if bytes.len() < ipv4::HEADER_LEN {
        return lines.truncated("IPv4", bytes.len(), ipv4::HEADER_LEN);
    }
    let (version, header_len) = (bytes[0] >> 4, usize::from(bytes[0] & 0x0f) * 4);
    let total_len = usize::from(read_u16(bytes, 2..4));
    if error == Error::Truncated {
        lines.truncated("IPv4", bytes.len(), total_len)
    } else if version != 4 {
        lines.line(format_args!("IPv4: malformed, version {version}"))
    } else if header_len < ipv4::HEADER_LEN {
        lines.line(format_args!("IPv4: malformed, header length {header_len} is below 20"))
    } else {
        lines.line(format_args!(
            "IPv4: malformed, total length {total_len} is below header length {header_len}"
        ))
    }
}

pub(super) fn print_ipv6<'a>(lines: &mut Lines, bytes: &'a [u8]) -> Result<Layer<'a>, fmt::Error> {
    let packet = match ipv6::Packet::new_checked(bytes) {
        Ok(packet) => packet,
        Err(_) => {
            print_ipv6_error(lines, bytes)?;
            return Ok(Layer::End);
        }
    };
    lines.line(format_args!("IPv6: {} > {}", packet.source(), packet.destination()))?;
    lines.item(format_args!("{}", packet.next_header()))?;
    lines.item(format_args!("hop limit {}", packet.hop_limit()))?;
    if packet.traffic_class() != 0 {
        lines.item(format_args!("class 0x{:02x}", packet.traffic_class()))?;
    }
    if packet.flow_label() != 0 {
        lines.item(format_args!("flow 0x{:05x}", packet.flow_label()))?;
    }
    lines.item(format_args!("{} bytes", packet.total_len()))?;

    for header in packet.extensions().map_while(Result::ok) {
        print_extension(lines, &header)?;
    }
    let upper = match packet.upper() {
        Ok(upper) => upper,
        Err(error) => {
            match error {
                Error::Truncated => lines.line(format_args!("IPv6 extension: truncated"))?,
                Error::ExtensionChainTooLong => lines.line(format_args!(
                    "IPv6 extension: more than {} headers; the rest of the packet is not printed",
                    ipv6::MAX_EXTENSIONS
                ))?,
                _ => lines.line(format_args!("IPv6 extension: malformed"))?,
            }
            return Ok(Layer::End);
        }
    };
    Ok(Layer::Upper(IpPayload {
        addresses: packet.addresses(),
        protocol: upper.protocol,
        fragment: upper.fragment(),
        bytes: bytes.get(upper.offset..packet.total_len()).unwrap_or_default(),
    }))
}

fn print_ipv6_error(lines: &mut Lines, bytes: &[u8]) -> fmt::Result {
    if bytes.len() < ipv6::HEADER_LEN {
        return lines.truncated("IPv6", bytes.len(), ipv6::HEADER_LEN);
    }
    let version = bytes[0] >> 4;
    if version != 6 {
        return lines.line(format_args!("IPv6: malformed, version {version}"));
    }
    let payload_len = usize::from(read_u16(bytes, 4..6));
    lines.truncated("IPv6", bytes.len(), ipv6::HEADER_LEN + payload_len)
}

fn print_extension(lines: &mut Lines, header: &ipv6::ExtensionHeader<'_>) -> fmt::Result {
    lines.line(format_args!("IPv6 extension: {}", header.kind))?;
    match (header.kind, header.content) {
        (IpProtocol::FRAGMENT, _) => {
            if let Some(fragment) = header.fragment() {
                lines.item(format_args!("at {}", fragment.offset))?;
                print_more_fragments(lines, fragment.more)?;
                lines.item(format_args!("id 0x{:08x}", fragment.ident))?;
            }
        }
        (IpProtocol::ROUTING, [kind, segments_left, ..]) => {
            lines.item(format_args!("type {kind}"))?;
            lines.item(format_args!("{segments_left} segments left"))?;
        }
        // The content begins with two reserved bytes, the SPI and the sequence number.
        (IpProtocol::AH, content) if content.len() >= 10 => {
            lines.item(format_args!("spi 0x{:08x}", read_u32(content, 2..6)))?;
            lines.item(format_args!("seq {}", read_u32(content, 6..10)))?;
        }
        _ => {}
    }
    lines.item(format_args!("{} bytes", header.header_len()))
}

fn print_more_fragments(lines: &mut Lines, has_more: bool) -> fmt::Result {
    let position = if has_more { "more follow" } else { "the last" };
    lines.item(format_args!("{position}"))
}
