//! Sending, receiving and altering packets.

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

/// Connected UDP sockets of the two hosts.
pub(crate) struct UdpPair(pub(crate) [UdpSocket; 2]);

impl UdpPair {
    pub(crate) fn new(lab: &Lab) -> Self {
        let addresses =
            lab.case.inner.inner().map(|ip| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 7001));
        Self([LEFT, RIGHT].map(|side| {
            let open = || {
                let socket = UdpSocket::bind(addresses[side]).unwrap();
                socket.connect(addresses[1 - side]).unwrap();
                socket
            };
            lab.side(side).run(open).unwrap()
        }))
    }

    /// Sends messages with these numbers.
    #[track_caller]
    pub(crate) fn send(&self, from: usize, numbers: impl IntoIterator<Item = u32>, length: usize) {
        for number in numbers {
            self.0[from].send(&message(number, length)).unwrap();
        }
    }

    /// Returns the next message, if one arrives in time.
    pub(crate) fn next(&self, at: usize, wait: Duration) -> Option<Vec<u8>> {
        let socket = &self.0[at];
        socket.set_read_timeout(Some(wait)).unwrap();
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
        at: usize,
        expected: impl IntoIterator<Item = u32>,
        context: &str,
    ) {
        let mut expected: Vec<u32> = expected.into_iter().collect();
        let mut arrived: Vec<u32> = Vec::new();
        while let Some(bytes) =
            self.next(at, if arrived.len() < expected.len() { TIMEOUT } else { SETTLE_TIME })
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

/// Returns a message with a number, and bytes that depend on it.
pub(crate) fn message(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((4..length).map(|at| (at as u32).wrapping_mul(31).wrapping_add(number) as u8));
    bytes.truncate(length);
    bytes
}

/// A packet socket on one interface.
pub(crate) struct PacketSocket {
    pub(crate) socket: OwnedFd,
    pub(crate) address: LinkAddr,
}

impl PacketSocket {
    pub(crate) fn on(namespace: &Namespace, interface: &str) -> Self {
        let (socket, address) = packet_socket(namespace, interface, Some(SockProtocol::EthAll));
        bind(socket.as_raw_fd(), &address).unwrap();
        setsockopt(&socket, RcvBufForce, &(8 << 20)).unwrap();
        Self { socket, address }
    }

    /// Returns the next frame of an SPI, if one arrives in time.
    pub(crate) fn next(&self, spi: u32, wait: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + wait;
        setsockopt(&self.socket, ReceiveTimeout, &TimeVal::milliseconds(wait.as_millis() as i64))
            .unwrap();
        let mut bytes = vec![0; 2048];
        while Instant::now() < deadline {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) if esp(&bytes[..length]).is_some_and(|esp| esp.spi == spi) => {
                    bytes.truncate(length);
                    return Some(bytes);
                }
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => panic!("recv: {error}"),
            }
        }
        None
    }

    /// Receives exactly `count` frames of an SPI; discards all other frames.
    #[track_caller]
    pub(crate) fn receive(&self, spi: u32, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) =
            self.next(spi, if frames.len() < count { TIMEOUT } else { SETTLE_TIME })
        {
            frames.push(frame);
        }
        assert_eq!(frames.len(), count, "frames with SPI {spi:#x}");
        frames
    }

    pub(crate) fn send<'a>(&self, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
        for frame in frames {
            sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty()).unwrap();
        }
    }
}

/// The offset of ESP in a frame, and its header fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Esp {
    pub(crate) at: usize,
    pub(crate) spi: u32,
    pub(crate) number: u32,
}

/// Finds ESP in a frame, also in UDP to port 4500.
pub(crate) fn esp(frame: &[u8]) -> Option<Esp> {
    let (protocol, at) = match frame.get(12..14)? {
        [0x08, 0x00] => (*frame.get(23)?, 14 + usize::from(frame[14] & 15) * 4),
        [0x86, 0xdd] => (*frame.get(20)?, 14 + 40),
        _ => return None,
    };
    let at = match protocol {
        50 => at,
        17 if frame.get(at + 2..at + 4)? == 4500_u16.to_be_bytes() => at + 8,
        _ => return None,
    };
    let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    Some(Esp { at, spi: word(at)?, number: word(at + 4)? })
}

pub(crate) fn number(frame: &[u8]) -> u32 {
    esp(frame).unwrap().number
}

/// Returns the frames with one bit after the ESP header flipped, a different one in each.
pub(crate) fn flip_bits(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let flip = |(index, frame): (usize, &Vec<u8>)| {
        let mut frame = frame.clone();
        let first = esp(&frame).unwrap().at + 8;
        let bit = index * 37 % ((frame.len() - first) * 8);
        frame[first + bit / 8] ^= 1 << (bit % 8);
        frame
    };
    frames.iter().enumerate().map(flip).collect()
}

/// Returns the frames with another word at an offset from the start of ESP.
pub(crate) fn with_word(frames: &[Vec<u8>], offset: usize, word: u32) -> Vec<Vec<u8>> {
    let change = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        let at = esp(&frame).unwrap().at + offset;
        frame[at..at + 4].copy_from_slice(&word.to_be_bytes());
        frame
    };
    frames.iter().map(change).collect()
}

/// Returns a modified IPv4 frame with correct length and header checksum.
pub(crate) fn fix_lengths(mut frame: Vec<u8>) -> Vec<u8> {
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
