//! The kernel's side of an AF_XDP port, as the port sees it.

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use crate::abi::Descriptor;
use crate::counters::KernelCounters;
use crate::ring::{Consumer, Producer};

/// What a port needs in addition to its rings; implemented by [`Socket`](crate::socket::Socket) and
/// the fake kernel.
pub(crate) trait Kernel {
    fn wake_tx(&mut self) -> io::Result<()>;
    fn wake_rx(&mut self) -> io::Result<()>;
    /// Returns the socket's file descriptor; `None` for the fake kernel.
    fn fd(&self) -> Option<RawFd>;
    /// See [`Port::umem_socket`](crate::Port::umem_socket).
    fn umem_socket(&self) -> Option<BorrowedFd<'_>>;
    fn statistics(&self) -> KernelCounters;
    /// Returns whether the kernel stops writing to frames posted for reception once this object is
    /// dropped. A socket cannot guarantee that: it stays bound as long as, for example, a thread in
    /// `poll` or a process being forked refers to its file.
    fn stops_writing_on_drop(&self) -> bool;
    /// See [`Port::is_bound`](crate::Port::is_bound).
    fn is_bound(&self) -> bool;
    /// Returns whether socket buffers exist that may refer to frames of this socket.
    fn has_socket_buffers(&self) -> bool;
    /// Duplicates the descriptor of the socket; `None` for the fake kernel, or if that fails.
    fn duplicate_descriptor(&self) -> Option<OwnedFd>;
}

/// The user-space ends of the four rings of a port.
pub(crate) struct Rings {
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) rx: Consumer<Descriptor>,
    pub(crate) tx: Producer<Descriptor>,
    /// The memory of the rings; declared last, so that it is dropped after the ends.
    pub(crate) _memory: Box<dyn Any>,
}
