//! A GTP-U header to be written.

use super::extension::{ExtensionHeader, ExtensionType};
use super::message::G_PDU;
use super::packet::{HEADER_LEN, MAX_EXTENSIONS, Packet};
use super::pdu_session::PduSessionContainer;
use crate::error::Error;
use crate::field::{write_u16, write_u32};

/// A GTP-U header to be written, with its extension headers (TS 29.281, clause 5).
///
/// See the [module documentation](super) for an example. Echo, error indication and supported
/// extension headers notification messages need a sequence number and TEID 0 (TS 29.281, clause
/// 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr<'a> {
    /// Message type, for example [`G_PDU`].
    pub message_type: u8,
    /// Tunnel endpoint identifier (TEID), which the receiver assigned.
    pub teid: u32,
    /// Sequence number. `Some` sets the flag S.
    pub sequence_number: Option<u16>,
    /// N-PDU number. `Some` sets the flag PN.
    pub n_pdu_number: Option<u8>,
    /// Extension headers, at most [`MAX_EXTENSIONS`]. A PDU session container should be first (TS
    /// 29.281, clause 5.2.2).
    pub extensions: &'a [Extension<'a>],
    /// Length of the payload after the extension headers.
    pub payload_len: u16,
}

/// An extension header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension<'a> {
    /// A PDU session container (TS 38.415).
    PduSessionContainer(PduSessionContainer),
    /// Any other extension header, or a PDU session container in raw bytes.
    Other(ExtensionHeader<'a>),
}

impl From<PduSessionContainer> for Extension<'_> {
    fn from(container: PduSessionContainer) -> Self {
        Extension::PduSessionContainer(container)
    }
}

impl<'a> From<ExtensionHeader<'a>> for Extension<'a> {
    fn from(header: ExtensionHeader<'a>) -> Self {
        Extension::Other(header)
    }
}

impl<'a> Repr<'a> {
    /// Creates the header of a G-PDU without sequence number. [`HeaderStack`](crate::HeaderStack)
    /// fills in its length.
    #[inline]
    pub fn g_pdu(teid: u32, extensions: &'a [Extension<'a>]) -> Repr<'a> {
        Repr { teid, extensions, ..Repr::default() }
    }

    /// Returns the header of a message, with extension headers in `storage`:
    ///
    /// ```
    /// use xdpfwd_wire::gtpu::{self, Extension, Packet, Repr};
    ///
    /// let message = [0x34, 255, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0x85, 1, 0x10, 9, 0];
    /// let packet = Packet::new_checked(&message)?;
    /// let mut storage = [Extension::default(); gtpu::MAX_EXTENSIONS];
    /// let repr = Repr::parse(&packet, &mut storage);
    /// assert_eq!((repr.teid, repr.extensions.len(), repr.payload_len), (7, 1, 0));
    /// # Ok::<(), xdpfwd_wire::Error>(())
    /// ```
    ///
    /// [`emit`](Self::emit) writes the same bytes again, except that it clears the spare bit of the
    /// first byte, and optional fields whose flag is not set. A PDU session container that
    /// [`PduSessionContainer`] cannot represent in full becomes [`Extension::Other`].
    pub fn parse<'p: 'a, T: AsRef<[u8]>>(
        packet: &'p Packet<T>,
        storage: &'a mut [Extension<'p>; MAX_EXTENSIONS],
    ) -> Repr<'a> {
        let mut count = 0;
        for (slot, header) in storage.iter_mut().zip(packet.extensions()) {
            *slot = Extension::new(header);
            count += 1;
        }
        Repr {
            message_type: packet.message_type(),
            teid: packet.teid(),
            sequence_number: packet.sequence_number(),
            n_pdu_number: packet.n_pdu_number(),
            extensions: storage.get(..count).unwrap_or_default(),
            // Cannot overflow: the 16-bit length field covers the payload.
            payload_len: packet.payload().len() as u16,
        }
    }

    /// Returns the length that [`emit`](Self::emit) writes: 8, or 12 with optional fields, plus the
    /// extension headers.
    #[inline]
    pub fn header_len(&self) -> usize {
        let optional = if self.has_optional_fields() { OPTIONAL_LEN } else { 0 };
        HEADER_LEN + optional + self.extensions.iter().map(Extension::header_len).sum::<usize>()
    }

    /// Returns the length of header and payload.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        self.header_len() + usize::from(self.payload_len)
    }

    /// Writes the header with its extension headers to the front of `buffer`.
    ///
    /// On error, writes nothing and returns
    /// - [`Error::Truncated`] if `buffer` is shorter than the header,
    /// - [`Error::ExtensionChainTooLong`] for more than [`MAX_EXTENSIONS`] extension headers,
    /// - [`Error::Malformed`] if an extension header has type 0 or an invalid length, or if the
    ///   message is too long.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        if self.extensions.len() > MAX_EXTENSIONS {
            return Err(Error::ExtensionChainTooLong);
        }
        if !self.extensions.iter().all(Extension::is_valid) {
            return Err(Error::Malformed);
        }
        let message_len = self.buffer_len() - HEADER_LEN;
        let message_len = u16::try_from(message_len).map_err(|_| Error::Malformed)?;
        let header = buffer.get_mut(..self.header_len()).ok_or(Error::Truncated)?;
        let flags = u8::from(!self.extensions.is_empty()) << 2
            | u8::from(self.sequence_number.is_some()) << 1
            | u8::from(self.n_pdu_number.is_some());
        header[0] = VERSION_1 | flags;
        header[1] = self.message_type;
        write_u16(header, 2..4, message_len);
        write_u32(header, 4..8, self.teid);
        if self.has_optional_fields() {
            write_u16(header, 8..10, self.sequence_number.unwrap_or(0));
            header[10] = self.n_pdu_number.unwrap_or(0);
            self.emit_extensions(&mut header[11..])?;
        }
        Ok(())
    }

    /// `buffer` begins with the type of the first extension header.
    fn emit_extensions(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut rest = buffer;
        for extension in self.extensions {
            let (kind, after_kind) = rest.split_first_mut().ok_or(Error::Truncated)?;
            *kind = extension.kind().0;
            let units = extension.header_len() / 4;
            let (header, next) =
                after_kind.split_at_mut_checked(units * 4 - 1).ok_or(Error::Truncated)?;
            let (len, content) = header.split_first_mut().ok_or(Error::Truncated)?;
            *len = u8::try_from(units).map_err(|_| Error::Malformed)?;
            match extension {
                Extension::PduSessionContainer(container) => container.emit_content(content)?,
                Extension::Other(header) => content.copy_from_slice(header.content),
            }
            rest = next;
        }
        rest.fill(ExtensionType::NONE.0);
        Ok(())
    }

    #[inline]
    fn has_optional_fields(&self) -> bool {
        let has_numbers = self.sequence_number.is_some() || self.n_pdu_number.is_some();
        has_numbers || !self.extensions.is_empty()
    }
}

/// Version 1 and protocol type GTP, without flags.
const VERSION_1: u8 = 0b0011_0000;
/// Sequence number, N-PDU number and type of the first extension header.
const OPTIONAL_LEN: usize = 4;
/// The length field and the next type field.
const EXTENSION_OVERHEAD: usize = 2;
/// Maximum of the 8-bit length field, times its 4-byte unit.
const MAX_EXTENSION_LEN: usize = 255 * 4;

impl<'a> Extension<'a> {
    fn new(header: ExtensionHeader<'a>) -> Extension<'a> {
        let Ok(Some(container)) = header.pdu_session_container() else {
            return Extension::Other(header);
        };
        // Keep the raw bytes if the container would lose spare bits, padding or fields of later
        // releases.
        let mut content = [0; PduSessionContainer::MAX_CONTENT_LEN];
        let is_complete = container.emit_content(&mut content).is_ok()
            && content.get(..container.content_len()) == Some(header.content);
        if is_complete {
            Extension::PduSessionContainer(container)
        } else {
            Extension::Other(header)
        }
    }

    /// Returns the type.
    #[inline]
    pub const fn kind(&self) -> ExtensionType {
        match self {
            Extension::PduSessionContainer(_) => ExtensionType::PDU_SESSION_CONTAINER,
            Extension::Other(header) => header.kind,
        }
    }

    /// Returns the length.
    #[inline]
    pub const fn header_len(&self) -> usize {
        let content_len = match self {
            Extension::PduSessionContainer(container) => container.content_len(),
            Extension::Other(header) => header.content.len(),
        };
        EXTENSION_OVERHEAD + content_len
    }

    #[inline]
    fn is_valid(&self) -> bool {
        let len = self.header_len();
        let is_len_valid = len.is_multiple_of(4) && (4..=MAX_EXTENSION_LEN).contains(&len);
        is_len_valid && self.kind() != ExtensionType::NONE
    }
}

impl Default for Repr<'_> {
    /// Returns the header of an empty G-PDU with TEID 0, without optional fields.
    fn default() -> Self {
        Repr {
            message_type: G_PDU,
            teid: 0,
            sequence_number: None,
            n_pdu_number: None,
            extensions: &[],
            payload_len: 0,
        }
    }
}

impl Default for Extension<'_> {
    /// Returns a placeholder for the storage of [`Repr::parse`], which [`Repr::emit`] rejects.
    fn default() -> Self {
        Extension::Other(ExtensionHeader::default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pdu_session::DownlinkInformation;
    use super::super::pdu_session::tests::container;
    use super::*;

    fn emitted(repr: &Repr<'_>) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0xee; repr.header_len()];
        repr.emit(&mut bytes)?;
        assert_eq!(repr.emit(&mut vec![0; bytes.len() - 1]), Err(Error::Truncated));
        bytes.resize(repr.buffer_len(), 0xab);
        Ok(bytes)
    }

    fn other_extension(kind: u8, content: &[u8]) -> Extension<'_> {
        Extension::Other(ExtensionHeader { kind: ExtensionType(kind), content })
    }

    #[test]
    fn header_has_optional_fields_only_if_a_flag_is_set() {
        let plain = Repr { teid: 7, payload_len: 1, ..Repr::default() };
        assert_eq!(emitted(&plain).unwrap(), [0x30, 255, 0, 1, 0, 0, 0, 7, 0xab]);
        let numbered = Repr { sequence_number: Some(0x0102), ..plain };
        let bytes = [0x32, 255, 0, 5, 0, 0, 0, 7, 1, 2, 0, 0, 0xab];
        assert_eq!(emitted(&numbered).unwrap(), bytes);
        let n_pdu = Repr { n_pdu_number: Some(3), ..plain };
        let bytes = [0x31, 255, 0, 5, 0, 0, 0, 7, 0, 0, 3, 0, 0xab];
        assert_eq!(emitted(&n_pdu).unwrap(), bytes);
    }

    #[test]
    fn extension_headers_are_chained_by_their_types() {
        let information = DownlinkInformation { qfi: 9, ..DownlinkInformation::default() };
        let container = PduSessionContainer::Downlink(information);
        let extensions =
            [Extension::PduSessionContainer(container), other_extension(0x40, &[8, 104])];
        let repr = Repr { extensions: &extensions, ..Repr::default() };
        let bytes = [0x34, 255, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0x85, 1, 0, 9, 0x40, 1, 8, 104, 0];
        assert_eq!(emitted(&repr).unwrap(), bytes);
    }

    #[test]
    fn emit_rejects_invalid_extensions_and_lengths() {
        let emit = |extensions: &[Extension<'_>], payload_len| {
            emitted(&Repr { extensions, payload_len, ..Repr::default() }).map(|_| ())
        };
        assert_eq!(emit(&[other_extension(0, &[0, 0])], 0), Err(Error::Malformed));
        assert_eq!(emit(&[other_extension(0x40, &[0, 0, 0])], 0), Err(Error::Malformed));
        assert_eq!(emit(&[other_extension(0x40, &[])], 0), Err(Error::Malformed));
        assert_eq!(emit(&[other_extension(0x40, &[0; 1022])], 0), Err(Error::Malformed));
        assert_eq!(emit(&[other_extension(0x40, &[0; 1018])], 0), Ok(()));
        assert_eq!(emit(&[Extension::default()], 0), Err(Error::Malformed));
        let nine_extensions = [other_extension(0x40, &[0, 0]); MAX_EXTENSIONS + 1];
        assert_eq!(emit(&nine_extensions, 0), Err(Error::ExtensionChainTooLong));
        assert_eq!(emit(&nine_extensions[1..], 0), Ok(()));
        // The length field also counts the optional fields and the extension header, 4 bytes each.
        assert_eq!(emit(&nine_extensions[8..], u16::MAX - 8), Ok(()));
        assert_eq!(emit(&nine_extensions[8..], u16::MAX - 7), Err(Error::Malformed));
    }

    #[test]
    fn container_with_unknown_field_is_parsed_as_other() {
        // "New IE Flag 3" (TS 38.415), which the parser does not know, and the field for it.
        let content = [0x10, 0x49, 0x08, 0xaa, 0xbb, 0xcc];
        let extensions = [other_extension(0x85, &content)];
        let repr = Repr { extensions: &extensions, ..Repr::default() };
        let bytes = emitted(&repr).unwrap();
        let packet = Packet::new_checked(&bytes).unwrap();
        let mut storage = [Extension::default(); MAX_EXTENSIONS];
        assert_eq!(Repr::parse(&packet, &mut storage), repr);
        assert_eq!(packet.pdu_session_container().unwrap().unwrap().qfi(), 9);
    }

    fn raw_extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let content = prop::collection::vec(any::<u8>(), 2..30).prop_map(|mut content| {
            content.truncate((content.len() + 2) / 4 * 4 - 2);
            content
        });
        // All types except 0, which ends the chain, and 0x85, the PDU session container.
        (prop_oneof![1u8..0x85, 0x86u8..=0xff], content)
    }

    proptest! {
        #[test]
        fn parsed_message_equals_emitted(
            (message_type, teid) in any::<(u8, u32)>(),
            (sequence_number, n_pdu_number) in any::<(Option<u16>, Option<u8>)>(),
            container in proptest::option::of(container()),
            others in prop::collection::vec(raw_extension(), 0..MAX_EXTENSIONS),
            payload_len in 0u16..100,
        ) {
            let mut extensions: Vec<_> =
                container.into_iter().map(Extension::PduSessionContainer).collect();
            extensions.extend(others.iter().map(|(kind, content)| other_extension(*kind, content)));
            let repr = Repr {
                message_type,
                teid,
                sequence_number,
                n_pdu_number,
                extensions: &extensions,
                payload_len,
            };
            let bytes = emitted(&repr).unwrap();
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            prop_assert_eq!(packet.payload_offset(), repr.header_len());
            prop_assert_eq!(packet.payload(), vec![0xab; usize::from(payload_len)]);
            prop_assert_eq!(packet.pdu_session_container(), Ok(container));
            let mut storage = [Extension::default(); MAX_EXTENSIONS];
            let parsed = Repr::parse(&packet, &mut storage);
            prop_assert_eq!(parsed, repr);
            prop_assert_eq!(emitted(&parsed).unwrap(), bytes);
        }
    }
}
