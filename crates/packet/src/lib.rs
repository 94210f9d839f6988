//! Packet sockets ([packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html)) as ports of
//! xdpfwd, for comparison with [AF_XDP](https://docs.kernel.org/networking/af_xdp.html) and
//! interfaces without XDP.
//!
//! A [`PacketSocket`] receives a share of an interface's packets. An [`MmsgPort`] uses the socket
//! as a [`Port`](xdpfwd_xsk::Port): one `recvmmsg` call receives a batch, and one `sendmmsg` call
//! transmits up to 256 packets. The kernel copies each packet on reception and on transmission. One
//! worker can combine these ports with AF_XDP ports.
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
//! - The kernel removes the outermost VLAN tag; the port restores it from `PACKET_AUXDATA`.
//! - If a sender on the same host leaves checksums to its interface, the received checksums are
//!   incomplete, as with AF_XDP. Run `ethtool -K IF tx off`, where IF is the sender's interface.
//! - The port cannot conflict with XDP programs, because it attaches none.
//!
//! ```no_run
//! use xdpfwd_packet::{MmsgPort, PacketSocket};
//! use xdpfwd_xsk::{Batch, Port, Umem, UmemConfig};
//!
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let (ifindex, queues) = (3, 1);
//! let socket = PacketSocket::open_queues(ifindex, queues)?.remove(0);
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
