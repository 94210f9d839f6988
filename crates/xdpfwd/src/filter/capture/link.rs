//! Link layers: converts captured packets to Ethernet frames.
//!
//! <https://www.tcpdump.org/linktypes.html> lists the link types.

use super::skip::Skip;

/// Link types that [`to_ethernet`] converts.
pub(super) const KNOWN: &str = "Ethernet (1), Linux cooked (113, 276), raw IP (12, 14, 101, 228, \
                                229) or loopback (0, 108)";

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

pub(super) fn is_known(link_type: u32) -> bool {
    matches!(link_type, 0 | 1 | 12 | 14 | 101 | 108 | 113 | 228 | 229 | 276)
}

/// Returns the packet as an Ethernet frame. A packet without an Ethernet header gets one with zeros
/// as addresses. If the packet has no EtherType, returns why.
pub(super) fn to_ethernet(link_type: u32, data: &[u8]) -> Result<Vec<u8>, Skip> {
    let (ethertype, payload) = match link_type {
        1 => return Ok(data.to_vec()),
        12 | 14 | 101 => match data.first().map(|byte| byte >> 4) {
            Some(4) => (IPV4, data),
            Some(6) => (IPV6, data),
            _ => {
                return Err(Skip::from_reason(format!(
                    "link type {link_type}: neither IPv4 nor IPv6"
                )));
            }
        },
        228 => (IPV4, data),
        229 => (IPV6, data),
        0 | 108 => loopback(link_type, data)?,
        113 | 276 => cooked(link_type, data)?,
        _ => return Err(Skip::from_reason(format!("link type {link_type}"))),
    };
    Ok([&[0; 12][..], &ethertype.to_be_bytes(), payload].concat())
}

/// Reads the header: a protocol family of the capturing system in four bytes, in that system's byte
/// order (link type 0) or in network byte order (108).
fn loopback(link_type: u32, data: &[u8]) -> Result<(u16, &[u8]), Skip> {
    let Some((family, payload)) = data.split_first_chunk::<4>() else {
        return Err(Skip::from_reason(format!("link type {link_type}: truncated header")));
    };
    // Every family is below 65536. A greater number was read in the wrong byte order.
    let family = u32::from_be_bytes(*family);
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        2 => Ok((IPV4, payload)),
        // AF_INET6 has a different value on Linux, on NetBSD and OpenBSD, on FreeBSD, and on macOS.
        10 | 24 | 28 | 30 => Ok((IPV6, payload)),
        _ => Err(Skip::from_reason(format!("link type {link_type}: neither IPv4 nor IPv6"))),
    }
}

/// Returns whether the protocol field of every packet with this hardware type (ARPHRD_*) is an
/// EtherType. The field has another meaning for Frame Relay (770), IEEE 802.11 and 802.15.4 (801 to
/// 805), Netlink (824) and vsock monitors (826).
fn has_ethertype(hardware_type: u16) -> bool {
    !matches!(hardware_type, 770 | 801..=805 | 824 | 826)
}

/// Reads a packet of `tcpdump -i any`. The protocol field is the EtherType. If the kernel removed a
/// VLAN tag, libpcap inserts it: the TPID is then the protocol, and the payload begins with the
/// TCI, as in Ethernet.
fn cooked(link_type: u32, data: &[u8]) -> Result<(u16, &[u8]), Skip> {
    let (header_len, hardware_type_at, protocol_at) =
        if link_type == 113 { (16, 2, 14) } else { (20, 8, 0) };
    let Some((header, payload)) = data.split_at_checked(header_len) else {
        return Err(Skip::from_reason(format!("link type {link_type}: truncated header")));
    };
    let field = |offset: usize| u16::from_be_bytes([header[offset], header[offset + 1]]);
    let hardware_type = field(hardware_type_at);
    if !has_ethertype(hardware_type) {
        let text = format!("link type {link_type}: hardware type {hardware_type}");
        return Err(Skip::new(text, "hardware type whose packets have no EtherType"));
    }
    Ok((field(protocol_at), payload))
}
