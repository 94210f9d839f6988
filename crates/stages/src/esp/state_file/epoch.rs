//! The epoch of a run.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use xdpfwd_ipsec::{Epoch, EpochError};

use super::error::StateFileProblem;

/// Longest wait for a clock that is behind the last epoch, in seconds.
const WAIT_FOR_CLOCK: u64 = 5;

/// Returns the epoch of this run, later than the stored one. Waits for a clock that is slightly
/// behind.
pub(super) fn next_epoch(stored: u32, given: &Path) -> Result<Epoch, StateFileProblem> {
    let mut is_logged = false;
    loop {
        match Epoch::next(Some(Epoch::of(stored)), now()) {
            Ok(epoch) => return Ok(epoch),
            Err(EpochError::ClockBehind { now, stored }) if stored - now <= WAIT_FOR_CLOCK => {
                if !is_logged {
                    let (state_file, seconds) = (given.display(), stored - now);
                    tracing::info!(
                        %state_file,
                        seconds,
                        "waiting for the clock, which is behind the last epoch"
                    );
                }
                is_logged = true;
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(StateFileProblem::Epoch { error, path: given.to_owned() }),
        }
    }
}

/// Returns the seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
