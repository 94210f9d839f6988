//! A packet socket as a port.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

use xdpfwd_xsk::{
    Batch, Completions, Counters, EgressQueue, Frame, KernelCounters, Pool, Port, PortFrameCounts,
    Umem, clock,
};

use crate::messages::{Inbox, MAX_RECEIVED, MAX_SENT, Outbox};
use crate::socket::PacketSocket;
use crate::vlan;

/// Maximum number of sent frames that wait for `reclaim`: enough for several worker iterations, and
/// few enough for the CPU cache.
const MAX_COMPLETIONS: usize = 1024;

/// A port for one queue of an interface, over a packet socket with `recvmmsg` and `sendmmsg`.
///
/// Between two calls, the port holds only sent frames that were not yet [reclaimed](Port::reclaim).
#[derive(Debug)]
pub struct MmsgPort {
    socket: PacketSocket,
    inbox: Inbox,
    outbox: Outbox,
    /// Frames to receive into, only during `receive`. An array on the stack would have to be
    /// cleared for each call.
    frames: Box<[Option<Frame>; MAX_RECEIVED]>,
    completions: Completions,
    counters: Counters,
    /// Received packets that did not fit into a frame.
    oversized: u64,
    /// Packets that the kernel dropped: a sum, because reading the kernel's counter clears it.
    kernel_drops: Cell<u64>,
}

/// The UMEM has no free port slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the UMEM has no free port slot; assign fewer queues to the worker, or use more workers")]
pub struct TooManyPorts;

impl MmsgPort {
    /// Creates a port that uses this socket and frames of this UMEM.
    pub fn new(socket: PacketSocket, umem: &Umem) -> Result<Self, TooManyPorts> {
        Ok(Self {
            socket,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            frames: Box::new([const { None }; MAX_RECEIVED]),
            completions: Completions::new(umem, MAX_COMPLETIONS).ok_or(TooManyPorts)?,
            counters: Counters::default(),
            oversized: 0,
            kernel_drops: Cell::new(0),
        })
    }

    /// Puts up to `count` free frames of maximum length into `self.frames`. Returns their number.
    #[inline]
    fn alloc_frames(&mut self, count: usize, pool: &mut Pool) -> usize {
        let mut allocated = 0;
        for slot in self.frames.iter_mut().take(count) {
            let Some(mut frame) = pool.alloc() else { break };
            // Cannot fail: appends exactly the tailroom.
            let room = frame.tailroom();
            let _ = frame.append(room);
            *slot = Some(frame);
            allocated += 1;
        }
        allocated
    }

    /// Counts the queue's first packet as sent and as dropped by the interface, and removes it.
    fn drop_first(&mut self, queue: &mut EgressQueue) {
        self.counters.tx_dropped += 1;
        self.count_sent(1, queue);
    }

    /// Also moves the sent frames to `completions`.
    #[inline]
    fn count_sent(&mut self, sent: usize, queue: &mut EgressQueue) {
        self.counters.tx_packets += sent as u64;
        self.counters.tx_bytes +=
            queue.iter().take(sent).map(|frame| frame.len() as u64).sum::<u64>();
        self.completions.take_sent(sent, queue);
    }
}

impl Port for MmsgPort {
    fn umem(&self) -> Option<&Umem> {
        Some(self.completions.umem())
    }

    fn receive(&mut self, into: &mut Batch, pool: &mut Pool) -> usize {
        assert!(
            pool.umem().is_same(self.completions.umem()),
            "the pool belongs to another UMEM than the port"
        );
        // Without free frames, packets wait in the socket's buffer. If the buffer is full, the
        // kernel drops and counts them.
        let allocated = self.alloc_frames(into.room(), pool);
        if allocated == 0 {
            return 0;
        }
        self.counters.syscalls += 1;
        // An error means that no packet was received: EAGAIN, a signal, or the interface went down
        // (ENETDOWN, reported once; reception resumes by itself).
        let received =
            self.inbox.receive(self.socket.fd(), &mut self.frames[..allocated]).unwrap_or(0);
        let mut accepted = 0;
        let mut bytes = 0;
        for (slot, message) in self.frames.iter_mut().zip(self.inbox.received()).take(received) {
            let Some(mut frame) = slot.take() else { break };
            frame.truncate(message.len);
            let tag = message.aux.as_ref().and_then(vlan::removed_tag);
            if message.is_truncated
                || tag.is_some_and(|tag| vlan::insert_tag(&mut frame, tag).is_err())
            {
                self.oversized += 1;
                free(frame, pool);
                continue;
            }
            bytes += frame.len() as u64;
            accepted += 1;
            // Cannot fail: `allocated`, and so `received`, is at most `into.room()`.
            if let Err(frame) = into.push(frame) {
                free(frame, pool);
            }
        }
        // Free the unused frames in reverse order, so that the next call allocates the same frames
        // in the same order.
        for frame in self.frames[received..allocated].iter_mut().rev().filter_map(Option::take) {
            free(frame, pool);
        }
        self.counters.rx_packets += accepted;
        self.counters.rx_bytes += bytes;
        accepted as usize
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        assert!(
            self.completions.umem().is_same(queue.umem()),
            "the queue belongs to another UMEM than the port"
        );
        let before = queue.len();
        loop {
            let wanted = queue.len().min(self.completions.room()).min(MAX_SENT);
            if wanted == 0 {
                break;
            }
            self.counters.syscalls += 1;
            // `sendmmsg` takes the place of the transmit wake-up of AF_XDP.
            self.counters.tx_wakes += 1;
            let start = clock::cycles();
            let sent = self.outbox.send(self.socket.fd(), queue.iter().take(wanted));
            self.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
            match sent {
                // Never observed; without this case, the loop might not end.
                Ok(0) => break,
                // The next pass of the loop sends the remaining frames or gets the error.
                Ok(sent) => self.count_sent(sent, queue),
                Err(error) if is_retryable(&error) => {
                    self.counters.tx_retries += 1;
                    break;
                }
                // ENOBUFS: the interface dropped the packet (`net_xmit_errno`): no carrier or no
                // room. EMSGSIZE: the packet exceeds the interface's MTU. Any other error would
                // repeat on retry.
                Err(_) => self.drop_first(queue),
            }
        }
        before - queue.len()
    }

    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        self.completions.return_to_pool(pool)
    }

    fn has_unsent(&self) -> bool {
        // The kernel has copied all sent packets; unsent packets are in the egress queue.
        false
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.socket.fd())
    }

    fn frame_counts(&self) -> PortFrameCounts {
        PortFrameCounts { completion: self.completions.len() as u64, ..PortFrameCounts::default() }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn kernel_counters(&self) -> KernelCounters {
        self.kernel_drops.set(self.kernel_drops.get() + self.socket.take_drops());
        KernelCounters {
            rx_dropped: self.oversized,
            rx_ring_full: self.kernel_drops.get(),
            ..KernelCounters::default()
        }
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> usize {
        self.reclaim(pool);
        0
    }
}

fn is_retryable(error: &io::Error) -> bool {
    // EAGAIN: the socket's buffer is full. ENOMEM: temporarily no memory. ENETDOWN: the link is
    // down. ENXIO: the device is gone, which xdpfwd's control thread detects. EINTR: a signal.
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOMEM | libc::ENETDOWN | libc::ENXIO | libc::EINTR)
    )
}

#[inline]
fn free(frame: Frame, pool: &mut Pool) {
    // Cannot fail: the frame came from this pool.
    let _ = pool.free(frame);
}

#[cfg(test)]
mod tests;
