//! Security associations: what all workers know of one, and what one of them has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use ipsec::{Fingerprint, Protection, Transform, Window};

use super::outer::Outer;
use super::selector::Selector;
use super::state_file;
use super::values::{Backend, Mode};
use crate::reason::Reason;
use crate::report::SaReport;

/// How much an SA may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) soft_packets: Option<u64>,
    pub(super) hard_packets: Option<u64>,
    pub(super) soft_bytes: Option<u64>,
    pub(super) hard_bytes: Option<u64>,
}

/// What an SA is, in either direction.
pub(super) struct Association {
    pub(super) spi: u32,
    pub(super) transform: Transform,
    pub(super) fingerprint: Fingerprint,
    /// What is the same if another transform has the same key.
    pub(super) identity: Fingerprint,
    pub(super) mode: Mode,
    pub(super) esn: bool,
    pub(super) backend: Backend,
    pub(super) limits: Limits,
    /// Of an outbound one the destination, of an inbound one the source is looked at.
    pub(super) selector: Selector,
    pub(super) protection: Protection,
}

/// An SA that packets are sealed under.
pub(super) struct Outbound {
    pub(super) sa: Association,
    /// In tunnel mode.
    pub(super) outer: Option<Outer>,
    /// Source and destination port.
    pub(super) udp: Option<[u16; 2]>,
    shared: OnceLock<Arc<OutboundShared>>,
}

/// What outlasts a reload.
pub(super) struct OutboundShared {
    pub(super) numbers: Arc<state_file::Outbound>,
    pub(super) counts: Counts,
}

/// An SA whose packets are opened.
pub(super) struct Inbound {
    pub(super) sa: Association,
    pub(super) destination: Option<IpAddr>,
    pub(super) udp_port: Option<u16>,
    pub(super) window: u32,
    pub(super) queue: u16,
    shared: OnceLock<Arc<InboundShared>>,
}

/// What outlasts a reload.
pub(super) struct InboundShared {
    /// The window, while no worker has it.
    window: Mutex<Option<Window>>,
    state: Arc<state_file::Inbound>,
    pub(super) counts: Counts,
    /// Inner bytes since the start.
    pub(super) bytes: AtomicU64,
}

/// What was done, by all workers.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) packets: AtomicU64,
    drops: [AtomicU64; Reason::ALL.len()],
    /// The soft limits that were warned of.
    warned_of_packets: AtomicU64,
    warned_of_bytes: AtomicU64,
}

impl Counts {
    /// Counts a packet that was dropped.
    #[inline]
    pub(super) fn drop(&self, reason: Reason) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let counts =
            Reason::ALL.into_iter().zip(&self.drops).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.name(), count)).collect()
    }

    /// Warns once of each soft limit that is reached.
    fn warn(&self, direction: &str, sa: &Association, packets: u64, bytes: u64) {
        let warn = |what: &str, count: u64, soft: Option<u64>, hard: Option<u64>, warned: &AtomicU64| {
            let Some(soft) = soft.filter(|soft| count >= *soft) else { return };
            if warned.swap(soft, Ordering::Relaxed) != soft {
                let spi = sa.spi;
                let hard = hard.map_or("no hard limit".to_owned(), |hard| format!("at {hard} it ends"));
                tracing::warn!(
                    direction,
                    spi,
                    count,
                    "SA {spi:#x} ({direction}) has reached its soft limit of {soft} {what}, {hard}: it takes another key"
                );
            }
        };
        let limits = &sa.limits;
        warn("packets", packets, limits.soft_packets, limits.hard_packets, &self.warned_of_packets);
        warn("bytes", bytes, limits.soft_bytes, limits.hard_bytes, &self.warned_of_bytes);
    }
}

impl Association {
    /// Whether another one is the same, but for what a reload may change.
    fn is(&self, other: &Self) -> bool {
        let own = (self.spi, self.fingerprint, self.esn, self.mode);
        own == (other.spi, other.fingerprint, other.esn, other.mode)
    }

    fn judges_by(&self) -> String {
        let Self { spi, fingerprint, mode, esn, limits, selector, .. } = self;
        format!("{spi} {fingerprint} {mode:?} {esn} {limits:?} {selector:?}")
    }

    fn report(&self, direction: &'static str, counts: Option<&Counts>) -> SaReport {
        SaReport {
            direction,
            spi: self.spi,
            transform: self.transform.name(),
            fingerprint: self.fingerprint.to_string(),
            mode: self.mode.name(),
            source: None,
            destination: None,
            udp_ports: Vec::new(),
            esn: self.esn,
            backend: self.backend.name(),
            sequence: 0,
            packets: counts.map_or(0, |counts| counts.packets.load(Ordering::Relaxed)),
            bytes: 0,
            drops: counts.map(Counts::dropped).unwrap_or_default(),
            window: None,
            queue: None,
            soft_packets: self.limits.soft_packets,
            hard_packets: self.limits.hard_packets,
            soft_bytes: self.limits.soft_bytes,
            hard_bytes: self.limits.hard_bytes,
        }
    }
}

impl Outbound {
    pub(super) fn new(sa: Association, outer: Option<Outer>, udp: Option<[u16; 2]>) -> Self {
        Self { sa, outer, udp, shared: OnceLock::new() }
    }

    /// What all that seal under it share; `None` before it is prepared.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Arc<OutboundShared>> {
        self.shared.get()
    }

    /// Gives the numbers their limits: once it is at work, and not before it is certain that it will be.
    pub(super) fn limit(&self) {
        if let Some(shared) = self.shared.get() {
            shared.numbers.limit(self.sa.esn, self.sa.limits.hard_packets);
        }
    }

    /// What it goes by when it drops packets, and what it leaves of others.
    pub(super) fn judges_by(&self) -> String {
        format!("{} {:?} {:?}", self.sa.judges_by(), self.outer, self.udp)
    }

    /// Goes on with what one of the others has, or begins.
    pub(super) fn prepare<'a>(
        &self,
        state: &Arc<state_file::StateFile>,
        mut others: impl Iterator<Item = &'a Self>,
    ) -> Result<(), state_file::StateFileError> {
        let Association { spi, fingerprint, esn, limits, .. } = &self.sa;
        let numbers = state.outbound(*spi, *fingerprint, *esn, limits.hard_packets)?;
        let same =
            others.find(|other| other.sa.is(&self.sa) && other.outer.is_same_way(&self.outer) && other.udp == self.udp);
        let known =
            same.and_then(|other| other.shared.get().cloned()).filter(|known| Arc::ptr_eq(&known.numbers, &numbers));
        let shared = known.unwrap_or_else(|| Arc::new(OutboundShared { numbers, counts: Counts::default() }));
        let _ = self.shared.set(shared);
        Ok(())
    }

    pub(super) fn report(&self) -> SaReport {
        let shared = self.shared.get();
        let mut report = self.sa.report("out", shared.map(|shared| &shared.counts));
        report.source = self.outer.as_ref().map(Outer::source);
        report.destination = self.outer.as_ref().map(Outer::destination);
        report.udp_ports = self.udp.map(|ports| ports.to_vec()).unwrap_or_default();
        report.sequence = shared.map_or(0, |shared| shared.numbers.next().saturating_sub(1));
        report.bytes = shared.map_or(0, |shared| shared.numbers.bytes());
        report
    }

    pub(super) fn look_after(&self) {
        if let Some(shared) = self.shared.get() {
            let numbers = &shared.numbers;
            shared.counts.warn("out", &self.sa, numbers.next().saturating_sub(1), numbers.bytes());
        }
    }
}

/// Whether two ways lead from and to the same places.
trait SameWay {
    fn is_same_way(&self, other: &Self) -> bool;
}

impl SameWay for Option<Outer> {
    fn is_same_way(&self, other: &Self) -> bool {
        let ends = |outer: &Self| outer.as_ref().map(|outer| (outer.source(), outer.destination()));
        ends(self) == ends(other)
    }
}

impl Inbound {
    pub(super) fn new(
        sa: Association,
        destination: Option<IpAddr>,
        udp_port: Option<u16>,
        window: u32,
        queue: u16,
    ) -> Self {
        Self { sa, destination, udp_port, window, queue, shared: OnceLock::new() }
    }

    /// What all that look at it share; `None` before it is prepared.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Arc<InboundShared>> {
        self.shared.get()
    }

    /// Goes on with what one of the others has, or begins.
    pub(super) fn prepare<'a>(
        &self,
        state: &Arc<state_file::StateFile>,
        mut others: impl Iterator<Item = &'a Self>,
    ) -> Result<(), state_file::StateFileError> {
        let same = others.find(|other| other.sa.is(&self.sa));
        let state = state.inbound(self.sa.spi, self.sa.fingerprint)?;
        let known =
            same.and_then(|other| other.shared.get().cloned()).filter(|known| Arc::ptr_eq(&known.state, &state));
        let begun = || InboundShared {
            // Its size was looked at when the configuration was read.
            window: Mutex::new(Window::new(self.window, self.sa.esn).ok()),
            state,
            counts: Counts::default(),
            bytes: AtomicU64::new(0),
        };
        let _ = self.shared.set(known.unwrap_or_else(|| Arc::new(begun())));
        Ok(())
    }

    /// What it goes by when it drops packets.
    pub(super) fn judges_by(&self) -> String {
        let Self { destination, udp_port, queue, .. } = self;
        format!("{} {destination:?} {udp_port:?} {queue}", self.sa.judges_by())
    }

    /// The window, for the worker that the SA belongs to. `None`: another one has it yet.
    pub(super) fn take_window(&self) -> Option<HeldWindow> {
        let shared = Arc::clone(self.shared.get()?);
        let mut window = shared.window.try_lock().ok()?.take()?;
        if window.size() != self.window {
            let highest = window.highest();
            window = Window::new(self.window, self.sa.esn).unwrap_or(window);
            window.go_on_behind(highest);
        }
        window.go_on_behind(shared.state.highest());
        Some(HeldWindow { window: Some(window), shared })
    }

    pub(super) fn report(&self) -> SaReport {
        let shared = self.shared.get();
        let mut report = self.sa.report("in", shared.map(|shared| &shared.counts));
        report.destination = self.destination;
        report.udp_ports = self.udp_port.into_iter().collect();
        report.sequence = shared.map_or(0, |shared| shared.state.highest());
        report.bytes = shared.map_or(0, |shared| shared.bytes.load(Ordering::Relaxed));
        report.window = Some(self.window);
        report.queue = Some(self.queue);
        report
    }

    pub(super) fn look_after(&self) {
        if let Some(shared) = self.shared.get() {
            let packets = shared.counts.packets.load(Ordering::Relaxed);
            shared.counts.warn("in", &self.sa, packets, shared.bytes.load(Ordering::Relaxed));
        }
    }
}

/// A window in the hands of the one worker that has it. It goes back when this goes.
pub(super) struct HeldWindow {
    /// Always there, until it goes back.
    window: Option<Window>,
    shared: Arc<InboundShared>,
}

impl HeldWindow {
    #[inline]
    pub(super) fn window(&mut self) -> Option<&mut Window> {
        self.window.as_mut()
    }

    /// Lets others know how far it is.
    #[inline]
    pub(super) fn publish(&self) {
        if let Some(window) = &self.window {
            self.shared.state.set_highest(window.highest());
        }
    }
}

impl Drop for HeldWindow {
    fn drop(&mut self) {
        self.publish();
        // What a thread that panicked has left there is no less true.
        *self.shared.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.window.take();
    }
}
