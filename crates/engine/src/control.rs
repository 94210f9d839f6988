//! The control thread's event loop: signals, the clock, workers that end, and changes of the host.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::netlink::Monitor;

const SIGNALS: Token = Token(0);
const WORKERS: Token = Token(1);
const HOST: Token = Token(2);

/// Waits for what the control thread has to react to. Packets are none of its business.
pub struct Control {
    poll: Poll,
    events: Events,
    signals: Signals,
    waker: Arc<mio::Waker>,
    host: Monitor,
    /// What has happened and was not returned yet: the kernel does not say it again.
    woken: bool,
    host_changed: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGINT or SIGTERM came: its number.
    Stop(i32),
    /// A worker's thread ended, or somebody called the waker.
    Woken,
    /// Links or addresses of this network namespace are others than before: time for
    /// [`DataPlane::follow_host`](crate::DataPlane::follow_host).
    HostChanged,
    /// The time is there.
    Due,
}

impl Control {
    /// Takes over SIGINT and SIGTERM for the process.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WORKERS)?);
        let host = Monitor::new()?;
        poll.registry().register(&mut SourceFd(&host.as_raw_fd()), HOST, Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(8), signals, waker, host, woken: false, host_changed: false })
    }

    /// Ends a [`wait`](Self::wait) from another thread.
    pub(crate) fn waker(&self) -> Arc<mio::Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits for an event, until `due` at the latest. What has happened already comes before the time: a clock that is always
    /// due does not keep signals away.
    pub fn wait(&mut self, due: Instant) -> io::Result<Event> {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            // epoll counts in milliseconds and rounds down: one more, or the last one would spin.
            let timeout = if left.is_zero() || self.woken || self.host_changed {
                Duration::ZERO
            } else {
                left + Duration::from_millis(1)
            };
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.woken |= self.events.iter().any(|event| event.token() == WORKERS);
            self.host_changed |= self.events.iter().any(|event| event.token() == HOST);
            if let Some(signal) = self.signals.pending().next() {
                return Ok(Event::Stop(signal));
            }
            if mem::take(&mut self.woken) {
                return Ok(Event::Woken);
            }
            if mem::take(&mut self.host_changed) {
                self.host.drain();
                return Ok(Event::HostChanged);
            }
            if left.is_zero() {
                return Ok(Event::Due);
            }
        }
    }
}
