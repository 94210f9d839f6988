//! Limits how often a port repeats wake-ups of the kernel that have no effect.

use std::time::{Duration, Instant};

/// The pause after a wake-up that had no effect, doubled each time from 10 to 640 µs. The first
/// pauses are short, because a lack of kernel memory may end soon; later ones are long, because a
/// link can be down for hours. The maximum is below 1 ms, the longest time for which a worker with
/// unsent frames blocks.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// End and length of the pause; `None` after progress.
    pause: Option<(Instant, Duration)>,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_micros(10);
    const LONGEST: Duration = Duration::from_micros(640);

    /// Returns whether the pause is over. Reads the clock only if [`extend`](Self::extend) was
    /// called since the last [`reset`](Self::reset).
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.pause.is_none_or(|(end, _)| Instant::now() >= end)
    }

    /// Records a wake-up that had no effect: starts a pause, twice as long as the previous one.
    #[cold]
    pub(crate) fn extend(&mut self) {
        let length =
            self.pause.map_or(Self::SHORTEST, |(_, previous)| (previous * 2).min(Self::LONGEST));
        self.pause = Some((Instant::now() + length, length));
    }

    /// Records progress: ends the pause.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.pause = None;
    }
}
