//! IV ranges: the IVs of one worker. The upper 32 bits of an IV are its epoch. The state file has
//! the latest epoch, so that no later run repeats an IV.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xdpfwd_ipsec::Ivs;

use super::file::StateFile;

/// IVs that only one worker uses. No method waits or locks.
#[derive(Debug)]
pub struct IvRange {
    ivs: Ivs,
    /// Whether the next epoch was requested from the writer thread.
    has_requested: bool,
    /// Keeps the file locked while its IVs are in use.
    file: Arc<StateFile>,
}

impl StateFile {
    /// Takes a range that no other caller gets until it is dropped. Returns `None` if none is free.
    /// Never waits.
    pub fn iv_range(self: &Arc<Self>) -> Option<IvRange> {
        let mut ivs = self.shared.free_ivs.pop()?;
        // The previous owner may have used the range in an earlier epoch.
        ivs.advance_to(self.shared.epoch());
        Some(IvRange { ivs, has_requested: false, file: Arc::clone(self) })
    }
}

impl IvRange {
    /// Reserves up to `count` consecutive IVs. Returns `None` if the epoch has none left, and the
    /// next epoch is not in the file yet.
    #[inline]
    pub fn reserve(&mut self, count: u32) -> Option<Range<u64>> {
        if self.ivs.left() < Ivs::PER_EPOCH / 2 {
            self.advance_epoch();
        }
        self.ivs.reserve(count)
    }

    /// Moves to the epoch in the file if it is later. Otherwise, requests the next epoch, once.
    fn advance_epoch(&mut self) {
        let shared = &self.file.shared;
        if self.ivs.advance_to(shared.epoch()) {
            self.has_requested = false;
        } else if !self.has_requested {
            self.has_requested = true;
            let next = self.ivs.epoch().number().saturating_add(1);
            shared.epoch_wanted.fetch_max(next, Ordering::Relaxed);
            // `unpark` does not wait, and runs once per epoch.
            self.file.writer.unpark();
        }
    }
}

/// Frees the range. Never drops the last reference to the file, which would wait for a write: the
/// plan keeps the file open until workers have dropped their stages.
impl Drop for IvRange {
    fn drop(&mut self) {
        let ivs = self.ivs.hand_over();
        let returned = self.file.shared.free_ivs.push(ivs);
        debug_assert!(returned.is_ok(), "the queue has no room for a returned IV range");
    }
}
