//! A port with a receive ring and a transmit ring (`PACKET_MMAP`, TPACKET_V3).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use xdpfwd_xsk::{Batch, EgressQueue, Frame, Pool, clock};

use crate::port::{Method, PacketPort, PortState};
use crate::rings::{ReceiveRing, TransmitRing};
use crate::socket::PacketSocket;

/// A port that receives from a ring without system calls, and sends from a ring with one system
/// call for up to 256 packets.
///
/// The port copies each received packet into a UMEM frame, because a packet in the ring has no
/// headroom or tailroom: one copy more than with [`MmsgPort`](crate::MmsgPort). On transmission,
/// the port copies the packet into the ring instead of the kernel.
///
/// The kernel hands over received packets in blocks, when 32 KiB are full or after a millisecond.
pub type MmapPort = PacketPort<Mmap>;

/// Maximum requests per system call, as many as [`MmsgPort`](crate::MmsgPort) sends.
const MAX_REQUESTS: usize = 256;

/// Length of an Ethernet header, which the MTU does not include.
const ETHERNET_HEADER: usize = 14;

/// The kernel allows this much more for a packet with a tag of this type.
const VLAN_TAG: usize = 4;
const ETH_P_8021Q: [u8; 2] = [0x81, 0x00];

/// The method of [`MmapPort`].
#[derive(Debug)]
pub struct Mmap {
    receive: ReceiveRing,
    transmit: TransmitRing,
    /// Requests in the next system call. 1 after a dropped packet, because all requests after it
    /// have to be made again; doubles with each call that sends all.
    max_requests: usize,
    /// Maximum length of an untagged packet that the interface is known to accept.
    max_untagged: usize,
    /// Maximum length of a packet in the ring.
    max_packet: usize,
    /// When the socket's error was last cleared, in cycles of [`clock`].
    error_cleared: u64,
    /// Cycles between two times of clearing the error.
    error_interval: u64,
}

impl Method for Mmap {
    /// At least twice the time after which the kernel hands over a block. Kernels before 6.18 wait
    /// for up to two timer ticks: 20 ms with `HZ = 100`.
    const RECEIVE_DELAY: Duration = Duration::from_millis(50);

    fn open(socket: &PacketSocket) -> io::Result<Self> {
        let (layout, memory) = socket.map_rings()?;
        let memory = Rc::new(memory);
        let mut mmap = Self {
            receive: ReceiveRing::new(Rc::clone(&memory), &layout),
            transmit: TransmitRing::new(memory, &layout),
            max_requests: MAX_REQUESTS,
            max_untagged: 0,
            max_packet: layout.max_packet(),
            error_cleared: clock::cycles(),
            error_interval: (clock::cycles_per_second() / 10.0) as u64,
        };
        mmap.read_mtu(socket);
        Ok(mmap)
    }

    fn receive(&mut self, port: &mut PortState, into: &mut Batch, pool: &mut Pool) {
        let mut received = 0;
        let room = into.room();
        while received < room {
            let Some(packet) = self.receive.peek() else { break };
            // Without free frames, packets wait in the ring. If the ring is full, the kernel drops
            // and counts them.
            let Some(mut frame) = pool.alloc() else { break };
            let is_complete = match frame.append(packet.len) {
                Ok(bytes) => {
                    self.receive.copy(&packet, bytes);
                    !packet.is_truncated
                }
                Err(_) => false,
            };
            port.deliver(frame, is_complete, packet.tag, into, pool);
            self.receive.consume();
            received += 1;
        }
        if received == 0 {
            self.clear_error(port);
        }
        port.counters.invalid_descriptors = self.receive.invalid();
    }

    fn transmit(&mut self, port: &mut PortState, queue: &mut EgressQueue) {
        // Two system calls read the MTU: once per call of this function, not for each packet.
        let mut has_read_mtu = false;
        loop {
            let wanted = queue.len().min(port.completions.room()).min(self.max_requests);
            if wanted == 0 {
                break;
            }
            let accepted = queue.iter().take(wanted).take_while(|frame| self.accepts(frame));
            let requests = self.transmit.fill(accepted.map(|frame| &frame[..]));
            if requests == 0 {
                if queue.iter().next().is_some_and(|frame| self.accepts(frame)) {
                    // No slot is free: the interface still has all of them.
                    break;
                }
                // The MTU may have been raised.
                if !has_read_mtu {
                    port.counters.syscalls += 2;
                    self.read_mtu(&port.socket);
                    has_read_mtu = true;
                }
                if queue.iter().next().is_some_and(|frame| !self.accepts(frame)) {
                    port.drop_first(queue);
                }
                continue;
            }
            port.counters.syscalls += 1;
            // `send` takes the place of the transmit wake-up of AF_XDP.
            port.counters.tx_wakes += 1;
            let start = clock::cycles();
            let result = port.socket.send_from_ring();
            port.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
            let taken = self.transmit.settle(requests);
            port.count_sent(taken, queue);
            if taken == requests {
                self.max_requests = (2 * self.max_requests).min(MAX_REQUESTS);
                continue;
            }
            match result {
                // Never observed; without this case, the loop might not end.
                Ok(()) if taken == 0 => break,
                // The next pass of the loop sends the remaining packets or gets the error.
                Ok(()) => {}
                Err(error) => {
                    if error.raw_os_error() == Some(libc::EMSGSIZE) {
                        // The MTU has been lowered. The kernel logs each packet that is too long.
                        port.counters.syscalls += 2;
                        self.read_mtu(&port.socket);
                        has_read_mtu = true;
                    }
                    let goes_on = port.handle_refusal(&error, queue);
                    // Also if the interface is down: each attempt copies its packets.
                    self.max_requests = 1;
                    if !goes_on {
                        break;
                    }
                }
            }
        }
    }
}

impl Mmap {
    /// Returns whether the interface and the ring accept a packet of this length. The port compares
    /// lengths itself, because the kernel writes a line to its log for each packet in the ring that
    /// is too long.
    #[inline]
    fn accepts(&self, frame: &Frame) -> bool {
        let len = frame.len();
        if len <= self.max_untagged {
            return true;
        }
        frame.get(12..14) == Some(&ETH_P_8021Q)
            && len <= (self.max_untagged + VLAN_TAG).min(self.max_packet)
    }

    /// Reads the interface's MTU.
    fn read_mtu(&mut self, socket: &PacketSocket) {
        // Fails if the interface is gone; then the kernel accepts no packet.
        if let Ok(mtu) = socket.mtu() {
            self.max_untagged = (mtu + ETHERNET_HEADER).min(self.max_packet);
        }
    }

    /// Clears the socket's error ten times a second. After the interface was down, no other call
    /// of an idle port would, and the worker could not wait for packets.
    #[inline]
    fn clear_error(&mut self, port: &mut PortState) {
        let now = clock::cycles();
        if now.wrapping_sub(self.error_cleared) >= self.error_interval {
            self.error_cleared = now;
            port.counters.syscalls += 1;
            port.socket.clear_error();
        }
    }
}
