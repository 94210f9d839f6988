//! IV ranges, from which workers draw.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xdpfwd_ipsec::Ivs;

use super::file::StateFile;

/// A range of IVs that one worker uses alone.
///
/// Drawing, taking and returning never wait and take no lock.
#[derive(Debug)]
pub struct IvRange {
    ivs: Ivs,
    /// Whether the writer was asked for the next epoch.
    has_requested: bool,
    /// Keeps the file locked while its IVs are in use.
    file: Arc<StateFile>,
}

impl StateFile {
    /// Takes a free IV range, exclusive until it is dropped. Returns `None` if all are taken.
    /// Never waits.
    pub fn iv_range(self: &Arc<Self>) -> Option<IvRange> {
        let mut ivs = self.shared.free_ivs.pop()?;
        // A former owner may have used it under an earlier epoch.
        ivs.advance_to(self.shared.epoch());
        Some(IvRange { ivs, has_requested: false, file: Arc::clone(self) })
    }
}

impl IvRange {
    /// Reserves up to `count` consecutive IVs. Returns `None` if the next epoch is not in the file
    /// yet.
    #[inline]
    pub fn reserve(&mut self, count: u32) -> Option<Range<u64>> {
        if self.ivs.left() < Ivs::PER_EPOCH / 2 {
            self.advance_epoch();
        }
        self.ivs.reserve(count)
    }

    /// Moves to the epoch in the file if that is a later one; otherwise asks for one, once.
    fn advance_epoch(&mut self) {
        let shared = &self.file.shared;
        if self.ivs.advance_to(shared.epoch()) {
            self.has_requested = false;
        } else if !self.has_requested {
            self.has_requested = true;
            let next = self.ivs.epoch().number().saturating_add(1);
            shared.epoch_wanted.fetch_max(next, Ordering::Relaxed);
            // Does not wait: sets the thread's token and wakes it, once per epoch.
            self.file.writer.unpark();
        }
    }
}

/// Returns the IVs. The file itself is closed later, by the control thread: a plan holds it until
/// its resources are released, which is after workers have dropped their stages.
impl Drop for IvRange {
    fn drop(&mut self) {
        let ivs = self.ivs.hand_over();
        let returned = self.file.shared.free_ivs.push(ivs);
        debug_assert!(returned.is_ok(), "there is room for all IV ranges");
    }
}
