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

/// How often the progress of inbound SAs is written.
pub(super) const INBOUND_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a failed write.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Starts the thread. It ends after a last write once `stopping` is set.
pub(super) fn spawn(shared: Arc<Shared>, disk: Disk) -> io::Result<JoinHandle<()>> {
    let writer = Writer { shared, disk, has_failed: false };
    thread::Builder::new().name("esp-state".into()).spawn(move || writer.run())
}

/// The thread's state.
struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    /// Whether the last write failed, which was logged.
    has_failed: bool,
}

/// A state to write, and the numbers and epoch that it reserves.
struct Snapshot {
    state: State,
    outbound: Vec<(Arc<OutboundNumbers>, u64)>,
    inbound: Vec<(Arc<InboundProgress>, u64)>,
    /// Number of the last write that a caller waits for.
    requested: u64,
    /// Whether a caller waits.
    is_awaited: bool,
    /// Whether a worker or a caller needs the write.
    is_due: bool,
    /// Whether an inbound SA has progressed.
    has_received: bool,
}

impl Writer {
    fn run(mut self) {
        let mut tick = Instant::now() + INBOUND_INTERVAL;
        let mut retry_at = None;
        loop {
            let is_last = self.shared.stopping.load(Ordering::Acquire);
            let now = Instant::now();
            let snapshot = Snapshot::take(&self.shared, is_last);
            retry_at = retry_at.filter(|at| now < *at);
            let is_tick = now >= tick;
            let is_due = snapshot.is_due || (is_tick && snapshot.has_received);
            let may_write = retry_at.is_none() || snapshot.is_awaited;
            if is_last || (is_due && may_write) {
                let succeeded = self.write(&snapshot);
                retry_at = (!succeeded).then(|| Instant::now() + RETRY_AFTER);
            }
            if is_tick {
                // After a failed write the next tick is the retry.
                tick = retry_at.unwrap_or(now + INBOUND_INTERVAL);
            }
            if is_last {
                return;
            }
            let tick = (!snapshot.inbound.is_empty()).then_some(tick);
            let wake = retry_at.into_iter().chain(tick).min();
            // A request that came meanwhile has left a token, and the thread does not park.
            match wake {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }

    /// Writes a snapshot, and then allows the use of its numbers. Returns whether it succeeded.
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
    /// Takes the state of this moment. For the `last` write, numbers end, and exact ones are
    /// written.
    fn take(shared: &Shared, last: bool) -> Self {
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
            has_received: false,
        };
        for ((_, spi, fingerprint), entry) in &entries.sas {
            let sequence = match entry {
                Entry::Unused(sequence) => *sequence,
                Entry::Out(numbers) => snapshot.add_outbound(numbers, last),
                Entry::In(progress) => snapshot.add_inbound(progress),
            };
            snapshot.state.sas.push(SaState { spi: *spi, fingerprint: *fingerprint, sequence });
        }
        snapshot
    }

    fn add_outbound(&mut self, numbers: &Arc<OutboundNumbers>, last: bool) -> SequenceState {
        let next = if last {
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
        self.has_received |= progress.is_ahead_of_file(highest);
        self.inbound.push((Arc::clone(progress), highest));
        SequenceState::In { highest }
    }

    /// Allows the use of the numbers and the epoch now in the file.
    fn allow(&self, shared: &Shared) {
        for (numbers, below) in &self.outbound {
            numbers.allow_below(*below);
        }
        for (progress, highest) in &self.inbound {
            progress.set_written(*highest);
        }
        shared.set_epoch(self.state.epoch);
    }
}
