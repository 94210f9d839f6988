//! GTP-U messages, version 1 (3GPP TS 29.281), and the PDU session container of 5G (3GPP TS
//! 38.415).
//!
//! [`GPdu`] finds the user's packet in a frame. [`Repr`] is a header to be written.
//!
//! # Example
//!
//! A downlink packet from a UPF to a gNB, with a PDU session container.
//! [`HeaderStack`](crate::HeaderStack) fills in lengths, types and checksums.
//!
//! ```
//! use xdpfwd_wire::gtpu::{self, PduSessionContainer};
//! use xdpfwd_wire::{HeaderStack, MacAddr, Pretty, ethernet, ipv4, udp};
//!
//! let ethernet = ethernet::Repr {
//!     destination: MacAddr([2, 0, 0, 0, 0, 2]),
//!     source: MacAddr([2, 0, 0, 0, 0, 1]),
//!     ..ethernet::Repr::default()
//! };
//! let extensions = [PduSessionContainer::downlink(9).into()];
//! let headers = [
//!     ethernet.into(),
//!     ipv4::Repr::new([172, 16, 0, 1].into(), [172, 16, 0, 2].into()).into(),
//!     udp::Repr::new(gtpu::PORT, gtpu::PORT).into(),
//!     gtpu::Repr::g_pdu(0x1234, &extensions).into(),
//!     ipv4::Repr::new([192, 0, 2, 1].into(), [10, 45, 0, 2].into()).into(),
//!     udp::Repr::new(53, 4000).into(),
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
mod g_pdu;
mod message;
mod packet;
mod pdu_session;
mod repr;
mod tunnel;

pub use extension::{ExtensionHeader, ExtensionType, Extensions};
pub use g_pdu::GPdu;
pub use message::{
    ECHO_REQUEST, ECHO_RESPONSE, END_MARKER, ERROR_INDICATION, ErrorIndication, G_PDU, RECOVERY,
    SUPPORTED_EXTENSION_HEADERS_NOTIFICATION, TUNNEL_STATUS, message_name,
};
pub use packet::{HEADER_LEN, MAX_EXTENSIONS, PORT, Packet};
pub use pdu_session::{
    DownlinkInformation, PduSessionContainer, UplinkInformation, UplinkTimestamps,
};
pub use repr::{Extension, Repr};
pub use tunnel::tunnel;
