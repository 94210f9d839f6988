//! Position of the ESP header in transport mode (RFC 4303, 3.1.1).

use xdpfwd_wire::checksum::update;
use xdpfwd_wire::{Headers, IpProtocol, IpVersion, ipv4, ipv6};

/// A position between IP header and upper protocol, in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Offset; bytes below it stay in front of ESP.
    pub(super) at: usize,
    /// Offset of the field that states the next protocol.
    pub(super) field: usize,
    /// The protocol in that field.
    pub(super) protocol: IpProtocol,
}

const IPV4_PROTOCOL: usize = 9;
const IPV6_NEXT_HEADER: usize = 6;

/// Returns the position for ESP: after the headers that routers process (hop-by-hop options,
/// routing, fragment), before those for the receiver. Returns `None` if the headers cannot be
/// parsed.
#[inline]
pub(super) fn before_payload(frame: &[u8], headers: &Headers) -> Option<Position> {
    match headers.ip_version? {
        IpVersion::V4 => ipv4(headers),
        IpVersion::V6 => {
            // A known protocol means that the whole header chain was parsed.
            headers.protocol?;
            let mut position = None;
            walk(frame, headers, |step| {
                let for_routers =
                    [IpProtocol::HOP_BY_HOP, IpProtocol::ROUTING, IpProtocol::FRAGMENT];
                // Keep the position after the last header for routers.
                if position.is_none() || for_routers.contains(&step.before) {
                    position = Some(step.position);
                }
            })?;
            position
        }
    }
}

/// Returns the position of the upper protocol.
#[inline]
pub(super) fn upper(frame: &[u8], headers: &Headers) -> Option<Position> {
    match headers.ip_version? {
        IpVersion::V4 => ipv4(headers),
        IpVersion::V6 => {
            let mut position = None;
            walk(frame, headers, |step| position = Some(step.position))?;
            position
        }
    }
}

#[inline]
fn ipv4(headers: &Headers) -> Option<Position> {
    let field = usize::from(headers.l3_offset) + IPV4_PROTOCOL;
    Some(Position { at: usize::from(headers.l4_offset), field, protocol: headers.protocol? })
}

/// A position after a header.
struct Step {
    position: Position,
    before: IpProtocol,
}

/// Visits the position after each header, from that after the IPv6 header to the upper protocol
/// that `Headers` found.
#[inline]
fn walk(frame: &[u8], headers: &Headers, mut visit: impl FnMut(Step)) -> Option<()> {
    let start = usize::from(headers.l3_offset);
    let (mut at, mut field, mut before) =
        (start + ipv6::HEADER_LEN, start + IPV6_NEXT_HEADER, IpProtocol::IPV6);
    let end = usize::from(headers.l4_offset);
    loop {
        let protocol = IpProtocol(*frame.get(field)?);
        visit(Step { position: Position { at, field, protocol }, before });
        if at >= end {
            return (at == end).then_some(());
        }
        let units = usize::from(*frame.get(at + 1)?);
        let len = match protocol {
            IpProtocol::FRAGMENT => 8,
            IpProtocol::AH => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        (field, before) = (at, protocol);
        at += len;
    }
}

/// Writes the protocol (at `field`) and the length of a packet from `start` to the end of the
/// frame. Updates the IPv4 checksum incrementally (RFC 1624): an invalid one stays invalid.
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
            let old = words(header);
            header[IPV4_LENGTH..IPV4_LENGTH + 2].copy_from_slice(&len.to_be_bytes());
            *header.get_mut(field)? = protocol.0;
            let new = words(header);
            let checksum = old
                .iter()
                .zip(new)
                .fold(word(header, IPV4_CHECKSUM), |sum, (old, new)| update(sum, *old, new));
            header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        IpVersion::V6 => {
            let payload = len.checked_sub(ipv6::HEADER_LEN as u16)?;
            l3.get_mut(IPV6_LENGTH..IPV6_LENGTH + 2)?.copy_from_slice(&payload.to_be_bytes());
            *l3.get_mut(field)? = protocol.0;
        }
    }
    Some(())
}

const IPV4_LENGTH: usize = 2;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LENGTH: usize = 4;

fn word(header: &[u8; ipv4::HEADER_LEN], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// Returns the words that change: the length; time to live and protocol.
fn words(header: &[u8; ipv4::HEADER_LEN]) -> [u16; 2] {
    [word(header, IPV4_LENGTH), word(header, IPV4_PROTOCOL - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an IPv6 frame with these extension headers, 8 bytes each, before UDP.
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
    fn esp_follows_headers_for_routers_on_the_path() {
        use IpProtocol as P;
        let (hop, routing, fragment, options) =
            (P::HOP_BY_HOP, P::ROUTING, P::FRAGMENT, P::DESTINATION_OPTIONS);
        // Number of headers that stay in front.
        for (extensions, in_front) in [
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
            let position = before_payload(&frame, &headers).unwrap();
            assert_eq!(position.at, 54 + 8 * in_front, "{extensions:?}");
            assert_eq!(position.protocol, extensions.get(in_front).copied().unwrap_or(P::UDP));
            assert_eq!(frame[position.field], position.protocol.0);
            let upper = upper(&frame, &headers).unwrap();
            assert_eq!((upper.at, upper.protocol), (usize::from(headers.l4_offset), P::UDP));
            assert_eq!(frame[upper.field], P::UDP.0);
        }
    }
}
