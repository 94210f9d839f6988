//! UMEM configuration and errors.

use std::fs;
use std::io;

/// Configuration of a UMEM.
#[derive(Clone, Debug)]
pub struct UmemConfig {
    /// Bytes per chunk: 2048 or 4096, including headroom and tailroom.
    pub frame_size: u32,
    /// Number of chunks.
    pub frames: u32,
    /// Whether to back the memory with huge pages.
    pub huge_pages: HugePages,
}

pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

pub(crate) const MIN_FRAMES: u32 = 256;

pub(crate) const MAX_FRAMES: u32 = 1 << 20;

impl Default for UmemConfig {
    fn default() -> Self {
        Self { frame_size: 2048, frames: 16384, huge_pages: HugePages::Auto }
    }
}

impl UmemConfig {
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
    /// Reserved huge pages if enough are free. Otherwise transparent huge pages if the kernel
    /// allows them for shared memory, else normal pages.
    #[default]
    Auto,
    /// Reserved huge pages, or an error.
    On,
    /// No reserved huge pages; transparent huge pages if the kernel allows them for shared memory.
    Off,
}

/// Returns the number of huge pages in use; 0 if unknown. `vm.nr_hugepages` is the number of free
/// and used pages together.
fn pages_in_use() -> usize {
    let number = |file: &str| {
        let text = fs::read_to_string(format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{file}"));
        text.ok()?.trim().parse::<usize>().ok()
    };
    let in_use = || number("nr_hugepages")?.checked_sub(number("free_hugepages")?);
    in_use().unwrap_or(0)
}

/// Formats a size in MiB, or in KiB if it is not a whole number of MiB.
pub(crate) fn format_size(bytes: usize) -> String {
    match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

/// The reason why a UMEM could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UmemError {
    /// A frame size other than 2048 or 4096.
    #[error("umem.frame_size = {0} is invalid; use 2048 or 4096")]
    FrameSize(u32),
    /// Too few or too many frames.
    #[error("umem.frames = {frames} is out of range; use {MIN_FRAMES} to {MAX_FRAMES}")]
    Frames {
        /// Number of frames requested.
        frames: u32,
    },
    /// [`HugePages::On`] was requested, but too few reserved huge pages are free.
    #[error(
        "cannot allocate {} of packet memory in huge pages: {source}; {pages} pages of 2 MiB must \
         be free: reserve them, for example with `sysctl -w vm.nr_hugepages={}`, or set \
         huge_pages = \"auto\"",
        format_size(*.bytes),
        pages_in_use() + .pages
    )]
    HugePages {
        /// Bytes requested.
        bytes: usize,
        /// Number of huge pages required. The engine's errors state those of all workers together.
        pages: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// [`HugePages::On`] was requested for a size that does not fill huge pages (`xsk-rs` only).
    #[error(
        "cannot allocate {} of packet memory in huge pages: with io = \"xsk-rs\", the size must be \
         a multiple of 2 MiB; set umem.frames to a multiple of {}, or huge_pages = \"auto\"",
        format_size(*.bytes),
        HUGE_PAGE_BYTES / *.frame_size as usize
    )]
    PartialHugePage {
        /// Bytes requested.
        bytes: usize,
        /// Bytes per frame.
        frame_size: u32,
    },
    /// The memory could not be mapped.
    #[error(
        "cannot allocate {} of packet memory: {source}; reduce umem.frames or free memory",
        format_size(*.bytes)
    )]
    Map {
        /// Bytes requested.
        bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
}
