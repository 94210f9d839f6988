//! Opens (interface, queue) pairs as ports on one UMEM.

mod again;
#[cfg(feature = "xsk-rs")]
mod by_xsk_rs;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::abi::TX_BUDGET_DEFAULT;
use crate::config::{UmemConfig, UmemError, format_size};
use crate::grant::{CAPABILITIES, grant_command};
use crate::owner::PortSlot;
use crate::pool::Pool;
use crate::queue_id::QueueId;
use crate::socket::{RingSizes, Socket};
use crate::umem::Umem;
use crate::xsk_port::XskPort;

pub use self::again::{Binding, Bound, PreparedPort};

/// The mode in which the sockets are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy if every queue supports it, otherwise copy.
    Auto,
    /// Zero-copy, or an error.
    ZeroCopy,
    /// Copy mode, even if the driver supports zero-copy.
    Copy,
}

/// Opens the ports of one worker: 1 to 126 (interface, queue) pairs on one UMEM.
///
/// With [`BindMode::Auto`], the builder tries zero-copy on each queue in turn. If one does not
/// support it, the builder starts again in copy mode, with a new UMEM.
#[derive(Clone, Debug)]
pub struct Builder {
    umem: UmemConfig,
    mode: BindMode,
    busy_poll: bool,
    bind_timeout: Duration,
    queues: Vec<Queue>,
}

#[derive(Clone, Debug)]
struct Queue {
    interface: String,
    id: QueueId,
}

/// The open ports, in the order of the added queues.
#[derive(Debug)]
pub struct OpenPorts<P = XskPort> {
    /// The memory that all ports share.
    pub umem: Umem,
    /// The free frames of the UMEM.
    pub pool: Pool,
    /// The ports.
    pub ports: Vec<P>,
    /// Whether the kernel reports zero-copy for all ports.
    pub zero_copy: bool,
    /// The queue that caused a fallback to copy mode; `None` without a fallback.
    pub fallback: Option<Fallback>,
}

/// The queue without zero-copy support, because of which all ports use copy mode.
#[derive(Debug)]
pub struct Fallback {
    /// Name of the interface.
    pub interface: String,
    /// Index of the queue.
    pub queue: u32,
    /// The kernel's error.
    pub error: io::Error,
}

/// The reason why ports could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The memory could not be allocated.
    #[error(transparent)]
    Umem(#[from] UmemError),
    /// More queues than a UMEM can serve, or none.
    #[error(
        "cannot open {0} queues on one worker; use 1 to {max} queues per worker, or more workers",
        max = PortSlot::MAX
    )]
    Queues(usize),
    /// The UMEM is too small for the queues.
    #[error(
        "umem.frames = {frames} is too small for {queues} queues on one worker; use at least {min} \
         ({per_queue} per queue)",
        per_queue = 2 * MIN_RING
    )]
    TooFewFrames {
        /// Number of frames requested.
        frames: u32,
        /// Number of queues of this worker.
        queues: usize,
        /// Number of frames required.
        min: u32,
    },
    /// The process lacks the privileges to open AF_XDP sockets.
    #[error(
        "cannot open an AF_XDP socket: permission denied; run as root, or let the members of a \
         group run the binary with capabilities: `{}`",
        grant_command(&CAPABILITIES)
    )]
    Permission,
    /// The kernel has no AF_XDP.
    #[error(
        "cannot open an AF_XDP socket: the kernel does not support it; use a kernel with \
         CONFIG_XDP_SOCKETS=y"
    )]
    Unsupported,
    /// This build has no libxdp.
    #[error(
        "io = \"xsk-rs\" is not available in this build; build with `--features xsk-rs`, or use \
         another io"
    )]
    NotBuilt,
    /// Another socket uses the queue.
    #[error(
        "cannot bind {interface} queue {queue}: another AF_XDP socket uses this queue and did not \
         release it within {waited:?}; stop its process or use another queue"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The bind timeout, shared by all queues.
        waited: Duration,
    },
    /// Zero-copy was required, and the queue does not support it or does not exist.
    #[error(
        "cannot bind {interface} queue {queue} in zero-copy mode: {source}; set mode = \"auto\" or \
         \"copy\", or check with `ethtool -l {interface}` that the queue exists"
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's error.
        source: io::Error,
    },
    /// The memory cannot be locked.
    #[error(
        "cannot lock {} of packet memory: {source}; raise `ulimit -l` or grant CAP_IPC_LOCK",
        format_size(*.bytes)
    )]
    Pin {
        /// Size of the UMEM in bytes.
        bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another operation failed.
    #[error("{interface} queue {queue}: cannot {call}: {source}")]
    Call {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The failed operation, as in `"bind the socket"`.
        call: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Builder {
    /// Creates a builder for ports on a UMEM with this configuration.
    pub fn new(umem: UmemConfig) -> Self {
        Self {
            umem,
            mode: BindMode::Auto,
            busy_poll: false,
            bind_timeout: Duration::from_secs(3),
            queues: Vec::new(),
        }
    }

    /// Sets the bind mode; the default is [`BindMode::Auto`].
    pub fn mode(mut self, mode: BindMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets whether to use preferred busy polling: system calls then poll the device, instead of
    /// waiting for its interrupts.
    pub fn busy_poll(mut self, on: bool) -> Self {
        self.busy_poll = on;
        self
    }

    /// Sets how long to retry binding to busy queues. The time covers all queues together, and
    /// starts again for the second bind mode of [`BindMode::Auto`]. The default is three seconds:
    /// the kernel releases the queue of a closed socket only after some time.
    pub fn bind_timeout(mut self, bind_timeout: Duration) -> Self {
        self.bind_timeout = bind_timeout;
        self
    }

    /// Adds a queue. The name is used in messages only, except that `open_by_xsk_rs` (feature
    /// `xsk-rs`) selects the interface by it.
    pub fn queue(mut self, interface: &str, ifindex: u32, queue: u32) -> Self {
        let id = QueueId { ifindex, queue };
        self.queues.push(Queue { interface: interface.to_owned(), id });
        self
    }

    /// Opens all ports, which then must stay on the calling thread. Posts frames to each fill ring
    /// before the bind, because some drivers require it. Tries to raise `RLIMIT_MEMLOCK`, the limit
    /// on locked memory.
    pub fn open(&self) -> Result<OpenPorts, OpenError> {
        self.open_with(|mode| self.open_all(mode))
    }

    /// Calls `open_all` with the mode's bind flag. For [`BindMode::Auto`], tries zero-copy first,
    /// then copy mode.
    fn open_with<P>(
        &self,
        open_all: impl Fn(u16) -> Result<OpenPorts<P>, OpenError>,
    ) -> Result<OpenPorts<P>, OpenError> {
        let queues = self.queues.len();
        if queues == 0 || queues > PortSlot::MAX as usize {
            return Err(OpenError::Queues(queues));
        }
        // Each fill ring needs `MIN_RING` frames, and contains at most half of the port's frames.
        let min = queues as u32 * 2 * MIN_RING;
        if self.umem.frames < min {
            return Err(OpenError::TooFewFrames { frames: self.umem.frames, queues, min });
        }
        raise_memlock();
        if self.mode == BindMode::Copy {
            return open_all(libc::XDP_COPY);
        }
        match open_all(libc::XDP_ZEROCOPY) {
            Err(OpenError::NoZeroCopy { interface, queue, source })
                if self.mode == BindMode::Auto =>
            {
                let opened = open_all(libc::XDP_COPY)?;
                Ok(OpenPorts {
                    fallback: Some(Fallback { interface, queue, error: source }),
                    ..opened
                })
            }
            result => result,
        }
    }

    fn open_all(&self, mode: u16) -> Result<OpenPorts, OpenError> {
        let (umem, mut pool) = Umem::new(&self.umem)?;
        let deadline = Instant::now() + self.bind_timeout;
        // The socket with which the UMEM is registered; the other sockets share it.
        let mut first_socket: Option<Socket> = None;
        let mut ports = Vec::with_capacity(self.queues.len());
        let mut zero_copy = true;
        for queue in &self.queues {
            let (port, binding, socket) = self.prepare_queue(
                queue,
                mode,
                &umem,
                &mut pool,
                first_socket.as_ref(),
                self.queues.len(),
            )?;
            let bound = binding.bind_until(deadline, self.bind_timeout)?;
            zero_copy &= bound.zero_copy;
            ports.push(*port.into_port(&bound));
            first_socket.get_or_insert(socket);
        }
        Ok(OpenPorts { umem, pool, ports, zero_copy, fallback: None })
    }
}

impl Queue {
    /// Retries a busy queue until the deadline.
    fn bind(
        &self,
        socket: &Socket,
        mode: u16,
        first_socket: Option<&Socket>,
        deadline: Instant,
    ) -> io::Result<()> {
        // The first bind sets the mode and the wake-up flag for all sockets; `xsk_bind` rejects a
        // later bind that passes them again.
        let flags = if first_socket.is_some() {
            libc::XDP_SHARED_UMEM
        } else {
            mode | libc::XDP_USE_NEED_WAKEUP
        };
        loop {
            match socket.bind(self.id, flags, first_socket) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn error(&self, call: &'static str, source: io::Error) -> OpenError {
        OpenError::Call { interface: self.interface.clone(), queue: self.id.queue, call, source }
    }

    /// Sets the transmit budget and busy polling. A failure is logged and not fatal.
    fn tune(&self, socket: &Socket, tx_ring: u32, busy_poll: bool) {
        // Kernels before 6.17 lack this option (ENOPROTOOPT): they send 32 packets per wake-up, and
        // the port repeats the wake-up.
        let budget = TX_BUDGET_DESIRED.clamp(TX_BUDGET_DEFAULT, tx_ring);
        if let Err(error) = socket.set_tx_budget(budget) {
            tracing::debug!(
                interface = self.interface, %error,
                "cannot set XDP_MAX_TX_SKB_BUDGET; using the kernel's default"
            );
        }
        if busy_poll && let Err(error) = socket.set_busy_poll(BUSY_POLL_MICROS, BUSY_POLL_BUDGET) {
            tracing::warn!(
                interface = self.interface, queue = self.id.queue, %error,
                "cannot enable preferred busy polling"
            );
        }
    }

    fn is_zero_copy(&self, socket: &Socket) -> Result<bool, OpenError> {
        socket.is_zero_copy().map_err(|error| self.error("read the bind mode (XDP_OPTIONS)", error))
    }

    /// Returns the error for a bind that was retried for the time `waited`.
    fn bind_error(&self, mode: u16, waited: Duration, source: io::Error) -> OpenError {
        let (interface, queue) = (self.interface.clone(), self.id.queue);
        match source.raw_os_error() {
            Some(libc::EBUSY) => OpenError::Busy { interface, queue, waited },
            Some(libc::EPERM | libc::EACCES) => OpenError::Permission,
            Some(libc::ENODEV) => {
                self.error("bind the socket, because the interface was removed", source)
            }
            // The socket that shares its UMEM is no longer bound.
            Some(libc::EBADF) => {
                self.error("bind the socket, because another interface was removed", source)
            }
            // Drivers report missing zero-copy support as EOPNOTSUPP, EINVAL, ENOMEM, ENOSPC, or
            // 524 (ENOTSUPP, which only the kernel's own headers define).
            _ if mode == libc::XDP_ZEROCOPY => OpenError::NoZeroCopy { interface, queue, source },
            Some(libc::EINVAL) => self.error(
                "bind the socket, possibly because the queue does not exist (see `ethtool -l`)",
                source,
            ),
            _ => self.error("bind the socket", source),
        }
    }

    fn socket_error(&self, source: io::Error) -> OpenError {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::Permission,
            Some(libc::EAFNOSUPPORT) => OpenError::Unsupported,
            _ => self.error("open an AF_XDP socket", source),
        }
    }

    fn register_error(&self, source: io::Error, umem: &Umem) -> OpenError {
        match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::EPERM) => OpenError::Pin { bytes: umem.bytes(), source },
            _ => self.error("register the UMEM (XDP_UMEM_REG)", source),
        }
    }
}

/// Returns ring sizes for one of a worker's queues, with which at most half of a port's share of
/// the frames is in its fill ring. The other half is for frames in flight.
fn ring_sizes(frames: u32, queues: usize) -> RingSizes {
    let half_share = frames / (2 * queues.max(1) as u32);
    // Rounded down to a power of two.
    let entries = 1u32.checked_shl(half_share.max(1).ilog2()).unwrap_or(1);
    let fill = entries.clamp(MIN_RING, MAX_FILL_RING);
    let tx = entries.clamp(MIN_RING, MAX_RING);
    RingSizes { fill, completion: tx, rx: fill.min(MAX_RING), tx }
}

/// Minimum entries of a ring: one batch.
const MIN_RING: u32 = 64;

/// Maximum entries of a fill ring.
const MAX_FILL_RING: u32 = 4096;

/// Maximum entries of an RX, TX or completion ring.
const MAX_RING: u32 = 2048;

/// Descriptors that the kernel should send per system call in copy mode: eight batches.
const TX_BUDGET_DESIRED: u32 = 512;

/// Limits of busy polling per system call: microseconds and packets.
const BUSY_POLL_MICROS: u32 = 20;
const BUSY_POLL_BUDGET: u32 = 64;

/// Raises the limit on locked memory. Kernels before 5.11 apply it to BPF memory, and all kernels
/// to the UMEM of a process without CAP_IPC_LOCK. Failure (without CAP_SYS_RESOURCE) is no error:
/// the later calls usually succeed anyway.
fn raise_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a plain system call with a readable struct. Needs `unsafe`: foreign call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) } != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "cannot raise RLIMIT_MEMLOCK");
    }
}
