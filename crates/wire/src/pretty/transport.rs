//! Prints payloads of IP packets.

use core::fmt;
use core::net::Ipv6Addr;

use super::layer::{IpPayload, Layer, Lines};
use crate::error::Error;
use crate::field::{read_array, read_u16, read_u32};
use crate::gtpu;
use crate::icmp::{self, kind_name};
use crate::ip::{Addresses, Fragment, IpProtocol, IpVersion};
use crate::tcp::{self, Flags};
use crate::udp;

/// UDP port of IKE and ESP with NAT traversal (RFC 3948).
const NAT_T_PORT: u16 = 4500;

const SCTP_HEADER_LEN: usize = 12;
/// Length of SPI and sequence number.
const ESP_HEADER_LEN: usize = 8;

pub(super) fn print_upper<'a>(
    lines: &mut Lines,
    upper: &IpPayload<'a>,
) -> Result<Layer<'a>, fmt::Error> {
    let bytes = upper.bytes;
    if upper.fragment == Fragment::Later {
        lines.line(format_args!("Fragment: {} bytes", bytes.len()))?;
        return Ok(Layer::End);
    }
    match upper.protocol {
        IpProtocol::UDP => return print_udp(lines, upper),
        IpProtocol::IPV4 | IpProtocol::IPV6 => return Ok(Layer::Inner(bytes)),
        IpProtocol::TCP => print_tcp(lines, bytes)?,
        IpProtocol::SCTP => print_sctp(lines, bytes)?,
        IpProtocol::ICMP => print_icmp(lines, IpVersion::V4, bytes)?,
        IpProtocol::ICMPV6 => print_icmp(lines, IpVersion::V6, bytes)?,
        IpProtocol::ESP => print_esp(lines, bytes)?,
        _ => lines.payload(bytes)?,
    }
    Ok(Layer::End)
}

fn print_udp<'a>(lines: &mut Lines, upper: &IpPayload<'a>) -> Result<Layer<'a>, fmt::Error> {
    let bytes = upper.bytes;
    let view = match upper.fragment {
        Fragment::Whole => udp::Packet::new_checked(bytes),
        _ => udp::Packet::new_first_fragment(bytes),
    };
    let packet = match view {
        Ok(packet) => packet,
        Err(_) if bytes.len() < udp::HEADER_LEN => {
            lines.truncated("UDP", bytes.len(), udp::HEADER_LEN)?;
            return Ok(Layer::End);
        }
        Err(error) => {
            let len = read_u16(bytes, 4..6);
            match error {
                Error::Truncated => lines.truncated("UDP", bytes.len(), len.into())?,
                _ => lines.line(format_args!("UDP: malformed, length {len} is below 8"))?,
            }
            return Ok(Layer::End);
        }
    };
    let (source, destination) = (packet.source_port(), packet.destination_port());
    let stated_len = usize::from(packet.len()) - udp::HEADER_LEN;
    let has_no_checksum = packet.checksum() == 0;
    let payload = packet.into_payload();
    lines.line(format_args!("UDP: {source} > {destination}"))?;
    // Over IPv4, a missing checksum is common, so it is not printed.
    if has_no_checksum && matches!(upper.addresses, Addresses::V6 { .. }) {
        lines.item(format_args!("no checksum"))?;
    }
    if payload.len() < stated_len {
        lines.item(format_args!("{} of {stated_len} bytes of payload", payload.len()))?;
        return Ok(Layer::End);
    }
    lines.item(format_args!("{stated_len} bytes of payload"))?;
    let has_port = |port| source == port || destination == port;
    // On port 4500, an IKE message begins with four zero bytes, and a NAT keepalive is a single
    // byte (RFC 3948, section 2).
    let is_esp = has_port(NAT_T_PORT) && payload.len() >= ESP_HEADER_LEN && payload[..4] != [0; 4];
    if is_esp {
        print_esp(lines, payload)?;
    } else if has_port(gtpu::PORT) {
        return Ok(Layer::Gtpu(payload));
    }
    Ok(Layer::End)
}

fn print_tcp(lines: &mut Lines, bytes: &[u8]) -> fmt::Result {
    let packet = match tcp::Packet::new_checked(bytes) {
        Ok(packet) => packet,
        Err(_) if bytes.len() < tcp::HEADER_LEN => {
            return lines.truncated("TCP", bytes.len(), tcp::HEADER_LEN);
        }
        Err(error) => {
            let header_len = usize::from(bytes[12] >> 4) * 4;
            return match error {
                Error::Truncated => lines.truncated("TCP", bytes.len(), header_len),
                _ => lines
                    .line(format_args!("TCP: malformed, header length {header_len} is below 20")),
            };
        }
    };
    let (source, destination) = (packet.source_port(), packet.destination_port());
    lines.line(format_args!("TCP: {source} > {destination} [{}]", FlagNames(packet.flags())))?;
    lines.item(format_args!("seq {}", packet.sequence()))?;
    if packet.flags().contains(Flags::ACK) {
        lines.item(format_args!("ack {}", packet.acknowledgment()))?;
    }
    lines.item(format_args!("window {}", packet.window()))?;
    if packet.flags().contains(Flags::URG) {
        lines.item(format_args!("urgent {}", packet.urgent()))?;
    }
    if !packet.options().is_empty() {
        lines.item(format_args!("{} bytes of options", packet.options().len()))?;
    }
    lines.item(format_args!("{} bytes of payload", packet.payload().len()))
}

/// The names of the flags that are set, separated by spaces.
struct FlagNames(Flags);

impl fmt::Display for FlagNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 8] = [
            (Flags::SYN, "SYN"),
            (Flags::FIN, "FIN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
            (Flags::URG, "URG"),
            (Flags::ECE, "ECE"),
            (Flags::CWR, "CWR"),
        ];
        let mut separator = "";
        for (_, name) in NAMES.into_iter().filter(|(flag, _)| self.0.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        if self.0 == Flags::default() { f.write_str("no flags") } else { Ok(()) }
    }
}

fn print_sctp(lines: &mut Lines, bytes: &[u8]) -> fmt::Result {
    if bytes.len() < SCTP_HEADER_LEN {
        return lines.truncated("SCTP", bytes.len(), SCTP_HEADER_LEN);
    }
    let (source, destination) = (read_u16(bytes, 0..2), read_u16(bytes, 2..4));
    lines.line(format_args!("SCTP: {source} > {destination}"))?;
    lines.item(format_args!("tag 0x{:08x}", read_u32(bytes, 4..8)))?;
    lines.item(format_args!("{} bytes of chunks", bytes.len() - SCTP_HEADER_LEN))
}

fn print_esp(lines: &mut Lines, bytes: &[u8]) -> fmt::Result {
    if bytes.len() < ESP_HEADER_LEN {
        return lines.truncated("ESP", bytes.len(), ESP_HEADER_LEN);
    }
    let (spi, sequence) = (read_u32(bytes, 0..4), read_u32(bytes, 4..8));
    lines.line(format_args!("ESP: spi 0x{spi:08x}, seq {sequence}, {} bytes", bytes.len()))
}

fn print_icmp(lines: &mut Lines, version: IpVersion, bytes: &[u8]) -> fmt::Result {
    use IpVersion::{V4, V6};

    let name = match version {
        V4 => "ICMP",
        V6 => "ICMPv6",
    };
    let Ok(packet) = icmp::Packet::new_checked(bytes) else {
        return lines.truncated(name, bytes.len(), icmp::HEADER_LEN);
    };
    match kind_name(version, packet.kind()) {
        Some(kind) => lines.line(format_args!("{name}: {kind}"))?,
        None => lines.line(format_args!("{name}: type {}", packet.kind()))?,
    }
    if packet.code() != 0 {
        lines.item(format_args!("code {}", packet.code()))?;
    }
    if let Some(&[a, b, c, d]) = packet.payload().first_chunk() {
        let [first, second] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        match (version, packet.kind(), packet.code()) {
            (V4, icmp::v4::ECHO_REQUEST | icmp::v4::ECHO_REPLY, _)
            | (V6, icmp::v6::ECHO_REQUEST | icmp::v6::ECHO_REPLY, _) => {
                lines.item(format_args!("id {first}, seq {second}"))?;
            }
            // Fragmentation needed and DF set (RFC 1191, section 4).
            (V4, icmp::v4::DESTINATION_UNREACHABLE, 4) => {
                lines.item(format_args!("mtu {second}"))?;
            }
            (V6, icmp::v6::PACKET_TOO_BIG, _) => {
                lines.item(format_args!("mtu {}", u32::from_be_bytes([a, b, c, d])))?;
            }
            (V6, icmp::v6::NEIGHBOR_SOLICITATION | icmp::v6::NEIGHBOR_ADVERTISEMENT, _)
                if packet.payload().len() >= 20 =>
            {
                let target = Ipv6Addr::from(read_array(packet.payload(), 4..20));
                lines.item(format_args!("target {target}"))?;
            }
            _ => {}
        }
    }
    lines.item(format_args!("{} bytes", bytes.len()))
}
