//! What is known about the ports' interfaces and outages.

use std::time::{Duration, Instant};

use crate::host::interface::DeferredInterrupts;
use crate::host::link::Link;

/// Time after which a device in zero-copy mode that reports no packet as sent is taken to have lost
/// its frames, as after a reset. It doubles with each time that opening the port did not help, up to
/// [`MAX_SEND_DEADLINE`]. In copy mode, the kernel frees the socket buffers of such a device, which
/// reports the packets as sent.
const SEND_DEADLINE: Duration = Duration::from_secs(5);
const MAX_SEND_DEADLINE: Duration = Duration::from_secs(300);

/// A port's outages.
#[derive(Debug, Default)]
pub(crate) struct PortHealth {
    /// The current outage.
    pub(crate) outage: Option<Outage>,
    /// Number of outages, including the current one.
    pub(crate) losses: u64,
    /// Duration of the earlier outages.
    pub(crate) earlier: Duration,
    pub(crate) send_progress: SendProgress,
}

/// The time since a port was closed.
#[derive(Debug)]
pub(crate) struct Outage {
    /// Why the port is down.
    pub(crate) reason: String,
    pub(crate) since: Instant,
    /// The interface at the last attempt.
    pub(crate) seen: Option<InterfaceState>,
    pub(crate) next_attempt: Instant,
    pub(crate) delay: Duration,
    /// The index of the lost interface, and its interrupt settings before busy polling: the same
    /// interface may come back.
    pub(crate) interrupts: Option<(u32, DeferredInterrupts)>,
}

/// What decides whether an attempt to open a port can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceState {
    pub(crate) index: u32,
    pub(crate) is_up: bool,
    pub(crate) is_ethernet: bool,
}

/// Whether a device sends.
#[derive(Debug, Default)]
pub(crate) struct SendProgress {
    /// The number of sent packets, and the time, when packets were first seen to wait since the device
    /// last sent any.
    waiting: Option<(u64, Instant)>,
    /// How often the device was taken to be stuck since it last sent.
    stuck: u32,
}

impl SendProgress {
    /// Returns whether the device is taken to be stuck: packets wait, and it has sent none for the
    /// deadline. `sent` is the number of packets that it has reported as sent.
    pub(crate) fn is_stuck(&mut self, now: Instant, waiting: u64, sent: u64) -> bool {
        match self.waiting {
            Some((before, since)) if waiting > 0 && before == sent => {
                let deadline = SEND_DEADLINE * 2u32.saturating_pow(self.stuck);
                let is_stuck = now.duration_since(since) >= deadline.min(MAX_SEND_DEADLINE);
                if is_stuck {
                    self.stuck += 1;
                    self.waiting = None;
                }
                is_stuck
            }
            before => {
                if before.is_some_and(|(before, _)| sent > before) {
                    self.stuck = 0;
                }
                self.waiting = (waiting > 0).then_some((sent, now));
                false
            }
        }
    }
}

impl PortHealth {
    /// Returns the total duration of the outages.
    pub(crate) fn down(&self) -> Duration {
        let current = self.outage.as_ref().map_or(Duration::ZERO, |outage| outage.since.elapsed());
        self.earlier + current
    }
}

/// What `DataPlane::check_ports` remembers between two calls.
#[derive(Debug, Default)]
pub(crate) struct RecoveryState {
    /// Whether links have changed since all workers last said whether their sockets are bound.
    pub(crate) links_changed: bool,
    /// Whether workers may have sockets or frames of closed ports.
    pub(crate) has_remains: bool,
    pub(crate) last_probe: Option<Instant>,
}

impl InterfaceState {
    /// Returns the state of the interface with this index, if it exists.
    pub(crate) fn of(index: u32) -> Option<Self> {
        let link = Link::read(index).ok()?;
        Some(Self { index, is_up: link.is_up, is_ethernet: link.hardware_type.is_ethernet() })
    }

    pub(crate) fn is_usable(self) -> bool {
        self.is_up && self.is_ethernet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_is_stuck_if_packets_wait_and_none_is_sent_for_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = SendProgress::default();
        // (time, waiting, sent, is stuck)
        for (now, waiting, sent, expected) in [
            (0, 10, 100, false),
            (4, 10, 100, false),
            (5, 10, 100, true),
            // Opened again, and still stuck: the deadline is twice as long.
            (6, 5, 100, false),
            (12, 5, 100, false),
            (16, 5, 100, true),
            // It sends: the deadline is the first one.
            (17, 5, 100, false),
            (18, 5, 101, false),
            (22, 5, 101, false),
            (23, 5, 101, true),
            // Nothing waits for a while, then packets have waited for a moment only.
            (24, 0, 101, false),
            (90, 5, 101, false),
            (91, 5, 102, false),
        ] {
            assert_eq!(progress.is_stuck(at(now), waiting, sent), expected, "after {now} s");
        }
    }
}
