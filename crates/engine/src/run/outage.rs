//! Outages of ports, and the signs of one.

use std::time::{Duration, Instant};

use xdpfwd_pipeline::Transmission;

use crate::host::interface::DeferredInterrupts;
use crate::host::link::Link;

/// Time after which a queue of a device in zero-copy mode that sends nothing is taken to be stuck,
/// for example because the device has lost its frames in a reset. It doubles each time that opening
/// the port again did not help, up to [`MAX_SEND_DEADLINE`]. In copy mode, the driver frees the
/// socket buffers after a reset, which reports the packets as sent.
const SEND_DEADLINE: Duration = Duration::from_secs(5);
const MAX_SEND_DEADLINE: Duration = Duration::from_secs(300);

/// A port's outages.
#[derive(Debug, Default)]
pub(crate) struct PortOutages {
    /// The current outage.
    pub(crate) current: Option<Outage>,
    /// Number of outages, including the current one.
    pub(crate) losses: u64,
    /// Duration of the earlier outages.
    pub(crate) earlier: Duration,
    /// For each queue of each worker.
    pub(crate) send_progress: Vec<SendProgress>,
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

/// Whether a queue of a device sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct SendProgress {
    /// Since when packets wait and none was sent.
    waiting_since: Option<Instant>,
    /// Number of sent packets at the last look.
    sent: u64,
    /// How often the queue was taken to be stuck since it last sent.
    stuck: u32,
}

impl SendProgress {
    /// Returns whether the queue is taken to be stuck: packets wait, and none was sent for the
    /// deadline.
    pub(crate) fn is_stuck(
        &mut self,
        now: Instant,
        Transmission { waits, sent }: Transmission,
    ) -> bool {
        if sent > self.sent {
            self.stuck = 0;
        }
        if !waits || sent != self.sent {
            self.waiting_since = None;
        }
        self.sent = sent;
        if !waits {
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        let deadline = (SEND_DEADLINE * 2u32.saturating_pow(self.stuck)).min(MAX_SEND_DEADLINE);
        let is_stuck = now.duration_since(since) >= deadline;
        self.stuck += u32::from(is_stuck);
        is_stuck
    }

    /// Starts anew with another socket. Remembers how often the queue was stuck.
    pub(crate) fn restart(&mut self) {
        (self.waiting_since, self.sent) = (None, 0);
    }
}

impl PortOutages {
    /// Returns the total duration of the outages.
    pub(crate) fn down(&self) -> Duration {
        let current = self.current.as_ref().map_or(Duration::ZERO, |outage| outage.since.elapsed());
        self.earlier + current
    }
}

/// What `DataPlane::check_ports` remembers between two calls.
#[derive(Debug, Default)]
pub(crate) struct RecoveryState {
    /// Whether links have changed since all workers last said whether their sockets are bound.
    pub(crate) links_changed: bool,
    /// Whether workers may have sockets or frames of closed ports that can be freed.
    pub(crate) has_quarantine: bool,
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
    fn queue_is_stuck_if_packets_wait_and_none_is_sent_for_deadline() {
        let start = Instant::now();
        let mut progress = SendProgress::default();
        // (time, packets wait, sent, is stuck)
        for (seconds, waits, sent, expected) in [
            (0, true, 100, false),
            (4, true, 100, false),
            (5, true, 100, true),
            // Opened again, and still stuck: the deadline is twice as long.
            (6, true, 0, false),
            (15, true, 0, false),
            (16, true, 0, true),
            // It sends: the deadline is the first one.
            (17, true, 0, false),
            (18, true, 1, false),
            (22, true, 1, false),
            (23, true, 1, true),
            // Without waiting packets, a queue is never stuck.
            (24, false, 0, false),
            (90, false, 0, false),
            (91, true, 0, false),
            (92, false, 0, false),
            (99, true, 0, false),
            (103, true, 0, false),
            // It has sent while no packet waited.
            (104, false, 5, false),
            (110, true, 5, false),
            (115, true, 5, true),
        ] {
            let now = start + Duration::from_secs(seconds);
            let is_stuck = progress.is_stuck(now, Transmission { waits, sent });
            assert_eq!(is_stuck, expected, "after {seconds} s");
            if is_stuck {
                progress.restart();
            }
        }
    }
}
