//! What all ports on packet sockets share: frames, counters, completions, errors.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use xdpfwd_xsk::{
    Batch, Completions, Counters, EgressQueue, Frame, KernelCounters, Pool, Port, PortFrameCounts,
    Quarantine, Umem,
};

use crate::socket::PacketSocket;
use crate::vlan;

/// Maximum number of sent frames that wait for `reclaim`: enough for several worker iterations, and
/// few enough for the CPU cache.
pub(crate) const MAX_COMPLETIONS: usize = 1024;

/// A port for one queue of an interface, over a packet socket. `M` is the way in which packets are
/// exchanged with the kernel: use [`SinglePort`](crate::SinglePort), [`MmsgPort`](crate::MmsgPort)
/// or [`MmapPort`](crate::MmapPort).
///
/// Between two calls, the port holds only sent frames that were not yet [reclaimed](Port::reclaim):
/// the kernel or the port copies each packet while it is received or sent.
#[derive(Debug)]
pub struct PacketPort<M> {
    pub(crate) state: PortState,
    pub(crate) method: M,
}

/// A way to exchange packets with the kernel over a packet socket. Not exported: other crates use
/// the ports, and cannot add methods.
pub trait Method: Sized {
    /// See [`Port::receive_delay`].
    const RECEIVE_DELAY: Duration = Duration::ZERO;

    /// Prepares the method on a socket.
    fn open(socket: &PacketSocket) -> io::Result<Self>;

    /// See [`Port::receive`]. Hands each packet to [`PortState::deliver`].
    fn receive(&mut self, port: &mut PortState, into: &mut Batch, pool: &mut Pool);

    /// See [`Port::transmit`]. Counts packets with [`PortState::count_sent`].
    fn transmit(&mut self, port: &mut PortState, queue: &mut EgressQueue);
}

/// The reason why a port could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The UMEM has no free port slot.
    #[error(
        "the UMEM has no free port slot; assign fewer queues to the worker, or use more workers"
    )]
    TooManyPorts,
    /// The rings of the socket could not be mapped.
    #[error("cannot map the rings of a packet socket into memory: {0}")]
    Map(io::Error),
}

impl<M: Method> PacketPort<M> {
    /// Creates a port that uses this socket and frames of this UMEM. An
    /// [`MmapPort`](crate::MmapPort) needs a socket with [`rings`](crate::SocketConfig::rings) that
    /// no port has used before.
    pub fn new(socket: PacketSocket, umem: &Umem) -> Result<Self, PortError> {
        let completions = Completions::new(umem, MAX_COMPLETIONS).ok_or(PortError::TooManyPorts)?;
        let method = M::open(&socket).map_err(PortError::Map)?;
        let state = PortState {
            socket,
            completions,
            counters: Counters::default(),
            oversized: 0,
            kernel_drops: Cell::new(0),
        };
        Ok(Self { state, method })
    }
}

/// What a port has with every method: the socket, sent frames, and counters.
#[derive(Debug)]
pub struct PortState {
    pub(crate) socket: PacketSocket,
    pub(crate) completions: Completions,
    pub(crate) counters: Counters,
    /// Received packets that did not fit into a frame.
    oversized: u64,
    /// Packets that the kernel dropped: a sum, because reading the kernel's counter clears it.
    kernel_drops: Cell<u64>,
}

impl PortState {
    /// Adds a received packet to the batch, with the VLAN tag that the kernel removed. Counts and
    /// drops it if it is incomplete or has no room for the tag.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        mut frame: Frame,
        is_complete: bool,
        tag: Option<[u8; 4]>,
        into: &mut Batch,
        pool: &mut Pool,
    ) {
        if !is_complete || tag.is_some_and(|tag| vlan::insert_tag(&mut frame, tag).is_err()) {
            self.oversized += 1;
            free(frame, pool);
            return;
        }
        self.counters.rx_packets += 1;
        self.counters.rx_bytes += frame.len() as u64;
        // Cannot fail: no port receives more packets than the batch has room for.
        if let Err(frame) = into.push(frame) {
            free(frame, pool);
        }
    }

    /// Counts the queue's first packets as sent, and moves their frames to `completions`.
    #[inline]
    pub(crate) fn count_sent(&mut self, sent: usize, queue: &mut EgressQueue) {
        self.counters.tx_packets += sent as u64;
        self.counters.tx_bytes +=
            queue.iter().take(sent).map(|frame| frame.len() as u64).sum::<u64>();
        self.completions.take_sent(sent, queue);
    }

    /// Counts the queue's first packet as sent and as dropped by the interface, and removes it.
    pub(crate) fn drop_first(&mut self, queue: &mut EgressQueue) {
        self.counters.tx_dropped += 1;
        self.count_sent(1, queue);
    }

    /// Handles the kernel's refusal of the queue's first packet. Returns whether the port can send
    /// the next packet now.
    pub(crate) fn handle_refusal(&mut self, error: &io::Error, queue: &mut EgressQueue) -> bool {
        if is_retryable(error) {
            self.counters.tx_retries += 1;
            return false;
        }
        // ENOBUFS: the interface dropped the packet (`net_xmit_errno`): no carrier or no room.
        // EMSGSIZE: the packet exceeds the interface's MTU. Any other error would repeat on retry.
        self.drop_first(queue);
        true
    }
}

impl<M: Method> Port for PacketPort<M> {
    fn umem(&self) -> Option<&Umem> {
        Some(self.state.completions.umem())
    }

    fn receive(&mut self, into: &mut Batch, pool: &mut Pool) -> usize {
        assert!(
            pool.umem().is_same(self.state.completions.umem()),
            "the pool belongs to another UMEM than the port"
        );
        let before = into.len();
        self.method.receive(&mut self.state, into, pool);
        into.len() - before
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        assert!(
            self.state.completions.umem().is_same(queue.umem()),
            "the queue belongs to another UMEM than the port"
        );
        let before = queue.len();
        self.method.transmit(&mut self.state, queue);
        before - queue.len()
    }

    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        self.state.completions.return_to_pool(pool)
    }

    fn has_unsent(&self) -> bool {
        // All sent packets have been copied; unsent packets are in the egress queue.
        false
    }

    fn receive_delay(&self) -> Duration {
        M::RECEIVE_DELAY
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.state.socket.fd())
    }

    fn frame_counts(&self) -> PortFrameCounts {
        let completion = self.state.completions.len() as u64;
        PortFrameCounts { completion, ..PortFrameCounts::default() }
    }

    fn counters(&self) -> Counters {
        self.state.counters
    }

    fn kernel_counters(&self) -> KernelCounters {
        let PortState { socket, oversized, kernel_drops, .. } = &self.state;
        kernel_drops.set(kernel_drops.get() + socket.take_drops());
        KernelCounters {
            rx_dropped: *oversized,
            rx_ring_full: kernel_drops.get(),
            ..KernelCounters::default()
        }
    }

    fn is_bound(&self) -> bool {
        self.state.socket.is_bound()
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> Quarantine {
        self.reclaim(pool);
        Quarantine::none()
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

/// Returns a free frame of maximum length.
#[inline]
pub(crate) fn full_length_frame(pool: &mut Pool) -> Option<Frame> {
    let mut frame = pool.alloc()?;
    // Cannot fail: appends exactly the tailroom.
    let room = frame.tailroom();
    let _ = frame.append(room);
    Some(frame)
}

#[inline]
pub(crate) fn free(frame: Frame, pool: &mut Pool) {
    // Cannot fail: the frame came from this pool.
    let _ = pool.free(frame);
}
