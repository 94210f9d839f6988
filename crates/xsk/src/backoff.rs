//! Pauses between wake-ups of the kernel that have no effect.

use std::time::{Duration, Instant};

/// Pauses between wake-ups of the kernel that have no effect. The pauses double from 10 to 640 µs.
/// After a temporary lack of kernel memory, the next wake-up follows soon. While the link is down,
/// there are at most two wake-ups per millisecond, the time that an idle worker waits.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// End and length of the latest pause; `None` if there was progress since.
    pause: Option<(Instant, Duration)>,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_micros(10);
    const LONGEST: Duration = Duration::from_micros(640);

    /// Returns whether no pause is in effect. Reads the clock only if [`extend`](Self::extend) was
    /// called since the last [`reset`](Self::reset).
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.pause.is_none_or(|(end, _)| Instant::now() >= end)
    }

    /// Records a wake-up that had no effect: starts a pause, longer than the previous one.
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
