//! Packet sockets ([packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html)) as ports of
//! [xdpfwd](https://docs.kernel.org/networking/af_xdp.html), for comparison with AF_XDP and for
//! interfaces without XDP.
//!
//! A [`PacketSocket`] receives a share of an interface's packets; a [`MmsgPort`] makes a
//! [`Port`](xdpfwd_xsk::Port) of it. One `recvmmsg` fills a batch, one `sendmmsg` empties a queue.
//! The kernel copies each packet on reception, from a socket buffer into a frame of the worker's
//! pool, and again on transmission. The UMEM of the frames need not be registered with any socket,
//! so one worker can combine these ports with AF_XDP ports.
//!
//! Differences from AF_XDP, because a packet socket receives a *copy* and the kernel handles the
//! original:
//!
//! - The host's own protocols also get every packet. The host answers ARP and ping to its own
//!   addresses; if it forwards packets (`net.ipv4.conf.*.forwarding`), they leave twice.
//! - GRO and LRO have joined segments before the copy is made. A packet longer than a frame has
//!   room for is dropped and counted
//!   ([`KernelCounters::rx_dropped`](xdpfwd_xsk::KernelCounters::rx_dropped)). Switch both off:
//!   `ethtool -K IF gro off lro off`.
//! - The kernel has removed the outermost VLAN tag; the port restores it from `PACKET_AUXDATA`.
//! - Checksums that a local sender left to the device are incomplete, as with AF_XDP.
//!   `ethtool -K SENDER tx off`.
//! - Nothing is attached to the interface, so there are no conflicts with other programs.
//!
//! ```no_run
//! use xdpfwd_packet::{MmsgPort, PacketSocket};
//! use xdpfwd_xsk::{Batch, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let socket = PacketSocket::open_queues(3, 1)?.remove(0); // interface number 3, one queue
//! let mut port = MmsgPort::new(socket.clone(), &umem)?;
//! socket.start()?;
//! let mut batch = Batch::new();
//! println!("{} packets", port.receive(&mut batch, &mut pool));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod abi;
mod messages;
mod port;
mod promiscuous;
mod socket;
mod vlan;

pub use port::{MmsgPort, TooManyPorts};
pub use promiscuous::Promiscuous;
pub use socket::{OpenError, PacketSocket};

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
