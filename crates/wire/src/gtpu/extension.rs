//! Extension headers of GTP-U (TS 29.281, clause 5.2).

use core::fmt;

use super::pdu_session::PduSessionContainer;
use crate::error::Error;

/// The type of an extension header (TS 29.281, figure 5.2.1-3 and clause 5.2.2).
///
/// The upper two bits state what a receiver must do if it does not know the type (TS 29.281, clause
/// 5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExtensionType(pub u8);

impl ExtensionType {
    /// Marks the end of the extension headers.
    pub const NONE: ExtensionType = ExtensionType(0x00);
    /// Long PDCP PDU number.
    pub const LONG_PDCP_PDU_NUMBER: ExtensionType = ExtensionType(0x03);
    /// Service class indicator.
    pub const SERVICE_CLASS_INDICATOR: ExtensionType = ExtensionType(0x20);
    /// UDP port of the G-PDU that an error indication is about.
    pub const UDP_PORT: ExtensionType = ExtensionType(0x40);
    /// RAN container.
    pub const RAN_CONTAINER: ExtensionType = ExtensionType(0x81);
    /// Xw RAN container.
    pub const XW_RAN_CONTAINER: ExtensionType = ExtensionType(0x83);
    /// NR RAN container.
    pub const NR_RAN_CONTAINER: ExtensionType = ExtensionType(0x84);
    /// PDU session container (TS 38.415).
    pub const PDU_SESSION_CONTAINER: ExtensionType = ExtensionType(0x85);
    /// PDCP PDU number.
    pub const PDCP_PDU_NUMBER: ExtensionType = ExtensionType(0xc0);

    /// Returns whether an endpoint that does not know this type must discard the message (TS
    /// 29.281, clause 5.2.1).
    #[inline]
    pub const fn is_required_by_endpoint(self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// An extension header of any type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExtensionHeader<'a> {
    /// Type of this header, from the header before it.
    pub kind: ExtensionType,
    /// The bytes between the length field and the next type field. Their number is two less than a
    /// multiple of 4, from 2 to 1018.
    pub content: &'a [u8],
}

impl ExtensionHeader<'_> {
    /// Parses the content of a PDU session container. Returns `None` if this header has another
    /// type.
    ///
    /// Returns the errors of [`PduSessionContainer::parse`].
    #[inline]
    pub fn pdu_session_container(&self) -> Result<Option<PduSessionContainer>, Error> {
        if self.kind != ExtensionType::PDU_SESSION_CONTAINER {
            return Ok(None);
        }
        PduSessionContainer::parse(self.content).map(Some)
    }
}

/// An iterator over extension headers, from [`Packet::extensions`](super::Packet::extensions).
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    next: ExtensionType,
    rest: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// `rest` begins with a header of type `first`.
    #[inline]
    pub(super) const fn new(first: ExtensionType, rest: &'a [u8]) -> Self {
        Self { next: first, rest }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = ExtensionHeader<'a>;

    #[inline]
    fn next(&mut self) -> Option<ExtensionHeader<'a>> {
        if self.next == ExtensionType::NONE {
            return None;
        }
        // `?` never returns: `Packet::new_checked` has checked all lengths.
        let len = usize::from(*self.rest.first()?) * 4;
        let (header, rest) = self.rest.split_at_checked(len)?;
        let [_, content @ .., next] = header else { return None };
        let kind = self.next;
        (self.next, self.rest) = (ExtensionType(*next), rest);
        Some(ExtensionHeader { kind, content })
    }
}

impl fmt::Display for ExtensionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            ExtensionType::LONG_PDCP_PDU_NUMBER => "long PDCP PDU number",
            ExtensionType::SERVICE_CLASS_INDICATOR => "service class indicator",
            ExtensionType::UDP_PORT => "UDP port",
            ExtensionType::RAN_CONTAINER => "RAN container",
            ExtensionType::XW_RAN_CONTAINER => "Xw RAN container",
            ExtensionType::NR_RAN_CONTAINER => "NR RAN container",
            ExtensionType::PDU_SESSION_CONTAINER => "PDU session container",
            ExtensionType::PDCP_PDU_NUMBER => "PDCP PDU number",
            ExtensionType(other) => return write!(f, "0x{other:02x}"),
        })
    }
}
