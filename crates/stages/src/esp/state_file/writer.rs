//! The thread that writes the state file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use xdpfwd_xsk::clock;

use super::error::WriteFailure;
use super::numbers::{InboundProgress, OutboundNumbers};
use super::shared::{Entry, Shared};
use super::slots::{Slots, Storage};
use crate::esp::state::{SaState, SequenceState, State};

/// Time between writes of the progress of inbound SAs, if it has changed. SAs refuse packets when
/// received numbers stay unwritten for [`MAX_UNWRITTEN`](super::numbers::MAX_UNWRITTEN), so a write
/// may take the difference of the two times.
pub(super) const INBOUND_INTERVAL: Duration = Duration::from_millis(250);
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Time after which a failure that persists is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the writer thread. Once [`Shared::stopping`] is set, it writes a last time and ends.
pub(super) fn spawn<S: Storage + Send + 'static>(
    shared: Arc<Shared>,
    slots: Slots<S>,
) -> io::Result<JoinHandle<()>> {
    let writer = Writer::new(shared, slots);
    thread::Builder::new().name("esp-state".into()).spawn(move || writer.run())
}

pub(super) struct Writer<S> {
    shared: Arc<Shared>,
    slots: Slots<S>,
    /// When a failure was last logged; `None` if the last write has succeeded.
    logged_at: Option<Instant>,
}

/// A state to write, and the numbers that it reserves.
pub(super) struct Snapshot {
    state: State,
    /// The numbers of the outbound SAs, each with its `next` in `state`.
    outbound: Vec<(Arc<OutboundNumbers>, u64)>,
    /// The progress of the inbound SAs, each with its `highest` in `state`.
    inbound: Vec<(Arc<InboundProgress>, u64)>,
    /// Number of the last write that a caller has requested.
    requested: u64,
    /// Whether a caller waits for the write.
    is_awaited: bool,
    /// Whether a worker or a caller needs the write.
    is_due: bool,
    inbound_changed: bool,
    /// A time before `inbound` was read, in clock cycles.
    pub(super) taken_at: u64,
}

impl<S: Storage> Writer<S> {
    pub(super) fn new(shared: Arc<Shared>, slots: Slots<S>) -> Self {
        Self { shared, slots, logged_at: None }
    }

    fn run(mut self) {
        // The next time to write the progress of inbound SAs.
        let mut tick = Instant::now() + INBOUND_INTERVAL;
        let mut retry_at = None;
        loop {
            let is_last = self.shared.stopping.load(Ordering::Acquire);
            let now = Instant::now();
            self.grow_if_wanted();
            let snapshot = Snapshot::take(&self.shared, is_last);
            retry_at = retry_at.filter(|at| now < *at);
            let is_tick = now >= tick;
            let is_due = snapshot.is_due || (is_tick && snapshot.inbound_changed);
            let may_write = retry_at.is_none() || snapshot.is_awaited;
            if is_last || (is_due && may_write) {
                let succeeded = self.write(&snapshot);
                retry_at = (!succeeded).then(|| Instant::now() + RETRY_AFTER);
            }
            if is_tick {
                // After a failed write, the next tick is the retry.
                tick = retry_at.unwrap_or(now + INBOUND_INTERVAL);
            }
            if is_last {
                return;
            }
            let tick = (!snapshot.inbound.is_empty()).then_some(tick);
            let wake = retry_at.into_iter().chain(tick).min();
            // `park` returns at once if a write was requested since the snapshot.
            match wake {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }

    /// Makes room in the file for more SAs if a caller needs it.
    fn grow_if_wanted(&mut self) {
        let wanted = {
            let entries = self.shared.lock();
            if entries.wanted_capacity <= entries.capacity {
                return;
            }
            entries.wanted_capacity
        };
        let failure = self.grow(&Snapshot::take(&self.shared, false).state, wanted).err();
        let mut entries = self.shared.lock();
        entries.capacity = self.slots.capacity();
        // Only another request causes another attempt.
        entries.wanted_capacity = 0;
        entries.growth_failure = failure;
    }

    pub(super) fn grow(&mut self, state: &State, sas: usize) -> Result<(), WriteFailure> {
        self.slots.grow(state, sas)
    }

    /// Writes a snapshot. On success, allows the use of its numbers and its epoch, and returns
    /// true. On failure, marks the file.
    pub(super) fn write(&mut self, snapshot: &Snapshot) -> bool {
        let is_last = self.shared.stopping.load(Ordering::Acquire);
        self.shared.lock().write_started = Some(Instant::now());
        let failure = self.slots.write(&snapshot.state).err();
        if failure.is_none() && is_last {
            // Write the other slot, too, so that both slots have the same state. Ignore a failure:
            // the first slot already has the state.
            let _ = self.slots.write(&snapshot.state);
        }
        let mark_failure = failure.as_ref().and_then(|_| self.slots.mark_failed().err());
        if failure.is_none() {
            snapshot.allow(&self.shared);
        }
        let succeeded = failure.is_none();
        {
            let mut entries = self.shared.lock();
            entries.completed = snapshot.requested;
            entries.failure = failure;
            entries.mark_failure = mark_failure;
            entries.write_started = None;
        }
        self.shared.write_done.notify_all();
        self.log();
        succeeded
    }

    fn log(&mut self) {
        let state_file = self.shared.path.display();
        let is_last = self.shared.stopping.load(Ordering::Acquire);
        match (self.shared.fault(), self.logged_at) {
            (Some(_), Some(at)) if at.elapsed() < LOG_INTERVAL && !is_last => {}
            (Some(fault), _) => {
                tracing::error!("{fault}");
                self.logged_at = Some(Instant::now());
            }
            (None, Some(_)) => {
                tracing::info!(%state_file, "writes of the state file succeed again");
                self.logged_at = None;
            }
            (None, None) => {}
        }
    }
}

impl Snapshot {
    /// Takes a snapshot. If `is_last`, also stops giving out numbers; the snapshot then has the
    /// next unused number of each SA.
    pub(super) fn take(shared: &Shared, is_last: bool) -> Self {
        let taken_at = clock::cycles();
        let entries = shared.lock();
        let (epoch, wanted) =
            (shared.epoch().number(), shared.epoch_wanted.load(Ordering::Relaxed));
        let is_awaited = entries.requested > entries.completed;
        let mut snapshot = Self {
            state: State { epoch: epoch.max(wanted), sas: Vec::with_capacity(entries.sas.len()) },
            outbound: Vec::new(),
            inbound: Vec::new(),
            requested: entries.requested,
            is_awaited,
            is_due: is_awaited || wanted > epoch,
            inbound_changed: false,
            taken_at,
        };
        for ((_, spi, fingerprint), entry) in &entries.sas {
            let sequence = match entry {
                Entry::Unused(sequence) => *sequence,
                Entry::Out(numbers) => snapshot.add_outbound(numbers, is_last),
                Entry::In(progress) => snapshot.add_inbound(progress),
            };
            snapshot.state.sas.push(SaState { spi: *spi, fingerprint: *fingerprint, sequence });
        }
        snapshot
    }

    fn add_outbound(&mut self, numbers: &Arc<OutboundNumbers>, is_last: bool) -> SequenceState {
        let next = if is_last {
            numbers.close()
        } else {
            let is_low = numbers.is_low();
            self.is_due |= is_low;
            numbers.next_to_write(is_low)
        };
        self.outbound.push((Arc::clone(numbers), next));
        SequenceState::Out { next, bytes: numbers.bytes() }
    }

    fn add_inbound(&mut self, progress: &Arc<InboundProgress>) -> SequenceState {
        let highest = progress.highest();
        self.inbound_changed |= progress.differs_from_file(highest);
        self.inbound.push((Arc::clone(progress), highest));
        SequenceState::In { highest }
    }

    /// Allows the numbers and the epoch that are now in the file.
    fn allow(&self, shared: &Shared) {
        for (numbers, next) in &self.outbound {
            numbers.allow_below(*next);
        }
        for (progress, highest) in &self.inbound {
            progress.set_written(*highest, self.taken_at);
        }
        shared.set_epoch(self.state.epoch);
    }
}
