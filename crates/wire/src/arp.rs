//! ARP messages for IPv4 over Ethernet (RFC 826).

use core::fmt;
use core::net::Ipv4Addr;

use crate::error::Error;
use crate::field::{read_array, read_u16, write_u16};
use crate::mac::MacAddr;

/// Length of a message.
pub const LEN: usize = field::TARGET_IP.end;

const ETHERNET: u16 = 1;
/// Protocol type: the EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// Lengths of a MAC and an IPv4 address.
const ADDRESS_LENGTHS: [u8; 2] = [6, 4];

/// A view of a message. Ethernet padding may follow the message.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T> {
    buffer: T,
}

/// A message to be written.
///
/// ```
/// use xdpfwd_wire::{MacAddr, arp};
///
/// let mac = MacAddr([2, 0, 0, 0, 0, 1]);
/// let request = arp::Repr::request(mac, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
/// let mut message = [0; arp::LEN];
/// request.emit(&mut message)?;
///
/// // The owner of 10.0.0.2 answers.
/// let received = arp::Repr::parse(&arp::Packet::new_checked(&message)?);
/// let reply = received.reply(MacAddr([2, 0, 0, 0, 0, 2]));
/// assert_eq!(reply.operation, arp::Operation::REPLY);
/// assert_eq!((reply.target_mac, reply.target_ip), (mac, [10, 0, 0, 1].into()));
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC address: meaningless in a request; [`Repr::request`] sets it to zero.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

/// The operation of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Operation(pub u16);

impl Operation {
    /// Request for the target's MAC address.
    pub const REQUEST: Operation = Operation(1);
    /// Reply to a request.
    pub const REPLY: Operation = Operation(2);
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Creates a view of `buffer`, which begins after the Ethernet header and VLAN tags.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is shorter than [`LEN`], and [`Error::Malformed`]
    /// if its addresses are not Ethernet and IPv4 addresses.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        let data = buffer.as_ref();
        if data.len() < LEN {
            return Err(Error::Truncated);
        }
        let is_ethernet = read_u16(data, field::HARDWARE_TYPE) == ETHERNET;
        let is_ipv4 = read_u16(data, field::PROTOCOL_TYPE) == IPV4;
        if !is_ethernet || !is_ipv4 || data[field::ADDRESS_LENGTHS] != ADDRESS_LENGTHS {
            return Err(Error::Malformed);
        }
        Ok(Packet { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the operation.
    #[inline]
    pub fn operation(&self) -> Operation {
        Operation(read_u16(self.buffer.as_ref(), field::OPERATION))
    }

    /// Returns the sender's MAC address.
    #[inline]
    pub fn sender_mac(&self) -> MacAddr {
        MacAddr(read_array(self.buffer.as_ref(), field::SENDER_MAC))
    }

    /// Returns the sender's IPv4 address.
    #[inline]
    pub fn sender_ip(&self) -> Ipv4Addr {
        read_array(self.buffer.as_ref(), field::SENDER_IP).into()
    }

    /// Returns the target's MAC address, which is meaningless in a request.
    #[inline]
    pub fn target_mac(&self) -> MacAddr {
        MacAddr(read_array(self.buffer.as_ref(), field::TARGET_MAC))
    }

    /// Returns the target's IPv4 address.
    #[inline]
    pub fn target_ip(&self) -> Ipv4Addr {
        read_array(self.buffer.as_ref(), field::TARGET_IP).into()
    }
}

impl Repr {
    /// Creates a request for the MAC address of `target_ip`.
    ///
    /// Send it to [`MacAddr::BROADCAST`], or, to check a known mapping, to the known MAC address
    /// (RFC 1122, section 2.3.2.1).
    #[inline]
    pub const fn request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Repr {
        let (operation, target_mac) = (Operation::REQUEST, MacAddr([0; 6]));
        Repr { operation, sender_mac, sender_ip, target_mac, target_ip }
    }

    /// Creates the reply: `mac` is the MAC address of the requested IPv4 address. Send it to the
    /// sender of the request.
    #[inline]
    pub const fn reply(&self, mac: MacAddr) -> Repr {
        Repr {
            operation: Operation::REPLY,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Returns the fields of a message.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Repr {
        Repr {
            operation: packet.operation(),
            sender_mac: packet.sender_mac(),
            sender_ip: packet.sender_ip(),
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        }
    }

    /// Returns [`LEN`].
    #[inline]
    pub const fn buffer_len(&self) -> usize {
        LEN
    }

    /// Writes the 28 bytes to the front of `buffer`.
    ///
    /// Returns [`Error::Truncated`] if `buffer` is too short. The frame needs padding; NICs usually
    /// add it.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let message = buffer.first_chunk_mut::<LEN>().ok_or(Error::Truncated)?;
        write_u16(message, field::HARDWARE_TYPE, ETHERNET);
        write_u16(message, field::PROTOCOL_TYPE, IPV4);
        message[field::ADDRESS_LENGTHS].copy_from_slice(&ADDRESS_LENGTHS);
        write_u16(message, field::OPERATION, self.operation.0);
        message[field::SENDER_MAC].copy_from_slice(&self.sender_mac.0);
        message[field::SENDER_IP].copy_from_slice(&self.sender_ip.octets());
        message[field::TARGET_MAC].copy_from_slice(&self.target_mac.0);
        message[field::TARGET_IP].copy_from_slice(&self.target_ip.octets());
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Operation::REQUEST => f.write_str("request"),
            Operation::REPLY => f.write_str("reply"),
            Operation(other) => write!(f, "operation {other}"),
        }
    }
}

mod field {
    use crate::field::Field;

    pub(super) const HARDWARE_TYPE: Field = 0..2;
    pub(super) const PROTOCOL_TYPE: Field = 2..4;
    pub(super) const ADDRESS_LENGTHS: Field = 4..6;
    pub(super) const OPERATION: Field = 6..8;
    pub(super) const SENDER_MAC: Field = 8..14;
    pub(super) const SENDER_IP: Field = 14..18;
    pub(super) const TARGET_MAC: Field = 18..24;
    pub(super) const TARGET_IP: Field = 24..28;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // bytes(ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="192.0.2.1",
    //           hwdst="02:00:00:00:00:02", pdst="192.0.2.2"))
    const PACKET: [u8; LEN] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x02, 0x02, 0, 0, 0, 0, 0x01, 0xc0, 0x00, 0x02,
        0x01, 0x02, 0, 0, 0, 0, 0x02, 0xc0, 0x00, 0x02, 0x02,
    ];

    #[test]
    fn arp_reply_is_parsed_and_emitted() {
        let repr = Repr {
            operation: Operation::REPLY,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender_ip: [192, 0, 2, 1].into(),
            target_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            target_ip: [192, 0, 2, 2].into(),
        };
        let packet = Packet::new_checked(&PACKET[..]).unwrap();
        assert_eq!(Repr::parse(&packet), repr);
        let mut bytes = [0xee; LEN];
        repr.emit(&mut bytes).unwrap();
        assert_eq!(bytes, PACKET);
    }

    #[test]
    fn invalid_address_type_and_short_buffer_are_rejected() {
        let error = |bytes: &[u8]| Packet::new_checked(bytes).map(|_| ()).unwrap_err();
        for at in 0..6 {
            let mut bytes = PACKET;
            bytes[at] ^= 0x10;
            assert_eq!(error(&bytes), Error::Malformed, "byte {at}");
        }
        assert_eq!(error(&PACKET[..27]), Error::Truncated);
        let repr = Repr::parse(&Packet::new_checked(PACKET).unwrap());
        assert_eq!(repr.emit(&mut [0; 27]), Err(Error::Truncated));
    }

    proptest! {
        #[test]
        fn emit_writes_the_parsed_message(body: [u8; 22], padding: [u8; 18]) {
            let bytes = [&PACKET[..6], &body, &padding].concat();
            let repr = Repr::parse(&Packet::new_checked(&bytes).unwrap());
            let mut emitted = [0xee; LEN];
            repr.emit(&mut emitted).unwrap();
            prop_assert_eq!(&emitted[..], &bytes[..LEN]);
            prop_assert_eq!(Repr::parse(&Packet::new_checked(emitted).unwrap()), repr);
        }

        #[test]
        fn arp_view_of_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Packet::new_checked(&bytes);
        }
    }
}
