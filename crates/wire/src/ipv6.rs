//! IPv6 packets (RFC 8200): the fixed header and the extension headers.

use core::net::Ipv6Addr;

use crate::error::Error;
use crate::field::{read_array, read_u16, read_u32, write_u16, write_u32};
use crate::ip::{Addresses, Fragment, IpProtocol};

/// Length of the fixed header.
pub const HEADER_LEN: usize = field::DESTINATION.end;

mod extension;

pub use crate::limits::MAX_EXTENSIONS;
mod extension_set;

pub use extension::{ExtensionHeader, Extensions, FragmentHeader};
pub use extension_set::ExtensionSet;

/// A view of a packet. Ethernet padding may follow: the payload ends where the payload length
/// states.
///
/// Jumbograms (RFC 2675) are not supported: their payload length is 0, so the view has an empty
/// payload, and [`upper`](Packet::upper) returns [`Error::Truncated`].
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// A fixed header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// First extension header or upper protocol.
    pub next_header: IpProtocol,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Length of everything after the fixed header.
    pub payload_len: u16,
}

/// The upper protocol of a packet and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// The upper protocol, never an extension header that [`Packet::upper`] skips. In a later
    /// fragment, however, this is the next header field of the fragment header; it may name an
    /// extension header that only the first fragment contains.
    pub protocol: IpProtocol,
    /// Offset in the packet of the upper protocol's header or, in a later fragment, of its data.
    /// The length of the packet if nothing follows the extension headers.
    pub offset: usize,
    /// The fragment header, if any.
    pub fragment: Option<FragmentHeader>,
    /// The types of the skipped extension headers; in a later fragment, also the type that the
    /// fragment header names.
    pub extensions: ExtensionSet,
    /// Whether a skipped routing header has segments left (RFC 8200, section 4.4), whatever its
    /// type.
    pub has_segments_left: bool,
}

impl Upper {
    /// Returns whether the packet is a fragment. An atomic fragment counts as whole (RFC 6946).
    #[inline]
    pub fn fragment(&self) -> Fragment {
        self.fragment.map_or(Fragment::Whole, |header| Fragment::new(header.offset, header.more))
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than header and payload, and
    /// [`Error::Malformed`] if the version is not 6.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if data[field::VERSION] >> 4 != 6 {
            return Err(Error::Malformed);
        }
        if data.len() - HEADER_LEN < usize::from(read_u16(data, field::PAYLOAD_LEN)) {
            return Err(Error::Truncated);
        }
        Ok(Packet { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the traffic class: DSCP in the upper six bits (RFC 2474), ECN in the lower two (RFC
    /// 3168).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.first_word() >> 20) as u8
    }

    /// Returns the flow label, 20 bits (RFC 6437).
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.first_word() & 0x000f_ffff
    }

    /// Returns the length of everything after the fixed header.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::PAYLOAD_LEN)
    }

    /// Returns the length of fixed header and payload, up to 65575.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(self.payload_len())
    }

    /// Returns the first extension header's type or the upper protocol.
    #[inline]
    pub fn next_header(&self) -> IpProtocol {
        IpProtocol(self.buffer.as_ref()[field::NEXT_HEADER])
    }

    /// Returns the hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.buffer.as_ref()[field::HOP_LIMIT]
    }

    /// Returns the source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        read_array(self.buffer.as_ref(), field::SOURCE).into()
    }

    /// Returns the destination address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        read_array(self.buffer.as_ref(), field::DESTINATION).into()
    }

    /// Returns both addresses. With a routing header, see [`Addresses::V6`].
    #[inline]
    pub fn addresses(&self) -> Addresses {
        Addresses::V6 { source: self.source(), destination: self.destination() }
    }

    /// Returns the bytes after the fixed header, up to the payload length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.total_len()]
    }

    /// Skips the extension headers of the types [`ExtensionSet::TYPES`], and returns the upper
    /// protocol after them.
    ///
    /// Every other type counts as the upper protocol, such as ESP, no-next-header and unknown
    /// types. In a later fragment, nothing after the fragment header is skipped.
    ///
    /// Errors:
    ///
    /// - [`Error::Truncated`]: an extension header exceeds the payload.
    /// - [`Error::Malformed`]: hop-by-hop options that are not first (RFC 8200, section 4.1), a
    ///   second fragment header, or a too short AH (RFC 4302, section 2.2).
    /// - [`Error::ExtensionChainTooLong`]: more than [`MAX_EXTENSIONS`] headers.
    #[inline]
    pub fn upper(&self) -> Result<Upper, Error> {
        let protocol = self.next_header();
        if !ExtensionSet::ALL.contains(protocol) {
            return Ok(Upper {
                protocol,
                offset: HEADER_LEN,
                fragment: None,
                extensions: ExtensionSet::EMPTY,
                has_segments_left: false,
            });
        }
        skip_extensions(protocol, self.payload())
    }

    /// Returns an iterator over the extension headers that [`upper`](Packet::upper) skips. It ends
    /// with the error of `upper`, if any.
    #[inline]
    pub fn extensions(&self) -> Extensions<'_> {
        Extensions::new(self.next_header(), self.payload())
    }

    #[inline]
    fn first_word(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::VERSION_CLASS_LABEL)
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..self.total_len()]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Decrements the hop limit and returns the new value.
    ///
    /// Returns `None` and changes nothing if the hop limit is 0 or 1: the packet must not be
    /// forwarded (RFC 8200, section 3).
    #[inline]
    pub fn decrement_hop_limit(&mut self) -> Option<u8> {
        let hop_limit = self.hop_limit().checked_sub(1).filter(|&hop_limit| hop_limit > 0)?;
        self.set_hop_limit(hop_limit);
        Some(hop_limit)
    }

    /// Sets the payload length. Returns [`Error::Truncated`] and changes nothing if it would exceed
    /// the buffer.
    #[inline]
    pub fn set_payload_len(&mut self, payload_len: u16) -> Result<(), Error> {
        if self.buffer.as_ref().len() - HEADER_LEN < usize::from(payload_len) {
            return Err(Error::Truncated);
        }
        write_u16(self.buffer.as_mut(), field::PAYLOAD_LEN, payload_len);
        Ok(())
    }

    /// Sets the traffic class.
    #[inline]
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let word = self.first_word() & 0xf00f_ffff | u32::from(traffic_class) << 20;
        write_u32(self.buffer.as_mut(), field::VERSION_CLASS_LABEL, word);
    }

    /// Sets the first extension header's type or the upper protocol.
    #[inline]
    pub fn set_next_header(&mut self, next_header: IpProtocol) {
        self.buffer.as_mut()[field::NEXT_HEADER] = next_header.0;
    }

    /// Sets the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[field::HOP_LIMIT] = hop_limit;
    }

    /// Sets the source address.
    #[inline]
    pub fn set_source(&mut self, address: Ipv6Addr) {
        self.buffer.as_mut()[field::SOURCE].copy_from_slice(&address.octets());
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_destination(&mut self, address: Ipv6Addr) {
        self.buffer.as_mut()[field::DESTINATION].copy_from_slice(&address.octets());
    }

    /// Returns the [`payload`](Packet::payload) for writing.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = HEADER_LEN..self.total_len();
        &mut self.buffer.as_mut()[range]
    }
}

impl Repr {
    /// Creates a header with these addresses; the other fields are those of [`Repr::default`].
    #[inline]
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Repr {
        Repr { source, destination, ..Repr::default() }
    }

    /// Returns the fixed header of a packet.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Repr {
        Repr {
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            next_header: packet.next_header(),
            hop_limit: packet.hop_limit(),
            source: packet.source(),
            destination: packet.destination(),
            payload_len: packet.payload_len(),
        }
    }

    /// Returns [`HEADER_LEN`].
    #[inline]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Returns the length of header and payload.
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.payload_len as usize
    }

    /// Returns both addresses.
    #[inline]
    pub const fn addresses(&self) -> Addresses {
        Addresses::V6 { source: self.source, destination: self.destination }
    }

    /// Writes the 40 bytes of the header to the front of `buffer`. Returns [`Error::Truncated`] if
    /// it is too short.
    ///
    /// Bits of the flow label above the lower 20 are ignored.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let header = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        let first_word =
            6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        write_u32(header, field::VERSION_CLASS_LABEL, first_word);
        write_u16(header, field::PAYLOAD_LEN, self.payload_len);
        header[field::NEXT_HEADER] = self.next_header.0;
        header[field::HOP_LIMIT] = self.hop_limit;
        header[field::SOURCE].copy_from_slice(&self.source.octets());
        header[field::DESTINATION].copy_from_slice(&self.destination.octets());
        Ok(())
    }
}

impl Default for Repr {
    /// Returns a header without addresses, payload and next header, with a hop limit of 64.
    fn default() -> Self {
        Repr {
            traffic_class: 0,
            flow_label: 0,
            next_header: IpProtocol::NO_NEXT_HEADER,
            hop_limit: 64,
            source: Ipv6Addr::UNSPECIFIED,
            destination: Ipv6Addr::UNSPECIFIED,
            payload_len: 0,
        }
    }
}

/// Kept out of line, because most packets have no extension headers.
#[cold]
fn skip_extensions(first: IpProtocol, payload: &[u8]) -> Result<Upper, Error> {
    let mut headers = Extensions::new(first, payload);
    let (mut fragment, mut extensions) = (None, ExtensionSet::EMPTY);
    let mut has_segments_left = false;
    for header in headers.by_ref() {
        let header = header?;
        fragment = fragment.or(header.fragment());
        extensions.insert(header.kind);
        has_segments_left |= header.segments_left().is_some_and(|segments| segments > 0);
    }
    let (protocol, offset) = (headers.next_header(), HEADER_LEN + headers.offset());
    extensions.insert(protocol);
    Ok(Upper { protocol, offset, fragment, extensions, has_segments_left })
}

mod field {
    use crate::field::Field;

    pub(super) const VERSION: usize = 0;
    pub(super) const VERSION_CLASS_LABEL: Field = 0..4;
    pub(super) const PAYLOAD_LEN: Field = 4..6;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SOURCE: Field = 8..24;
    pub(super) const DESTINATION: Field = 24..40;
}

#[cfg(test)]
mod tests;
