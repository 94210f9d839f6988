//! Packet sockets ([packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html)) as ports of
//! xdpfwd, for comparison with [AF_XDP](https://docs.kernel.org/networking/af_xdp.html) and
//! interfaces without XDP.
//!
//! A [`PacketSocket`] receives a share of an interface's packets. Three kinds of ports use the
//! socket as a [`Port`](xdpfwd_xsk::Port). They differ in system calls and copies per packet:
//!
//! | port | system calls | copies on reception | copies on transmission |
//! |---|---|---|---|
//! | [`SinglePort`] | `recvmsg` and `send` for each packet | 1, by the kernel | 1, by the kernel |
//! | [`MmsgPort`] | `recvmmsg` for a batch, `sendmmsg` for up to 256 packets | 1, by the kernel | 1, by the kernel |
//! | [`MmapPort`] | none to receive, `send` for up to 256 packets | 2: by the kernel into its ring, by the port into a frame | 1, by the port into the ring |
//!
//! One worker can combine these ports with AF_XDP ports.
//!
//! Differences from AF_XDP, because a packet socket receives a *copy*, and the kernel also
//! processes the original:
//!
//! - The host answers ARP and ping for its own addresses. If it forwards packets
//!   (`net.ipv4.conf.*.forwarding`), each packet leaves twice.
//! - GRO and LRO join segments before the copy is made. A packet that does not fit into a
//!   [`Frame`](xdpfwd_xsk::Frame) (by default, 1792 bytes) is dropped and counted
//!   ([`KernelCounters::rx_dropped`](xdpfwd_xsk::KernelCounters::rx_dropped)). Switch both off:
//!   `ethtool -K IF gro off lro off`, where IF is the interface.
//! - The kernel removes the outermost VLAN tag and reports it beside the packet; the port restores
//!   it.
//! - If a sender on the same host leaves checksums to its interface, the received checksums are
//!   incomplete, as with AF_XDP. Run `ethtool -K IF tx off`, where IF is the sender's interface.
//! - The port cannot conflict with XDP programs, because it attaches none.
//!
//! ```no_run
//! use xdpfwd_packet::{MmsgPort, PacketSocket, SocketConfig};
//! use xdpfwd_xsk::{Batch, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let (ifindex, queues) = (3, 1);
//! let config = SocketConfig::default();
//! let socket = PacketSocket::open_queues(ifindex, queues, &config)?.remove(0);
//! let mut port = MmsgPort::new(socket.clone(), &umem)?;
//! socket.start()?;
//! let mut batch = Batch::new();
//! println!("{} packets", port.receive(&mut batch, &mut pool));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod abi;
mod messages;
mod mmap;
mod mmsg;
mod port;
mod promiscuous;
mod rings;
mod single;
mod socket;
mod vlan;

pub use mmap::MmapPort;
pub use mmsg::MmsgPort;
pub use port::{PacketPort, PortError};
pub use promiscuous::Promiscuous;
pub use single::SinglePort;
pub use socket::{OpenError, PacketSocket, Qdisc, SocketConfig};

#[cfg(test)]
mod tests;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
