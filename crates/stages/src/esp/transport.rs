//! The position of the ESP header in transport mode (RFC 4303, 3.1.1).

use xdpfwd_wire::checksum::update;
use xdpfwd_wire::{Headers, IpProtocol, IpVersion, ipv4, ipv6};

/// The position in a frame between two headers of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Offset in the frame.
    pub(super) offset: usize,
    /// Frame offset of the field with the protocol at the position; the field is in the header
    /// before it.
    pub(super) field: usize,
    pub(super) protocol: IpProtocol,
}

// Offsets of fields in the IP headers.
const IPV4_LENGTH: usize = 2;
const IPV4_PROTOCOL: usize = 9;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LENGTH: usize = 4;
const IPV6_NEXT_HEADER: usize = 6;

/// Returns where to insert ESP: after the last header for routers (hop-by-hop options, routing,
/// fragment), and before the headers for the receiver. Returns `None` if the headers cannot be
/// parsed.
#[inline]
pub(super) fn esp_position(frame: &[u8], headers: &Headers) -> Option<Position> {
    match headers.ip_version? {
        IpVersion::V4 => ipv4_position(headers),
        IpVersion::V6 => {
            // With a known protocol, the whole header chain was parsed.
            headers.protocol?;
            let mut position = None;
            walk_headers(frame, headers, |step| {
                let for_routers =
                    [IpProtocol::HOP_BY_HOP, IpProtocol::ROUTING, IpProtocol::FRAGMENT];
                // Keep the position after the last header for routers.
                if position.is_none() || for_routers.contains(&step.previous) {
                    position = Some(step.position);
                }
            })?;
            position
        }
    }
}

/// Returns the position after all IP headers, or `None` if the headers cannot be parsed.
#[inline]
pub(super) fn upper_position(frame: &[u8], headers: &Headers) -> Option<Position> {
    match headers.ip_version? {
        IpVersion::V4 => ipv4_position(headers),
        IpVersion::V6 => {
            let mut position = None;
            walk_headers(frame, headers, |step| position = Some(step.position))?;
            position
        }
    }
}

#[inline]
fn ipv4_position(headers: &Headers) -> Option<Position> {
    let field = usize::from(headers.l3_offset) + IPV4_PROTOCOL;
    Some(Position { offset: usize::from(headers.l4_offset), field, protocol: headers.protocol? })
}

struct Step {
    position: Position,
    /// The kind of the header before the position.
    previous: IpProtocol,
}

/// Calls `visit` after each header: first after the IPv6 header, last before the upper protocol.
/// Returns `None` if the headers do not end at the upper protocol in `headers`.
#[inline]
fn walk_headers(frame: &[u8], headers: &Headers, mut visit: impl FnMut(Step)) -> Option<()> {
    let start = usize::from(headers.l3_offset);
    let (mut offset, mut field, mut previous) =
        (start + ipv6::HEADER_LEN, start + IPV6_NEXT_HEADER, IpProtocol::IPV6);
    let end = usize::from(headers.l4_offset);
    loop {
        let protocol = IpProtocol(*frame.get(field)?);
        visit(Step { position: Position { offset, field, protocol }, previous });
        if offset >= end {
            return (offset == end).then_some(());
        }
        let len_field = usize::from(*frame.get(offset + 1)?);
        let len = match protocol {
            IpProtocol::FRAGMENT => 8,
            IpProtocol::AH => (len_field + 2) * 4,
            _ => (len_field + 1) * 8,
        };
        (field, previous) = (offset, protocol);
        offset += len;
    }
}

/// Sets the protocol at the frame offset `field`, and the length of the IP packet, which extends
/// from `start` to the end of the frame. Updates the IPv4 checksum incrementally (RFC 1624), so
/// that an invalid checksum stays invalid.
#[inline]
pub(super) fn set_next_protocol(
    frame: &mut [u8],
    start: usize,
    version: IpVersion,
    field: usize,
    protocol: IpProtocol,
) -> Option<()> {
    let l3 = frame.get_mut(start..)?;
    let len = u16::try_from(l3.len()).ok()?;
    let field = field.checked_sub(start)?;
    match version {
        IpVersion::V4 => {
            let header = l3.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
            let old = changing_words(header);
            header[IPV4_LENGTH..IPV4_LENGTH + 2].copy_from_slice(&len.to_be_bytes());
            *header.get_mut(field)? = protocol.0;
            let new = changing_words(header);
            let checksum =
                old.iter().zip(new).fold(word(header, IPV4_CHECKSUM), |checksum, (old, new)| {
                    update(checksum, *old, new)
                });
            header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        IpVersion::V6 => {
            let payload_len = len.checked_sub(ipv6::HEADER_LEN as u16)?;
            l3.get_mut(IPV6_LENGTH..IPV6_LENGTH + 2)?.copy_from_slice(&payload_len.to_be_bytes());
            *l3.get_mut(field)? = protocol.0;
        }
    }
    Some(())
}

fn word(header: &[u8; ipv4::HEADER_LEN], offset: usize) -> u16 {
    u16::from_be_bytes([header[offset], header[offset + 1]])
}

/// The words that `set_next_protocol` changes: total length, and TTL with protocol.
fn changing_words(header: &[u8; ipv4::HEADER_LEN]) -> [u16; 2] {
    [word(header, IPV4_LENGTH), word(header, IPV4_PROTOCOL - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 frame with UDP after extension headers of 8 bytes each.
    fn frame(extensions: &[IpProtocol]) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        let mut header = [0; 40];
        let chain: Vec<IpProtocol> = extensions.iter().copied().chain([IpProtocol::UDP]).collect();
        let repr = ipv6::Repr {
            next_header: chain[0],
            payload_len: (extensions.len() * 8 + 8) as u16,
            ..ipv6::Repr::default()
        };
        repr.emit(&mut header).unwrap();
        frame.extend(header);
        for next in &chain[1..] {
            frame.extend([next.0, 0, 0, 0, 0, 0, 0, 0]);
        }
        frame.extend([0, 1, 0, 2, 0, 8, 0, 0]);
        frame
    }

    #[test]
    fn esp_position_is_after_headers_for_routers() {
        use IpProtocol as P;
        let (hop, routing, fragment, options) =
            (P::HOP_BY_HOP, P::ROUTING, P::FRAGMENT, P::DESTINATION_OPTIONS);
        // The first `before_esp` extension headers stay before ESP.
        for (extensions, before_esp) in [
            (&[][..], 0),
            (&[hop], 1),
            (&[options], 0),
            (&[hop, options], 1),
            (&[options, routing], 2),
            (&[hop, options, routing, fragment, options], 4),
        ] {
            let frame = frame(extensions);
            let headers = Headers::parse(&frame);
            assert_eq!(headers.protocol, Some(P::UDP), "{extensions:?}");
            let position = esp_position(&frame, &headers).unwrap();
            assert_eq!(position.offset, 54 + 8 * before_esp, "{extensions:?}");
            assert_eq!(position.protocol, extensions.get(before_esp).copied().unwrap_or(P::UDP));
            assert_eq!(frame[position.field], position.protocol.0);
            let upper = upper_position(&frame, &headers).unwrap();
            assert_eq!((upper.offset, upper.protocol), (usize::from(headers.l4_offset), P::UDP));
            assert_eq!(frame[upper.field], P::UDP.0);
        }
    }
}
