//! Backoff for repeated wake-ups that changed nothing.

use std::time::{Duration, Instant};

/// Backoff for wake-ups that change nothing. Pauses double from 10 µs to 640 µs. A temporary lack
/// of kernel memory is retried quickly; while the link is down, there are at most two wake-ups in
/// the millisecond that an idle worker waits anyway.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// End of the pause, and its length.
    pause: Option<(Instant, Duration)>,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_micros(10);
    const LONGEST: Duration = Duration::from_micros(640);

    /// Returns whether no pause is in effect. Reads the clock only during a pause.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.pause.is_none_or(|(end, _)| Instant::now() >= end)
    }

    /// Records a wake-up that changed nothing: starts a longer pause.
    #[cold]
    pub(crate) fn extend(&mut self) {
        let length = self.pause.map_or(Self::SHORTEST, |(_, last)| (last * 2).min(Self::LONGEST));
        self.pause = Some((Instant::now() + length, length));
    }

    /// Records progress: ends the pause.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.pause = None;
    }
}
