//! GTP-U messages, version 1 (3GPP TS 29.281), and the PDU session container of 5G (3GPP TS
//! 38.415).
//!
//! [`Packet`] is a view of a message, with iterators over its extension headers. [`Repr`] is a
//! header to be written.
//!
//! # Example
//!
//! A downlink packet from a UPF to a gNB: Ethernet, IPv4, UDP, GTP-U with a PDU session container,
//! and the IPv4/UDP packet of the user. The headers are written from the inside out, because outer
//! checksums cover inner headers.
//!
//! ```
//! use xdpfwd_wire::gtpu::{self, DownlinkInformation, Extension, PduSessionContainer};
//! use xdpfwd_wire::{EtherType, IpProtocol, MacAddr, Pretty, ethernet, ipv4, udp};
//!
//! let data = b"hello";
//! let inner_udp = udp::Repr { source_port: 53, destination_port: 4000, payload_len: 5 };
//! let inner_ip = ipv4::Repr {
//!     protocol: IpProtocol::UDP,
//!     source: [192, 0, 2, 1].into(),
//!     destination: [10, 45, 0, 2].into(),
//!     payload_len: inner_udp.buffer_len() as u16,
//!     ..ipv4::Repr::default()
//! };
//! let information = DownlinkInformation { qfi: 9, ..DownlinkInformation::default() };
//! let container = PduSessionContainer::Downlink(information);
//! let gtpu = gtpu::Repr {
//!     teid: 0x1234,
//!     extensions: &[Extension::PduSessionContainer(container)],
//!     payload_len: inner_ip.buffer_len() as u16,
//!     ..gtpu::Repr::default()
//! };
//! let outer_udp = udp::Repr {
//!     source_port: gtpu::PORT,
//!     destination_port: gtpu::PORT,
//!     payload_len: gtpu.buffer_len() as u16,
//! };
//! let outer_ip = ipv4::Repr {
//!     protocol: IpProtocol::UDP,
//!     source: [172, 16, 0, 1].into(),
//!     destination: [172, 16, 0, 2].into(),
//!     payload_len: outer_udp.buffer_len() as u16,
//!     ..ipv4::Repr::default()
//! };
//! let ethernet = ethernet::Repr {
//!     destination: MacAddr([2, 0, 0, 0, 0, 2]),
//!     source: MacAddr([2, 0, 0, 0, 0, 1]),
//!     ethertype: EtherType::IPV4,
//! };
//!
//! // The offset of each header in the frame.
//! let ip_at = ethernet.header_len();
//! let udp_at = ip_at + outer_ip.header_len();
//! let gtpu_at = udp_at + outer_udp.header_len();
//! let inner_ip_at = gtpu_at + gtpu.header_len();
//! let inner_udp_at = inner_ip_at + inner_ip.header_len();
//! let data_at = inner_udp_at + inner_udp.header_len();
//!
//! let mut frame = [0; 91];
//! frame[data_at..].copy_from_slice(data);
//! inner_udp.emit_with_checksum(&mut frame[inner_udp_at..], inner_ip.addresses())?;
//! inner_ip.emit(&mut frame[inner_ip_at..])?;
//! gtpu.emit(&mut frame[gtpu_at..])?;
//! outer_udp.emit_with_checksum(&mut frame[udp_at..], outer_ip.addresses())?;
//! outer_ip.emit(&mut frame[ip_at..])?;
//! ethernet.emit(&mut frame)?;
//!
//! assert_eq!(
//!     Pretty::new(&frame).to_string(),
//!     "\
//! Ethernet: 02:00:00:00:00:01 > 02:00:00:00:00:02, ipv4, 91 bytes
//! IPv4: 172.16.0.1 > 172.16.0.2, udp, ttl 64, 77 bytes
//! UDP: 2152 > 2152, 49 bytes of payload
//! GTP-U: G-PDU, teid 0x00001234, downlink, qfi 9
//!   IPv4: 192.0.2.1 > 10.45.0.2, udp, ttl 64, 33 bytes
//!   UDP: 53 > 4000, 5 bytes of payload"
//! );
//! # Ok::<(), xdpfwd_wire::Error>(())
//! ```

mod extension;
mod message;
mod packet;
mod pdu_session;
mod repr;

pub use extension::{ExtensionHeader, ExtensionType, Extensions};
pub use message::{
    ECHO_REQUEST, ECHO_RESPONSE, END_MARKER, ERROR_INDICATION, ErrorIndication, G_PDU, RECOVERY,
    SUPPORTED_EXTENSION_HEADERS_NOTIFICATION, TUNNEL_STATUS, message_name,
};
pub use packet::{HEADER_LEN, MAX_EXTENSIONS, PORT, Packet};
pub use pdu_session::{DownlinkInformation, PduSessionContainer, UplinkInformation, UplinkTimestamps};
pub use repr::{Extension, Repr};
