//! ICMP error messages about a packet that cannot be forwarded.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::packet::Packet;
use super::repr::Repr;
use crate::checksum::Sum;
use crate::error::Error;
use crate::ethernet;
use crate::headers::Headers;
use crate::ip::{Addresses, Fragment, IpProtocol};
use crate::mac::MacAddr;
use crate::{ipv4, ipv6};

/// The problem that an ICMP error message reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The packet exceeds the MTU of the next link: "fragmentation needed and DF set" (RFC 792,
    /// RFC 1191) or "packet too big" (RFC 4443, section 3.2).
    TooBig {
        /// The MTU of the next link. An ICMPv6 message states at least 1280, the minimum of IPv6.
        mtu: u16,
    },
    /// The TTL or hop limit ran out (RFC 792; RFC 4443, section 3.3).
    TimeExceeded,
    /// No route: "net unreachable" (RFC 792) or "no route to destination" (RFC 4443, section 3.1).
    NoRoute,
    /// The next hop does not answer: "host unreachable" (RFC 792) or "address unreachable" (RFC
    /// 4443, section 3.1).
    HostUnreachable,
}

/// Source addresses of error messages, one for each IP version.
///
/// `None`: use the destination address of the packet that the message is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Source over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Source over IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Maximum length of an ICMP message with its IP header (RFC 1812, section 4.3.2.3).
const MAX_V4_LEN: usize = 576;
/// Maximum length of an ICMPv6 message with its IP header (RFC 4443, section 2.4 (c)).
const MAX_V6_LEN: usize = 1280;
const ICMP_LEN: usize = Repr::LEN;
const MAX_FRONT_LEN: usize = ipv6::HEADER_LEN + ICMP_LEN;

/// An ICMP error message about a packet, to its sender.
///
/// The message reuses the frame: new IP and ICMP headers are inserted before the packet, which is
/// truncated and quoted. The MAC addresses are exchanged; VLAN tags are kept.
///
/// ```
/// use xdpfwd_wire::icmp::{ErrorMessage, Problem, Sources};
/// use xdpfwd_wire::{Headers, IpProtocol, ipv4};
///
/// let mut frame = vec![0; 34];
/// frame[6] = 2; // the sender's MAC address
/// frame[12..14].copy_from_slice(&[0x08, 0x00]);
/// let ip = ipv4::Repr {
///     protocol: IpProtocol(99),
///     source: [10, 0, 0, 1].into(),
///     destination: [10, 0, 0, 2].into(),
///     ..ipv4::Repr::default()
/// };
/// ip.emit(&mut frame[14..])?;
///
/// let headers = Headers::parse(&frame);
/// let sources = Sources { v4: Some([10, 0, 0, 254].into()), v6: None };
/// let message = ErrorMessage::about(&frame, &headers, Problem::TimeExceeded, &sources).unwrap();
/// let mut buffer = vec![0; message.front_len()];
/// buffer.extend(frame);
/// message.emit(&mut buffer)?;
/// assert_eq!((buffer.len(), message.frame_len()), (62, 62));
/// assert_eq!((buffer[34], buffer[35]), (11, 0));
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ErrorMessage {
    destination_mac: MacAddr,
    source_mac: MacAddr,
    l2_len: usize,
    front: [u8; MAX_FRONT_LEN],
    front_len: usize,
    quoted_len: usize,
}

impl ErrorMessage {
    /// Creates the message about the packet in `frame`, whose headers are `headers`. Ignores the
    /// don't-fragment flag.
    ///
    /// Returns `None` if no message may be sent (RFC 1122, section 3.2.2; RFC 1812, section
    /// 4.3.2.7; RFC 4443, section 2.4 (e)):
    /// - about an ICMP error or redirect, or a packet that may be one: its ICMP type or its
    ///   extension headers cannot be parsed;
    /// - about a fragment that is not the first;
    /// - about a packet from a group MAC address, or an IP address that is not a single host's;
    /// - about a packet to a group MAC or IP address (over IPv4, to any that is not a single
    ///   host's), except for "packet too big" over IPv6;
    /// - about an IPv6 packet to an address that is not a single host's, if [`Sources::v6`] is
    ///   `None`: the message would have no source.
    ///
    /// Also returns `None` if `frame` has no complete IP header, or for [`Problem::TooBig`] if the
    /// packet fits into the stated MTU.
    pub fn about(
        frame: &[u8],
        headers: &Headers,
        problem: Problem,
        sources: &Sources,
    ) -> Option<Self> {
        let l2_len = headers.l2_len();
        let ethernet = ethernet::Frame::new_checked(frame.get(..l2_len)?).ok()?;
        let addresses = message_addresses(frame, headers, problem, sources)?;
        let packet = headers.l3(frame);
        let (ip_len, max_len) = match addresses {
            Addresses::V4 { .. } => (ipv4::HEADER_LEN, MAX_V4_LEN),
            Addresses::V6 { .. } => (ipv6::HEADER_LEN, MAX_V6_LEN),
        };
        let [kind, code, word @ ..] = type_code_and_word(problem, addresses, packet.len())?;

        let front_len = ip_len + ICMP_LEN;
        let mut front = [0; MAX_FRONT_LEN];
        let (ip, icmp) = front[..front_len].split_at_mut(ip_len);
        let quoted = &packet[..packet.len().min(max_len - front_len)];
        // Cannot overflow: at most `max_len`.
        let message_len = (ICMP_LEN + quoted.len()) as u16;
        let sum = match addresses {
            Addresses::V4 { source, destination } => {
                let repr = ipv4::Repr {
                    dscp: 0x30, // internetwork control: precedence 6 (RFC 1812, section 4.3.2.5)
                    protocol: IpProtocol::ICMP,
                    source,
                    destination,
                    payload_len: message_len,
                    ..ipv4::Repr::default()
                };
                repr.emit(ip).ok()?;
                Sum::new()
            }
            Addresses::V6 { source, destination } => {
                let repr = ipv6::Repr {
                    next_header: IpProtocol::ICMPV6,
                    source,
                    destination,
                    payload_len: message_len,
                    ..ipv6::Repr::default()
                };
                repr.emit(ip).ok()?;
                Sum::pseudo_header(addresses, IpProtocol::ICMPV6, u32::from(message_len))
            }
        };
        icmp[..2].copy_from_slice(&[kind, code]);
        icmp[4..].copy_from_slice(&word);
        let checksum = sum.with(icmp).with(quoted).checksum();
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        let (destination_mac, source_mac) =
            (ethernet.source(), reply_source_mac(ethernet.destination()));
        Some(Self {
            destination_mac,
            source_mac,
            l2_len,
            front,
            front_len,
            quoted_len: quoted.len(),
        })
    }

    /// Returns the number of bytes needed before the original frame.
    #[inline]
    pub fn front_len(&self) -> usize {
        self.front_len
    }

    /// Returns the length of the frame with the message.
    #[inline]
    pub fn frame_len(&self) -> usize {
        self.l2_len + self.front_len + self.quoted_len
    }

    /// Writes the message to the first [`frame_len`](Self::frame_len) bytes of `buffer`, which
    /// holds [`front_len`](Self::front_len) bytes of any content, then the original frame. Returns
    /// [`Error::Truncated`] if `buffer` is too short.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let frame = buffer.get_mut(..self.frame_len()).ok_or(Error::Truncated)?;
        frame.copy_within(self.front_len..self.front_len + self.l2_len, 0);
        let (l2, packet) = frame.split_at_mut(self.l2_len);
        packet[..self.front_len].copy_from_slice(&self.front[..self.front_len]);
        let mut ethernet = ethernet::Frame::new_checked(l2)?;
        ethernet.set_destination(self.destination_mac);
        ethernet.set_source(self.source_mac);
        Ok(())
    }
}

/// Returns type, code and second word; `None` if the problem is [`Problem::TooBig`] but the packet
/// is not too big.
fn type_code_and_word(
    problem: Problem,
    addresses: Addresses,
    packet_len: usize,
) -> Option<[u8; 6]> {
    let is_v4 = matches!(addresses, Addresses::V4 { .. });
    let (kind, code) = match (problem, is_v4) {
        (Problem::TooBig { .. }, true) => (3, 4),
        (Problem::TooBig { .. }, false) => (2, 0),
        (Problem::TimeExceeded, true) => (11, 0),
        (Problem::TimeExceeded, false) => (3, 0),
        (Problem::NoRoute, true) => (3, 0),
        (Problem::NoRoute, false) => (1, 0),
        (Problem::HostUnreachable, true) => (3, 1),
        (Problem::HostUnreachable, false) => (1, 3),
    };
    let Problem::TooBig { mtu } = problem else { return Some([kind, code, 0, 0, 0, 0]) };
    let mtu = if is_v4 { mtu } else { mtu.max(MAX_V6_LEN as u16) };
    // ICMP has the MTU in the lower half of the second word (RFC 1191, section 4), ICMPv6 in the
    // whole word (RFC 4443, section 3.2): the same bytes.
    let [high, low] = mtu.to_be_bytes();
    (packet_len > usize::from(mtu)).then_some([kind, code, 0, 0, high, low])
}

/// Returns the addresses of the message; `None` if no message may be sent.
fn message_addresses(
    frame: &[u8],
    headers: &Headers,
    problem: Problem,
    sources: &Sources,
) -> Option<Addresses> {
    let ethernet = ethernet::Frame::new_checked(frame).ok()?;
    if headers.fragment == Fragment::Later || ethernet.source().is_multicast() {
        return None;
    }
    let protocol = headers.protocol?;
    let icmp_type = || Packet::new_checked(headers.l4(frame)).ok().map(|packet| packet.kind());
    match headers.addresses(frame)? {
        Addresses::V4 { source, destination } => {
            let to_group = ethernet.destination().is_multicast() || !is_host_v4(destination);
            // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
            let is_error =
                protocol == IpProtocol::ICMP && matches!(icmp_type()?, 3 | 4 | 5 | 11 | 12);
            (!to_group && !is_error && is_host_v4(source)).then(|| Addresses::V4 {
                source: sources.v4.unwrap_or(destination),
                destination: source,
            })
        }
        Addresses::V6 { source, destination } => {
            let to_group = ethernet.destination().is_multicast() || destination.is_multicast();
            let may_answer_group = matches!(problem, Problem::TooBig { .. });
            // Types below 128 are errors; 137 is a redirect.
            let is_error = protocol == IpProtocol::ICMPV6 && matches!(icmp_type()?, 0..128 | 137);
            let reply_source = sources.v6.or(Some(destination).filter(is_host_v6))?;
            ((!to_group || may_answer_group) && !is_error && is_host_v6(&source))
                .then_some(Addresses::V6 { source: reply_source, destination: source })
        }
    }
}

/// Returns whether the address is that of a single host: not "this network", loopback, multicast,
/// reserved or broadcast. The broadcast address of a subnet cannot be recognized.
fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// Returns whether the address is that of a single host: not unspecified, loopback or multicast.
fn is_host_v6(address: &Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Returns the source address of a reply to `address`. A group address cannot be a source, so it
/// becomes a locally administered unicast address.
fn reply_source_mac(address: MacAddr) -> MacAddr {
    let [first, rest @ ..] = address.0;
    if !address.is_multicast() {
        return address;
    }
    let [b, c, d, e, f] = rest;
    MacAddr([first & !0x01 | 0x02, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: Sources = Sources {
        v4: Some(Ipv4Addr::new(192, 0, 2, 254)),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe)),
    };

    /// Returns a frame with an IP packet of 1400 bytes and an unassigned protocol.
    fn frame(is_v6: bool) -> Vec<u8> {
        let mut frame = vec![0; 14 + 1400];
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        if is_v6 {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            let repr = ipv6::Repr {
                next_header: IpProtocol(99),
                source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
                destination: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2),
                payload_len: 1360,
                ..ipv6::Repr::default()
            };
            repr.emit(&mut frame[14..]).unwrap();
        } else {
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            let repr = ipv4::Repr {
                protocol: IpProtocol(99),
                source: [192, 0, 2, 1].into(),
                destination: [198, 51, 100, 2].into(),
                payload_len: 1380,
                ..ipv4::Repr::default()
            };
            repr.emit(&mut frame[14..]).unwrap();
        }
        frame
    }

    fn emitted(frame: &[u8], problem: Problem) -> Option<Vec<u8>> {
        let message = ErrorMessage::about(frame, &Headers::parse(frame), problem, &SOURCES)?;
        let mut buffer = [&vec![0xee; message.front_len()], frame].concat();
        message.emit(&mut buffer).unwrap();
        let (message, rest) = buffer.split_at(message.frame_len());
        assert_eq!(rest, &frame[frame.len() - rest.len()..], "bytes after the message changed");
        Some(message.to_vec())
    }

    #[test]
    fn error_message_states_problem_and_quotes_packet() {
        let too_big = Problem::TooBig { mtu: 1300 };
        for (problem, is_v6, type_code_and_word) in [
            (too_big, false, [3, 4, 0, 0, 0x05, 0x14]),
            (too_big, true, [2, 0, 0, 0, 0x05, 0x14]),
            (Problem::TimeExceeded, false, [11, 0, 0, 0, 0, 0]),
            (Problem::TimeExceeded, true, [3, 0, 0, 0, 0, 0]),
            (Problem::NoRoute, false, [3, 0, 0, 0, 0, 0]),
            (Problem::NoRoute, true, [1, 0, 0, 0, 0, 0]),
            (Problem::HostUnreachable, false, [3, 1, 0, 0, 0, 0]),
            (Problem::HostUnreachable, true, [1, 3, 0, 0, 0, 0]),
        ] {
            let frame = frame(is_v6);
            let message = emitted(&frame, problem).unwrap();
            let headers = Headers::parse(&message);
            let (max_len, front_len) = if is_v6 { (1280, 48) } else { (576, 28) };
            assert_eq!(message.len(), 14 + max_len, "{problem:?}");
            let (icmp, addresses) = (headers.l4(&message), headers.addresses(&message).unwrap());
            let [kind, code, word @ ..] = type_code_and_word;
            assert_eq!((&icmp[..2], &icmp[4..8]), (&[kind, code][..], &word[..]), "{problem:?}");
            assert!(Packet::new_checked(icmp).unwrap().verify_checksum(addresses), "{problem:?}");
            assert_eq!(
                addresses.destination(),
                Headers::parse(&frame).addresses(&frame).unwrap().source()
            );
            assert_eq!(icmp[8..], frame[14..14 + max_len - front_len], "{problem:?}");
            assert_eq!((&message[..6], &message[6..12]), (&frame[6..12], &frame[..6]));
        }
    }

    #[test]
    fn group_packet_causes_message_only_if_too_big_over_ipv6() {
        let problems = [
            Problem::TooBig { mtu: 1300 },
            Problem::TimeExceeded,
            Problem::NoRoute,
            Problem::HostUnreachable,
        ];
        for problem in problems {
            for is_v6 in [false, true] {
                let may_answer = is_v6 && problem == problems[0];
                let mut to_group_mac = frame(is_v6);
                to_group_mac[0] |= 1;
                assert_eq!(emitted(&to_group_mac, problem).is_some(), may_answer, "{problem:?}");
                let mut to_group = frame(is_v6);
                to_group[if is_v6 { 38 } else { 30 }] = if is_v6 { 0xff } else { 224 };
                assert_eq!(emitted(&to_group, problem).is_some(), may_answer, "{problem:?}");
            }
        }
    }

    #[test]
    fn emit_into_short_buffer_returns_truncated() {
        let is_v6 = false;
        let frame = frame(is_v6);
        let message =
            ErrorMessage::about(&frame, &Headers::parse(&frame), Problem::TimeExceeded, &SOURCES)
                .unwrap();
        let mut buffer = vec![0xee; message.frame_len() - 1];
        assert_eq!(message.emit(&mut buffer), Err(Error::Truncated));
        assert!(buffer.iter().all(|&byte| byte == 0xee));
    }
}
