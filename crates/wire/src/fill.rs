//! Checksums of IP packets.

use crate::error::Error;
use crate::icmp::packet::Packet as IcmpPacket;
use crate::ip::{Addresses, Fragment, IpProtocol};
use crate::{ipv4, ipv6, tcp, udp};

/// Writes the checksums of an IP packet: the header checksum of IPv4, and that of UDP, TCP, ICMP or
/// ICMPv6.
///
/// `packet` begins with the IP header; bytes after the IP packet are ignored. A UDP checksum of 0
/// ("no checksum") is replaced too. Fill the checksums of encapsulated packets first, because the
/// outer UDP checksum covers them.
///
/// Returns `true` if it wrote an upper-layer checksum. Returns `false` for
/// - a fragment,
/// - a packet of any other upper protocol,
/// - an IPv6 packet whose routing header has segments left: the checksum covers the final
///   destination, which is not in the IPv6 header (RFC 8200, section 8.1).
///
/// In the first two cases, an IPv4 header checksum is written nevertheless.
///
/// Returns the error of the first invalid header. If that is the upper-layer header, an IPv4 header
/// checksum has been written.
///
/// ```
/// use xdpfwd_wire::{IpProtocol, fill_checksums, ipv4, udp};
///
/// let ip = ipv4::Repr { protocol: IpProtocol::UDP, payload_len: 8, ..ipv4::Repr::default() };
/// let udp = udp::Repr { source_port: 1024, destination_port: 53, payload_len: 0 };
/// let mut packet = [0; 28];
/// ip.emit(&mut packet)?;
/// udp.emit(&mut packet[20..])?;
/// packet[12..16].copy_from_slice(&[10, 0, 0, 1]); // another source address
///
/// assert!(fill_checksums(&mut packet)?);
/// let ip = ipv4::Packet::new_checked(&packet[..])?;
/// assert!(ip.verify_checksum());
/// assert!(udp::Packet::new_checked(ip.payload())?.verify_checksum(ip.addresses()));
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
pub fn fill_checksums(packet: &mut [u8]) -> Result<bool, Error> {
    match packet.first().map(|byte| byte >> 4) {
        None => Err(Error::Truncated),
        Some(6) => fill_ipv6(packet),
        // Rejects versions other than 4.
        Some(_) => fill_ipv4(packet),
    }
}

/// Writes the checksum of a UDP, TCP, ICMP or ICMPv6 packet. `packet` begins with the header of
/// `protocol` and has no padding. `addresses` are those of the pseudo header.
///
/// Returns `false` and writes nothing if `protocol` is none of these, is ICMP with IPv6 addresses,
/// or is ICMPv6 with IPv4 addresses. Returns an error if the header is invalid.
pub fn fill_upper_checksum(
    protocol: IpProtocol,
    addresses: Addresses,
    packet: &mut [u8],
) -> Result<bool, Error> {
    match (protocol, addresses) {
        (IpProtocol::UDP, _) => udp::Packet::new_checked(packet)?.fill_checksum(addresses),
        (IpProtocol::TCP, _) => tcp::Packet::new_checked(packet)?.fill_checksum(addresses),
        (IpProtocol::ICMP, Addresses::V4 { .. }) | (IpProtocol::ICMPV6, Addresses::V6 { .. }) => {
            IcmpPacket::new_checked(packet)?.fill_checksum(addresses);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn fill_ipv4(packet: &mut [u8]) -> Result<bool, Error> {
    let mut packet = ipv4::Packet::new_checked(packet)?;
    packet.fill_checksum();
    if packet.fragment() != Fragment::Whole {
        return Ok(false);
    }
    let (protocol, addresses) = (packet.protocol(), packet.addresses());
    fill_upper_checksum(protocol, addresses, packet.payload_mut())
}

fn fill_ipv6(packet: &mut [u8]) -> Result<bool, Error> {
    let packet = ipv6::Packet::new_checked(packet)?;
    let upper = packet.upper()?;
    if upper.fragment() != Fragment::Whole || has_segments_left(&packet) {
        return Ok(false);
    }
    let (addresses, end) = (packet.addresses(), packet.total_len());
    let upper_packet = packet.into_inner().get_mut(upper.offset..end).ok_or(Error::Truncated)?;
    fill_upper_checksum(upper.protocol, addresses, upper_packet)
}

/// Returns whether a routing header has segments left (RFC 8200, section 4.4).
fn has_segments_left<T: AsRef<[u8]>>(packet: &ipv6::Packet<T>) -> bool {
    packet.extensions().map_while(Result::ok).any(|header| {
        header.kind == IpProtocol::ROUTING && header.content.get(1).is_some_and(|&left| left != 0)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UDP: udp::Repr = udp::Repr { source_port: 1, destination_port: 2, payload_len: 4 };

    fn ipv4_packet(protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let payload_len = payload.len() as u16;
        let repr = ipv4::Repr {
            protocol,
            payload_len,
            source: [192, 0, 2, 1].into(),
            destination: [198, 51, 100, 2].into(),
            ..ipv4::Repr::default()
        };
        let mut packet = vec![0; ipv4::HEADER_LEN];
        repr.emit(&mut packet).unwrap();
        packet[10..12].fill(0xee); // invalid header checksum
        packet.extend(payload);
        packet
    }

    fn ipv6_packet(next_header: IpProtocol, segments_left: u8, payload: &[u8]) -> Vec<u8> {
        let routing = [next_header.0, 0, 4, segments_left, 0, 0, 0, 0];
        let repr = ipv6::Repr {
            next_header: IpProtocol::ROUTING,
            payload_len: (routing.len() + payload.len()) as u16,
            ..ipv6::Repr::default()
        };
        let mut packet = vec![0; ipv6::HEADER_LEN];
        repr.emit(&mut packet).unwrap();
        packet.extend(routing);
        packet.extend(payload);
        packet
    }

    fn udp_datagram() -> Vec<u8> {
        let mut datagram = b"........data".to_vec();
        UDP.emit(&mut datagram).unwrap();
        datagram
    }

    #[test]
    fn fill_checksums_writes_valid_checksum_per_protocol() {
        let icmp = [8, 0, 0xee, 0xee, 1, 2, 3, 4, 5];
        let mut tcp = [0; 23];
        tcp[12] = 0x50;
        for (protocol, payload) in [
            (IpProtocol::UDP, &udp_datagram()[..]),
            (IpProtocol::TCP, &tcp),
            (IpProtocol::ICMP, &icmp),
        ] {
            let mut packet = ipv4_packet(protocol, payload);
            packet.extend([0xee; 3]); // Ethernet padding
            assert_eq!(fill_checksums(&mut packet), Ok(true), "{protocol}");
            let packet = ipv4::Packet::new_checked(&packet[..]).unwrap();
            assert!(packet.verify_checksum(), "{protocol}");
            assert!(is_valid(protocol, packet.addresses(), packet.payload()), "{protocol}");
        }
        for (protocol, payload) in [
            (IpProtocol::UDP, &udp_datagram()[..]),
            (IpProtocol::TCP, &tcp),
            (IpProtocol::ICMPV6, &icmp),
        ] {
            let segments_left = 0;
            let mut packet = ipv6_packet(protocol, segments_left, payload);
            assert_eq!(fill_checksums(&mut packet), Ok(true), "{protocol}");
            let packet = ipv6::Packet::new_checked(&packet[..]).unwrap();
            assert!(is_valid(protocol, packet.addresses(), &packet.payload()[8..]), "{protocol}");
        }
    }

    fn is_valid(protocol: IpProtocol, addresses: Addresses, packet: &[u8]) -> bool {
        match protocol {
            IpProtocol::UDP => {
                let packet = udp::Packet::new_checked(packet).unwrap();
                packet.checksum() != 0 && packet.verify_checksum(addresses)
            }
            IpProtocol::TCP => tcp::Packet::new_checked(packet).unwrap().verify_checksum(addresses),
            _ => IcmpPacket::new_checked(packet).unwrap().verify_checksum(addresses),
        }
    }

    #[test]
    fn fill_checksums_returning_false_keeps_payload() {
        let mut fragment = ipv4_packet(IpProtocol::UDP, &udp_datagram());
        fragment[6] = 0x20; // more fragments
        let esp = ipv4_packet(IpProtocol::ESP, &udp_datagram());
        let icmpv6 = ipv4_packet(IpProtocol::ICMPV6, &udp_datagram());
        for mut packet in [fragment, esp, icmpv6] {
            let payload = packet[20..].to_vec();
            assert_eq!(fill_checksums(&mut packet), Ok(false));
            assert!(ipv4::Packet::new_checked(&packet).unwrap().verify_checksum());
            assert_eq!(packet[20..], payload);
        }
        let segments_left = 1;
        let routed = ipv6_packet(IpProtocol::UDP, segments_left, &udp_datagram());
        let mut packet = routed.clone();
        assert_eq!(fill_checksums(&mut packet), Ok(false));
        assert_eq!(packet, routed);
    }

    #[test]
    fn fill_checksums_rejects_invalid_header() {
        assert_eq!(fill_checksums(&mut []), Err(Error::Truncated));
        assert_eq!(fill_checksums(&mut [0x50; 40]), Err(Error::Malformed));
        assert_eq!(fill_checksums(&mut [0x60; 39]), Err(Error::Truncated));
        let mut packet = ipv4_packet(IpProtocol::TCP, &[0; 19]);
        assert_eq!(fill_checksums(&mut packet), Err(Error::Truncated));
    }

    proptest! {
        #[test]
        fn fill_checksums_of_any_bytes_does_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120), first in 0x40u8..0x70) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            let _ = fill_checksums(&mut bytes);
        }
    }
}
