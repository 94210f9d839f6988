//! The events of the control thread.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::host::Monitor;

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const HOST: Token = Token(2);

/// The event source of the control thread, which never handles packets.
pub struct Control {
    poll: Poll,
    events: Events,
    signals: Signals,
    waker: Arc<mio::Waker>,
    pending: Arc<PendingRequests>,
    host: Monitor,
    /// Whether to return [`Event::Woken`]. A field, because the kernel reports a wake-up only once,
    /// and [`wait`](Self::wait) may return another event first.
    woken: bool,
    /// Whether to return [`Event::Reload`].
    reload: bool,
    /// When to return the next [`Event::HostChanged`].
    next_host_changed: Option<Instant>,
    /// When the last [`Event::HostChanged`] was returned.
    last_host_changed: Option<Instant>,
}

#[derive(Default)]
struct PendingRequests {
    reload: AtomicBool,
    stop: AtomicBool,
}

/// Sends requests from any thread to the control thread.
#[derive(Clone)]
pub(crate) struct Requests {
    pending: Arc<PendingRequests>,
    waker: Arc<mio::Waker>,
}

impl Requests {
    pub(crate) fn reload(&self) {
        self.request(&self.pending.reload);
    }

    pub(crate) fn stop(&self) {
        self.request(&self.pending.stop);
    }

    fn request(&self, flag: &AtomicBool) {
        // Set the flag before the wake-up. Otherwise the control thread can wake up, find the flag
        // clear, and wait again.
        flag.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            tracing::error!(
                %error,
                "cannot wake the control thread; it handles the request at its next event"
            );
        }
    }
}

/// Minimum time between two [`Event::HostChanged`], so that frequent changes do not keep the
/// control thread busy.
const HOST_MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Time after which the last [`Event::HostChanged`] is repeated once: the kernel reports a new
/// address before it adds the address's route.
const HOST_SETTLE_TIME: Duration = Duration::from_secs(1);

/// An event for the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGINT or SIGTERM (its number) arrived.
    Stop(i32),
    /// Another thread called [`Handle::request_stop`](crate::Handle::request_stop).
    StopRequested,
    /// SIGHUP, or another thread called [`Handle::request_reload`](crate::Handle::request_reload):
    /// read the configuration again.
    Reload,
    /// A worker failed, or the control socket has a request. Can occur without a cause.
    Woken,
    /// Links or addresses of this network namespace changed: call
    /// [`DataPlane::update_host_addresses`](crate::DataPlane::update_host_addresses).
    HostChanged,
    /// The deadline of [`Control::wait`] has passed.
    Due,
}

impl Control {
    /// Installs handlers for SIGINT, SIGTERM and SIGHUP.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER)?);
        let host = Monitor::new()?;
        poll.registry().register(&mut SourceFd(&host.as_raw_fd()), HOST, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(8),
            signals,
            waker,
            pending: Arc::default(),
            host,
            woken: false,
            reload: false,
            next_host_changed: None,
            last_host_changed: None,
        })
    }

    /// Returns a waker that makes [`wait`](Self::wait) return [`Event::Woken`].
    pub(crate) fn waker(&self) -> Arc<mio::Waker> {
        Arc::clone(&self.waker)
    }

    pub(crate) fn requests(&self) -> Requests {
        Requests { pending: Arc::clone(&self.pending), waker: self.waker() }
    }

    /// Waits for an event; [`Event::Due`] if none occurs before the deadline. Returns pending
    /// signals, requests and wake-ups even after the deadline.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Event> {
        loop {
            let now = Instant::now();
            let wake_at = self.next_host_changed.map_or(deadline, |next| next.min(deadline));
            let remaining = if self.woken || self.reload {
                Duration::ZERO
            } else {
                wake_at.saturating_duration_since(now)
            };
            // epoll rounds timeouts down to milliseconds. Add 1 ms to avoid a busy loop in the last
            // millisecond.
            let timeout =
                if remaining.is_zero() { remaining } else { remaining + Duration::from_millis(1) };
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.woken |= self.events.iter().any(|event| event.token() == WAKER);
            if self.events.iter().any(|event| event.token() == HOST) {
                self.host.drain();
                let earliest = self.last_host_changed.map_or(now, |last| last + HOST_MIN_INTERVAL);
                self.next_host_changed =
                    Some(self.next_host_changed.map_or(earliest, |next| next.min(earliest)));
            }
            for signal in self.signals.pending() {
                if signal != SIGHUP {
                    return Ok(Event::Stop(signal));
                }
                self.reload = true;
            }
            if self.pending.stop.swap(false, Ordering::AcqRel) {
                return Ok(Event::StopRequested);
            }
            self.reload |= self.pending.reload.swap(false, Ordering::AcqRel);
            if mem::take(&mut self.reload) {
                return Ok(Event::Reload);
            }
            if mem::take(&mut self.woken) {
                return Ok(Event::Woken);
            }
            let now = Instant::now();
            // Of `HostChanged` and `Due`, return the event that was due earlier, so that neither
            // starves the other.
            match self.next_host_changed {
                Some(due) if due <= now && due <= deadline => {
                    // Repeat the event once, after the settle time. If that time has passed since
                    // the previous event, this event is the repetition.
                    let settled =
                        self.last_host_changed.is_some_and(|last| due >= last + HOST_SETTLE_TIME);
                    self.next_host_changed = (!settled).then(|| now + HOST_SETTLE_TIME);
                    self.last_host_changed = Some(now);
                    return Ok(Event::HostChanged);
                }
                _ if deadline <= now => return Ok(Event::Due),
                _ => {}
            }
        }
    }
}
