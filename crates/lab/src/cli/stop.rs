//! The flag that stops a command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A flag that SIGINT (Ctrl-C), SIGTERM and SIGHUP set. Commands then end normally and remove the
/// lab.
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in
            [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("installing a signal handler")?;
        }
        Ok(Self(flag))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted; stopping the forwarder and removing the lab");
        }
        Ok(())
    }

    /// Sleeps until the time `from` + `time`. Ends early if the flag is set.
    pub(super) fn sleep_until(&self, from: Instant, time: Duration) {
        while !self.is_set() {
            match time.checked_sub(from.elapsed()) {
                Some(remaining) if !remaining.is_zero() => {
                    thread::sleep(remaining.min(POLL_INTERVAL))
                }
                _ => return,
            }
        }
    }
}
