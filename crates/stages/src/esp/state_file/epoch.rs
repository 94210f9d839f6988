//! The epoch of a run (upper 32 bits of its IVs): a time in seconds since 1970, later than all
//! earlier epochs.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use xdpfwd_ipsec::{Epoch, EpochError};

use super::error::StateFileProblem;

/// Maximum seconds by which the clock may be behind the last epoch at the start of a run.
const MAX_BEHIND: u64 = 5;

/// Returns the epoch of this run, later than the stored one. Waits if the clock is behind the
/// stored one by at most [`MAX_BEHIND`]. `path` is the state file, for messages.
pub(super) fn next_epoch(stored: u32, path: &Path) -> Result<Epoch, StateFileProblem> {
    let mut is_logged = false;
    loop {
        match Epoch::next(Some(Epoch::from_number(stored)), now()) {
            Ok(epoch) => return Ok(epoch),
            Err(EpochError::ClockBehind { now, stored }) if stored - now <= MAX_BEHIND => {
                if !is_logged {
                    let (state_file, seconds) = (path.display(), stored - now);
                    tracing::info!(
                        %state_file,
                        seconds,
                        "waiting for the clock, which is behind the last epoch"
                    );
                }
                is_logged = true;
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(StateFileProblem::Epoch { error, path: path.to_owned() }),
        }
    }
}

/// Returns the time in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
