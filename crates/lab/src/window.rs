//! Rates of generator and sink over a measured time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Counters, Error, Generator, Sink, WIRE_OVERHEAD};

/// The frames offered and forwarded between two readings in the middle of a run, when no queue
/// fills or drains.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Frames sent by the generator.
    pub offered: Counters,
    /// Frames received by the sink.
    pub forwarded: Counters,
    /// Time between the readings, in seconds.
    pub seconds: f64,
}

impl Window {
    /// Measures for `time`.
    ///
    /// # Errors
    ///
    /// The counters cannot be read.
    pub fn measure(generator: &Generator, sink: &Sink, time: Duration) -> Result<Self, Error> {
        let before = Reading::take(generator, sink)?;
        thread::sleep(time);
        Ok(before.until(&Reading::take(generator, sink)?))
    }

    /// Returns the offered rate in packets per second.
    #[must_use]
    pub fn offered_pps(&self) -> f64 {
        per_second(self.offered.packets, self.seconds)
    }

    /// Returns the forwarded rate in packets per second.
    #[must_use]
    pub fn forwarded_pps(&self) -> f64 {
        per_second(self.forwarded.packets, self.seconds)
    }
}

/// A reading of the counters of generator and sink.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    offered: Counters,
    arrived: Counters,
}

impl Reading {
    /// Reads the counters of generator and sink.
    ///
    /// # Errors
    ///
    /// The counters cannot be read.
    pub fn take(generator: &Generator, sink: &Sink) -> Result<Self, Error> {
        let offered = generator.sent()?;
        let at = Instant::now();
        Ok(Self { at, offered, arrived: sink.seen()?.arrived })
    }

    /// Returns the window from here to `later`.
    #[must_use]
    pub fn until(&self, later: &Self) -> Window {
        Window {
            offered: later.offered - self.offered,
            forwarded: later.arrived - self.arrived,
            seconds: (later.at - self.at).as_secs_f64(),
        }
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Returns bits per second: of the frames in memory, and on an Ethernet including FCS, preamble and
/// inter-frame gap.
#[must_use]
pub fn bits_per_second(counters: Counters, seconds: f64) -> (f64, f64) {
    let wire = counters.bytes + counters.packets * WIRE_OVERHEAD;
    (8.0 * per_second(counters.bytes, seconds), 8.0 * per_second(wire, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_rate_of_smallest_frames_matches_line_rate() {
        // 14.88 Mpps of 60 bytes in memory (84 on the wire) fill 10 Gbit/s.
        let second = Counters { packets: 14_880_952, bytes: 14_880_952 * 60 };
        let (_, wire) = bits_per_second(second, 1.0);
        assert!((wire / 1e9 - 10.0).abs() < 0.001, "{wire}");
    }

    #[test]
    fn empty_window_has_zero_rate() {
        assert_eq!(Window::default().forwarded_pps(), 0.0);
    }
}
