//! When to repeat a wake-up that changed nothing.

use std::time::{Duration, Instant};

/// Spaces wake-ups that change nothing: the first is repeated after 10 µs, and each one after twice
/// as long as the one before, up to 640 µs. So a kernel that is out of memory for a moment is asked
/// again in that moment, and one whose link is down is asked no more than twice in the millisecond
/// that an idle worker waits anyway.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Not before this, and how long that was.
    pause: Option<(Instant, Duration)>,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_micros(10);
    const LONGEST: Duration = Duration::from_micros(640);

    /// Whether the pause is over, if there is one. Reads the clock only then.
    #[inline]
    pub(crate) fn allows(&self) -> bool {
        self.pause.is_none_or(|(end, _)| Instant::now() >= end)
    }

    /// A wake-up changed nothing: a pause, longer than the one before.
    #[cold]
    pub(crate) fn was_in_vain(&mut self) {
        let length = self.pause.map_or(Self::SHORTEST, |(_, last)| (last * 2).min(Self::LONGEST));
        self.pause = Some((Instant::now() + length, length));
    }

    /// Something has changed: no pause.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.pause = None;
    }
}
