//! The memory of a UMEM: a memfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use crate::config::{HUGE_PAGE_BYTES, HugePages, UmemError};

pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// The value whose drop unmaps the memory; `None` if `Mapping` unmaps it.
    #[cfg(feature = "xsk-rs")]
    owner: Option<Box<dyn std::any::Any>>,
}

impl Mapping {
    /// Wraps memory that `owner` unmaps.
    ///
    /// # Safety
    /// The `len` bytes at `base` are readable and writable for as long as `owner` lives.
    #[cfg(feature = "xsk-rs")]
    pub(crate) unsafe fn with_owner(
        base: NonNull<u8>,
        len: usize,
        owner: Box<dyn std::any::Any>,
    ) -> Self {
        Self { base, len, owner: Some(owner) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn map_shared(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so the new mapping affects no existing memory.
        // Needs `unsafe`: foreign call.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self {
            base,
            len,
            #[cfg(feature = "xsk-rs")]
            owner: None,
        })
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is our own mapping, and no advice that the callers pass discards its
        // contents. Needs `unsafe`: foreign call.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Touches every page, so that no packet causes a page fault.
    fn populate(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            // Linux before 5.14 rejects this advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // SAFETY: our own new mapping of this length, without other references. Needs
                // `unsafe`: a write to raw memory.
                unsafe { self.base.as_ptr().write_bytes(0, self.len) };
                Ok(())
            }
            result => result,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(feature = "xsk-rs")]
        if self.owner.is_some() {
            return;
        }
        // SAFETY: our own mapping, and `Umem::drop` made sure that no frame points into it. Needs
        // `unsafe`: foreign call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Maps and populates at least `bytes` bytes. Returns the memfd, the mapping, and whether it is in
/// reserved huge pages.
pub(crate) fn map(
    bytes: usize,
    huge_pages: HugePages,
) -> Result<(OwnedFd, Mapping, bool), UmemError> {
    if huge_pages != HugePages::Off {
        // The UMEM uses only the first `bytes` bytes.
        let rounded = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        match map_memfd(rounded, libc::MFD_HUGETLB | libc::MFD_HUGE_2MB) {
            Ok((memfd, memory)) => return Ok((memfd, memory, true)),
            Err(source) if huge_pages == HugePages::On => {
                return Err(UmemError::HugePages {
                    bytes,
                    pages: rounded / HUGE_PAGE_BYTES,
                    source,
                });
            }
            Err(error) => {
                tracing::debug!(
                    %error, bytes,
                    "cannot map reserved huge pages for the UMEM; mapping other pages"
                );
            }
        }
    }
    let (memfd, memory) = map_memfd(bytes, 0).map_err(|source| UmemError::Map { bytes, source })?;
    Ok((memfd, memory, false))
}

fn map_memfd(bytes: usize, flags: libc::c_uint) -> io::Result<(OwnedFd, Mapping)> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags;
    // SAFETY: the name is a C string. Needs `unsafe`: foreign call.
    let memfd = unsafe { libc::memfd_create(c"xdpfwd-umem".as_ptr(), flags) };
    if memfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor without another owner. Needs `unsafe`: the compiler cannot know
    // that.
    let memfd = unsafe { OwnedFd::from_raw_fd(memfd) };
    let length = bytes.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // The seal prevents other processes that share the memory from truncating it. SAFETY: plain
    // system calls on our own descriptor. Needs `unsafe`: foreign calls.
    let sized = unsafe {
        libc::ftruncate(memfd.as_raw_fd(), length) == 0
            && libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) == 0
    };
    if !sized {
        return Err(io::Error::last_os_error());
    }
    let memory = Mapping::map_shared(memfd.as_fd(), bytes)?;
    if flags & libc::MFD_HUGETLB == 0 {
        // Has an effect if /sys/kernel/mm/transparent_hugepage/shmem_enabled allows transparent
        // huge pages. Failure is harmless.
        let _ = memory.advise(libc::MADV_HUGEPAGE);
    }
    memory.populate()?;
    Ok((memfd, memory))
}
