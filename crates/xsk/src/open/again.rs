//! Opens queues on a UMEM that is in use: of an interface that has come back, or of a port whose
//! socket must be replaced.
//!
//! A bind can take long, because it waits for other changes of the network and because the driver
//! may reset its queues. So the thread of the UMEM only prepares the sockets
//! ([`Builder::prepare`]), and another thread binds them ([`Binding::bind`]).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::{BindMode, Builder, OpenError, Queue, raise_memlock, ring_sizes};
use crate::counters::PortFrameCounts;
use crate::lease::SlotLease;
use crate::pool::Pool;
use crate::port::Port as _;
use crate::quarantine::{Quarantine, Released};
use crate::socket::Socket;
use crate::umem::Umem;
use crate::xsk_port::XskPort;

/// A port whose socket has rings, and frames posted for reception, but is not bound yet.
#[derive(Debug)]
pub struct PreparedPort {
    port: Box<XskPort>,
    state: Arc<BindState>,
}

/// Binds the socket of a [`PreparedPort`], on any thread.
#[derive(Debug)]
pub struct Binding {
    socket: OwnedFd,
    /// A bound socket of the UMEM; `None` if this socket has registered the UMEM.
    sibling: Option<OwnedFd>,
    queue: Queue,
    mode: u16,
    tx_ring: u32,
    busy_poll: bool,
    state: Arc<BindState>,
}

/// The result of a bind.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Whether the kernel reports zero-copy.
    pub zero_copy: bool,
    /// Proof that the kernel has released the frames of the sockets that were bound to the queue
    /// before.
    pub released: Released,
}

/// Whether a device may access the frames of a prepared port.
#[derive(Debug, Default)]
struct BindState(AtomicU8);

impl BindState {
    /// The socket was not bound yet, or its bind failed: `xsk_bind` (net/xdp/xsk.c) then destroys
    /// the pool that it gave to the driver (`xp_destroy`), so the driver must have let go of it.
    const UNBOUND: u8 = 0;
    const BINDING: u8 = 1;
    const BOUND: u8 = 2;
    /// The port was cancelled: its socket must not be bound any more.
    const CANCELLED: u8 = 3;

    /// Changes the state from [`UNBOUND`](Self::UNBOUND) to another. Fails if the state differs,
    /// and returns it.
    fn leave_unbound(&self, state: u8) -> Result<(), u8> {
        let change =
            self.0.compare_exchange(Self::UNBOUND, state, Ordering::AcqRel, Ordering::Acquire);
        change.map(drop)
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Release);
    }
}

impl Builder {
    /// Prepares the added queues on a UMEM that other ports use or have used. The ports must stay
    /// on the calling thread. [`Binding::bind`] must be called in the order of the queues.
    ///
    /// `sibling` is the descriptor of a bound socket of this UMEM, whose mode the new sockets
    /// inherit. Without one, the memory is registered again, with this builder's mode.
    /// `queues_of_umem` is the number of queues that share the UMEM, and determines the size of the
    /// rings. A failure returns all frames to the pool.
    pub fn prepare(
        &self,
        umem: &Umem,
        pool: &mut Pool,
        sibling: Option<BorrowedFd<'_>>,
        queues_of_umem: usize,
    ) -> Result<Vec<(PreparedPort, Binding)>, OpenError> {
        raise_memlock();
        let mode = match self.mode {
            BindMode::Copy => libc::XDP_COPY,
            BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
            // The kernel tries zero-copy, then copy mode.
            BindMode::Auto => 0,
        };
        let mut sibling = match (sibling, self.queues.first()) {
            (Some(fd), Some(queue)) => {
                let socket = Socket::from_fd(fd);
                Some(socket.map_err(|error| queue.error(DUPLICATE, error))?)
            }
            _ => None,
        };
        let mut prepared = Vec::with_capacity(self.queues.len());
        for queue in &self.queues {
            match self.prepare_queue(queue, mode, umem, pool, sibling.as_ref(), queues_of_umem) {
                Ok((port, binding, socket)) => {
                    sibling.get_or_insert(socket);
                    prepared.push((port, binding));
                }
                Err(error) => {
                    for (port, _) in prepared {
                        port.cancel(pool);
                    }
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    /// Opens a socket with rings, registers the UMEM with it unless there is a `sibling`, and posts
    /// frames to its fill ring: some drivers require frames before the bind.
    pub(super) fn prepare_queue(
        &self,
        queue: &Queue,
        mode: u16,
        umem: &Umem,
        pool: &mut Pool,
        sibling: Option<&Socket>,
        queues_of_umem: usize,
    ) -> Result<(PreparedPort, Binding, Socket), OpenError> {
        let duplicate =
            |socket: &Socket| socket.duplicate().map_err(|error| queue.error(DUPLICATE, error));
        let sizes = ring_sizes(umem.frames(), queues_of_umem);
        let socket = Socket::new().map_err(|error| queue.socket_error(error))?;
        if sibling.is_none() {
            socket.register(umem.region()).map_err(|error| queue.register_error(error, umem))?;
        }
        let rings =
            socket.map_rings(sizes).map_err(|error| queue.error("create the rings", error))?;
        let state = Arc::<BindState>::default();
        let binding = Binding {
            socket: duplicate(&socket)?,
            sibling: sibling.map(duplicate).transpose()?,
            queue: queue.clone(),
            mode,
            tx_ring: sizes.tx,
            busy_poll: self.busy_poll,
            state: Arc::clone(&state),
        };
        let lease = SlotLease::claim_any(umem).ok_or(OpenError::Queues(queues_of_umem))?;
        let kernel = Box::new(socket.clone());
        let mut port =
            Box::new(XskPort::new(lease, queue.id, kernel, rings, sizes.fill, self.busy_poll));
        port.refill(pool);
        Ok((PreparedPort { port, state }, binding, socket))
    }
}

impl PreparedPort {
    /// Returns the port. `bound` is the result of its [`Binding`].
    pub fn into_port(mut self, bound: &Bound) -> Box<XskPort> {
        if bound.zero_copy {
            self.port.set_zero_copy();
        }
        self.port
    }

    /// Returns the port's frames, by location.
    pub fn frame_counts(&self) -> PortFrameCounts {
        self.port.frame_counts()
    }

    /// Ends the port. If its socket was not bound, it cannot be bound any more, and the frames
    /// return to the pool, because no device has access to them. Frames of a socket that another
    /// thread is binding just now are out of use for ever.
    pub fn cancel(self, pool: &mut Pool) -> Quarantine {
        match self.state.leave_unbound(BindState::CANCELLED) {
            Ok(()) => self.port.close_with(true, pool),
            Err(BindState::BOUND) => self.port.close(pool),
            Err(_) => self.port.give_up(),
        }
    }
}

impl Binding {
    /// Binds the socket. Retries while another socket uses the queue, until `timeout`. Waits for
    /// the kernel's RTNL mutex. Fails if the port was cancelled.
    pub fn bind(self, timeout: Duration) -> Result<Bound, OpenError> {
        self.bind_until(Instant::now() + timeout, timeout)
    }

    /// The same with a deadline; an error names the time `waited`.
    pub(super) fn bind_until(
        self,
        deadline: Instant,
        waited: Duration,
    ) -> Result<Bound, OpenError> {
        let Self { socket, sibling, queue, mode, tx_ring, busy_poll, state } = self;
        let (socket, sibling) = (Socket::from(socket), sibling.map(Socket::from));
        let started = Instant::now();
        state.leave_unbound(BindState::BINDING).map_err(|_| {
            queue.error("bind the socket", io::Error::other("the port was cancelled"))
        })?;
        if let Err(error) = queue.bind(&socket, mode, sibling.as_ref(), deadline) {
            state.set(BindState::UNBOUND);
            return Err(queue.bind_error(mode, waited, error));
        }
        state.set(BindState::BOUND);
        queue.tune(&socket, tx_ring, busy_poll);
        let zero_copy = queue.is_zero_copy(&socket)?;
        Ok(Bound { zero_copy, released: Released::by_bind(queue.id, started) })
    }
}

const DUPLICATE: &str = "duplicate the descriptor of a socket";
