//! Captures frames, and parses captured frames.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, SockProtocol, bind, recvfrom, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use xdpfwd_lab::Namespace;

use crate::support::until;
use crate::support::wire::{hex, packet_socket};

/// A thread that captures the frames of an interface.
pub struct Tap {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: JoinHandle<()>,
}

impl Tap {
    pub fn start(namespace: &Namespace, interface: &str) -> Self {
        let frames: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let captured = Arc::clone(&frames);
        Self::spawn(namespace, interface, frames, move |frame, _| {
            captured.lock().unwrap().push(frame.to_vec())
        })
    }

    /// Calls `visit` for every frame, and keeps none. The `bool` is true if the interface sent the
    /// frame.
    pub fn start_with(
        namespace: &Namespace,
        interface: &str,
        visit: impl FnMut(&[u8], bool) + Send + 'static,
    ) -> Self {
        Self::spawn(namespace, interface, Arc::default(), visit)
    }

    fn spawn(
        namespace: &Namespace,
        interface: &str,
        frames: Arc<Mutex<Vec<Vec<u8>>>>,
        mut visit: impl FnMut(&[u8], bool) + Send + 'static,
    ) -> Self {
        let (socket, address) = packet_socket(namespace, interface, Some(SockProtocol::EthAll));
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (should_stop, thread_count) = (Arc::clone(&stop), Arc::clone(&count));
        let capture = move || {
            const OUTGOING: u8 = 4;
            let mut buffer = vec![0; 65536];
            loop {
                match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                    Ok((length, from)) => {
                        let from = from.unwrap();
                        if from.ifindex() == address.ifindex() {
                            visit(&buffer[..length], from.pkttype() == OUTGOING);
                            thread_count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    // All frames that arrived before the stop have been read.
                    Err(Errno::EAGAIN) if should_stop.load(Ordering::Relaxed) => return,
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    // The test has ended and removed the interface.
                    Err(Errno::ENETDOWN) => return,
                    Err(error) => panic!("recvfrom: {error}"),
                }
            }
        };
        Self { stop, count, frames, thread: thread::spawn(capture) }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub fn wait_for(&self, count: u64) {
        until(&format!("{count} frames are captured"), || self.count() >= count);
    }

    /// Returns the captured frames: none after [`start_with`](Self::start_with).
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.frames.lock().unwrap())
    }
}

/// The type of a frame. [`Kind::of`] shares no code with xdpfwd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Arp,
    /// Unencrypted Neighbor Discovery.
    Nd,
    Esp(Esp),
    Other,
}

/// Location and unencrypted fields of an ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// Offset of the ESP header in the frame.
    pub start: usize,
    /// Offset of the end of the IP packet in the frame.
    pub end: usize,
    pub spi: u32,
    /// Lower 32 bits.
    pub sequence: u32,
    pub iv: u64,
    /// Whether the ESP packet is encapsulated in UDP.
    pub udp: bool,
    pub version: u8,
}

impl Esp {
    /// Returns the number of the IV range, which identifies the worker. An IV consists of the epoch
    /// (32 bits, new in each run of xdpfwd), this number (6 bits) and a counter (26 bits).
    pub fn iv_range(&self) -> u64 {
        self.iv >> 26 & 63
    }
}

impl Kind {
    pub fn of(frame: &[u8]) -> Self {
        let u16_at = |offset: usize| u16::from_be_bytes([frame[offset], frame[offset + 1]]);
        let (version, mut protocol, mut start, end) = match u16_at(12) {
            0x0806 => return Self::Arp,
            0x0800 => {
                // A fragment contains no complete ESP packet.
                if u16_at(20) & 0x3fff != 0 {
                    return Self::Other;
                }
                (4, frame[23], 14 + 4 * usize::from(frame[14] & 15), 14 + usize::from(u16_at(16)))
            }
            0x86dd => (6, frame[20], 14 + 40, 14 + 40 + usize::from(u16_at(18))),
            _ => return Self::Other,
        };
        // Skip the IPv6 extension headers that may precede ESP (RFC 4303, 3.1.1).
        while version == 6 && [0, 43, 60].contains(&protocol) {
            protocol = frame[start];
            start += 8 * (1 + usize::from(frame[start + 1]));
        }
        let udp = protocol == 17 && u16_at(start) == 4500 && u16_at(start + 2) == 4500;
        if udp {
            let checksum = u16_at(start + 6);
            assert_eq!(
                checksum == 0,
                version == 4,
                "the UDP checksum must be zero over IPv4 and nonzero over IPv6 (RFC 3948, 2.1; \
                 RFC 8200, 8.1): {}",
                hex(frame)
            );
            assert_eq!(usize::from(u16_at(start + 4)), end - start, "UDP length: {}", hex(frame));
            start += 8;
        } else if version == 6
            && protocol == 58
            && [133, 134, 135, 136, 137].contains(&frame[start])
        {
            return Self::Nd;
        } else if protocol != 50 {
            return Self::Other;
        }
        assert!(end <= frame.len() && end >= start + 16 + 16, "too short for ESP: {}", hex(frame));
        let u32_at =
            |offset: usize| u32::from_be_bytes(frame[offset..offset + 4].try_into().unwrap());
        let iv = u64::from(u32_at(start + 8)) << 32 | u64::from(u32_at(start + 12));
        let (spi, sequence) = (u32_at(start), u32_at(start + 4));
        Self::Esp(Esp { start, end, spi, sequence, iv, udp, version })
    }

    #[track_caller]
    pub fn expect_esp(frame: &[u8]) -> Esp {
        match Self::of(frame) {
            Self::Esp(esp) => esp,
            other => panic!("not ESP but {other:?}: {}", hex(frame)),
        }
    }
}

pub fn count_kinds(frames: &[Vec<u8>]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for frame in frames {
        let name = match Kind::of(frame) {
            Kind::Arp => "arp",
            Kind::Nd => "nd",
            Kind::Esp(esp) if esp.udp => "esp in udp",
            Kind::Esp(_) => "esp",
            Kind::Other => "other",
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Writes frames to a pcap file for tshark.
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = vec![];
    // The header of the file. Below, each frame has its own header.
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65536, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (index, frame) in frames.iter().enumerate() {
        let length = frame.len() as u32;
        for word in [1, index as u32, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).unwrap();
}
