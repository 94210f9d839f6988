//! The memory of the rings. All `unsafe` code for rings is here.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

use crate::abi::{BlockHeader, PacketHeader};

/// Memory that the kernel reads and writes too. It is accessed only by copies and through atomic
/// status words, never by reference: the kernel may change any byte at any time. Every access
/// checks its range and panics if the range is outside the memory.
#[derive(Debug)]
pub(crate) struct RingMemory {
    base: NonNull<u8>,
    len: usize,
}

/// A type for which any bytes from the kernel are a valid value, and which may be copied to the
/// kernel.
///
/// # Safety
/// The type has no niche and no references, and no padding.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: a struct of integers without padding. Needs `unsafe`: the compiler cannot check that.
unsafe impl Plain for BlockHeader {}
// SAFETY: as above.
unsafe impl Plain for PacketHeader {}

impl RingMemory {
    /// Maps the rings of a packet socket, which have `len` bytes.
    pub(crate) fn map(socket: RawFd, len: usize) -> io::Result<Self> {
        Self::map_with(socket, len, libc::MAP_SHARED | libc::MAP_POPULATE)
    }

    /// Maps memory without a socket, for tests that act as the kernel.
    #[cfg(test)]
    pub(crate) fn anonymous(len: usize) -> Self {
        Self::map_with(-1, len, libc::MAP_SHARED | libc::MAP_ANONYMOUS).unwrap()
    }

    fn map_with(fd: RawFd, len: usize, flags: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so the new mapping affects no existing memory.
        // Needs `unsafe`: foreign call.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { base, len })
    }

    /// Returns the status word at this offset.
    #[inline]
    pub(super) fn status(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(mem::align_of::<AtomicU32>()));
        let word = self.at(offset, mem::size_of::<AtomicU32>()).cast();
        // SAFETY: `at` checked that the word is inside our mapping, which lives as long as `self`;
        // the mapping begins at a page, so the word is aligned as the offset is. In this process,
        // only one port on one thread uses the mapping (`PacketSocket::map_rings`, `Rc`), so no
        // other access races with copies of headers that contain the word. Needs `unsafe`: a
        // reference from an address.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// Copies a header out of the memory. If the kernel writes to it at the same time, against the
    /// protocol, the value is arbitrary.
    #[inline]
    pub(super) fn read<T: Plain>(&self, offset: usize) -> T {
        let from = self.at(offset, mem::size_of::<T>()).cast::<T>();
        // SAFETY: `at` checked the range, and any bytes are valid for a plain type. Needs `unsafe`:
        // a read of raw memory.
        unsafe { from.read_unaligned() }
    }

    /// Copies a header into the memory.
    #[inline]
    pub(super) fn write<T: Plain>(&self, offset: usize, value: T) {
        let to = self.at(offset, mem::size_of::<T>()).cast::<T>();
        // SAFETY: `at` checked the range; no reference to these bytes exists. Needs `unsafe`: a
        // write to raw memory.
        unsafe { to.write_unaligned(value) }
    }

    /// Copies bytes out of the memory.
    #[inline]
    pub(super) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `at` checked the range; `into` is not part of this memory, to which no reference
        // exists. Needs `unsafe`: a copy from raw memory.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes into the memory.
    #[inline]
    pub(super) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `at` checked the range; `bytes` is not part of this memory, to which no reference
        // exists. Needs `unsafe`: a copy to raw memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Returns the address of `len` bytes at this offset.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            len <= self.len && offset <= self.len - len,
            "{len} bytes at {offset} are outside of the rings, which have {} bytes",
            self.len
        );
        // SAFETY: `offset` is at most the length of the mapping. Needs `unsafe`: pointer
        // arithmetic.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, into which no reference or pointer exists outside of `self`.
        // Needs `unsafe`: foreign call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
