//! TCP segments (RFC 9293, section 3.1), without the TCP state machine.

use crate::checksum::{self, Sum};
use crate::error::Error;
use crate::field::{Field, read_u16, read_u32, write_u16, write_u32};
use crate::ip::{Addresses, IpProtocol};

/// Length of a header without options.
pub const HEADER_LEN: usize = field::URGENT.end;

/// The maximum length of the options, which the data offset field limits.
pub const MAX_OPTIONS_LEN: usize = 40;

/// A view of a segment, which is the whole buffer, because TCP has no length field. Except
/// [`lower_mss`](Packet::lower_mss), setters do not update the checksum.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// A header to be written, with options.
///
/// `emit` writes the reserved bits as zero, including the accurate ECN flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Repr<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window in bytes, before window scaling.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, at most 40 bytes. `emit` pads them with zero bytes to a multiple of 4.
    pub options: &'a [u8],
    /// Length of the payload.
    pub payload_len: u16,
}

/// The control bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN: no more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// SYN: synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// RST: reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// PSH: push.
    pub const PSH: Flags = Flags(0x08);
    /// ACK: the acknowledgment number is significant.
    pub const ACK: Flags = Flags(0x10);
    /// URG: the urgent pointer is significant.
    pub const URG: Flags = Flags(0x20);
    /// ECE: ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// CWR: congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Returns whether all bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;

    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`, which must have no Ethernet padding.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the header, and
    /// [`Error::Malformed`] if the data offset is below 5.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let header_len = usize::from(data[field::DATA_OFFSET] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(Error::Malformed);
        }
        if data.len() < header_len {
            return Err(Error::Truncated);
        }
        Ok(Packet { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SOURCE_PORT)
    }

    /// Returns the destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DESTINATION_PORT)
    }

    /// Returns the sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::SEQUENCE)
    }

    /// Returns the acknowledgment number.
    #[inline]
    pub fn acknowledgment(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::ACKNOWLEDGMENT)
    }

    /// Returns the length of the header with options, 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// Returns the control bits.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.buffer.as_ref()[field::FLAGS])
    }

    /// Returns the window in bytes, before window scaling.
    #[inline]
    pub fn window(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::WINDOW)
    }

    /// Returns the urgent pointer, valid only with [`Flags::URG`].
    #[inline]
    pub fn urgent(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::URGENT)
    }

    /// Returns the checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Returns whether the checksum is valid.
    #[inline]
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        self.sum(addresses).folded() == 0xffff
    }

    /// Returns the unparsed options, 0 to 40 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// Returns the bytes after the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..]
    }

    #[inline]
    fn sum(&self, addresses: Addresses) -> Sum {
        let data = self.buffer.as_ref();
        Sum::pseudo_header(addresses, IpProtocol::TCP, data.len() as u32).with(data)
    }
}

impl<'a> Packet<&'a [u8]> {
    /// Returns the [`payload`](Packet::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::SOURCE_PORT, port);
    }

    /// Sets the destination port.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        write_u16(self.buffer.as_mut(), field::DESTINATION_PORT, port);
    }

    /// Lowers maximum segment size options (RFC 9293, section 3.2) above `max` to `max`. Updates
    /// the checksum (RFC 1624). Returns whether an option changed.
    ///
    /// Returns [`Error::Malformed`] and changes nothing if an option exceeds the header or is
    /// shorter than two bytes, or a maximum segment size option does not have four. Does not check
    /// that the segment is a SYN.
    pub fn lower_mss(&mut self, max: u16) -> Result<bool, Error> {
        let header_len = self.header_len();
        let header = &mut self.buffer.as_mut()[..header_len];
        // Check all options before changing any.
        let mut at = HEADER_LEN;
        while let Some(mss) = next_mss(header, at)? {
            at = mss.end;
        }
        let mut was_lowered = false;
        at = HEADER_LEN;
        while let Some(mss) = next_mss(header, at)? {
            at = mss.end;
            let (old, is_at_odd_offset) = (read_u16(header, mss.clone()), mss.start % 2 != 0);
            if old > max {
                // A word at an odd offset enters the sum with its bytes exchanged (RFC 1071,
                // section 2 (B)).
                let summed_word =
                    |value: u16| if is_at_odd_offset { value.swap_bytes() } else { value };
                let checksum = checksum::update(
                    read_u16(header, field::CHECKSUM),
                    summed_word(old),
                    summed_word(max),
                );
                write_u16(header, mss, max);
                write_u16(header, field::CHECKSUM, checksum);
                was_lowered = true;
            }
        }
        Ok(was_lowered)
    }

    /// Writes the checksum.
    #[inline]
    pub fn fill_checksum(&mut self, addresses: Addresses) {
        write_u16(self.buffer.as_mut(), field::CHECKSUM, 0);
        let checksum = self.sum(addresses).checksum();
        write_u16(self.buffer.as_mut(), field::CHECKSUM, checksum);
    }
}

impl<'a> Repr<'a> {
    /// Returns the header of a segment, which borrows its options.
    ///
    /// Does not verify the checksum. If it is valid and the reserved bits are clear,
    /// `emit_with_checksum` writes the same bytes.
    ///
    /// Returns [`Error::Malformed`] if the segment is longer than 65535 bytes.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &'a Packet<T>) -> Result<Repr<'a>, Error> {
        let len = packet.header_len() + packet.payload().len();
        if len > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        Ok(Repr {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            sequence: packet.sequence(),
            acknowledgment: packet.acknowledgment(),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            options: packet.options(),
            payload_len: packet.payload().len() as u16,
        })
    }

    /// Returns the length of the header with padded options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len().next_multiple_of(4)
    }

    /// Returns the length of header and payload.
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        self.header_len() + self.payload_len as usize
    }

    /// Writes the header to the front of `buffer`, with a checksum field of 0: call
    /// [`Packet::fill_checksum`] when the payload is complete.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than the header, and
    /// [`Error::Malformed`] for more than 40 bytes of options or more than 65535 bytes of header
    /// and payload.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        if self.options.len() > MAX_OPTIONS_LEN || self.buffer_len() > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        let header_len = self.header_len();
        let header = buffer.get_mut(..header_len).ok_or(Error::Truncated)?;
        write_u16(header, field::SOURCE_PORT, self.source_port);
        write_u16(header, field::DESTINATION_PORT, self.destination_port);
        write_u32(header, field::SEQUENCE, self.sequence);
        write_u32(header, field::ACKNOWLEDGMENT, self.acknowledgment);
        // Cannot overflow: at most 60 / 4.
        header[field::DATA_OFFSET] = (header_len as u8 / 4) << 4;
        header[field::FLAGS] = self.flags.0;
        write_u16(header, field::WINDOW, self.window);
        write_u16(header, field::CHECKSUM, 0);
        write_u16(header, field::URGENT, self.urgent);
        let (options, padding) = header[HEADER_LEN..].split_at_mut(self.options.len());
        options.copy_from_slice(self.options);
        padding.fill(option::END);
        Ok(())
    }

    /// Writes the header to the front of `buffer`, with the checksum of header and payload. The
    /// payload must already follow the header.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than header and payload, and
    /// [`Error::Malformed`] as [`emit`](Self::emit) does.
    #[inline]
    pub fn emit_with_checksum(&self, buffer: &mut [u8], addresses: Addresses) -> Result<(), Error> {
        let segment = buffer.get_mut(..self.buffer_len()).ok_or(Error::Truncated)?;
        self.emit(segment)?;
        Packet::new_checked(segment)?.fill_checksum(addresses);
        Ok(())
    }
}

/// Kinds of options, and a length (RFC 9293, section 3.2).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const MSS_LEN: usize = 4;
}

/// Finds the first maximum segment size option at or after `at`, where an option begins. Returns
/// the position of its value, or [`Error::Malformed`] if this option or one before it is invalid.
fn next_mss(header: &[u8], mut at: usize) -> Result<Option<Field>, Error> {
    while let Some(rest) = header.get(at..) {
        match *rest {
            [] | [option::END, ..] => break,
            [option::NO_OPERATION, ..] => at += 1,
            [kind, len, ..] => {
                let len = usize::from(len);
                if len < 2 || len > rest.len() || (kind == option::MSS && len != option::MSS_LEN) {
                    return Err(Error::Malformed);
                }
                at += len;
                if kind == option::MSS {
                    return Ok(Some(at - 2..at));
                }
            }
            [_] => return Err(Error::Malformed),
        }
    }
    Ok(None)
}

mod field {
    use crate::field::Field;

    pub(super) const SOURCE_PORT: Field = 0..2;
    pub(super) const DESTINATION_PORT: Field = 2..4;
    pub(super) const SEQUENCE: Field = 4..8;
    pub(super) const ACKNOWLEDGMENT: Field = 8..12;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: Field = 14..16;
    pub(super) const CHECKSUM: Field = 16..18;
    pub(super) const URGENT: Field = 18..20;
}

#[cfg(test)]
mod tests;
