//! Packet sockets ([packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html)) as ports of
//! [xdpfwd](https://docs.kernel.org/networking/af_xdp.html): what AF_XDP is compared with, and a
//! way to forward where there is no XDP at all.
//!
//! A [`PacketSocket`] takes part in what arrives on an interface, a [`MmsgPort`] makes a
//! [`Port`](xdpfwd_xsk::Port) of it: one `recvmmsg` fills a batch, one `sendmmsg` empties a queue.
//! The kernel copies each packet on its way in, from a socket buffer of its own into a frame from
//! the worker's pool, and on its way out again. Frames are owned as everywhere; the UMEM that they
//! are in need not be registered with any socket, so these ports go together with AF_XDP ones on
//! one worker.
//!
//! What is different from AF_XDP, because a packet socket sees a *copy* of what the kernel goes on
//! to handle itself:
//!
//! - The host's own protocols get every packet, too. It answers ARP and ping to its own addresses;
//!   if it forwards packets (`net.ipv4.conf.*.forwarding`), they leave twice.
//! - GRO and LRO have joined segments by then: what is longer than a frame has room for is dropped
//!   and counted ([`KernelCounters::rx_dropped`](xdpfwd_xsk::KernelCounters::rx_dropped)).
//!   `ethtool -K IF gro off lro off`.
//! - The kernel has taken the outermost VLAN tag out; it is put back in from `PACKET_AUXDATA`.
//! - Checksums that a local sender left to the device are unfinished, as with AF_XDP.
//!   `ethtool -K SENDER tx off`.
//! - It is out of the packet's way: nothing is attached to the interface, and nothing is in anybody
//!   else's way.
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
