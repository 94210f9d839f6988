//! IPv4 packets (RFC 791).

use core::net::Ipv4Addr;

use crate::checksum::{self, Sum};
use crate::error::Error;
use crate::field::{read_array, read_u16, write_u16};
use crate::ip::{Addresses, Fragment, IpProtocol};

/// Length of a header without options.
pub const HEADER_LEN: usize = field::DESTINATION.end;

/// A view of a packet. Ethernet padding may follow: the payload ends where the total length states.
///
/// Setters do not update the header checksum, except [`decrement_ttl`](Packet::decrement_ttl): call
/// [`fill_checksum`](Packet::fill_checksum) last.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// A header to be written, without options, of an unfragmented packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Explicit congestion notification, 0 to 3.
    pub ecn: u8,
    /// Identification.
    pub ident: u16,
    /// Don't-fragment flag.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: IpProtocol,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Length of the payload, at most 65515.
    pub payload_len: u16,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the fixed header or than the total
    /// length, and [`Error::Malformed`] if the version is not 4, or a length field is too small.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let header_len = usize::from(data[field::VERSION_IHL] & 0x0f) * 4;
        let total_len = usize::from(read_u16(data, field::TOTAL_LEN));
        if data[field::VERSION_IHL] >> 4 != 4 || header_len < HEADER_LEN || total_len < header_len {
            return Err(Error::Malformed);
        }
        if data.len() < total_len {
            return Err(Error::Truncated);
        }
        Ok(Packet { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the length of the header with options, 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::VERSION_IHL] & 0x0f) * 4
    }

    /// Returns the length of header and payload.
    #[inline]
    pub fn total_len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TOTAL_LEN)
    }

    /// Returns the differentiated services code point (RFC 2474), 0 to 63.
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.buffer.as_ref()[field::DSCP_ECN] >> 2
    }

    /// Returns the explicit congestion notification (RFC 3168), 0 to 3.
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.buffer.as_ref()[field::DSCP_ECN] & 0x03
    }

    /// Returns the identification, shared by all fragments of a packet.
    #[inline]
    pub fn ident(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::IDENT)
    }

    /// Returns the don't-fragment flag.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & 0x4000 != 0
    }

    /// Returns the more-fragments flag.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.flags_and_offset() & 0x2000 != 0
    }

    /// Returns the offset of this payload in that of the unfragmented packet, in bytes: a multiple
    /// of 8, at most 65528.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_and_offset() & 0x1fff) * 8
    }

    /// Returns whether the packet is a fragment.
    #[inline]
    pub fn fragment(&self) -> Fragment {
        Fragment::new(self.fragment_offset(), self.more_fragments())
    }

    /// Returns the time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.buffer.as_ref()[field::TTL]
    }

    /// Returns the protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> IpProtocol {
        IpProtocol(self.buffer.as_ref()[field::PROTOCOL])
    }

    /// Returns the header checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Returns whether the header checksum is valid.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        Sum::new().with(&self.buffer.as_ref()[..self.header_len()]).folded() == 0xffff
    }

    /// Returns the source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        read_array(self.buffer.as_ref(), field::SOURCE).into()
    }

    /// Returns the destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        read_array(self.buffer.as_ref(), field::DESTINATION).into()
    }

    /// Returns both addresses.
    #[inline]
    pub fn addresses(&self) -> Addresses {
        Addresses::V4 { source: self.source(), destination: self.destination() }
    }

    /// Returns the unparsed options, 0 to 40 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// Returns the bytes after the header, up to the total length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..usize::from(self.total_len())]
    }

    #[inline]
    fn flags_and_offset(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::FLAGS_OFFSET)
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[self.header_len()..usize::from(self.total_len())]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Decrements the time to live and returns the new value. Updates the header checksum (RFC
    /// 1624, equation 3); an invalid one stays invalid.
    ///
    /// Returns `None` and changes nothing if the time to live is 0 or 1: the packet must not be
    /// forwarded (RFC 1812, section 5.3.1).
    #[inline]
    pub fn decrement_ttl(&mut self) -> Option<u8> {
        let ttl = self.ttl();
        if ttl <= 1 {
            return None;
        }
        let data = self.buffer.as_mut();
        let old = read_u16(data, field::TTL_PROTOCOL);
        let new = old - 0x0100;
        let checksum = checksum::update(read_u16(data, field::CHECKSUM), old, new);
        write_u16(data, field::TTL_PROTOCOL, new);
        write_u16(data, field::CHECKSUM, checksum);
        Some(ttl - 1)
    }

    /// Writes the header checksum.
    #[inline]
    pub fn fill_checksum(&mut self) {
        let header_len = self.header_len();
        let data = self.buffer.as_mut();
        write_u16(data, field::CHECKSUM, 0);
        let checksum = Sum::new().with(&data[..header_len]).checksum();
        write_u16(data, field::CHECKSUM, checksum);
    }

    /// Sets the total length.
    ///
    /// Returns [`Error::Malformed`] if `total_len` is below the header length, and
    /// [`Error::Truncated`] if it exceeds the length of the buffer. On error, changes nothing.
    #[inline]
    pub fn set_total_len(&mut self, total_len: u16) -> Result<(), Error> {
        if usize::from(total_len) < self.header_len() {
            return Err(Error::Malformed);
        }
        if usize::from(total_len) > self.buffer.as_ref().len() {
            return Err(Error::Truncated);
        }
        write_u16(self.buffer.as_mut(), field::TOTAL_LEN, total_len);
        Ok(())
    }

    /// Sets the lower six bits of `dscp` as the differentiated services code point.
    #[inline]
    pub fn set_dscp(&mut self, dscp: u8) {
        let byte = &mut self.buffer.as_mut()[field::DSCP_ECN];
        *byte = dscp << 2 | *byte & 0x03;
    }

    /// Sets the lower two bits of `ecn` as the explicit congestion notification.
    #[inline]
    pub fn set_ecn(&mut self, ecn: u8) {
        let byte = &mut self.buffer.as_mut()[field::DSCP_ECN];
        *byte = *byte & 0xfc | ecn & 0x03;
    }

    /// Sets the identification.
    #[inline]
    pub fn set_ident(&mut self, ident: u16) {
        write_u16(self.buffer.as_mut(), field::IDENT, ident);
    }

    /// Sets the time to live.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.buffer.as_mut()[field::TTL] = ttl;
    }

    /// Sets the payload's protocol.
    #[inline]
    pub fn set_protocol(&mut self, protocol: IpProtocol) {
        self.buffer.as_mut()[field::PROTOCOL] = protocol.0;
    }

    /// Sets the source address.
    #[inline]
    pub fn set_source(&mut self, address: Ipv4Addr) {
        self.buffer.as_mut()[field::SOURCE].copy_from_slice(&address.octets());
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_destination(&mut self, address: Ipv4Addr) {
        self.buffer.as_mut()[field::DESTINATION].copy_from_slice(&address.octets());
    }

    /// Returns the [`payload`](Packet::payload) for writing.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = self.header_len()..usize::from(self.total_len());
        &mut self.buffer.as_mut()[range]
    }
}

impl Repr {
    /// Creates a header with these addresses; the other fields are those of [`Repr::default`].
    #[inline]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Repr {
        Repr { source, destination, ..Repr::default() }
    }

    /// Returns the header of a packet, or `None` if it has options or is a fragment: `Repr`
    /// represents neither.
    ///
    /// Does not verify the checksum. If it is valid and the reserved flag is clear, `emit` writes
    /// the same bytes.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Option<Repr> {
        if packet.header_len() != HEADER_LEN || packet.fragment() != Fragment::Whole {
            return None;
        }
        Some(Repr {
            dscp: packet.dscp(),
            ecn: packet.ecn(),
            ident: packet.ident(),
            dont_fragment: packet.dont_fragment(),
            ttl: packet.ttl(),
            protocol: packet.protocol(),
            source: packet.source(),
            destination: packet.destination(),
            // Cannot underflow: the view checked the total length.
            payload_len: packet.total_len() - HEADER_LEN as u16,
        })
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
        Addresses::V4 { source: self.source, destination: self.destination }
    }

    /// Writes the 20 bytes of the header, with its checksum, to the front of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is too short, and [`Error::Malformed`] if header
    /// and payload exceed 65535 bytes. Bits of DSCP above the lower six, and of ECN above the lower
    /// two, are ignored.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let total_len = self.payload_len.checked_add(HEADER_LEN as u16).ok_or(Error::Malformed)?;
        let header = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(Error::Truncated)?;
        let (version_ihl, dscp_ecn) = (0x45, self.dscp << 2 | self.ecn & 0x03);
        let flags_offset = if self.dont_fragment { 0x4000 } else { 0 };
        header[field::VERSION_IHL] = version_ihl;
        header[field::DSCP_ECN] = dscp_ecn;
        write_u16(header, field::TOTAL_LEN, total_len);
        write_u16(header, field::IDENT, self.ident);
        write_u16(header, field::FLAGS_OFFSET, flags_offset);
        header[field::TTL] = self.ttl;
        header[field::PROTOCOL] = self.protocol.0;
        header[field::SOURCE].copy_from_slice(&self.source.octets());
        header[field::DESTINATION].copy_from_slice(&self.destination.octets());
        // Sum the values instead of the bytes in `header`: reading bytes just written with another
        // width would stall the processor (no store forwarding).
        let words = [
            u16::from_be_bytes([version_ihl, dscp_ecn]),
            total_len,
            self.ident,
            flags_offset,
            u16::from_be_bytes([self.ttl, self.protocol.0]),
        ];
        let address_sum = u64::from(self.source.to_bits()) + u64::from(self.destination.to_bits());
        let sum = words
            .into_iter()
            .fold(Sum::new().add_u64(address_sum), |sum, word| sum.add_u64(word.into()));
        write_u16(header, field::CHECKSUM, sum.checksum());
        Ok(())
    }
}

impl Default for Repr {
    /// Returns a header without addresses, payload and don't-fragment flag, with a time to live of
    /// 64 (RFC 1700).
    fn default() -> Self {
        Repr {
            dscp: 0,
            ecn: 0,
            ident: 0,
            dont_fragment: false,
            ttl: 64,
            protocol: IpProtocol::default(),
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::UNSPECIFIED,
            payload_len: 0,
        }
    }
}

mod field {
    use crate::field::Field;

    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const DSCP_ECN: usize = 1;
    pub(super) const TOTAL_LEN: Field = 2..4;
    pub(super) const IDENT: Field = 4..6;
    pub(super) const FLAGS_OFFSET: Field = 6..8;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    /// One 16-bit word of the checksum.
    pub(super) const TTL_PROTOCOL: Field = 8..10;
    pub(super) const CHECKSUM: Field = 10..12;
    pub(super) const SOURCE: Field = 12..16;
    pub(super) const DESTINATION: Field = 16..20;
}

#[cfg(test)]
mod tests;
