//! Writes several headers before a payload.

use crate::error::Error;
use crate::ethernet::EtherType;
use crate::ip::{Addresses, IpProtocol, IpVersion};
use crate::{ethernet, gtpu, icmp, ipv4, ipv6, tcp, udp, vlan};

/// Headers to be written before a payload, outermost first.
///
/// A stack fills in fields that depend on other headers or on the payload:
///
/// - **Lengths.** The stack replaces the `payload_len` of every `Repr`.
/// - **Types.** The EtherType of Ethernet and VLAN, and the protocol or next header of IP, become
///   the type of the next header. Before a VLAN tag, an EtherType that stands for a VLAN tag
///   ([`EtherType::is_vlan`]) does not change; any other becomes `SERVICE_VLAN` if two tags follow,
///   else `VLAN`. The last header keeps its type, but an EtherType of 0 (the default) becomes that
///   of IPv4 or IPv6 if the payload's first four bits are 4 or 6.
/// - **Checksums** of IPv4, UDP, TCP and ICMP. To send UDP over IPv4 without a checksum, use
///   [`Header::UdpWithoutChecksum`].
///
/// The caller sets all other fields, for example UDP ports. Short Ethernet frames are not padded.
///
/// # Order
///
/// | header | is first, or directly follows |
/// |---|---|
/// | Ethernet | GTP-U |
/// | VLAN | Ethernet, VLAN |
/// | IPv4, IPv6 | Ethernet, VLAN, IPv4, IPv6, GTP-U |
/// | GTP-U | UDP |
///
/// UDP, TCP and ICMP must directly follow IPv4 or IPv6; UDP without checksum must follow IPv4.
/// Otherwise, [`emit`](Self::emit) returns [`Error::Malformed`].
///
/// For an unlisted protocol, such as GRE, use two stacks: emit the inner headers, write the GRE
/// header, and emit the outer headers.
///
/// # Example
///
/// ```
/// use xdpfwd_wire::{HeaderStack, Pretty, ethernet, ipv6, udp};
///
/// let udp = udp::Repr { source_port: 4000, destination_port: 53, ..udp::Repr::default() };
/// let headers =
///     [ethernet::Repr::default().into(), ipv6::Repr::default().into(), udp.into()];
/// let stack = HeaderStack(&headers);
/// assert_eq!(stack.header_len(), 14 + 40 + 8);
///
/// let mut frame = [0; 67];
/// frame[62..].copy_from_slice(b"hello");
/// stack.emit(&mut frame)?;
/// assert_eq!(
///     Pretty::new(&frame).to_string(),
///     "\
/// Ethernet: 00:00:00:00:00:00 > 00:00:00:00:00:00, ipv6, 67 bytes
/// IPv6: :: > ::, udp, hop limit 64, 53 bytes
/// UDP: 4000 > 53, 5 bytes of payload"
/// );
/// assert_eq!(stack.packet(b"hello")?, frame);
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
///
/// The [`gtpu`] module has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderStack<'a>(pub &'a [Header<'a>]);

/// A header of a [`HeaderStack`], converted from a `Repr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Header<'a> {
    /// An Ethernet header without VLAN tags.
    Ethernet(ethernet::Repr),
    /// A VLAN tag.
    Vlan(vlan::Repr),
    /// An IPv4 header.
    Ipv4(ipv4::Repr),
    /// The fixed header of IPv6, without extension headers.
    Ipv6(ipv6::Repr),
    /// A UDP header with a checksum: what `udp::Repr` converts into.
    Udp(udp::Repr),
    /// A UDP header with a checksum of 0, "no checksum", which is allowed over IPv4 only (RFC 768;
    /// RFC 8200, section 8.1). Tunnels often omit the checksum, because computing it takes a pass
    /// over the payload.
    ///
    /// For tunnels without checksum over IPv6 (RFC 6936), emit [`Udp`](Self::Udp), then set the
    /// checksum to 0 with [`udp::Packet::set_checksum`].
    UdpWithoutChecksum(udp::Repr),
    /// A TCP header.
    Tcp(tcp::Repr<'a>),
    /// The first 8 bytes of an ICMP message, or, after IPv6, of an ICMPv6 message.
    Icmp(icmp::Repr),
    /// A GTP-U header.
    Gtpu(gtpu::Repr<'a>),
}

impl HeaderStack<'_> {
    /// Returns the total length of the headers.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.0.iter().map(Header::header_len).fold(0, usize::saturating_add)
    }

    /// Writes the headers to the front of `buffer`. The rest of `buffer` is the payload: it must be
    /// complete, without Ethernet padding.
    ///
    /// Never writes to the payload. After an error, the bytes before it may have any value.
    ///
    /// Errors:
    /// - [`Error::Truncated`] if `buffer` is shorter than the headers,
    /// - [`Error::Malformed`] if the order of the headers is invalid, or if a length does not fit
    ///   into its field,
    /// - the error of a `Repr` whose fields are invalid.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut offset = self.header_len();
        if buffer.len() < offset {
            return Err(Error::Truncated);
        }
        // Inner headers first: an outer checksum covers them.
        for index in (0..self.0.len()).rev() {
            let (outer, header_and_inner) = self.0.split_at(index);
            let Some((header, inner)) = header_and_inner.split_first() else { break };
            if !header.may_follow(outer.last()) {
                return Err(Error::Malformed);
            }
            // Cannot underflow: `buffer` holds all headers.
            offset -= header.header_len();
            let packet = buffer.get_mut(offset..).ok_or(Error::Truncated)?;
            header.emit(outer.last().and_then(Header::addresses), inner, packet)?;
        }
        Ok(())
    }

    /// Returns headers and `payload` in a new vector.
    ///
    /// Returns the errors of [`emit`](Self::emit).
    pub fn packet(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let mut packet = vec![0; self.header_len()];
        packet.extend_from_slice(payload);
        self.emit(&mut packet)?;
        Ok(packet)
    }
}

impl Header<'_> {
    /// Returns the header's length.
    #[inline]
    pub fn header_len(&self) -> usize {
        match self {
            Header::Ethernet(repr) => repr.header_len(),
            Header::Vlan(repr) => repr.header_len(),
            Header::Ipv4(repr) => repr.header_len(),
            Header::Ipv6(repr) => repr.header_len(),
            Header::Udp(repr) | Header::UdpWithoutChecksum(repr) => repr.header_len(),
            Header::Tcp(repr) => repr.header_len(),
            Header::Icmp(repr) => repr.header_len(),
            Header::Gtpu(repr) => repr.header_len(),
        }
    }

    /// Returns whether the header may follow `outer`, or be the first header if `outer` is `None`.
    fn may_follow(&self, outer: Option<&Header<'_>>) -> bool {
        use Header::{Ethernet, Gtpu, Icmp, Ipv4, Ipv6, Tcp, Udp, UdpWithoutChecksum, Vlan};
        match self {
            Ethernet(_) => matches!(outer, None | Some(Gtpu(_))),
            Vlan(_) => matches!(outer, None | Some(Ethernet(_) | Vlan(_))),
            Ipv4(_) | Ipv6(_) => {
                let is_udp = matches!(outer, Some(Udp(_) | UdpWithoutChecksum(_)));
                !is_udp && !matches!(outer, Some(Tcp(_) | Icmp(_)))
            }
            Udp(_) | Tcp(_) | Icmp(_) => matches!(outer, Some(Ipv4(_) | Ipv6(_))),
            UdpWithoutChecksum(_) => matches!(outer, Some(Ipv4(_))),
            Gtpu(_) => matches!(outer, None | Some(Udp(_) | UdpWithoutChecksum(_))),
        }
    }

    /// Writes the header to the front of `packet`, which ends with the inner headers and the
    /// payload. `ip_addresses` are those of an IP header directly before it.
    fn emit(
        &self,
        ip_addresses: Option<Addresses>,
        inner: &[Self],
        packet: &mut [u8],
    ) -> Result<(), Error> {
        let payload_len = packet.len().checked_sub(self.header_len()).ok_or(Error::Truncated)?;
        // Not an error yet: Ethernet and VLAN accept any length, and only some headers need
        // addresses.
        let payload_len = u16::try_from(payload_len).map_err(|_| Error::Malformed);
        let addresses = ip_addresses.ok_or(Error::Malformed);
        match *self {
            Header::Ethernet(repr) => {
                let payload = packet.get(repr.header_len()..).unwrap_or_default();
                let ethertype = ethertype_of(inner, payload, repr.ethertype);
                ethernet::Repr { ethertype, ..repr }.emit(packet)
            }
            Header::Vlan(repr) => {
                let payload = packet.get(repr.header_len()..).unwrap_or_default();
                let ethertype = ethertype_of(inner, payload, repr.ethertype);
                vlan::Repr { ethertype, ..repr }.emit(packet)
            }
            Header::Ipv4(repr) => {
                let protocol = protocol_of(inner, IpVersion::V4, repr.protocol);
                ipv4::Repr { protocol, payload_len: payload_len?, ..repr }.emit(packet)
            }
            Header::Ipv6(repr) => {
                let next_header = protocol_of(inner, IpVersion::V6, repr.next_header);
                ipv6::Repr { next_header, payload_len: payload_len?, ..repr }.emit(packet)
            }
            Header::Udp(repr) => {
                let repr = udp::Repr { payload_len: payload_len?, ..repr };
                repr.emit_with_checksum(packet, addresses?)
            }
            Header::UdpWithoutChecksum(repr) => {
                let repr = udp::Repr { payload_len: payload_len?, ..repr };
                repr.emit(packet)
            }
            Header::Tcp(repr) => {
                let repr = tcp::Repr { payload_len: payload_len?, ..repr };
                repr.emit_with_checksum(packet, addresses?)
            }
            Header::Icmp(repr) => {
                let repr = icmp::Repr { payload_len: payload_len?, ..repr };
                repr.emit_with_checksum(packet, addresses?)
            }
            Header::Gtpu(repr) => gtpu::Repr { payload_len: payload_len?, ..repr }.emit(packet),
        }
    }

    fn addresses(&self) -> Option<Addresses> {
        match self {
            Header::Ipv4(repr) => Some(repr.addresses()),
            Header::Ipv6(repr) => Some(repr.addresses()),
            _ => None,
        }
    }
}

/// Returns the EtherType before `headers` and `payload` (see [`HeaderStack`]). `fallback` is the
/// EtherType in the `Repr`.
fn ethertype_of(headers: &[Header<'_>], payload: &[u8], fallback: EtherType) -> EtherType {
    let version = payload.first().map(|byte| byte >> 4);
    match headers {
        [] if fallback == EtherType(0) && version == Some(4) => EtherType::IPV4,
        [] if fallback == EtherType(0) && version == Some(6) => EtherType::IPV6,
        [Header::Ipv4(_), ..] => EtherType::IPV4,
        [Header::Ipv6(_), ..] => EtherType::IPV6,
        [Header::Vlan(_), ..] if fallback.is_vlan() => fallback,
        [Header::Vlan(_), Header::Vlan(_), ..] => EtherType::SERVICE_VLAN,
        [Header::Vlan(_), ..] => EtherType::VLAN,
        _ => fallback,
    }
}

/// Returns the protocol of the first of `headers`. If it is missing or has no protocol number,
/// returns `fallback`, the protocol in the `Repr`. `version` is that of the IP header before
/// `headers`.
fn protocol_of(headers: &[Header<'_>], version: IpVersion, fallback: IpProtocol) -> IpProtocol {
    match (headers.first(), version) {
        (Some(Header::Udp(_) | Header::UdpWithoutChecksum(_)), _) => IpProtocol::UDP,
        (Some(Header::Tcp(_)), _) => IpProtocol::TCP,
        (Some(Header::Icmp(_)), IpVersion::V4) => IpProtocol::ICMP,
        (Some(Header::Icmp(_)), IpVersion::V6) => IpProtocol::ICMPV6,
        (Some(Header::Ipv4(_)), _) => IpProtocol::IPV4,
        (Some(Header::Ipv6(_)), _) => IpProtocol::IPV6,
        _ => fallback,
    }
}

impl From<ethernet::Repr> for Header<'_> {
    fn from(repr: ethernet::Repr) -> Self {
        Header::Ethernet(repr)
    }
}

impl From<vlan::Repr> for Header<'_> {
    fn from(repr: vlan::Repr) -> Self {
        Header::Vlan(repr)
    }
}

impl From<ipv4::Repr> for Header<'_> {
    fn from(repr: ipv4::Repr) -> Self {
        Header::Ipv4(repr)
    }
}

impl From<ipv6::Repr> for Header<'_> {
    fn from(repr: ipv6::Repr) -> Self {
        Header::Ipv6(repr)
    }
}

impl From<udp::Repr> for Header<'_> {
    fn from(repr: udp::Repr) -> Self {
        Header::Udp(repr)
    }
}

impl<'a> From<tcp::Repr<'a>> for Header<'a> {
    fn from(repr: tcp::Repr<'a>) -> Self {
        Header::Tcp(repr)
    }
}

impl From<icmp::Repr> for Header<'_> {
    fn from(repr: icmp::Repr) -> Self {
        Header::Icmp(repr)
    }
}

impl<'a> From<gtpu::Repr<'a>> for Header<'a> {
    fn from(repr: gtpu::Repr<'a>) -> Self {
        Header::Gtpu(repr)
    }
}

#[cfg(test)]
mod tests;
