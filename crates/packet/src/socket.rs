//! System calls on packet sockets.
//!
//! See [packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html) and
//! `net/packet/af_packet.c` in the kernel.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::{BPF_RET, TpacketStats};
use crate::rings::{RingLayout, RingMemory};

/// Size in bytes of each socket buffer. The kernel doubles it to 8 MiB: room for about 2000 packets
/// of 4 KiB, as many as in an AF_XDP port's rings, or for more short packets, each of which takes
/// 768 bytes of the buffer.
const BUFFER_LEN: libc::c_int = 4 << 20;

/// A handle of a packet socket on one interface. The socket is closed with its last handle. One
/// thread may start and stop reception while another sends and receives.
#[derive(Clone, Debug)]
pub struct PacketSocket {
    fd: Arc<OwnedFd>,
    /// Index of the interface; 0 if the socket is bound to none.
    ifindex: u32,
    rings: Option<Rings>,
}

#[derive(Clone, Debug)]
struct Rings {
    layout: RingLayout,
    /// Whether a port has mapped the rings. Two ports would write to the same memory.
    is_mapped: Arc<AtomicBool>,
}

/// Options for [`PacketSocket::open_queues`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketConfig {
    /// How sent packets reach the interface.
    pub qdisc: Qdisc,
    /// The frame size of the UMEM (2048 or 4096), if the sockets shall have the rings of an
    /// [`MmapPort`](crate::MmapPort). Rings take 4 MiB per socket for reception, and 512 times the
    /// frame size for transmission.
    pub rings: Option<u32>,
}

/// How sent packets reach the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qdisc {
    /// Bypass the queueing disciplines, as AF_XDP does (`PACKET_QDISC_BYPASS`). Only then does the
    /// kernel report all packets that the interface dropped.
    #[default]
    Bypass,
    /// Pass through the queueing discipline of the interface (`tc qdisc`).
    Use,
}

/// The reason why a packet socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The process lacks the permission to open packet sockets.
    #[error(
        "cannot open a packet socket: permission denied; run as root, or let the members of a group \
         run the binary with capabilities: `{}`",
        xdpfwd_xsk::grant_command(&["cap_net_admin", "cap_net_raw"])
    )]
    Permission,
    /// The kernel has no packet sockets.
    #[error("cannot open a packet socket: the kernel was built without CONFIG_PACKET")]
    Unsupported,
    /// The kernel could not allocate the rings.
    #[error(
        "cannot allocate {} KiB of kernel memory for the rings of a packet socket: {source}; \
         use fewer queues, or packet sockets without rings (io = \"packet-mmsg\")",
        .bytes / 1024
    )]
    Rings {
        /// Bytes of the rings.
        bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another call failed.
    #[error("cannot open a packet socket: {call} failed: {source}")]
    Call {
        /// The failed call.
        call: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl PacketSocket {
    /// Opens a socket for each queue of an interface. Each packet is delivered to one socket. If
    /// the driver records the receive queue (veth does not), packets of queue `n` go to the `n`-th
    /// socket, counted from 0 (`PACKET_FANOUT_QM`). The sockets receive nothing before
    /// [`start`](Self::start).
    pub fn open_queues(
        ifindex: u32,
        queues: u16,
        config: &SocketConfig,
    ) -> Result<Vec<Self>, OpenError> {
        let mut sockets =
            (0..queues).map(|_| Self::open(ifindex, config)).collect::<Result<Vec<_>, _>>()?;
        if queues > 1 {
            // The kernel distributes packets over the fanout group by queue mapping, modulo the
            // number of members (`fanout_demux_qm`). On reception the mapping is the queue index
            // plus one (`skb_record_rx_queue`). So the socket of queue q must be member q + 1, and
            // the socket of the last queue must be member 0.
            sockets.rotate_right(1);
            let group = sockets[0].create_fanout_group()?;
            sockets[1..].iter().try_for_each(|socket| socket.join_fanout_group(group))?;
            sockets.rotate_left(1);
        }
        Ok(sockets)
    }

    /// Opens a socket that is bound to no interface and no protocol, so it receives nothing.
    pub(crate) fn unbound() -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing is received before a bind. SAFETY: a plain system call. Needs
        // `unsafe`: foreign call.
        let fd = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and has no other owner. Needs `unsafe`: the compiler cannot
        // check that.
        let fd = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { fd, ifindex: 0, rings: None })
    }

    pub(crate) fn enable_promiscuous(&self, ifindex: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: ifindex as i32,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    fn open(ifindex: u32, config: &SocketConfig) -> Result<Self, OpenError> {
        let mut socket =
            Self::unbound().map_err(|error| OpenError::new("socket(AF_PACKET)", error))?;
        // The socket receives nothing before `start`.
        socket.stop().map_err(|error| OpenError::new("SO_ATTACH_FILTER", error))?;
        socket.set_packet(libc::PACKET_AUXDATA, "PACKET_AUXDATA", &1)?;
        socket.set_packet(libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", &1)?;
        if config.qdisc == Qdisc::Bypass {
            socket.set_packet(libc::PACKET_QDISC_BYPASS, "PACKET_QDISC_BYPASS", &1)?;
        }
        socket.enlarge(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
        socket.enlarge(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
        if let Some(frame_size) = config.rings {
            // Before the socket joins a fanout group: creating a ring removes it from the group and
            // adds it again at the end.
            let layout = RingLayout::new(frame_size).ok_or_else(|| OpenError::Call {
                call: "creating rings",
                source: io::Error::other("the frame size must be 2048 or 4096"),
            })?;
            socket.create_rings(layout)?;
        }
        socket.ifindex = ifindex;
        socket.bind(ifindex).map_err(|error| OpenError::new("bind", error))?;
        Ok(socket)
    }

    fn create_rings(&mut self, layout: RingLayout) -> Result<(), OpenError> {
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        self.set_packet(libc::PACKET_VERSION, "PACKET_VERSION", &version)?;
        let requests = [
            (libc::PACKET_RX_RING, layout.receive_request()),
            (libc::PACKET_TX_RING, layout.transmit_request()),
        ];
        for (option, request) in requests {
            self.set(libc::SOL_PACKET, option, &request)
                .map_err(|source| OpenError::Rings { bytes: layout.len(), source })?;
        }
        self.rings = Some(Rings { layout, is_mapped: Arc::default() });
        Ok(())
    }

    /// Maps the rings. Fails if the socket has none, or if they have been mapped before.
    pub(crate) fn map_rings(&self) -> io::Result<(RingLayout, RingMemory)> {
        let Some(Rings { layout, is_mapped }) = &self.rings else {
            return Err(io::Error::other("the socket was opened without rings"));
        };
        if is_mapped.swap(true, Ordering::Relaxed) {
            return Err(io::Error::other("another port has used the rings of this socket"));
        }
        Ok((*layout, RingMemory::map(self.fd(), layout.len())?))
    }

    /// Makes the kernel take requests from the transmit ring. Never blocks.
    #[inline]
    pub(crate) fn send_from_ring(&self) -> io::Result<()> {
        // SAFETY: no buffer is passed. Needs `unsafe`: foreign call.
        let sent = unsafe { libc::send(self.fd(), ptr::null(), 0, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Clears the socket's pending error. Until then, `poll` returns at once.
    pub(crate) fn clear_error(&self) {
        // The socket reports, for example, that the interface went down. Reception resumes by
        // itself.
        let _ = self.get::<libc::c_int>(libc::SOL_SOCKET, libc::SO_ERROR);
    }

    /// Returns whether the socket is bound to its interface. When the interface is removed, the
    /// kernel sets the index to -1 (`packet_notifier`).
    pub(crate) fn is_bound(&self) -> bool {
        let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
        let mut len = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is writable for its size. Needs `unsafe`: foreign call.
        let result = unsafe { libc::getsockname(self.fd(), address.as_mut_ptr().cast(), &mut len) };
        // SAFETY: all bytes were set to 0, and any bytes are valid for a struct of integers. Needs
        // `unsafe`: the compiler cannot check that.
        let address = unsafe { address.assume_init() };
        // A socket of another family, as tests use, is always bound.
        result != 0
            || i32::from(address.sll_family) != libc::AF_PACKET
            || address.sll_ifindex.cast_unsigned() == self.ifindex
    }

    /// Returns the MTU of the interface.
    pub(crate) fn mtu(&self) -> io::Result<usize> {
        // SAFETY: a struct of integers and a union of such, for which zeros are valid. Needs
        // `unsafe`: libc offers no other way to initialise all bytes.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = self.ifindex as libc::c_int;
        for call in [libc::SIOCGIFNAME, libc::SIOCGIFMTU] {
            // SAFETY: the kernel reads and writes only the request, which has the size that both
            // calls expect. Needs `unsafe`: foreign call.
            if unsafe { libc::ioctl(self.fd(), call as _, &mut request) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: SIOCGIFMTU wrote this field, an integer. Needs `unsafe`: a field of a union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        usize::try_from(mtu).map_err(io::Error::other)
    }

    /// Starts reception.
    pub fn start(&self) -> io::Result<()> {
        match self.set(libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0) {
            // No filter was attached: reception was on.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Stops reception. Packets received earlier can still be read.
    pub fn stop(&self) -> io::Result<()> {
        let mut accept_nothing = libc::sock_filter { code: BPF_RET, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &mut accept_nothing };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Returns the file descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Returns the number of packets dropped since the last call because the socket's buffer or
    /// receive ring was full; 0 if the socket does not count them.
    pub(crate) fn take_drops(&self) -> u64 {
        // A socket with rings has a third counter: how often the receive ring became full. The
        // packets lost then are among `tp_drops`.
        self.get(libc::SOL_PACKET, libc::PACKET_STATISTICS)
            .map_or(0, |statistics: TpacketStats| u64::from(statistics.tp_drops))
    }

    fn bind(&self, ifindex: u32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a sockaddr_ll of its size. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::bind(
                self.fd(),
                ptr::from_ref(&address).cast(),
                mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Creates a group with this socket as its first member. Returns the group's number, which is
    /// unique in this network namespace.
    fn create_fanout_group(&self) -> Result<u16, OpenError> {
        self.set_fanout(0, FANOUT_MODE | libc::PACKET_FANOUT_FLAG_UNIQUEID)?;
        let group: u32 = self
            .get(libc::SOL_PACKET, libc::PACKET_FANOUT)
            .map_err(|error| OpenError::new("reading PACKET_FANOUT", error))?;
        // The lower 16 bits are the number of the group.
        Ok(group as u16)
    }

    fn join_fanout_group(&self, group: u16) -> Result<(), OpenError> {
        self.set_fanout(group, FANOUT_MODE)
    }

    fn set_fanout(&self, group: u16, mode: u32) -> Result<(), OpenError> {
        self.set_packet(
            libc::PACKET_FANOUT,
            "PACKET_FANOUT",
            &(u32::from(group) | mode << 16).cast_signed(),
        )
    }

    /// Sets a buffer's size, beyond the system's limit if possible.
    fn enlarge(&self, forced_option: libc::c_int, limited_option: libc::c_int) {
        // Forcing needs CAP_NET_ADMIN; without it, net.core.rmem_max and wmem_max limit the size.
        if let Err(error) = self.set(libc::SOL_SOCKET, forced_option, &BUFFER_LEN) {
            tracing::debug!(
                %error,
                "cannot force the socket's buffer size: net.core.rmem_max and wmem_max limit it"
            );
            let _ = self.set(libc::SOL_SOCKET, limited_option, &BUFFER_LEN);
        }
    }

    fn set_packet(
        &self,
        option: libc::c_int,
        name: &'static str,
        value: &libc::c_int,
    ) -> Result<(), OpenError> {
        self.set(libc::SOL_PACKET, option, value).map_err(|error| OpenError::new(name, error))
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the value is readable for its size, and memory that a filter description points
        // to is alive. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::setsockopt(
                self.fd(),
                level,
                option,
                ptr::from_ref(value).cast(),
                mem::size_of::<T>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn get<T>(&self, level: libc::c_int, option: libc::c_int) -> io::Result<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        let mut size = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: the value is writable for its size. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::getsockopt(self.fd(), level, option, value.as_mut_ptr().cast(), &mut size)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: every caller passes an integer or a struct of integers as `T`, for which any
        // bytes are valid. Needs `unsafe`: the compiler cannot check that.
        Ok(unsafe { value.assume_init() })
    }
}

/// Distributes packets by receive queue, and ignores packets that this host sends: a group does not
/// apply the `PACKET_IGNORE_OUTGOING` of its members.
const FANOUT_MODE: u32 = libc::PACKET_FANOUT_QM | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;

impl OpenError {
    fn new(call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission,
            Some(libc::EAFNOSUPPORT) => Self::Unsupported,
            _ => Self::Call { call, source },
        }
    }
}

#[cfg(test)]
impl From<std::os::unix::net::UnixDatagram> for PacketSocket {
    /// Lets tests use a Unix datagram socket.
    fn from(socket: std::os::unix::net::UnixDatagram) -> Self {
        Self { fd: Arc::new(socket.into()), ifindex: 0, rings: None }
    }
}
