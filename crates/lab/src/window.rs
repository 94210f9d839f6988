//! Rates at both ends over a measured time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Counters, Error, Generator, Sink, WIRE_OVERHEAD};

/// What was offered and what arrived between two moments in the middle of a run, each counted in
/// the kernel where it happened. Rates from here leave out the start and the end of a run, where
/// queues fill and drain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// What the generator sent.
    pub offered: Counters,
    /// What the sink saw.
    pub forwarded: Counters,
    /// The time between the two readings.
    pub seconds: f64,
}

impl Window {
    /// Sleeps for `time` and reads both ends before and after.
    ///
    /// # Errors
    ///
    /// The counters can't be read.
    pub fn measure(generator: &Generator, sink: &Sink, time: Duration) -> Result<Self, Error> {
        let before = Reading::take(generator, sink)?;
        thread::sleep(time);
        Ok(before.until(&Reading::take(generator, sink)?))
    }

    /// Packets per second offered.
    #[must_use]
    pub fn offered_pps(&self) -> f64 {
        per_second(self.offered.packets, self.seconds)
    }

    /// Packets per second that arrived.
    #[must_use]
    pub fn forwarded_pps(&self) -> f64 {
        per_second(self.forwarded.packets, self.seconds)
    }
}

/// Both ends at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    offered: Counters,
    arrived: Counters,
}

impl Reading {
    /// Reads both ends now.
    ///
    /// # Errors
    ///
    /// The counters can't be read.
    pub fn take(generator: &Generator, sink: &Sink) -> Result<Self, Error> {
        let offered = generator.sent()?;
        let at = Instant::now();
        Ok(Self { at, offered, arrived: sink.seen()?.arrived })
    }

    /// From this reading to a later one.
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

/// Bits per second of `counters` over `seconds`: frame lengths in memory, and what they would take
/// on an Ethernet.
#[must_use]
pub fn bits_per_second(counters: Counters, seconds: f64) -> (f64, f64) {
    let wire = counters.bytes + counters.packets * WIRE_OVERHEAD;
    (8.0 * per_second(counters.bytes, seconds), 8.0 * per_second(wire, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_rate_of_smallest_frames_is_the_line_rate_table() {
        // 14.88 Mpps of 60 bytes in memory fill 10 Gbit/s.
        let second = Counters { packets: 14_880_952, bytes: 14_880_952 * 60 };
        let (_, wire) = bits_per_second(second, 1.0);
        assert!((wire / 1e9 - 10.0).abs() < 0.001, "{wire}");
    }

    #[test]
    fn an_empty_window_has_no_rate() {
        assert_eq!(Window::default().forwarded_pps(), 0.0);
    }
}
