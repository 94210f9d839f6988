//! GTP-U messages, version 1 (3GPP TS 29.281), and the PDU session container of 5G (3GPP TS
//! 38.415).
//!
//! [`Packet`] is a view of a message, with iterators over its extension headers. [`Repr`] is a
//! header to be written.
//!
//! # Example
//!
//! A downlink packet from a UPF to a gNB: Ethernet, IPv4, UDP, GTP-U with a PDU session container,
//! and the IPv4/UDP packet of the user. [`HeaderStack`](crate::HeaderStack) fills their lengths,
//! types and checksums.
//!
//! ```
//! use xdpfwd_wire::gtpu::{self, DownlinkInformation, Extension, PduSessionContainer};
//! use xdpfwd_wire::{HeaderStack, MacAddr, Pretty, ethernet, ipv4, udp};
//!
//! let ethernet = ethernet::Repr {
//!     destination: MacAddr([2, 0, 0, 0, 0, 2]),
//!     source: MacAddr([2, 0, 0, 0, 0, 1]),
//!     ..ethernet::Repr::default()
//! };
//! let outer_ip = ipv4::Repr {
//!     source: [172, 16, 0, 1].into(),
//!     destination: [172, 16, 0, 2].into(),
//!     ..ipv4::Repr::default()
//! };
//! let outer_udp = udp::Repr {
//!     source_port: gtpu::PORT,
//!     destination_port: gtpu::PORT,
//!     ..udp::Repr::default()
//! };
//! let information = DownlinkInformation { qfi: 9, ..DownlinkInformation::default() };
//! let container = PduSessionContainer::Downlink(information);
//! let gtpu = gtpu::Repr {
//!     teid: 0x1234,
//!     extensions: &[Extension::PduSessionContainer(container)],
//!     ..gtpu::Repr::default()
//! };
//! let inner_ip = ipv4::Repr {
//!     source: [192, 0, 2, 1].into(),
//!     destination: [10, 45, 0, 2].into(),
//!     ..ipv4::Repr::default()
//! };
//! let inner_udp =
//!     udp::Repr { source_port: 53, destination_port: 4000, ..udp::Repr::default() };
//!
//! let headers = [
//!     ethernet.into(),
//!     outer_ip.into(),
//!     outer_udp.into(),
//!     gtpu.into(),
//!     inner_ip.into(),
//!     inner_udp.into(),
//! ];
//! let frame = HeaderStack(&headers).packet(b"hello")?;
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
