//! What a UMEM is made of, and why one could not be made.

use std::io;

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

/// Fewest frames of a UMEM: below this not even one batch is in flight in each direction.
pub(crate) const MIN_FRAMES: u32 = 256;

/// Most frames: 2²⁰ of 4096 bytes are 4 GiB per worker.
pub(crate) const MAX_FRAMES: u32 = 1 << 20;

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
        if !(MIN_FRAMES..=MAX_FRAMES).contains(&self.frames) {
            return Err(UmemError::Frames { frames: self.frames });
        }
        Ok(())
    }
}

/// Whether the UMEM is backed by huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Reserved huge pages if there are enough of them, else transparent ones where shared memory
    /// may have them, else pages of the normal size.
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
    #[error("{frames} frames: must be between {} and {}", MIN_FRAMES, MAX_FRAMES)]
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
