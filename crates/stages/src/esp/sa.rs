//! Security associations, and the state that workers share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use xdpfwd_ipsec::{Fingerprint, Protection, Transform, Window};

use super::outer::OuterHeader;
use super::selector::Selector;
use super::state_file::{InboundProgress, OutboundNumbers, StateFile, StateFileError};
use super::values::{Backend, Mode};
use xdpfwd_pipeline::{Cell, QueueBinding, Reason, Table, Unit};
use xdpfwd_xsk::clock;

/// An SA's row of the inspection table. Does not contain the key.
#[derive(Clone, Debug, Default)]
pub(super) struct SaStatus {
    direction: &'static str,
    spi: u32,
    transform: &'static str,
    fingerprint: String,
    mode: &'static str,
    /// The addresses of the outer header; for an inbound SA, the required ones, if configured.
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    /// Source and destination; for an inbound SA, only the destination.
    udp_ports: Vec<u16>,
    esn: bool,
    backend: &'static str,
    /// Highest sequence number used or received.
    sequence: u64,
    /// Packets since xdpfwd started or the SA was added.
    packets: u64,
    /// Bytes of inner packets; for an outbound SA, also those of earlier runs.
    bytes: u64,
    drops: BTreeMap<&'static str, u64>,
    /// Size of an inbound SA's anti-replay window in packets.
    window: Option<u32>,
    /// The queue whose worker owns an inbound SA.
    queue: Option<u16>,
    limits: Limits,
    /// Why the state file cannot be written.
    fault: Option<String>,
}

/// Returns the table that `xdpfwd ctl sa` prints.
pub(super) fn table(sas: impl Iterator<Item = SaStatus>) -> Table {
    const PACKETS: Option<Unit> = Some(Unit::Packets);
    const BYTES: Option<Unit> = Some(Unit::Bytes);
    let mut table = Table::new(
        "sas",
        &[
            ("direction", None),
            ("spi", None),
            ("transform", None),
            ("fingerprint", None),
            ("mode", None),
            ("source", None),
            ("destination", None),
            ("udp_ports", None),
            ("esn", None),
            ("backend", None),
            ("sequence", None),
            ("packets", PACKETS),
            ("bytes", BYTES),
            ("drops", PACKETS),
            ("window", PACKETS),
            ("queue", None),
            ("soft_packets", PACKETS),
            ("hard_packets", PACKETS),
            ("soft_bytes", BYTES),
            ("hard_bytes", BYTES),
            ("fault", None),
        ],
    );
    table.rows.extend(sas.map(SaStatus::into_row));
    table
}

impl SaStatus {
    pub(super) fn with_fault(self, fault: Option<String>) -> Self {
        Self { fault, ..self }
    }

    fn into_row(self) -> Vec<Cell> {
        let address =
            |address: Option<IpAddr>| Cell::from(address.map(|address| address.to_string()));
        let Limits { soft_packets, hard_packets, soft_bytes, hard_bytes } = self.limits;
        vec![
            self.direction.into(),
            self.spi.into(),
            self.transform.into(),
            self.fingerprint.into(),
            self.mode.into(),
            address(self.source),
            address(self.destination),
            self.udp_ports.into(),
            self.esn.into(),
            self.backend.into(),
            self.sequence.into(),
            self.packets.into(),
            self.bytes.into(),
            Cell::Map(self.drops),
            self.window.into(),
            self.queue.into(),
            soft_packets.into(),
            hard_packets.into(),
            soft_bytes.into(),
            hard_bytes.into(),
            self.fault.into(),
        ]
    }
}

/// An SA's limits; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) soft_packets: Option<u64>,
    pub(super) hard_packets: Option<u64>,
    pub(super) soft_bytes: Option<u64>,
    pub(super) hard_bytes: Option<u64>,
}

/// The fields that outbound and inbound SAs share.
pub(super) struct Association {
    pub(super) spi: u32,
    pub(super) transform: Transform,
    pub(super) fingerprint: Fingerprint,
    /// Equal for SAs that share key and salt; `fingerprint` also depends on the transform.
    pub(super) identity: Fingerprint,
    pub(super) mode: Mode,
    pub(super) esn: bool,
    pub(super) backend: Backend,
    pub(super) limits: Limits,
    /// Matches the destination before encapsulation, or the source after decapsulation.
    pub(super) selector: Selector,
    pub(super) protection: Protection,
}

pub(super) trait SecurityAssociation: Sized + Send + Sync + 'static {
    fn association(&self) -> &Association;

    /// Sets `shared` to that of the same SA among `others` (the SAs of other plans). Without one,
    /// creates it from the state file.
    fn acquire<'a>(
        &self,
        state: &Arc<StateFile>,
        others: impl Iterator<Item = &'a Self>,
    ) -> Result<(), StateFileError>;

    /// Returns a text for comparison on a reload: SAs with equal texts drop the same packets.
    fn verdict_key(&self) -> String;

    fn status(&self) -> SaStatus;

    /// Warns once of each soft limit reached.
    fn maintain(&self);
}

pub(super) struct Outbound {
    pub(super) sa: Association,
    /// `None` in transport mode.
    pub(super) outer: Option<OuterHeader>,
    /// Source and destination; `None` if ESP is not in UDP.
    pub(super) udp: Option<[u16; 2]>,
    shared: OnceLock<Arc<OutboundShared>>,
}

/// An outbound SA's state, which survives a reload.
pub(super) struct OutboundShared {
    pub(super) numbers: Arc<OutboundNumbers>,
    pub(super) counts: Counts,
}

pub(super) struct Inbound {
    pub(super) sa: Association,
    /// The required outer addresses, if configured.
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    /// The required port; `None` if ESP is not in UDP.
    pub(super) udp_port: Option<u16>,
    /// Size of the anti-replay window in packets.
    pub(super) window: u32,
    /// The queue whose worker owns the SA.
    pub(super) queue: u16,
    shared: OnceLock<Arc<InboundShared>>,
}

/// An inbound SA's state, which survives a reload.
pub(super) struct InboundShared {
    /// The anti-replay window, in a lock-free slot that is empty while a worker holds the window.
    window: ArrayQueue<Window>,
    pub(super) progress: Arc<InboundProgress>,
    pub(super) counts: Counts,
    /// Bytes decapsulated since xdpfwd started or the SA was added.
    pub(super) bytes: AtomicU64,
}

/// An SA's counts, over all workers.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) packets: AtomicU64,
    drops: DropCounts,
    /// The soft limits of the last warnings; 0 for none.
    warned_packets: AtomicU64,
    warned_bytes: AtomicU64,
}

/// An SA's drops by reason. A reason takes the next free counter when it first occurs.
#[derive(Default)]
struct DropCounts([(AtomicU16, AtomicU64); DropCounts::MAX]);

impl DropCounts {
    /// Maximum number of drop reasons per SA.
    const MAX: usize = 24;
    /// ID of a free counter; the ID of a used one is the number of its reason plus 1.
    const FREE: u16 = 0;

    fn count(&self, reason: Reason) {
        let id = u16::from(reason.number()) + 1;
        for (counter_id, count) in &self.0 {
            let taken_by = match counter_id.load(Ordering::Relaxed) {
                Self::FREE => counter_id
                    .compare_exchange(Self::FREE, id, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|other_id| other_id, |_| id),
                other_id => other_id,
            };
            if taken_by == id {
                count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        debug_assert!(false, "an SA has more than {} drop reasons", Self::MAX);
    }

    fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let used = self
            .0
            .iter()
            .map(|(id, count)| (id.load(Ordering::Relaxed), count.load(Ordering::Relaxed)));
        let used = used.filter(|(id, count)| *id != Self::FREE && *count > 0);
        used.filter_map(|(id, count)| {
            let reason = Reason::all().find(|reason| u16::from(reason.number()) + 1 == id)?;
            Some((reason.name(), count))
        })
        .collect()
    }
}

impl Counts {
    #[inline]
    pub(super) fn drop(&self, reason: Reason) {
        self.drops.count(reason);
    }

    fn warn(&self, direction: &str, sa: &Association, packets: u64, bytes: u64) {
        let warn =
            |unit: &str, count: u64, soft: Option<u64>, hard: Option<u64>, warned: &AtomicU64| {
                let Some(soft) = soft.filter(|soft| count >= *soft) else { return };
                if warned.swap(soft, Ordering::Relaxed) != soft {
                    let spi = sa.spi;
                    let hard = hard.map_or("none".to_owned(), |hard| hard.to_string());
                    tracing::warn!(
                        direction,
                        spi,
                        count,
                        "SA {spi:#x} ({direction}) has reached its soft limit of {soft} {unit} \
                     (hard limit: {hard}); replace its key"
                    );
                }
            };
        let limits = &sa.limits;
        warn("packets", packets, limits.soft_packets, limits.hard_packets, &self.warned_packets);
        warn("bytes", bytes, limits.soft_bytes, limits.hard_bytes, &self.warned_bytes);
    }
}

impl Association {
    /// Returns whether `other` is this SA, perhaps with other values of settings that a reload may
    /// change.
    fn is_same(&self, other: &Self) -> bool {
        (self.spi, self.fingerprint, self.esn, self.mode)
            == (other.spi, other.fingerprint, other.esn, other.mode)
    }

    fn verdict_key(&self) -> String {
        let Self { spi, fingerprint, mode, esn, limits, selector, .. } = self;
        format!("{spi} {fingerprint} {mode:?} {esn} {limits:?} {selector:?}")
    }

    fn status(&self, direction: &'static str, counts: Option<&Counts>) -> SaStatus {
        SaStatus {
            direction,
            spi: self.spi,
            transform: self.transform.name(),
            fingerprint: self.fingerprint.to_string(),
            mode: self.mode.into(),
            source: None,
            destination: None,
            udp_ports: Vec::new(),
            esn: self.esn,
            backend: self.backend.into(),
            sequence: 0,
            packets: counts.map_or(0, |counts| counts.packets.load(Ordering::Relaxed)),
            bytes: 0,
            drops: counts.map(|counts| counts.drops.by_name()).unwrap_or_default(),
            window: None,
            queue: None,
            limits: self.limits,
            fault: None,
        }
    }
}

impl Outbound {
    pub(super) fn new(sa: Association, outer: Option<OuterHeader>, udp: Option<[u16; 2]>) -> Self {
        Self { sa, outer, udp, shared: OnceLock::new() }
    }

    /// Returns `None` before `acquire`.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Arc<OutboundShared>> {
        self.shared.get()
    }

    /// Applies the SA's limits to its sequence numbers. Do not call this before the plan is in use:
    /// until then, an older plan may use the same numbers.
    pub(super) fn limit(&self) {
        if let Some(shared) = self.shared.get() {
            shared.numbers.limit(self.sa.esn, self.sa.limits.hard_packets);
        }
    }
}

impl SecurityAssociation for Outbound {
    fn association(&self) -> &Association {
        &self.sa
    }

    fn acquire<'a>(
        &self,
        state: &Arc<StateFile>,
        mut others: impl Iterator<Item = &'a Self>,
    ) -> Result<(), StateFileError> {
        let Association { spi, fingerprint, esn, limits, .. } = &self.sa;
        let numbers = state.outbound(*spi, *fingerprint, *esn, limits.hard_packets)?;
        let is_same = |other: &&Self| {
            other.sa.is_same(&self.sa)
                && tunnel_addresses(&other.outer) == tunnel_addresses(&self.outer)
                && other.udp == self.udp
        };
        let existing = others.find(is_same).and_then(|other| other.shared.get().cloned());
        let existing = existing.filter(|existing| Arc::ptr_eq(&existing.numbers, &numbers));
        let new = || Arc::new(OutboundShared { numbers, counts: Counts::default() });
        let _ = self.shared.set(existing.unwrap_or_else(new));
        Ok(())
    }

    fn verdict_key(&self) -> String {
        format!("{} {:?} {:?}", self.sa.verdict_key(), self.outer, self.udp)
    }

    fn status(&self) -> SaStatus {
        let shared = self.shared.get();
        let mut status = self.sa.status("out", shared.map(|shared| &shared.counts));
        status.source = self.outer.as_ref().map(OuterHeader::source);
        status.destination = self.outer.as_ref().map(OuterHeader::destination);
        status.udp_ports = self.udp.map(|ports| ports.to_vec()).unwrap_or_default();
        status.sequence = shared.map_or(0, |shared| shared.numbers.next().saturating_sub(1));
        status.bytes = shared.map_or(0, |shared| shared.numbers.bytes());
        status
    }

    fn maintain(&self) {
        if let Some(shared) = self.shared.get() {
            let numbers = &shared.numbers;
            shared.counts.warn("out", &self.sa, numbers.next().saturating_sub(1), numbers.bytes());
        }
    }
}

fn tunnel_addresses(outer: &Option<OuterHeader>) -> Option<(IpAddr, IpAddr)> {
    outer.as_ref().map(|outer| (outer.source(), outer.destination()))
}

impl Inbound {
    pub(super) fn new(
        sa: Association,
        [source, destination]: [Option<IpAddr>; 2],
        udp_port: Option<u16>,
        window: u32,
        queue: u16,
    ) -> Self {
        Self { sa, source, destination, udp_port, window, queue, shared: OnceLock::new() }
    }

    /// Returns `None` before `acquire`.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Arc<InboundShared>> {
        self.shared.get()
    }

    /// Takes the window for the SA's worker. Returns `None` if another worker still holds it.
    pub(super) fn take_window(&self) -> Option<HeldWindow> {
        let shared = Arc::clone(self.shared.get()?);
        let mut window = shared.window.pop()?;
        // A reload may have changed the size. The new window treats all numbers up to the highest
        // as received.
        if window.size() != self.window {
            let highest = window.highest();
            window = Window::new(self.window, self.sa.esn).unwrap_or(window);
            window.mark_received_up_to(highest);
        }
        window.mark_received_up_to(shared.progress.highest());
        Some(HeldWindow { window: Some(window), shared })
    }

    /// Returns the queue on which packets must arrive, and the flow for `ethtool -N`.
    pub(super) fn queue_binding(&self) -> QueueBinding {
        let destination =
            self.destination.map_or(String::new(), |destination| format!(" dst-ip {destination}"));
        let version = if matches!(self.destination, Some(IpAddr::V6(_))) { 6 } else { 4 };
        let spi = self.sa.spi;
        let flow = match self.udp_port {
            // Flow rules cannot match the SPI in UDP.
            Some(port) => format!("flow-type udp{version}{destination} dst-port {port}"),
            None => format!("flow-type esp{version}{destination} spi {spi:#x}"),
        };
        QueueBinding { queue: self.queue, owner: format!("SA {spi:#x}"), flow }
    }
}

impl SecurityAssociation for Inbound {
    fn association(&self) -> &Association {
        &self.sa
    }

    fn acquire<'a>(
        &self,
        state: &Arc<StateFile>,
        mut others: impl Iterator<Item = &'a Self>,
    ) -> Result<(), StateFileError> {
        let progress = state.inbound(self.sa.spi, self.sa.fingerprint)?;
        let existing = others.find(|other| other.sa.is_same(&self.sa));
        let existing = existing.and_then(|other| other.shared.get().cloned());
        let existing = existing.filter(|existing| Arc::ptr_eq(&existing.progress, &progress));
        let new = || InboundShared {
            // Cannot fail: planning checked the size.
            window: slot(Window::new(self.window, self.sa.esn).ok()),
            progress,
            counts: Counts::default(),
            bytes: AtomicU64::new(0),
        };
        let _ = self.shared.set(existing.unwrap_or_else(|| Arc::new(new())));
        Ok(())
    }

    fn verdict_key(&self) -> String {
        let Self { source, destination, udp_port, queue, .. } = self;
        format!("{} {source:?} {destination:?} {udp_port:?} {queue}", self.sa.verdict_key())
    }

    fn status(&self) -> SaStatus {
        let shared = self.shared.get();
        let mut status = self.sa.status("in", shared.map(|shared| &shared.counts));
        (status.source, status.destination) = (self.source, self.destination);
        status.udp_ports = self.udp_port.into_iter().collect();
        status.sequence = shared.map_or(0, |shared| shared.progress.highest());
        status.bytes = shared.map_or(0, |shared| shared.bytes.load(Ordering::Relaxed));
        status.window = Some(self.window);
        status.queue = Some(self.queue);
        status
    }

    fn maintain(&self) {
        if let Some(shared) = self.shared.get() {
            let packets = shared.counts.packets.load(Ordering::Relaxed);
            shared.counts.warn("in", &self.sa, packets, shared.bytes.load(Ordering::Relaxed));
        }
    }
}

fn slot(window: Option<Window>) -> ArrayQueue<Window> {
    let slot = ArrayQueue::new(1);
    if let Some(window) = window {
        let _ = slot.push(window);
    }
    slot
}

/// An anti-replay window that a worker holds. Dropping it returns the window to its slot.
pub(super) struct HeldWindow {
    /// `None` only during drop.
    window: Option<Window>,
    shared: Arc<InboundShared>,
}

impl HeldWindow {
    #[inline]
    pub(super) fn window(&mut self) -> Option<&mut Window> {
        self.window.as_mut()
    }

    /// Tells the state file's writer the highest received number.
    #[inline]
    pub(super) fn publish(&self, now: u64) {
        if let Some(window) = &self.window {
            self.shared.progress.set_highest(window.highest(), now);
        }
    }
}

impl Drop for HeldWindow {
    fn drop(&mut self) {
        // Usually changes nothing: only a panic keeps the stage from publishing after its batch.
        self.publish(clock::cycles());
        if let Some(window) = self.window.take() {
            let returned = self.shared.window.push(window);
            debug_assert!(returned.is_ok(), "the slot of a held window must be empty");
        }
    }
}
