//! Sends, receives and alters packets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{LinkAddr, MsgFlags, SockProtocol, bind, recv, sendto, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use xdpfwd_lab::Namespace;

use crate::lab::Lab;
use crate::support::TIMEOUT;
use crate::support::wire::packet_socket;
use crate::{LEFT, RIGHT, SETTLE_TIME};

/// A UDP socket on the left and one on the right host, connected to each other.
pub(crate) struct UdpPair(pub(crate) [UdpSocket; 2]);

impl UdpPair {
    pub(crate) fn new(lab: &Lab) -> Self {
        let addresses = lab
            .case
            .inner
            .host_addresses()
            .map(|ip| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 7001));
        Self([LEFT, RIGHT].map(|side| {
            let open = || {
                let socket = UdpSocket::bind(addresses[side]).unwrap();
                socket.connect(addresses[1 - side]).unwrap();
                socket
            };
            lab.host(side).run(open).unwrap()
        }))
    }

    /// Sends a [`message`] of `length` bytes for each number, from the host on this side.
    #[track_caller]
    pub(crate) fn send(&self, side: usize, numbers: impl IntoIterator<Item = u32>, length: usize) {
        for number in numbers {
            self.0[side].send(&message(number, length)).unwrap();
        }
    }

    /// Returns the next message that arrives on this side, or `None` after the timeout.
    pub(crate) fn receive(&self, side: usize, timeout: Duration) -> Option<Vec<u8>> {
        let socket = &self.0[side];
        socket.set_read_timeout(Some(timeout)).unwrap();
        let mut bytes = vec![0; 2048];
        match socket.recv(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                Some(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("recv: {error}"),
        }
    }

    /// Checks that exactly the messages with these numbers arrive, in any order.
    #[track_caller]
    pub(crate) fn assert_arrive(
        &self,
        side: usize,
        expected: impl IntoIterator<Item = u32>,
        context: &str,
    ) {
        let mut expected: Vec<u32> = expected.into_iter().collect();
        let mut arrived: Vec<u32> = Vec::new();
        while let Some(bytes) =
            self.receive(side, if arrived.len() < expected.len() { TIMEOUT } else { SETTLE_TIME })
        {
            let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(bytes, message(number, bytes.len()), "{context}: message {number}");
            arrived.push(number);
        }
        expected.sort_unstable();
        arrived.sort_unstable();
        assert_eq!(arrived, expected, "{context}");
    }
}

/// Returns a message that starts with a four-byte number, on which the other bytes depend. A
/// `length` below four cuts the number.
pub(crate) fn message(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(
        (4..length).map(|index| (index as u32).wrapping_mul(31).wrapping_add(number) as u8),
    );
    bytes.truncate(length);
    bytes
}

/// A packet socket that receives all frames of an interface.
pub(crate) struct PacketSocket {
    pub(crate) socket: OwnedFd,
    pub(crate) address: LinkAddr,
}

impl PacketSocket {
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> Self {
        let (socket, address) = packet_socket(namespace, interface, Some(SockProtocol::EthAll));
        bind(socket.as_raw_fd(), &address).unwrap();
        setsockopt(&socket, RcvBufForce, &(8 << 20)).unwrap();
        Self { socket, address }
    }

    /// Returns the next ESP frame with this SPI, or `None` after the timeout.
    pub(crate) fn receive_one(&self, spi: u32, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        setsockopt(
            &self.socket,
            ReceiveTimeout,
            &TimeVal::milliseconds(timeout.as_millis() as i64),
        )
        .unwrap();
        let mut bytes = vec![0; 2048];
        while Instant::now() < deadline {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) if parse_esp(&bytes[..length]).is_some_and(|esp| esp.spi == spi) => {
                    bytes.truncate(length);
                    return Some(bytes);
                }
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => panic!("recv: {error}"),
            }
        }
        None
    }

    /// Returns ESP frames with this SPI, of which exactly `count` must arrive.
    #[track_caller]
    pub(crate) fn receive(&self, spi: u32, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) =
            self.receive_one(spi, if frames.len() < count { TIMEOUT } else { SETTLE_TIME })
        {
            frames.push(frame);
        }
        assert_eq!(frames.len(), count, "number of frames with SPI {spi:#x}");
        frames
    }

    pub(crate) fn send<'a>(&self, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
        for frame in frames {
            sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty()).unwrap();
        }
    }
}

/// Location and fields of an ESP header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Esp {
    /// Offset of the header in the frame.
    pub(crate) offset: usize,
    pub(crate) spi: u32,
    /// Lower 32 bits.
    pub(crate) sequence_number: u32,
}

/// Parses a frame with or without UDP encapsulation (to port 4500).
pub(crate) fn parse_esp(frame: &[u8]) -> Option<Esp> {
    let (protocol, offset) = match frame.get(12..14)? {
        [0x08, 0x00] => (*frame.get(23)?, 14 + usize::from(frame[14] & 15) * 4),
        [0x86, 0xdd] => (*frame.get(20)?, 14 + 40),
        _ => return None,
    };
    let offset = match protocol {
        50 => offset,
        17 if frame.get(offset + 2..offset + 4)? == 4500_u16.to_be_bytes() => offset + 8,
        _ => return None,
    };
    let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    Some(Esp { offset, spi: word(offset)?, sequence_number: word(offset + 4)? })
}

/// Returns the lower 32 bits of the sequence number.
pub(crate) fn sequence_number(frame: &[u8]) -> u32 {
    parse_esp(frame).unwrap().sequence_number
}

/// Flips one bit of each frame after the ESP header, at a varying position.
pub(crate) fn flip_bits(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let flip_one = |(index, frame): (usize, &Vec<u8>)| {
        let mut frame = frame.clone();
        let start = parse_esp(&frame).unwrap().offset + 8;
        let bit = index * 37 % ((frame.len() - start) * 8);
        frame[start + bit / 8] ^= 1 << (bit % 8);
        frame
    };
    frames.iter().enumerate().map(flip_one).collect()
}

/// Replaces the 32 bits at `offset` bytes from the start of the ESP header.
pub(crate) fn replace_word(frames: &[Vec<u8>], offset: usize, word: u32) -> Vec<Vec<u8>> {
    let change = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        let start = parse_esp(&frame).unwrap().offset + offset;
        frame[start..start + 4].copy_from_slice(&word.to_be_bytes());
        frame
    };
    frames.iter().map(change).collect()
}

/// Corrects the length and the checksum in the IPv4 header.
pub(crate) fn fix_ipv4_header(mut frame: Vec<u8>) -> Vec<u8> {
    let length = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[24..26].fill(0);
    let words =
        frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}
