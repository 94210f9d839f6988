//! The thread that writes the state file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::numbers::{InboundProgress, OutboundNumbers};
use super::shared::{Entry, Shared};
use crate::esp::state::{SaState, SequenceState, State};

/// Time between two writes of the progress of inbound SAs, if it has changed.
pub(super) const INBOUND_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Starts the thread. Once `stopping` is set, it writes a last time and ends.
pub(super) fn spawn(shared: Arc<Shared>, disk: Disk) -> io::Result<JoinHandle<()>> {
    let writer = Writer { shared, disk, has_failed: false };
    thread::Builder::new().name("esp-state".into()).spawn(move || writer.run())
}

struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    /// Of several failures in a row, only the first is logged.
    has_failed: bool,
}

/// A state to write, and the numbers that it reserves.
struct Snapshot {
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
}

impl Writer {
    fn run(mut self) {
        // The next time to write the progress of inbound SAs.
        let mut tick = Instant::now() + INBOUND_INTERVAL;
        let mut retry_at = None;
        loop {
            let is_last = self.shared.stopping.load(Ordering::Acquire);
            let now = Instant::now();
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
            // Returns at once if a write was requested since the snapshot.
            match wake {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }

    /// Writes the snapshot. On success, allows workers to use its numbers and epoch. Returns
    /// whether it succeeded.
    fn write(&mut self, snapshot: &Snapshot) -> bool {
        let failure = self.disk.write(&snapshot.state).err();
        match &failure {
            None => snapshot.allow(&self.shared),
            Some(failure) if !self.has_failed => {
                let problem = failure.clone().problem(self.disk.path());
                let path = self.disk.path().display();
                tracing::error!(
                    state_file = %path,
                    "the state file {problem}. Encapsulation continues until the numbers already \
                     in the file are used up"
                );
            }
            Some(_) => {}
        }
        if failure.is_none() && self.has_failed {
            tracing::info!(
                state_file = %self.disk.path().display(),
                "the state file is written again"
            );
        }
        self.has_failed = failure.is_some();
        let succeeded = failure.is_none();
        let mut entries = self.shared.lock();
        entries.completed = snapshot.requested;
        entries.failure = failure;
        self.shared.write_done.notify_all();
        succeeded
    }
}

impl Snapshot {
    /// Takes the state to write. If `is_last`, stops giving out numbers, and takes the next unused
    /// number of each SA.
    fn take(shared: &Shared, is_last: bool) -> Self {
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
            numbers.bound_to_store(is_low)
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
            progress.set_written(*highest);
        }
        shared.set_epoch(self.state.epoch);
    }
}
