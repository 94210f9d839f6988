//! The frames of closed ports, and the proofs after which they can be used again.
//!
//! Closing a socket does not prove that the kernel has stopped using its frames: a thread in `poll`
//! or a process being forked can keep the file open, the kernel releases the queue in a work item
//! (`xp_put_pool`, net/xdp/xsk_buff_pool.c), and a device may still read or write frames. So a
//! frame returns to the pool in two steps.
//!
//! **The socket is closed when no socket buffer refers to its frames.** In copy mode, drivers that
//! accept socket buffers without a linear part (`IFF_TX_SKB_NO_LINEAR`, such as virtio_net) get
//! pages of the UMEM (`xsk_build_skb_zerocopy`), and may keep them even after the interface was
//! removed. Each such buffer is charged to the socket, and `SO_MEMINFO` shows the sum.
//!
//! **Then, one of two observations proves that the kernel has let go of the queue:**
//!
//! - *Another socket was bound to the same queue.* `xp_assign_dev` refuses a queue with EBUSY until
//!   `xp_clear_dev` has removed the pool of the old socket, after the driver has ended zero-copy.
//! - *The interface is gone, and the socket was unbound before it was closed.* `xsk_notifier`
//!   unbinds the sockets of an interface that is unregistered, waits for receive work in progress,
//!   and ends zero-copy in the driver. It does so under the RTNL mutex, which `xsk_bind` takes too,
//!   so a bind that fails with ENODEV has waited for the end. The notifier does not know closed
//!   sockets: therefore the second condition. Moving an interface to another network namespace
//!   unregisters it in the old one, with the same effects.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::kernel::{Kernel, Rings};
use crate::lease::SlotLease;
use crate::owner::Owner;
use crate::pool::Pool;
use crate::queue_id::QueueId;
use crate::socket::Socket;

/// Proof that the kernel does not access the frames of certain sockets, which were closed before a
/// certain time.
#[derive(Clone, Copy, Debug)]
pub struct Released {
    sockets: Sockets,
    /// Sockets closed before this time are released.
    at: Instant,
}

/// The sockets that a proof is about.
#[derive(Clone, Copy, Debug)]
enum Sockets {
    /// Those that were bound to the queue.
    OfQueue(QueueId),
    /// Those that the kernel had unbound from the interface with this index.
    UnboundFrom(u32),
}

impl Released {
    /// Returns the proof if no interface has this index in the network namespace of the calling
    /// thread, which must be that of the sockets. Waits for the kernel's RTNL mutex: not for the
    /// data path.
    pub fn by_missing_interface(ifindex: u32) -> io::Result<Option<Self>> {
        let at = Instant::now();
        // The socket has no rings, so the bind fails in any case: with EINVAL, if the interface
        // exists.
        match Socket::new()?.bind(QueueId { ifindex, queue: 0 }, libc::XDP_COPY, None) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                Ok(Some(Self { sockets: Sockets::UnboundFrom(ifindex), at }))
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(None),
        }
    }

    /// Returns the proof by a successful bind to the queue, which was started at this time.
    pub(crate) fn by_bind(queue: QueueId, started: Instant) -> Self {
        Self { sockets: Sockets::OfQueue(queue), at: started }
    }
}

/// The frames of a closed port that the kernel may still access, and the port's socket. Dropping
/// this value takes the frames out of use for ever.
#[derive(Default)]
pub struct Quarantine {
    frames: usize,
    /// `None` if the frames are out of use for ever, or if there are none.
    source: Option<Box<Source>>,
}

/// Where the frames are.
struct Source {
    socket: SocketState,
    queue: QueueId,
    /// The slot of the port. The owner of each frame is still recorded as `fill` or `tx` of this
    /// slot, so no other port may have it. Declared after `socket`, so dropped later.
    lease: SlotLease,
}

enum SocketState {
    Open {
        kernel: Box<dyn Kernel>,
        _rings: Box<Rings>,
    },
    Closed {
        at: Instant,
        /// Whether the kernel had unbound the socket before.
        was_unbound: bool,
    },
}

impl Quarantine {
    /// Returns the quarantine of a port without frames.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns the number of a port's frames, which are out of use for ever as soon as the caller
    /// drops the lease.
    pub(crate) fn without_end(lease: &SlotLease) -> Self {
        Self { frames: frames_of(lease), source: None }
    }

    /// Takes over the slot and the socket of a port.
    pub(crate) fn of_port(
        lease: SlotLease,
        queue: QueueId,
        kernel: Box<dyn Kernel>,
        rings: Rings,
    ) -> Self {
        let frames = frames_of(&lease);
        let socket = SocketState::Open { kernel, _rings: Box::new(rings) };
        Self { frames, source: Some(Box::new(Source { socket, queue, lease })) }
    }

    /// Returns the number of frames.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Returns whether there is neither a frame nor an open socket.
    pub fn is_empty(&self) -> bool {
        self.frames == 0 && self.source.is_none()
    }

    /// Returns the queue to which the port's socket was bound; `None` if the frames are out of use
    /// for ever, or if there are none.
    pub fn queue(&self) -> Option<QueueId> {
        self.source.as_ref().map(|source| source.queue)
    }

    /// Returns the index of the interface whose removal allows to take the frames back; `None` if
    /// only a bind to the same queue does, because the socket was closed while it was bound.
    pub fn ends_with_interface(&self) -> Option<u32> {
        let source = self.source.as_ref()?;
        let ends = !matches!(source.socket, SocketState::Closed { was_unbound: false, .. });
        ends.then_some(source.queue.ifindex)
    }

    /// Closes the port's socket if the kernel has unbound it, or if `queue_is_needed` for another
    /// socket, but not while socket buffers refer to its frames. Returns another descriptor of the
    /// closed socket. Drop it on a thread that may block: the kernel waits for its network code
    /// when the last descriptor of a bound socket is closed.
    pub fn close_socket(&mut self, queue_is_needed: bool) -> Option<OwnedFd> {
        let source = self.source.as_mut()?;
        let SocketState::Open { kernel, .. } = &source.socket else { return None };
        let was_unbound = !kernel.is_bound();
        if kernel.has_socket_buffers() || !(was_unbound || queue_is_needed) {
            return None;
        }
        let descriptor = kernel.duplicate_descriptor();
        // Closes the socket. A proof must be from a time after that.
        let closed = |at| SocketState::Closed { at, was_unbound };
        drop(mem::replace(&mut source.socket, closed(Instant::now())));
        source.socket = closed(Instant::now());
        if self.frames == 0 {
            self.source = None;
        }
        descriptor
    }

    /// Moves the frames to the pool and returns their number, if the proof is about this port's
    /// socket and about a later time than its close. Otherwise returns the quarantine.
    ///
    /// # Panics
    /// If the pool belongs to another UMEM.
    pub fn take_back(mut self, released: &Released, pool: &mut Pool) -> Result<usize, Self> {
        match self.source.take() {
            Some(source) if source.is_released(released) => {
                source.return_frames(pool, |_| true);
                Ok(self.frames)
            }
            source => {
                self.source = source;
                Err(self)
            }
        }
    }

    /// Closes the socket, and moves the frames posted for reception to the pool. The caller knows
    /// that the kernel does not write to them afterwards.
    pub(crate) fn close_and_take_back_fill_frames(&mut self, pool: &mut Pool) {
        if let Some(source) = &mut self.source {
            source.socket = SocketState::Closed { at: Instant::now(), was_unbound: false };
            let fill = Owner::fill(source.lease.slot());
            self.frames -= source.return_frames(pool, |owner| owner == fill);
            if self.frames == 0 {
                self.source = None;
            }
        }
    }
}

/// Returns the number of frames posted by the port with this slot.
fn frames_of(lease: &SlotLease) -> usize {
    lease.umem().region().owners.chunks_of_port(lease.slot()).count()
}

impl Source {
    fn is_released(&self, released: &Released) -> bool {
        let SocketState::Closed { at, was_unbound } = self.socket else { return false };
        let is_covered = match released.sockets {
            Sockets::OfQueue(queue) => queue == self.queue,
            Sockets::UnboundFrom(ifindex) => was_unbound && ifindex == self.queue.ifindex,
        };
        is_covered && at <= released.at
    }

    /// Moves those frames to the pool for whose owner `is_free` returns true. Returns their number.
    fn return_frames(&self, pool: &mut Pool, is_free: impl Fn(Owner) -> bool) -> usize {
        let umem = self.lease.umem();
        assert!(umem.is_same(pool.umem()), "the pool and the port belong to different UMEMs");
        let owners = &umem.region().owners;
        let mut returned = 0;
        for (chunk, owner) in owners.chunks_of_port(self.lease.slot()) {
            if is_free(owner) {
                owners.set(chunk, Owner::POOL);
                pool.push(chunk);
                returned += 1;
            }
        }
        returned
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine")
            .field("frames", &self.frames)
            .field("queue", &self.queue())
            .finish()
    }
}
