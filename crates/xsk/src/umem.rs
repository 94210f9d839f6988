//! The UMEM: packet memory shared with the kernel.

use std::fmt;
use std::mem;
#[cfg(test)]
use std::os::fd::{AsFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::config;
use crate::owner::{Owner, Ownership};
use crate::region::Region;

/// Packet memory in chunks of equal size, shared with the kernel through the sockets bound to it.
///
/// A `Umem` is a handle; the [`Pool`](crate::Pool), every egress queue and every port also have
/// one. Dropping the last handle unmaps the memory. If a [`Frame`](crate::Frame) still exists, the
/// mapping is leaked instead, with a warning. All handles and frames stay on one thread.
pub struct Umem(Rc<Region>);

impl Umem {
    /// Minimum number of frames: enough for two ports, each with one batch (64 frames) in its fill
    /// ring and one in flight.
    pub const MIN_FRAMES: u32 = config::MIN_FRAMES;
    /// Maximum number of frames: 2²⁰ frames of 4096 bytes are 4 GiB per worker.
    pub const MAX_FRAMES: u32 = config::MAX_FRAMES;

    pub(crate) fn from_region(region: Region) -> Self {
        Self(Rc::new(region))
    }

    /// Returns the size of a chunk in bytes.
    pub fn frame_size(&self) -> u32 {
        self.0.frame_size()
    }

    /// Returns the number of chunks.
    pub fn frames(&self) -> u32 {
        self.0.frames
    }

    /// Returns the total size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Returns whether reserved huge pages back the memory.
    pub fn is_huge(&self) -> bool {
        self.0.huge
    }

    /// Returns the file of the memory. For tests only: writing to it would change frames that have
    /// an owner.
    #[cfg(test)]
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.0._memfd.as_ref().expect("the UMEM has its own memfd").as_fd()
    }

    /// Returns the number of chunks that user space holds as a [`Frame`](crate::Frame), according
    /// to the ownership record.
    pub fn held(&self) -> u32 {
        self.0.owners.count(Owner::HELD)
    }

    /// Returns whether user space holds the chunk as a [`Frame`](crate::Frame).
    #[cfg(feature = "fake-kernel")]
    pub fn is_held(&self, chunk: u32) -> bool {
        self.0.owners.has_owner(chunk, Owner::HELD)
    }

    /// Returns the number of lost chunks, whose [`Frame`](crate::Frame) was dropped instead of
    /// given away.
    pub fn lost(&self) -> u32 {
        self.0.owners.count(Owner::LOST)
    }

    /// Returns the numbers of the lost chunks; chunk *n* starts at byte *n* × frame size.
    pub fn lost_chunks(&self) -> Vec<u32> {
        self.0.owners.chunks_of(Owner::LOST).collect()
    }

    /// Returns the number of chunks per kind of owner, for comparison with the frame counts of pool
    /// and ports.
    pub fn ownership(&self) -> Ownership {
        self.0.owners.counts()
    }

    pub(crate) fn region(&self) -> &Region {
        &self.0
    }

    /// Returns whether both handles refer to the same UMEM.
    #[inline]
    pub fn is_same(&self, other: &Umem) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    #[inline]
    pub(crate) fn is_region(&self, region: NonNull<Region>) -> bool {
        NonNull::from(&*self.0) == region
    }
}

impl Clone for Umem {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        if Rc::strong_count(&self.0) > 1 {
            return;
        }
        let held = self.held();
        if held > 0 {
            // Leak the mapping before any step that can panic.
            mem::forget(Rc::clone(&self.0));
            tracing::warn!(
                held,
                bytes = self.bytes(),
                "UMEM dropped while some of its frames exist; its memory stays mapped until exit"
            );
        }
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("frame_size", &self.frame_size())
            .field("frames", &self.frames())
            .field("huge", &self.is_huge())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::EgressQueue;
    use crate::{HugePages, UmemConfig, UmemError};

    fn small_config() -> UmemConfig {
        UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() }
    }

    #[test]
    fn umem_new_rejects_invalid_frame_size_and_count() {
        for frame_size in [0, 1024, 2047, 8192] {
            let error = Umem::new(&UmemConfig { frame_size, ..small_config() }).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("umem.frame_size = {frame_size} is invalid; use 2048 or 4096")
            );
        }
        for frames in [0, 255, (1 << 20) + 1, u32::MAX] {
            assert!(matches!(
                Umem::new(&UmemConfig { frames, ..small_config() }),
                Err(UmemError::Frames { .. })
            ));
        }
    }

    #[test]
    fn huge_pages_auto_succeeds_and_error_of_huge_pages_on_names_sysctl() {
        let (umem, _pool) =
            Umem::new(&UmemConfig { huge_pages: HugePages::Auto, ..small_config() }).unwrap();
        assert_eq!(umem.bytes(), 256 * 2048);
        match Umem::new(&UmemConfig { huge_pages: HugePages::On, ..small_config() }) {
            Ok((umem, _)) => assert!(umem.is_huge()),
            Err(error) => {
                assert!(error.to_string().contains("sysctl -w vm.nr_hugepages=1"), "{error}")
            }
        }
    }

    #[test]
    fn umem_is_unmapped_with_last_handle_unless_frame_is_held() {
        // Search by inode, because another test may have mapped memory at the same address.
        let mapping_check = |umem: &Umem| {
            let file = std::fs::File::from(umem.memfd().try_clone_to_owned().unwrap());
            let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()).to_string();
            move || {
                let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
                maps.lines().any(|line| {
                    line.split_whitespace().nth(4) == Some(&inode)
                        && line.contains("memfd:xdpfwd-umem")
                })
            }
        };
        let (umem, pool) = Umem::new(&small_config()).unwrap();
        let is_mapped = mapping_check(&umem);
        drop(umem);
        assert!(is_mapped(), "unmapped while the pool has a handle");
        drop(pool);
        assert!(!is_mapped(), "still mapped after the last handle was dropped");

        let (umem, mut pool) = Umem::new(&small_config()).unwrap();
        let is_mapped = mapping_check(&umem);
        let mut queue = EgressQueue::new(&umem, 64);
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap().fill(0);
        queue.push(frame).unwrap();
        drop((umem, pool));
        assert!(is_mapped(), "unmapped while the queue has a handle");
        drop(queue);
        assert!(!is_mapped(), "still mapped after the queue dropped its frames");

        let (umem, mut pool) = Umem::new(&small_config()).unwrap();
        let is_mapped = mapping_check(&umem);
        let mut frame = pool.alloc().unwrap();
        drop((umem, pool));
        assert!(is_mapped(), "unmapped while a frame exists");
        frame.append(4).unwrap().copy_from_slice(b"fine");
        assert_eq!(&frame[..], b"fine");
    }

    #[test]
    fn umem_memfd_shows_frame_bytes_and_cannot_shrink() {
        let (umem, mut pool) = Umem::new(&small_config()).unwrap();
        let mut frame = pool.alloc().unwrap();
        frame.append(7).unwrap().copy_from_slice(b"visible");
        let file = std::fs::File::from(umem.memfd().try_clone_to_owned().unwrap());
        let mut bytes = [0; 7];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, frame.address()).unwrap();
        assert_eq!(&bytes, b"visible");
        assert!(file.set_len(4096).is_err(), "the memfd was truncated");
        pool.free(frame).unwrap();
    }
}
