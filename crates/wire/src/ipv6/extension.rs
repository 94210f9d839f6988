//! IPv6 extension headers (RFC 8200, section 4).

use crate::error::Error;
use crate::field::{read_u16, read_u32, write_u16, write_u32};
use crate::ip::IpProtocol;
use crate::ipv6::extension_set::ExtensionSet;
use crate::limits::MAX_EXTENSIONS;

/// An extension header, from [`Packet::extensions`](super::Packet::extensions) or to be written.
///
/// ```
/// use xdpfwd_wire::{IpProtocol, ipv6};
///
/// // Hop-by-hop options with a router alert (RFC 2711) and two bytes of padding, before UDP.
/// let options = ipv6::ExtensionHeader {
///     kind: IpProtocol::HOP_BY_HOP,
///     next_header: IpProtocol::UDP,
///     content: &[5, 2, 0, 0, 1, 0],
/// };
/// let mut buffer = [0; 8];
/// options.emit(&mut buffer)?;
/// assert_eq!(buffer, [17, 0, 5, 2, 0, 0, 1, 0]);
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtensionHeader<'a> {
    /// Type of this header, from the header before it: one of [`ExtensionSet::TYPES`].
    pub kind: IpProtocol,
    /// Type of the next header.
    pub next_header: IpProtocol,
    /// The header without its first two bytes: next header and length (in a fragment header, next
    /// header and a reserved byte).
    ///
    /// The whole header must have 8 bytes for a fragment header, a multiple of 4 from 12 to 1028
    /// for AH, and a multiple of 8 from 8 to 2048 for other types.
    pub content: &'a [u8],
}

/// A fragment header (RFC 8200, section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Offset of the data in the fragmentable part of the original packet, in bytes. A multiple of
    /// 8.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// Identification, shared by all fragments of a packet.
    pub ident: u32,
}

/// An iterator over extension headers, from [`Packet::extensions`](super::Packet::extensions).
///
/// It ends before the upper protocol, after the fragment header of a later fragment (offset not 0),
/// or after the first error.
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    payload: &'a [u8],
    offset: usize,
    next_header: IpProtocol,
    count: usize,
    has_fragment: bool,
    is_done: bool,
}

impl<'a> Extensions<'a> {
    /// `payload` begins with a header of type `first`.
    #[inline]
    pub(super) const fn new(first: IpProtocol, payload: &'a [u8]) -> Self {
        Self {
            payload,
            offset: 0,
            next_header: first,
            count: 0,
            has_fragment: false,
            is_done: false,
        }
    }

    /// Returns the type of what follows the headers returned so far.
    #[inline]
    pub(super) const fn next_header(&self) -> IpProtocol {
        self.next_header
    }

    /// Returns the total length of the headers returned so far.
    #[inline]
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    fn read_header(&mut self) -> Result<ExtensionHeader<'a>, Error> {
        if self.count == MAX_EXTENSIONS {
            return Err(Error::ExtensionChainTooLong);
        }
        let kind = self.next_header;
        let rest = self.payload.get(self.offset..).ok_or(Error::Truncated)?;
        let [next_header, len_field, ..] =
            *rest.first_chunk::<MIN_LEN>().ok_or(Error::Truncated)?;
        let is_malformed = match kind {
            IpProtocol::HOP_BY_HOP => self.count != 0,
            IpProtocol::FRAGMENT => self.has_fragment,
            // The fixed part of an AH has 12 bytes: length field 1 (RFC 4302, section 2.2).
            IpProtocol::AH => len_field < 1,
            _ => false,
        };
        if is_malformed {
            return Err(Error::Malformed);
        }
        let content = rest.get(2..stated_len(kind, len_field)).ok_or(Error::Truncated)?;
        let header = ExtensionHeader { kind, next_header: IpProtocol(next_header), content };
        if let Some(fragment) = header.fragment() {
            self.has_fragment = true;
            // In a later fragment, no header follows.
            self.is_done = fragment.offset != 0;
        }
        self.offset += header.header_len();
        self.next_header = header.next_header;
        self.count += 1;
        Ok(header)
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<ExtensionHeader<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done || !ExtensionSet::ALL.contains(self.next_header) {
            return None;
        }
        let header = self.read_header();
        self.is_done |= header.is_err();
        Some(header)
    }
}

impl ExtensionHeader<'_> {
    /// Returns the fields of a fragment header with 6 bytes of content; `None` for other headers.
    #[inline]
    pub fn fragment(&self) -> Option<FragmentHeader> {
        if self.kind != IpProtocol::FRAGMENT || self.content.len() != FRAGMENT_CONTENT_LEN {
            return None;
        }
        let field = read_u16(self.content, 0..2);
        let ident = read_u32(self.content, 2..6);
        Some(FragmentHeader { offset: field & 0xfff8, more: field & 1 != 0, ident })
    }

    /// Returns the segments left of a routing header (RFC 8200, section 4.4); `None` for other
    /// headers.
    #[inline]
    pub fn segments_left(&self) -> Option<u8> {
        if self.kind != IpProtocol::ROUTING {
            return None;
        }
        self.content.get(1).copied()
    }

    /// Returns the length that [`emit`](Self::emit) writes.
    #[inline]
    pub const fn header_len(&self) -> usize {
        2 + self.content.len()
    }

    /// Writes the header to the front of `buffer`, without [`kind`](Self::kind), which belongs into
    /// the header before it.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is too short, and [`Error::Malformed`] if `kind` is
    /// no extension header or does not allow the length of `content`.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let len = self.header_len();
        let len_field = match self.kind {
            // A fragment header has a reserved byte instead of the length field.
            IpProtocol::FRAGMENT => 0,
            // In units of 4 bytes, minus 2 (RFC 4302, section 2.2).
            IpProtocol::AH if len >= 12 => len / 4 - 2,
            kind if kind != IpProtocol::AH
                && ExtensionSet::ALL.contains(kind)
                && len >= MIN_LEN =>
            {
                len / 8 - 1
            }
            _ => return Err(Error::Malformed),
        };
        let len_field = u8::try_from(len_field).map_err(|_| Error::Malformed)?;
        if stated_len(self.kind, len_field) != len {
            return Err(Error::Malformed);
        }
        let header = buffer.get_mut(..len).ok_or(Error::Truncated)?;
        header[0] = self.next_header.0;
        header[1] = len_field;
        header[2..].copy_from_slice(self.content);
        Ok(())
    }
}

impl FragmentHeader {
    /// The length that [`emit`](Self::emit) writes.
    pub const LEN: usize = 2 + FRAGMENT_CONTENT_LEN;

    /// Writes the header to the front of `buffer`. `next_header` is the type of the first header in
    /// the fragmentable part.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is too short, and [`Error::Malformed`] if the
    /// offset is not a multiple of 8.
    #[inline]
    pub fn emit(&self, next_header: IpProtocol, buffer: &mut [u8]) -> Result<(), Error> {
        if !self.offset.is_multiple_of(8) {
            return Err(Error::Malformed);
        }
        let header = buffer.first_chunk_mut::<{ Self::LEN }>().ok_or(Error::Truncated)?;
        header[0] = next_header.0;
        header[1] = 0;
        write_u16(header, 2..4, self.offset | u16::from(self.more));
        write_u32(header, 4..8, self.ident);
        Ok(())
    }
}

const MIN_LEN: usize = 8;
/// Length of a fragment header without its first two bytes.
const FRAGMENT_CONTENT_LEN: usize = 6;

/// Returns the length that the header states. `len_field` is the second byte of the header.
#[inline]
const fn stated_len(kind: IpProtocol, len_field: u8) -> usize {
    match kind {
        IpProtocol::FRAGMENT => FragmentHeader::LEN,
        IpProtocol::AH => (len_field as usize + 2) * 4,
        _ => (len_field as usize + 1) * 8,
    }
}
