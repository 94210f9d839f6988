//! System calls on AF_XDP sockets.
//!
//! <https://docs.kernel.org/networking/af_xdp.html>; kernel side `net/xdp/xsk.c`.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use crate::abi::{Descriptor, XDP_MAX_TX_SKB_BUDGET};
use crate::counters::KernelCounters;
use crate::kernel::{Kernel, Rings};
use crate::queue_id::QueueId;
use crate::region::Region;
use crate::ring::{Consumer, Producer, RingLayout};
use crate::sync::{AtomicU32, Entry, Plain};

/// Ring sizes in entries; powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingSizes {
    pub(crate) fill: u32,
    pub(crate) completion: u32,
    pub(crate) rx: u32,
    pub(crate) tx: u32,
}

/// A handle of an AF_XDP socket, which closes with its last handle.
#[derive(Clone)]
pub(crate) struct Socket(Rc<OwnedFd>);

impl Socket {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a plain system call. Needs `unsafe`: foreign call.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor without another owner. Needs `unsafe`: the compiler cannot know
        // that.
        Ok(Self(Rc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Creates a handle of the socket behind another descriptor.
    pub(crate) fn from_fd(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(Rc::new(fd.try_clone_to_owned()?)))
    }

    /// Duplicates the descriptor of the socket, so that it can be sent to another thread.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Registers the UMEM with this socket. Other sockets share the UMEM when they bind.
    pub(crate) fn register(&self, region: &Region) -> io::Result<()> {
        let registration = libc::xdp_umem_reg {
            addr: region.base().as_ptr() as u64,
            len: region.len() as u64,
            chunk_size: region.frame_size(),
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
    }

    /// Maps the four rings. The fill and the completion ring belong to the (interface, queue), so
    /// every socket needs these rings, even if it shares its UMEM.
    pub(crate) fn map_rings(&self, sizes: RingSizes) -> io::Result<Rings> {
        self.set(libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, &sizes.fill)?;
        self.set(libc::SOL_XDP, libc::XDP_UMEM_COMPLETION_RING, &sizes.completion)?;
        self.set(libc::SOL_XDP, libc::XDP_RX_RING, &sizes.rx)?;
        self.set(libc::SOL_XDP, libc::XDP_TX_RING, &sizes.tx)?;
        let (offsets, len) =
            self.get::<libc::xdp_mmap_offsets>(libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        if len < mem::size_of::<libc::xdp_mmap_offsets>() {
            // Linux before 5.4 has no wake-up flags, and returns a shorter struct with other
            // offsets.
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }

        let fill = self.map_ring::<u64>(sizes.fill, &offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        let completion = self.map_ring::<u64>(
            sizes.completion,
            &offsets.cr,
            libc::XDP_UMEM_PGOFF_COMPLETION_RING,
        )?;
        let rx =
            self.map_ring::<Descriptor>(sizes.rx, &offsets.rx, libc::XDP_PGOFF_RX_RING as u64)?;
        let tx =
            self.map_ring::<Descriptor>(sizes.tx, &offsets.tx, libc::XDP_PGOFF_TX_RING as u64)?;
        // SAFETY: each layout describes a ring that the kernel has just allocated and mapped, and
        // is used once; `Rings` keeps the memory mapped. Needs `unsafe`: `Producer` and `Consumer`
        // hold raw pointers.
        unsafe {
            Ok(Rings {
                fill: Producer::new(fill.1),
                completion: Consumer::new(completion.1),
                rx: Consumer::new(rx.1),
                tx: Producer::new(tx.1),
                _memory: Box::new([fill.0, completion.0, rx.0, tx.0]),
            })
        }
    }

    fn map_ring<T>(
        &self,
        size: u32,
        offsets: &libc::xdp_ring_offset,
        page_offset: u64,
    ) -> io::Result<(RingMap, RingLayout<T>)> {
        let len = offsets.desc as usize + size as usize * mem::size_of::<T>();
        // The counters and the flags must lie in front of the entries. A mapping is page-aligned,
        // so an aligned offset gives an aligned address.
        let word = mem::size_of::<AtomicU32>() as u64;
        let is_valid = |offset: u64| offset.is_multiple_of(word) && offset + word <= offsets.desc;
        let before_entries = [offsets.producer, offsets.consumer, offsets.flags];
        if !before_entries.into_iter().all(is_valid)
            || !offsets.desc.is_multiple_of(mem::align_of::<T>() as u64)
        {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let map = RingMap::new(self.0.as_fd(), len, page_offset)?;
        // SAFETY: each offset was checked to lie within the ring and to be aligned for its type.
        // Needs `unsafe`: pointer arithmetic.
        let pointer_to = |offset: u64| unsafe { map.base.add(offset as usize) };
        let layout = RingLayout {
            producer: pointer_to(offsets.producer).cast::<AtomicU32>(),
            consumer: pointer_to(offsets.consumer).cast::<AtomicU32>(),
            flags: pointer_to(offsets.flags).cast::<AtomicU32>(),
            entries: pointer_to(offsets.desc).cast::<Entry<T>>(),
            size,
        };
        Ok((map, layout))
    }

    /// Binds the socket to a queue. The socket that registered the UMEM passes `XDP_ZEROCOPY` or
    /// `XDP_COPY`, with `XDP_USE_NEED_WAKEUP`. Other sockets pass that socket as `shared` and only
    /// `XDP_SHARED_UMEM`; they inherit the flags.
    pub(crate) fn bind(
        &self,
        QueueId { ifindex, queue }: QueueId,
        flags: u16,
        shared: Option<&Socket>,
    ) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared.map_or(0, |socket| socket.0.as_raw_fd() as u32),
        };
        // SAFETY: the address is a sockaddr_xdp of its size. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                ptr::from_ref(&address).cast(),
                mem::size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(crate) fn is_zero_copy(&self) -> io::Result<bool> {
        let (options, _) = self.get::<libc::xdp_options>(libc::SOL_XDP, libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Sets the maximum number of descriptors per system call in copy mode. The TX ring must
    /// already exist.
    pub(crate) fn set_tx_budget(&self, descriptors: u32) -> io::Result<()> {
        self.set(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &descriptors)
    }

    /// Enables preferred busy polling, up to these limits per system call:
    /// <https://docs.kernel.org/networking/napi.html#busy-polling>.
    pub(crate) fn set_busy_poll(&self, micros: u32, budget: u32) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1u32)?;
        self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL, &micros)?;
        self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &budget)
    }

    /// Makes the system call that makes the kernel send.
    fn send_nothing(&self, flags: libc::c_int) -> io::Result<()> {
        // SAFETY: no buffer is passed. Needs `unsafe`: foreign call.
        let result =
            unsafe { libc::sendto(self.0.as_raw_fd(), ptr::null(), 0, flags, ptr::null(), 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the value is readable for its size. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                option,
                ptr::from_ref(value).cast(),
                mem::size_of::<T>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Returns the value of an option, and the number of bytes that the kernel wrote. An older
    /// kernel may write a shorter struct; the remaining bytes are zero.
    fn get<T: Plain>(&self, level: libc::c_int, option: libc::c_int) -> io::Result<(T, usize)> {
        let mut value = MaybeUninit::<T>::zeroed();
        let mut size = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: the value is writable for its size. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                level,
                option,
                value.as_mut_ptr().cast(),
                &mut size,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: any bytes are valid for a plain type. Needs `unsafe`: not so for other types.
        Ok((unsafe { value.assume_init() }, size as usize))
    }
}

/// The memory of a socket (`SK_MEMINFO_VARS` values, `include/uapi/linux/sock_diag.h`).
#[derive(Clone, Copy)]
#[repr(transparent)]
struct MemoryInfo([u32; 9]);

// SAFETY: an array of integers. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for MemoryInfo {}

/// `SK_MEMINFO_WMEM_ALLOC`: the size of the socket buffers that the socket has sent and that still
/// exist.
const WRITE_MEMORY: usize = 2;

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(Rc::new(fd))
    }
}

impl Kernel for Socket {
    fn stops_writing_on_drop(&self) -> bool {
        false
    }

    fn is_bound(&self) -> bool {
        // A call that may block is refused with EOPNOTSUPP, but only after the check whether the
        // socket is bound, which fails with ENXIO (`__xsk_sendmsg`). So the call never sends, and
        // no driver is asked: some drivers return ENXIO, too.
        !matches!(self.send_nothing(0), Err(error) if error.raw_os_error() == Some(libc::ENXIO))
    }

    fn has_socket_buffers(&self) -> bool {
        // If the memory cannot be read, assume the worst.
        self.get::<MemoryInfo>(libc::SOL_SOCKET, libc::SO_MEMINFO)
            .map_or(true, |(memory, _)| memory.0[WRITE_MEMORY] != 0)
    }

    fn duplicate_descriptor(&self) -> Option<OwnedFd> {
        self.duplicate().ok()
    }

    fn wake_tx(&mut self) -> io::Result<()> {
        self.send_nothing(libc::MSG_DONTWAIT)
    }

    fn wake_rx(&mut self) -> io::Result<()> {
        // SAFETY: no buffer is passed. Needs `unsafe`: foreign call.
        let result = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }

    fn umem_socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn statistics(&self) -> KernelCounters {
        // The call fails only for an invalid socket.
        let Ok((statistics, _)) =
            self.get::<libc::xdp_statistics>(libc::SOL_XDP, libc::XDP_STATISTICS)
        else {
            return KernelCounters::default();
        };
        KernelCounters {
            rx_dropped: statistics.rx_dropped,
            rx_invalid: statistics.rx_invalid_descs,
            tx_invalid: statistics.tx_invalid_descs,
            rx_ring_full: statistics.rx_ring_full,
            fill_ring_empty: statistics.rx_fill_ring_empty_descs,
            tx_ring_empty: statistics.tx_ring_empty_descs,
        }
    }
}

/// The mapped memory of a ring, unmapped on drop.
struct RingMap {
    base: NonNull<u8>,
    len: usize,
}

impl RingMap {
    fn new(fd: BorrowedFd<'_>, len: usize, page_offset: u64) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so the new mapping affects no existing memory.
        // Needs `unsafe`: foreign call.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                page_offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { base, len })
    }
}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the `Producer` or `Consumer` that points into it is dropped
        // earlier (see `Rings`). Needs `unsafe`: foreign call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
