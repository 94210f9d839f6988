//! The UMEM: the memory that packets live in, shared with the kernel.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::frame::Frame;
use crate::owner::{Owner, Owners, Ownership, Slot};
use crate::pool::Pool;

/// What a UMEM is made of.
#[derive(Clone, Debug)]
pub struct UmemConfig {
    /// Bytes per chunk: 2048 or 4096. A chunk holds one frame with its headroom and tailroom.
    pub frame_size: u32,
    /// Chunks, each of `frame_size` bytes.
    pub frames: u32,
    /// Whether to back the memory with huge pages.
    pub huge_pages: HugePages,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self { frame_size: 2048, frames: 16384, huge_pages: HugePages::Auto }
    }
}

impl UmemConfig {
    /// Bytes in all.
    pub(crate) fn bytes(&self) -> usize {
        self.frame_size as usize * self.frames as usize
    }

    pub(crate) fn check(&self) -> Result<(), UmemError> {
        if !matches!(self.frame_size, 2048 | 4096) {
            return Err(UmemError::FrameSize(self.frame_size));
        }
        if !(Umem::MIN_FRAMES..=Umem::MAX_FRAMES).contains(&self.frames) {
            return Err(UmemError::Frames { frames: self.frames });
        }
        Ok(())
    }
}

/// Whether the UMEM is backed by huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Reserved huge pages if there are enough of them, else transparent ones where shared memory may have them, else
    /// pages of the normal size.
    #[default]
    Auto,
    /// Reserved huge pages, or an error.
    On,
    /// Pages of the normal size.
    Off,
}

/// Why a UMEM could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UmemError {
    /// A frame size that AF_XDP (or this crate) does not do.
    #[error("frame size {0}: must be 2048 or 4096")]
    FrameSize(u32),
    /// Too few or too many frames.
    #[error("{frames} frames: must be between {} and {}", Umem::MIN_FRAMES, Umem::MAX_FRAMES)]
    Frames {
        /// What was asked for.
        frames: u32,
    },
    /// Huge pages were demanded and are not there.
    #[error(
        "no huge pages for a UMEM of {bytes} bytes: {source}; reserve them with `sysctl -w vm.nr_hugepages={pages}`, \
         or set huge_pages = \"auto\""
    )]
    HugePages {
        /// Bytes asked for.
        bytes: usize,
        /// Huge pages that this takes.
        pages: usize,
        /// What mmap said.
        source: io::Error,
    },
    /// The memory could not be mapped.
    #[error("cannot map a UMEM of {bytes} bytes: {source}; lower umem.frames, or free memory")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Memory for packets, in chunks of equal size, shared with the kernel through the sockets that are bound to it.
///
/// This is a handle: clones refer to the same memory. The memory is unmapped when the last handle goes (the
/// [`Pool`] and every port have one), if no [`Frame`] is left; if one is, the mapping is leaked instead,
/// with a warning, so that no frame ever points at nothing. A UMEM and all that refers to it stay on one thread.
pub struct Umem(Rc<Region>);

pub(crate) struct Region {
    memory: Mapping,
    frame_size: u32,
    frames: u32,
    pub(crate) owners: Owners,
    /// `None` if the memory is somebody else's.
    _memfd: Option<OwnedFd>,
    huge: bool,
    /// A bit per slot that a port has.
    slots: Cell<u128>,
}

impl Umem {
    /// Fewest frames a UMEM may have: below this not even one batch is in flight in each direction.
    pub const MIN_FRAMES: u32 = 256;
    /// Most frames: 2²⁰ of 4096 bytes are 4 GiB per worker.
    pub const MAX_FRAMES: u32 = 1 << 20;

    /// Maps the memory and touches every page, so that it lies on the NUMA node of the calling thread. All frames are
    /// in the pool that comes with it.
    pub fn new(config: &UmemConfig) -> Result<(Self, Pool), UmemError> {
        config.check()?;
        let (memfd, memory, huge) = map(config.bytes(), config.huge_pages)?;
        Ok(Self::made_of(config, memory, Some(memfd), huge))
    }

    /// A UMEM in memory that is mapped already, by `owner`.
    ///
    /// # Safety
    /// At `base` there are as many bytes as the configuration says, readable and writable, for as long as `owner` lives;
    /// nobody refers to them but through the UMEM, and through descriptors of what the UMEM's frames were given up to.
    #[cfg(feature = "xsk-rs")]
    pub(crate) unsafe fn over(
        config: &UmemConfig,
        base: NonNull<u8>,
        huge: bool,
        owner: Box<dyn std::any::Any>,
    ) -> Result<(Self, Pool), UmemError> {
        config.check()?;
        let memory = Mapping { base, len: config.bytes(), owner: Some(owner) };
        Ok(Self::made_of(config, memory, None, huge))
    }

    fn made_of(config: &UmemConfig, memory: Mapping, memfd: Option<OwnedFd>, huge: bool) -> (Self, Pool) {
        let &UmemConfig { frame_size, frames, .. } = config;
        let umem = Self(Rc::new(Region {
            memory,
            frame_size,
            frames,
            owners: Owners::new(frames),
            _memfd: memfd,
            huge,
            slots: Cell::new(0),
        }));
        let pool = Pool::full(umem.clone());
        (umem, pool)
    }

    /// Bytes per chunk.
    pub fn frame_size(&self) -> u32 {
        self.0.frame_size
    }

    /// Chunks in all.
    pub fn frames(&self) -> u32 {
        self.0.frames
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether reserved huge pages back it.
    pub fn is_huge(&self) -> bool {
        self.0.huge
    }

    /// The memory as a file: another process that maps it sees the same packets. It is sealed against shrinking. Not
    /// public: who writes to the file writes under the nose of whoever holds the frame.
    #[cfg(test)]
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.0._memfd.as_ref().expect("made of its own memory").as_fd()
    }

    /// Frames that user space holds at this moment, by the record: neither free nor the kernel's.
    pub fn held(&self) -> u32 {
        self.0.owners.count(Owner::HELD)
    }

    /// Frames that were dropped instead of given back, by the record. Each is out of use until the UMEM goes.
    pub fn lost(&self) -> u32 {
        self.0.owners.count(Owner::LOST)
    }

    /// The chunks that are lost, by number; chunk *n* starts at byte *n* × frame size.
    pub fn lost_chunks(&self) -> Vec<u32> {
        self.0.owners.chunks_of(Owner::LOST).collect()
    }

    /// How many chunks each kind of owner has, by the record alone: a second opinion beside what pool and ports count.
    pub fn ownership(&self) -> Ownership {
        self.0.owners.tally()
    }

    pub(crate) fn region(&self) -> &Region {
        &self.0
    }

    /// Whether both are handles of one UMEM.
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
            // Before anything else that could fail: from here on nothing unmaps it.
            mem::forget(Rc::clone(&self.0));
            tracing::warn!(held, bytes = self.bytes(), "frames outlive their UMEM: its memory stays mapped");
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

impl Region {
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.memory.base
    }

    /// Bytes of all chunks; the mapping may be longer, by what rounding to huge pages added.
    pub(crate) fn len(&self) -> usize {
        self.frame_size as usize * self.frames as usize
    }

    #[inline]
    pub(crate) fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Takes a slot for a port; `false` if another port has it.
    pub(crate) fn claim(&self, slot: Slot) -> bool {
        let taken = self.slots.get();
        self.slots.set(taken | slot.bit());
        taken & slot.bit() == 0
    }

    /// Gives a slot up: its port is gone.
    pub(crate) fn release(&self, slot: Slot) {
        self.slots.set(self.slots.get() & !slot.bit());
    }

    /// By value, for a loop.
    #[inline]
    pub(crate) fn chunks(&self) -> Chunks<'_> {
        Chunks { region: self, base: self.base(), owners: self.owners.cells(), shift: self.frame_size.trailing_zeros() }
    }

    /// As [`Chunks::split`].
    #[cfg(feature = "fake-kernel")]
    #[inline]
    pub(crate) fn split(&self, address: u64) -> (u32, u32) {
        let shift = self.frame_size.trailing_zeros();
        let chunk = u32::try_from(address >> shift).unwrap_or(u32::MAX);
        (chunk, address as u32 & (self.frame_size - 1))
    }

    /// The address within the UMEM of an offset in a chunk; the offset may be the chunk's end, where an empty packet can lie.
    #[inline]
    pub(crate) fn join(&self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.frame_size.trailing_zeros()) + u64::from(offset)
    }
}

/// A region as the loops over packets have it: by value. Each owner byte that is written through a reference to the region
/// could be a change of the region itself, for all the compiler knows, and it would read everything anew.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    region: &'a Region,
    base: NonNull<u8>,
    owners: &'a [Cell<Owner>],
    shift: u32,
}

impl Chunks<'_> {
    /// Splits an address within the UMEM into chunk and offset. The chunk may not exist: the address is the kernel's word.
    #[inline]
    pub(crate) fn split(self, address: u64) -> (u64, u32) {
        (address >> self.shift, address as u32 & (self.frame_size() - 1))
    }

    /// As [`Region::join`].
    #[inline]
    pub(crate) fn join(self, chunk: u32, offset: u32) -> u64 {
        (u64::from(chunk) << self.shift) + u64::from(offset)
    }

    #[inline]
    pub(crate) fn frame_size(self) -> u32 {
        1 << self.shift
    }

    /// Hands a chunk from one owner to the next; `false` (and no change) if it is another one's, or if there is none such.
    #[inline]
    pub(crate) fn hand_over(self, chunk: u64, from: Owner, to: Owner) -> bool {
        Owners::hand_over(self.owners, chunk, from, to)
    }

    /// Writes the owner of a chunk that the caller knows to hold.
    #[inline]
    pub(crate) fn set(self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.owners.get(chunk as usize) {
            cell.set(owner);
        }
    }

    /// The token for the chunk that an address lies in, and where in it.
    ///
    /// # Safety
    /// As for [`Frame::new`], and the address lies in that chunk, after that headroom.
    #[inline]
    pub(crate) unsafe fn frame(self, address: u64, chunk: u32, headroom: u16, len: u16) -> Frame {
        debug_assert_eq!(address, self.join(chunk, u32::from(headroom)));
        // SAFETY: the chunk exists, says the caller, and the address lies within it, so this stays in the mapping. Unsafe:
        // address arithmetic.
        let data = unsafe { self.base.add(address as usize) };
        // SAFETY: as the caller promises, at the address that `Frame::new` would find. Unsafe because it makes the token
        // that stands for the bytes.
        unsafe { Frame::at(data, self.region.into(), chunk, headroom, len) }
    }

    /// Whether a frame is of this region.
    #[inline]
    pub(crate) fn have(self, frame: &Frame) -> bool {
        frame.region() == self.region.into()
    }
}

/// An mmap that is undone on drop.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Who undoes it, if not this.
    #[cfg(feature = "xsk-rs")]
    owner: Option<Box<dyn std::any::Any>>,
}

impl Mapping {
    fn shared(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choosing touches nothing that exists. Unsafe because it
        // is a foreign call.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self {
            base,
            len,
            #[cfg(feature = "xsk-rs")]
            owner: None,
        })
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is our own mapping; none of the advice used here drops its contents. Unsafe: foreign call.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes every page be there, so that no packet pays for a page fault.
    fn populate(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            // Before Linux 5.14: write to the pages instead.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // SAFETY: our own mapping, fresh and of this length, which nobody else refers to yet. Unsafe: raw memory.
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
        // SAFETY: our own mapping, and `Umem::drop` made sure that no frame points into it. Unsafe: foreign call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

const HUGE_PAGE: usize = 2 << 20;

fn map(bytes: usize, huge_pages: HugePages) -> Result<(OwnedFd, Mapping, bool), UmemError> {
    if huge_pages != HugePages::Off {
        // Whole pages; the few chunks' worth behind the end are not used.
        let rounded = bytes.next_multiple_of(HUGE_PAGE);
        match map_memfd(rounded, libc::MFD_HUGETLB | libc::MFD_HUGE_2MB) {
            Ok((memfd, memory)) => return Ok((memfd, memory, true)),
            Err(source) if huge_pages == HugePages::On => {
                return Err(UmemError::HugePages { bytes, pages: rounded / HUGE_PAGE, source });
            }
            Err(error) => tracing::debug!(%error, bytes, "no reserved huge pages for the UMEM; taking normal ones"),
        }
    }
    let (memfd, memory) = map_memfd(bytes, 0).map_err(|source| UmemError::Map { bytes, source })?;
    Ok((memfd, memory, false))
}

fn map_memfd(bytes: usize, flags: libc::c_uint) -> io::Result<(OwnedFd, Mapping)> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags;
    // SAFETY: the name is a C string. Unsafe: foreign call.
    let memfd = unsafe { libc::memfd_create(c"xdpfwd-umem".as_ptr(), flags) };
    if memfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns. Unsafe: that is for us to know.
    let memfd = unsafe { OwnedFd::from_raw_fd(memfd) };
    let length = bytes.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: plain system calls on our own descriptor. Unsafe: foreign calls. The seal keeps a process that shares the
    // memory from cutting pages off under us.
    let sized = unsafe {
        libc::ftruncate(memfd.as_raw_fd(), length) == 0
            && libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) == 0
    };
    if !sized {
        return Err(io::Error::last_os_error());
    }
    let memory = Mapping::shared(memfd.as_fd(), bytes)?;
    if flags & libc::MFD_HUGETLB == 0 {
        // Transparent huge pages, where /sys/kernel/mm/transparent_hugepage/shmem_enabled allows them; else no harm.
        let _ = memory.advise(libc::MADV_HUGEPAGE);
    }
    memory.populate()?;
    Ok((memfd, memory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::EgressQueue;

    fn small() -> UmemConfig {
        UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() }
    }

    #[test]
    fn refuses_what_cannot_be() {
        for frame_size in [0, 1024, 2047, 8192] {
            let error = Umem::new(&UmemConfig { frame_size, ..small() }).unwrap_err();
            assert_eq!(error.to_string(), format!("frame size {frame_size}: must be 2048 or 4096"));
        }
        for frames in [0, 255, (1 << 20) + 1, u32::MAX] {
            assert!(matches!(Umem::new(&UmemConfig { frames, ..small() }), Err(UmemError::Frames { .. })));
        }
    }

    #[test]
    fn huge_pages_fall_back_or_say_what_is_missing() {
        let (umem, _pool) = Umem::new(&UmemConfig { huge_pages: HugePages::Auto, ..small() }).unwrap();
        assert_eq!(umem.bytes(), 256 * 2048);
        match Umem::new(&UmemConfig { huge_pages: HugePages::On, ..small() }) {
            Ok((umem, _)) => assert!(umem.is_huge()),
            Err(error) => assert!(error.to_string().contains("sysctl -w vm.nr_hugepages=1"), "{error}"),
        }
    }

    #[test]
    fn the_memory_goes_with_the_last_handle_and_stays_for_a_frame() {
        // By inode, not by address: another test may map its own memory where this was.
        let mapped = |umem: &Umem| {
            let file = std::fs::File::from(umem.memfd().try_clone_to_owned().unwrap());
            let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()).to_string();
            move || {
                let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
                maps.lines()
                    .any(|line| line.split_whitespace().nth(4) == Some(&inode) && line.contains("memfd:xdpfwd-umem"))
            }
        };
        let (umem, pool) = Umem::new(&small()).unwrap();
        let is_mapped = mapped(&umem);
        drop(umem);
        assert!(is_mapped(), "the pool still refers to it");
        drop(pool);
        assert!(!is_mapped());

        let (umem, mut pool) = Umem::new(&small()).unwrap();
        let is_mapped = mapped(&umem);
        let mut queue = EgressQueue::new(&umem, 64);
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap().fill(0);
        queue.push(frame).unwrap();
        drop((umem, pool));
        assert!(is_mapped(), "the queue still refers to it");
        drop(queue);
        assert!(!is_mapped(), "and takes its frames with it");

        let (umem, mut pool) = Umem::new(&small()).unwrap();
        let is_mapped = mapped(&umem);
        let mut frame = pool.alloc().unwrap();
        drop((umem, pool));
        assert!(is_mapped(), "a frame is left");
        frame.append(4).unwrap().copy_from_slice(b"fine");
        assert_eq!(&frame[..], b"fine");
    }

    #[test]
    fn the_memfd_shows_the_same_bytes_and_cannot_shrink() {
        let (umem, mut pool) = Umem::new(&small()).unwrap();
        let mut frame = pool.alloc().unwrap();
        frame.append(7).unwrap().copy_from_slice(b"visible");
        let file = std::fs::File::from(umem.memfd().try_clone_to_owned().unwrap());
        let mut bytes = [0; 7];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, frame.address()).unwrap();
        assert_eq!(&bytes, b"visible");
        assert!(file.set_len(4096).is_err());
        pool.free(frame).unwrap();
    }
}
