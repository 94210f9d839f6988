//! Opens ports with `xsk-rs` and libxdp.

use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use xsk_rs::config::{
    BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig as XskRsUmemConfig,
    UmemConfigBuilderError,
};
use xsk_rs::umem::UmemCreateError;
use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, Socket as XskRsSocket, TxQueue, Umem as XskRsUmem,
};

use super::{Builder, OpenError, OpenPorts, Queue, raise_memlock, ring_sizes};
use crate::abi::XDP_PACKET_HEADROOM;
use crate::config::{HUGE_PAGE_BYTES, HugePages, UmemError};
use crate::lease::SlotLease;
use crate::owner::PortSlot;
use crate::pool::Pool;
use crate::socket::{RingSizes, Socket};
use crate::umem::Umem;
use crate::xsk_rs_port::{Queues, XskRsPort};

impl Builder {
    /// Like [`open`](Self::open), with the memory, sockets and rings of the crate `xsk-rs`, but
    /// without libxdp's XDP program.
    ///
    /// The ports ignore preferred busy polling (they never make the system calls in which the kernel
    /// would poll), and post frames for reception only after the bind.
    pub fn open_by_xsk_rs(&self) -> Result<OpenPorts<XskRsPort>, OpenError> {
        self.open_with(|mode| self.open_all_by_xsk_rs(mode))
    }

    fn open_all_by_xsk_rs(&self, mode: u16) -> Result<OpenPorts<XskRsPort>, OpenError> {
        raise_memlock();
        let sizes = ring_sizes(self.umem.frames, self.queues.len());
        let Memory { xsk_rs_umem, descriptors, umem, mut pool } = self.map_by_xsk_rs(sizes)?;
        let deadline = Instant::now() + self.bind_timeout;
        let mut ports = Vec::with_capacity(self.queues.len());
        let mut zero_copy = true;
        for (index, queue) in (0..).zip(&self.queues) {
            let slot = PortSlot::new(index).ok_or(OpenError::Queues(self.queues.len()))?;
            let (tx, rx, fill, completion) = queue
                .bind_by_xsk_rs(&xsk_rs_umem, mode, sizes, deadline)
                .map_err(|error| queue.bind_error(mode, self.bind_timeout, error))?;
            // SAFETY: the descriptor is open as long as the queues exist. Needs `unsafe`: a
            // descriptor number does not guarantee that.
            let fd = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) };
            let socket = Socket::from_fd(fd)
                .map_err(|error| queue.error("duplicate the socket's descriptor", error))?;
            // Set the same socket options as `open`, so that a benchmark compares only the rings.
            queue.tune(&socket, sizes.tx, self.busy_poll);
            let is_zero_copy = queue.is_zero_copy(&socket)?;
            zero_copy &= is_zero_copy;
            // Cannot fail: the UMEM is new, so all its slots are free.
            let lease =
                SlotLease::claim(&umem, slot).ok_or(OpenError::Queues(self.queues.len()))?;
            let queues = Queues { tx, rx, fill, completion, umem: xsk_rs_umem.clone() };
            let mut port =
                XskRsPort::new(lease, socket, queues, Rc::clone(&descriptors), sizes, is_zero_copy);
            port.refill(&mut pool);
            ports.push(port);
        }
        Ok(OpenPorts { umem, pool, ports, zero_copy, fallback: None })
    }

    fn map_by_xsk_rs(&self, sizes: RingSizes) -> Result<Memory, OpenError> {
        self.umem.check()?;
        let frames = NonZeroU32::new(self.umem.frames).ok_or(UmemError::Frames { frames: 0 })?;
        let config = xsk_rs_config(self.umem.frame_size, sizes)
            .map_err(|error| self.map_error(io::Error::other(error)))?;
        let bytes = self.umem.bytes();
        let create = |huge| XskRsUmem::new(config, frames, huge).map(|created| (created, huge));
        // xsk-rs cannot unmap a mapping that ends within a huge page, so the size must be a
        // multiple of 2 MiB.
        let fills_huge_pages = bytes.is_multiple_of(HUGE_PAGE_BYTES);
        if self.umem.huge_pages == HugePages::On && !fills_huge_pages {
            let frame_size = self.umem.frame_size;
            return Err(UmemError::PartialHugePage { bytes, frame_size }.into());
        }
        let may_be_huge = self.umem.huge_pages != HugePages::Off && fills_huge_pages;
        let created = match create(may_be_huge) {
            Err(error) if may_be_huge && self.umem.huge_pages == HugePages::On => {
                let source = cause(&error);
                return Err(
                    UmemError::HugePages { bytes, pages: bytes / HUGE_PAGE_BYTES, source }.into()
                );
            }
            Err(_) if may_be_huge => create(false),
            result => result,
        };
        let ((xsk_rs_umem, descriptors), huge) =
            created.map_err(|error: UmemCreateError| self.map_error(cause(&error)))?;
        // xsk-rs exposes only the address of a frame's packet. The chunk starts
        // `XDP_PACKET_HEADROOM` bytes earlier. SAFETY: the descriptor belongs to this UMEM, which
        // no socket uses yet. Needs `unsafe`: xsk-rs cannot check that the chunk is unused.
        let start = unsafe { xsk_rs_umem.data(&descriptors[0]) }.contents().as_ptr().addr()
            - XDP_PACKET_HEADROOM as usize;
        // A pointer with exposed provenance is valid here: the memory is a kernel mapping, not a
        // Rust allocation, and its address is exposed to libxdp.
        let base = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(start));
        let base =
            base.ok_or_else(|| self.map_error(io::Error::other("mmap returned address 0")))?;
        // SAFETY: xsk-rs has mapped a chunk for each frame at `base`, and keeps the memory mapped
        // as long as a handle of its UMEM lives. xsk-rs gives access only through descriptors,
        // which the ports keep and use only to set packet lengths. Needs `unsafe`: the UMEM creates
        // frames from addresses.
        let (umem, pool) =
            unsafe { Umem::in_mapping(&self.umem, base, huge, Box::new(xsk_rs_umem.clone())) }?;
        Ok(Memory { xsk_rs_umem, descriptors: descriptors.into(), umem, pool })
    }

    fn map_error(&self, source: io::Error) -> OpenError {
        let bytes = self.umem.bytes();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::Permission,
            Some(libc::EAFNOSUPPORT) => OpenError::Unsupported,
            Some(libc::ENOBUFS) => OpenError::Pin { bytes, source },
            _ => UmemError::Map { bytes, source }.into(),
        }
    }
}

/// The memory of a UMEM, with the handles of `xsk-rs` and of this crate.
struct Memory {
    xsk_rs_umem: XskRsUmem,
    /// The descriptor of each chunk, by chunk number.
    descriptors: Rc<[FrameDesc]>,
    umem: Umem,
    pool: Pool,
}

impl Queue {
    /// Retries a busy queue until the deadline.
    fn bind_by_xsk_rs(
        &self,
        umem: &XskRsUmem,
        mode: u16,
        sizes: RingSizes,
        deadline: Instant,
    ) -> io::Result<(TxQueue, RxQueue, FillQueue, CompQueue)> {
        let interface: Interface = self.interface.parse().map_err(io::Error::other)?;
        let config = SocketConfig::builder()
            .rx_queue_size(QueueSize::new(sizes.rx).map_err(io::Error::other)?)
            .tx_queue_size(QueueSize::new(sizes.tx).map_err(io::Error::other)?)
            // Do not load libxdp's XDP program.
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::from_bits_retain(mode | libc::XDP_USE_NEED_WAKEUP))
            .build();
        loop {
            // SAFETY: `new` may be called again for the same queue, as this loop does, only if libxdp
            // loads no XDP program, which the flag above ensures. Needs `unsafe`: xsk-rs does not check this.
            match unsafe { XskRsSocket::new(config, umem, &interface, self.id.queue) } {
                Ok((tx, rx, Some((fill, completion)))) => return Ok((tx, rx, fill, completion)),
                Ok((_, _, None)) => return Err(io::Error::other("the queue is configured twice")),
                Err(error) => {
                    let error = cause(&error);
                    if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
                        return Err(error);
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

fn xsk_rs_config(
    frame_size: u32,
    sizes: RingSizes,
) -> Result<XskRsUmemConfig, Box<dyn Error + Send + Sync>> {
    let mut config = XskRsUmemConfig::builder();
    config
        .frame_size(frame_size.try_into()?)
        .fill_queue_size(QueueSize::new(sizes.fill)?)
        .comp_queue_size(QueueSize::new(sizes.completion)?)
        .frame_headroom(0);
    config.build().map_err(|error: UmemConfigBuilderError| error.to_string().into())
}

/// Returns the kernel's error that caused this one; without one, an error with the same message.
fn cause(error: &dyn Error) -> io::Error {
    let kernel = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match kernel.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}
