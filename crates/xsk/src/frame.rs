//! Frames: UMEM chunks owned by user space.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use crate::owner::Owner;
use crate::region::{Chunks, Region};

/// A token that owns one chunk of a UMEM: only code that holds it may access the packet's bytes.
/// Giving the frame away moves it. It cannot be copied or sent to another thread.
///
/// With *headroom* in front of the packet and *tailroom* after it, headers can be added and removed
/// without moving the payload:
///
/// ```text
///   chunk ├── headroom ──┼──── the packet: Deref to [u8] ────┼── tailroom ──┤
///                  ◄ prepend  trim_front ►        truncate ◄  ► append
/// ```
///
/// The chunk of a dropped frame is *lost*: it is not reused, and [`Umem::lost`](crate::Umem::lost)
/// counts it.
///
/// Using a frame after it was given away does not compile:
///
/// ```compile_fail,E0382
/// use xdpfwd_xsk::{Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let mut frame = pool.alloc().unwrap();
/// pool.free(frame).unwrap();
/// frame[0] = 1; // use of moved value
/// # Ok::<(), xdpfwd_xsk::UmemError>(())
/// ```
///
/// Without this use, the example compiles ([`EgressQueue`](crate::EgressQueue) has an example for
/// transmission):
///
/// ```
/// use xdpfwd_xsk::{Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let mut frame = pool.alloc().unwrap();
/// pool.free(frame).unwrap();
/// # Ok::<(), xdpfwd_xsk::UmemError>(())
/// ```
///
/// Sending a frame to another thread does not compile either:
///
/// ```compile_fail,E0277
/// use xdpfwd_xsk::{Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let frame = pool.alloc().unwrap();
/// std::thread::spawn(move || drop(frame)); // `NonNull<u8>` cannot be sent between threads safely
/// # Ok::<(), xdpfwd_xsk::UmemError>(())
/// ```
#[must_use = "a dropped frame is lost to its UMEM: push it to a queue or return it to the pool"]
pub struct Frame {
    /// The packet's first byte.
    data: NonNull<u8>,
    region: NonNull<Region>,
    chunk: u32,
    headroom: u16,
    len: u16,
}

/// The error for too little headroom or tailroom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough {side}: {needed} bytes requested, {available} available")]
pub struct NoRoom {
    /// `"headroom"` or `"tailroom"`.
    pub side: &'static str,
    /// Number of bytes requested.
    pub needed: usize,
    /// Number of bytes available.
    pub available: usize,
}

impl Frame {
    /// Creates the frame that owns a chunk.
    ///
    /// # Safety
    /// The chunk exists in the region, is recorded as `HELD`, and no other frame owns it. Headroom
    /// and length add up to at most the frame size. The region lives as long as any of its chunks
    /// is `HELD`, which [`Umem`](crate::Umem)'s drop ensures.
    #[inline]
    pub(crate) unsafe fn new(region: NonNull<Region>, chunk: u32, headroom: u16, len: u16) -> Self {
        // SAFETY: the caller guarantees that the region is alive. Needs `unsafe`: `region` is a raw
        // pointer.
        let region_ref = unsafe { region.as_ref() };
        let offset = region_ref.join(chunk, u32::from(headroom)) as usize;
        debug_assert!(offset + usize::from(len) <= region_ref.len());
        // SAFETY: the chunk exists, so the offset lies within the mapping. Needs `unsafe`: pointer
        // arithmetic.
        let data = unsafe { region_ref.base().add(offset) };
        Self { data, region, chunk, headroom, len }
    }

    /// Like `new`, with the address of the packet's first byte.
    ///
    /// # Safety
    /// As for [`new`](Self::new). In addition, `data` points to the chunk's start plus `headroom`,
    /// and is derived from the region's base pointer, because `prepend` and `trim_front` move it
    /// within the whole chunk.
    #[inline]
    pub(crate) unsafe fn from_data(
        data: NonNull<u8>,
        region: NonNull<Region>,
        chunk: u32,
        headroom: u16,
        len: u16,
    ) -> Self {
        Self { data, region, chunk, headroom, len }
    }

    #[inline]
    fn region_ref(&self) -> &Region {
        // SAFETY: the region lives as long as this chunk is HELD, and the chunk is HELD as long as
        // this frame exists. Needs `unsafe`: a frame has no lifetime parameter. (With one, no
        // struct could contain both a UMEM and its frames.)
        unsafe { self.region.as_ref() }
    }

    /// Returns the number of bytes available to [`prepend`](Self::prepend).
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.headroom)
    }

    /// Returns the number of bytes available to [`append`](Self::append).
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.region_ref().frame_size() as usize - usize::from(self.headroom) - usize::from(self.len)
    }

    /// Returns the packet's offset from the UMEM's start in bytes, as used in descriptors.
    #[inline]
    pub fn address(&self) -> u64 {
        self.region_ref().join(self.chunk, u32::from(self.headroom))
    }

    /// Returns the chunk's number in its UMEM.
    #[inline]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Extends the packet by `n` bytes of unspecified content at its front and returns them.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        if n > self.headroom() {
            return Err(NoRoom { side: "headroom", needed: n, available: self.headroom() });
        }
        // n ≤ headroom ≤ 4096, so the conversion to `u16` does not truncate.
        self.headroom -= n as u16;
        self.len += n as u16;
        // SAFETY: n ≤ headroom, so the start stays within the chunk. Needs `unsafe`: pointer
        // arithmetic.
        self.data = unsafe { self.data.sub(n) };
        Ok(&mut self[..n])
    }

    /// Removes the first `n` bytes of the packet, or all if it is shorter.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(usize::from(self.len));
        self.headroom += n as u16;
        self.len -= n as u16;
        // SAFETY: n ≤ len, so the start stays within the chunk (or at its end). Needs `unsafe`:
        // pointer arithmetic.
        self.data = unsafe { self.data.add(n) };
    }

    /// Extends the packet by `n` bytes of unspecified content at its end and returns them.
    #[inline]
    pub fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom { side: "tailroom", needed: n, available: self.tailroom() });
        }
        let old = usize::from(self.len);
        self.len += n as u16;
        Ok(&mut self[old..])
    }

    /// Shortens the packet to `len` bytes; a shorter packet stays unchanged.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = len.min(usize::from(self.len)) as u16;
    }

    #[inline]
    pub(crate) fn region(&self) -> NonNull<Region> {
        self.region
    }

    /// Hands the chunk to another owner and returns its number. Only this function and `give_up_in`
    /// give up a frame without losing its chunk.
    #[inline]
    pub(crate) fn give_up(self, to: Owner) -> u32 {
        let frame = ManuallyDrop::new(self);
        frame.region_ref().owners.set(frame.chunk, to);
        frame.chunk
    }

    /// Like `give_up`, but uses the caller's copy of the region's fields, which is faster in packet
    /// loops.
    #[inline]
    pub(crate) fn give_up_in(self, chunks: Chunks<'_>, to: Owner) {
        debug_assert!(chunks.contains(&self), "the frame belongs to another UMEM");
        chunks.set(ManuallyDrop::new(self).chunk, to);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.region_ref().owners.set(self.chunk, Owner::LOST);
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes lie within the chunk, which only this frame holds (HELD), so nothing
        // else writes to it, not even the kernel (see `owner.rs`). Needs `unsafe`: the frame has a
        // raw pointer into the UMEM.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), usize::from(self.len)) }
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`. In addition, `&mut self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), usize::from(self.len)) }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(chunk {}, headroom {}, {} bytes)", self.chunk, self.headroom, self.len)
    }
}

impl Chunks<'_> {
    /// Like [`Frame::new`], but takes the packet's address instead of computing it.
    ///
    /// # Safety
    /// As for [`Frame::new`]. In addition, `address` is the chunk's start plus `headroom`.
    #[inline]
    pub(crate) unsafe fn frame(self, address: u64, chunk: u32, headroom: u16, len: u16) -> Frame {
        debug_assert_eq!(address, self.join(chunk, u32::from(headroom)));
        // SAFETY: the caller guarantees that the chunk exists and contains the address, so the
        // pointer stays in the mapping. Needs `unsafe`: pointer arithmetic.
        let data = unsafe { self.base.add(address as usize) };
        // SAFETY: guaranteed by the caller; `data` equals the pointer that `Frame::new` computes.
        // Needs `unsafe`: the new frame is the token that owns the bytes.
        unsafe { Frame::from_data(data, self.region.into(), chunk, headroom, len) }
    }

    #[inline]
    pub(crate) fn contains(self, frame: &Frame) -> bool {
        frame.region() == self.region.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::oracle::frame::{Edit, Shadow};
    use crate::{HugePages, Umem, UmemConfig};

    /// The value of all bytes of the neighbouring chunks. Edits write other values.
    const NEIGHBOUR: u8 = 0xee;

    fn umem(frame_size: u32) -> (Umem, crate::Pool) {
        Umem::new(&UmemConfig { frame_size, frames: 256, huge_pages: HugePages::Off }).unwrap()
    }

    #[test]
    fn frame_and_option_of_frame_have_24_bytes() {
        assert_eq!(size_of::<super::Frame>(), 24);
        assert_eq!(size_of::<Option<super::Frame>>(), 24);
    }

    #[test]
    fn dropped_frame_is_counted_and_listed_as_lost() {
        let (umem, mut pool) = umem(2048);
        let frame = pool.alloc().unwrap();
        let chunk = frame.chunk();
        assert_eq!((umem.held(), umem.lost()), (1, 0));
        drop(frame);
        assert_eq!((umem.held(), umem.lost()), (0, 1));
        assert_eq!(umem.lost_chunks(), [chunk]);
        assert_eq!(pool.len(), 255);
    }

    fn edit() -> impl Strategy<Value = Edit> {
        (any::<u8>(), prop_oneof![4 => 0..700usize, 1 => 0..5000usize])
            .prop_map(|(kind, n)| Edit::decode(kind, n))
    }

    proptest! {
        /// Any edits have the same effect on a packet as on a vector. An edit that does not fit
        /// changes nothing, and neighbouring chunks keep their bytes.
        #[test]
        fn frame_edits_match_edits_of_a_vector(
            edits in prop::collection::vec(edit(), 1..60),
            big in any::<bool>(),
        ) {
            let frame_size = if big { 4096 } else { 2048 };
            let (_umem, mut pool) = umem(frame_size);
            let mut frame_before = pool.alloc().unwrap();
            let mut frame = pool.alloc().unwrap();
            let mut frame_after = pool.alloc().unwrap();
            for neighbour in [&mut frame_before, &mut frame_after] {
                let headroom = neighbour.headroom();
                neighbour.prepend(headroom).unwrap();
                let tailroom = neighbour.tailroom();
                neighbour.append(tailroom).unwrap();
                neighbour.fill(NEIGHBOUR);
            }
            let mut shadow = Shadow::copy_of(&frame);
            for (edit, fill) in edits.into_iter().zip((0..NEIGHBOUR).cycle()) {
                shadow.edit(&mut frame, edit, fill);
                let chunk_start = u64::from(frame.chunk() * frame_size);
                prop_assert_eq!(frame.address(), chunk_start + frame.headroom() as u64);
            }
            for neighbour in [frame_before, frame_after] {
                prop_assert!(
                    neighbour.iter().all(|&byte| byte == NEIGHBOUR),
                    "an edit changed a neighbouring chunk"
                );
                pool.free(neighbour).unwrap();
            }
            pool.free(frame).unwrap();
        }
    }
}
