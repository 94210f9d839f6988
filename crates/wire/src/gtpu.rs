//! GTP-U messages, version 1 (3GPP TS 29.281), and the PDU session container of 5G (3GPP TS
//! 38.415).
//!
//! [`Packet`] is a view of a message, with iterators over its extension headers. [`Repr`] is a
//! header to be written.

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
