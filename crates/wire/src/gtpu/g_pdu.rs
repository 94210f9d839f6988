//! G-PDUs in frames.

use std::net::IpAddr;

use super::extension::ExtensionType;
use super::message::G_PDU;
use super::packet::{PORT, Packet};
use crate::error::Error;
use crate::headers::Headers;
use crate::ip::{Fragment, IpProtocol};
use crate::udp;

/// A G-PDU in a frame.
///
/// ```
/// use xdpfwd_wire::gtpu::{self, GPdu};
/// use xdpfwd_wire::{Header, HeaderStack, Headers, ethernet, ipv4, udp};
///
/// let [gnb, upf, ue, host] = [2, 1, 100, 200].map(|last| [10, 0, 0, last].into());
/// let frame = HeaderStack(&[
///     ethernet::Repr::default().into(),
///     ipv4::Repr::new(gnb, upf).into(),
///     Header::UdpWithoutChecksum(udp::Repr::new(gtpu::PORT, gtpu::PORT)),
///     gtpu::Repr::g_pdu(7, &[]).into(),
///     ipv4::Repr::new(ue, host).into(),
///     udp::Repr::new(4000, 53).into(),
/// ])
/// .packet(b"hello")?;
///
/// let packet = GPdu::parse_to(&frame, &Headers::parse(&frame), upf)?;
/// assert_eq!(packet.message.teid(), 7);
/// assert_eq!((packet.user.l3_offset, packet.user.destination_port), (50, 53));
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct GPdu<'a> {
    /// The GTP-U message.
    pub message: Packet<&'a [u8]>,
    /// The headers of the user's packet. Offsets count from the start of the frame.
    pub user: Headers,
}

impl<'a> GPdu<'a> {
    /// Parses the G-PDU in `frame`, as an endpoint of the tunnel does. `headers` are those of
    /// `frame`.
    ///
    /// Returns [`Error::Malformed`] for
    /// - a frame that is not an unfragmented UDP datagram to port 2152,
    /// - a GTP-U message other than a G-PDU,
    /// - an extension header that the endpoint must understand (TS 29.281, clause 5.2.1), other
    ///   than a PDU session container.
    ///
    /// Also returns the errors of [`udp::Packet::new_checked`] and [`Packet::new_checked`]. An
    /// invalid packet of the user is no error: the `status` of [`user`](Self::user) reports it.
    ///
    /// Checks neither the UDP checksum nor the outer destination address;
    /// [`parse_to`](Self::parse_to) checks this address.
    #[inline]
    pub fn parse(frame: &'a [u8], headers: &Headers) -> Result<Self, Error> {
        let is_gtpu = headers.protocol == Some(IpProtocol::UDP) && headers.destination_port == PORT;
        if !is_gtpu || headers.fragment != Fragment::Whole {
            return Err(Error::Malformed);
        }
        let message =
            Packet::new_checked(udp::Packet::new_checked(headers.l4(frame))?.into_payload())?;
        let is_understood = |kind: ExtensionType| {
            kind == ExtensionType::PDU_SESSION_CONTAINER || !kind.is_required_by_endpoint()
        };
        if message.message_type() != G_PDU
            || !message.extensions().all(|extension| is_understood(extension.kind))
        {
            return Err(Error::Malformed);
        }
        let start = usize::from(headers.l4_offset) + udp::HEADER_LEN + message.payload_offset();
        let user = Headers::parse_inner(frame, start, start + message.payload().len());
        Ok(Self { message, user })
    }

    /// Like [`parse`](Self::parse), but also returns [`Error::Malformed`] if the outer destination
    /// address is not `address`, that of the endpoint.
    #[inline]
    pub fn parse_to(
        frame: &'a [u8],
        headers: &Headers,
        address: impl Into<IpAddr>,
    ) -> Result<Self, Error> {
        match headers.destination_ip(frame) == Some(address.into()) {
            true => Self::parse(frame, headers),
            false => Err(Error::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gtpu::{self, ECHO_REQUEST, Extension, ExtensionHeader, PduSessionContainer};
    use crate::stack::{Header, HeaderStack};
    use crate::{ethernet, ipv4};
    use proptest::prelude::*;

    fn frame(gtpu: gtpu::Repr<'_>, port: u16) -> Vec<u8> {
        let [gnb, upf, ue, host] = [2, 1, 100, 200].map(|last| [10, 0, 0, last].into());
        let outer = udp::Repr::new(gtpu::PORT, port);
        let headers: [Header<'_>; 6] = [
            ethernet::Repr::default().into(),
            ipv4::Repr::new(gnb, upf).into(),
            outer.into(),
            gtpu.into(),
            ipv4::Repr::new(ue, host).into(),
            udp::Repr::new(4000, 53).into(),
        ];
        HeaderStack(&headers).packet(b"hello").unwrap()
    }

    fn parse(frame: &[u8]) -> Result<GPdu<'_>, Error> {
        GPdu::parse(frame, &Headers::parse(frame))
    }

    #[test]
    fn g_pdu_with_extension_headers_and_padding_is_parsed() {
        let extension_of_type = |kind| Extension::Other(ExtensionHeader { kind, content: &[0, 1] });
        let container = Extension::PduSessionContainer(PduSessionContainer::downlink(9));
        let extensions = [container, extension_of_type(ExtensionType::UDP_PORT)];
        for count in 0..=2 {
            let mut frame = frame(gtpu::Repr::g_pdu(7, &extensions[..count]), gtpu::PORT);
            let len = frame.len();
            frame.extend([0; 9]);
            let g_pdu = parse(&frame).unwrap();
            assert_eq!(g_pdu.message.teid(), 7);
            let ports = (g_pdu.user.source_port, g_pdu.user.destination_port);
            assert_eq!((ports, usize::from(g_pdu.user.l3_end)), ((4000, 53), len));
            let user_packet_len = ipv4::HEADER_LEN + udp::HEADER_LEN + b"hello".len();
            assert_eq!(usize::from(g_pdu.user.l3_offset), len - user_packet_len);
        }
    }

    #[test]
    fn g_pdu_to_another_address_is_rejected() {
        let frame = frame(gtpu::Repr::g_pdu(7, &[]), gtpu::PORT);
        let parse_to = |last| {
            let address = std::net::Ipv4Addr::new(10, 0, 0, last);
            let g_pdu = GPdu::parse_to(&frame, &Headers::parse(&frame), address)?;
            Ok(g_pdu.message.teid())
        };
        assert_eq!(parse_to(1), Ok(7));
        assert_eq!(parse_to(2), Err(Error::Malformed), "address of the gNB");
    }

    #[test]
    fn frame_without_valid_g_pdu_is_rejected() {
        let required_extension = [Extension::Other(ExtensionHeader {
            kind: ExtensionType::PDCP_PDU_NUMBER,
            content: &[0, 1],
        })];
        let echo = gtpu::Repr { message_type: ECHO_REQUEST, ..gtpu::Repr::g_pdu(0, &[]) };
        let truncated = |mut frame: Vec<u8>| {
            frame[45] += 1; // length of the message
            frame
        };
        let fragment = |mut frame: Vec<u8>| {
            frame[20] = 0x20; // more fragments
            frame
        };
        let other_port = gtpu::PORT + 1;
        let valid = frame(gtpu::Repr::g_pdu(7, &[]), gtpu::PORT);
        assert!(parse(&valid).is_ok());
        for (frame, error) in [
            (frame(gtpu::Repr::g_pdu(7, &required_extension), gtpu::PORT), Error::Malformed),
            (frame(echo, gtpu::PORT), Error::Malformed),
            (frame(gtpu::Repr::g_pdu(7, &[]), other_port), Error::Malformed),
            (fragment(valid.clone()), Error::Malformed),
            (truncated(valid), Error::Truncated),
            (vec![0; 60], Error::Malformed),
        ] {
            assert_eq!(parse(&frame).unwrap_err(), error, "{frame:02x?}");
        }
    }

    proptest! {
        #[test]
        fn parse_of_changed_g_pdu_frame_does_not_panic(changes in prop::collection::vec((0_usize..91, any::<u8>()), 0..4), len in 0_usize..91) {
            let mut frame = frame(gtpu::Repr::g_pdu(7, &[]), gtpu::PORT);
            for (at, byte) in changes {
                if let Some(changed) = frame.get_mut(at) {
                    *changed = byte;
                }
            }
            frame.truncate(len);
            if let Ok(g_pdu) = parse(&frame) {
                prop_assert!(usize::from(g_pdu.user.l3_end) <= frame.len());
            }
        }
    }
}
