//! Ethernet II frames (IEEE 802.3-2018, clause 3) without preamble and FCS, as in memory.

use core::fmt;

use crate::error::Error;
use crate::field::{read_array, read_u16, write_u16};
use crate::mac::MacAddr;

/// Length of the header without VLAN tags.
pub const HEADER_LEN: usize = field::ETHERTYPE.end;

/// A view of a frame: the header, and the bytes after it with any VLAN tags.
#[derive(Debug, Clone, Copy)]
pub struct Frame<T> {
    buffer: T,
}

/// An untagged header to be written.
///
/// Before a VLAN tag ([`vlan::Repr`](crate::vlan::Repr)), set [`ethertype`](Self::ethertype) to
/// [`EtherType::VLAN`] or [`EtherType::SERVICE_VLAN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Repr {
    /// Destination address.
    pub destination: MacAddr,
    /// Source address.
    pub source: MacAddr,
    /// Type of the payload or of the first VLAN tag.
    pub ethertype: EtherType,
}

/// The type of the data after the MAC addresses or a VLAN tag.
///
/// Values below 0x0600 are not types: up to 1500, they are the payload length of an LLC frame (IEEE
/// 802.3-2018, clause 3.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP (RFC 826).
    pub const ARP: EtherType = EtherType(0x0806);
    /// IPv6 (RFC 2464).
    pub const IPV6: EtherType = EtherType(0x86dd);
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: EtherType = EtherType(0x8100);
    /// Service VLAN tag (IEEE 802.1ad, "QinQ").
    pub const SERVICE_VLAN: EtherType = EtherType(0x88a8);

    /// Returns whether this is the type of a VLAN tag: 802.1Q, 802.1ad, or one of the types 0x9100,
    /// 0x9200 and 0x9300, which switches used for outer tags before 802.1ad and still offer.
    #[inline]
    pub const fn is_vlan(self) -> bool {
        matches!(
            self,
            EtherType::VLAN | EtherType::SERVICE_VLAN | EtherType(0x9100 | 0x9200 | 0x9300)
        )
    }
}

impl<T: AsRef<[u8]>> Frame<T> {
    /// Creates a view of `buffer`. Returns [`Error::Truncated`] if `buffer` is shorter than the
    /// header.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        Ok(Frame { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the destination address.
    #[inline]
    pub fn destination(&self) -> MacAddr {
        MacAddr(read_array(self.buffer.as_ref(), field::DESTINATION))
    }

    /// Returns the source address.
    #[inline]
    pub fn source(&self) -> MacAddr {
        MacAddr(read_array(self.buffer.as_ref(), field::SOURCE))
    }

    /// Returns the type of the payload or of a VLAN tag, or a length (see [`EtherType`]).
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(read_u16(self.buffer.as_ref(), field::ETHERTYPE))
    }

    /// Returns the bytes after the header, with any padding: an EtherType states no length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<'a> Frame<&'a [u8]> {
    /// Returns the [`payload`](Frame::payload) with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Sets the destination address.
    #[inline]
    pub fn set_destination(&mut self, address: MacAddr) {
        self.buffer.as_mut()[field::DESTINATION].copy_from_slice(&address.0);
    }

    /// Sets the source address.
    #[inline]
    pub fn set_source(&mut self, address: MacAddr) {
        self.buffer.as_mut()[field::SOURCE].copy_from_slice(&address.0);
    }

    /// Sets the type field.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        write_u16(self.buffer.as_mut(), field::ETHERTYPE, ethertype.0);
    }

    /// Exchanges the addresses.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (destination, source) = (self.destination(), self.source());
        self.set_destination(source);
        self.set_source(destination);
    }

    /// Returns the [`payload`](Frame::payload) for writing.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

impl Repr {
    /// Creates a header with these addresses and EtherType 0; a [`HeaderStack`](crate::HeaderStack)
    /// fills it in.
    #[inline]
    pub fn new(source: MacAddr, destination: MacAddr) -> Repr {
        Repr { source, destination, ..Repr::default() }
    }

    /// Returns the header of a frame.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(frame: &Frame<T>) -> Repr {
        Repr {
            destination: frame.destination(),
            source: frame.source(),
            ethertype: frame.ethertype(),
        }
    }

    /// Returns [`HEADER_LEN`].
    #[inline]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the 14 bytes of the header to the front of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is too short.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut frame = Frame::new_checked(buffer)?;
        frame.set_destination(self.destination);
        frame.set_source(self.source);
        frame.set_ethertype(self.ethertype);
        Ok(())
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EtherType::IPV4 => f.write_str("ipv4"),
            EtherType::ARP => f.write_str("arp"),
            EtherType::IPV6 => f.write_str("ipv6"),
            EtherType::VLAN => f.write_str("802.1q"),
            EtherType::SERVICE_VLAN => f.write_str("802.1ad"),
            EtherType(other) => write!(f, "0x{other:04x}"),
        }
    }
}

mod field {
    use crate::field::Field;

    pub(super) const DESTINATION: Field = 0..6;
    pub(super) const SOURCE: Field = 6..12;
    pub(super) const ETHERTYPE: Field = 12..14;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01", type=0x0800)/b"\xaa\xbb")
    const FRAME: [u8; 16] =
        [0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01, 0x08, 0x00, 0xaa, 0xbb];

    #[test]
    fn frame_accessors_return_header_fields() {
        let frame = Frame::new_checked(&FRAME[..]).unwrap();
        assert_eq!(frame.destination(), MacAddr([2, 0, 0, 0, 0, 2]));
        assert_eq!(frame.source(), MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(frame.ethertype(), EtherType::IPV4);
        assert_eq!(frame.into_payload(), [0xaa, 0xbb]);
    }

    #[test]
    fn frame_setters_write_header_fields() {
        let mut frame = Frame::new_checked([0; 16]).unwrap();
        frame.set_destination(MacAddr([2, 0, 0, 0, 0, 2]));
        frame.set_source(MacAddr([2, 0, 0, 0, 0, 1]));
        frame.set_ethertype(EtherType::IPV4);
        frame.payload_mut().copy_from_slice(&[0xaa, 0xbb]);
        assert_eq!(frame.into_inner(), FRAME);
    }

    #[test]
    fn frame_shorter_than_header_is_truncated() {
        assert!(Frame::new_checked(&FRAME[..HEADER_LEN]).is_ok());
        assert_eq!(Frame::new_checked(&FRAME[..HEADER_LEN - 1]).unwrap_err(), Error::Truncated);
    }

    proptest! {
        #[test]
        fn emit_writes_the_parsed_header(bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..80)) {
            let repr = Repr::parse(&Frame::new_checked(&bytes[..]).unwrap());
            let mut emitted = vec![0xee; repr.header_len()];
            repr.emit(&mut emitted).unwrap();
            prop_assert_eq!(&emitted[..], &bytes[..HEADER_LEN]);
            prop_assert_eq!(Repr::parse(&Frame::new_checked(emitted).unwrap()), repr);
            prop_assert_eq!(repr.emit(&mut [0; HEADER_LEN - 1]), Err(Error::Truncated));
        }

        #[test]
        fn swap_addresses_keeps_type_and_payload(bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..80)) {
            let before = Frame::new_checked(&bytes[..]).unwrap();
            let mut after = Frame::new_checked(bytes.clone()).unwrap();
            after.swap_addresses();
            prop_assert_eq!(after.destination(), before.source());
            prop_assert_eq!(after.source(), before.destination());
            prop_assert_eq!(after.ethertype(), before.ethertype());
            prop_assert_eq!(after.payload(), before.payload());
        }
    }
}
