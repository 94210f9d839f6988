//! The running data plane.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use xdpfwd_packet::Promiscuous;
use xdpfwd_pipeline::{Remote, WorkerReport};
use xdpfwd_xsk::clock;

use crate::attach::attachment::Attachment;
use crate::error::WorkerFailure;
use crate::host::addresses::Host;
use crate::host::interface::{DeferredInterrupts, Interface};
use crate::plan::{PathPlan, Plan, PortPlan};
use crate::run::carry::{CarriedCounters, Retired};
use crate::run::inspect::{self, Inspection, RowCounters};
use crate::run::report::{Fallback, PortMode, Report, WorkerReply};
use crate::run::thread::{PlannedChain, WorkerStatus};

/// Timeout for a worker's reply. Workers reply between two batches.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit for transmitting packets that are in flight when the data plane stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A running data plane. [`stop`](Self::stop) ends it with a report; dropping it ends it without.
pub struct DataPlane {
    pub(super) plan: Arc<Plan>,
    pub(super) started: Instant,
    // Drop order matters: the program is detached before the sockets are closed.
    pub(super) attachments: Vec<Attachment>,
    pub(super) workers: Vec<RunningWorker>,
    pub(super) modes: Vec<PortMode>,
    pub(super) interfaces: Vec<Interface>,
    /// Errors of the last [`update_host_addresses`](Self::update_host_addresses).
    pub(super) address_errors: Vec<String>,
    pub(super) fallback: Option<Fallback>,
    /// Row counters of stages that reloads have replaced.
    pub(super) carried: CarriedCounters,
    /// Plans whose resources a worker may still use because it did not reply to a reload.
    pub(super) unreleased: Vec<Arc<Plan>>,
    /// Counters of replaced stages; each worker sends them when it replaces its stages.
    pub(super) retired: (mpsc::Sender<Retired>, mpsc::Receiver<Retired>),
    pub(super) _interrupts: Vec<DeferredInterrupts>,
    /// Promiscuous mode of the ingress interfaces, disabled on drop.
    pub(super) promiscuous: Vec<Promiscuous>,
}

pub(super) struct RunningWorker {
    pub(super) remote: Remote<PlannedChain>,
    pub(super) thread: JoinHandle<()>,
    pub(super) status: Arc<WorkerStatus>,
    /// The worker's last reply, for the report if it stops replying.
    pub(super) last: Option<WorkerReply>,
    /// When the worker was started, in TSC cycles.
    pub(super) started_cycles: u64,
}

impl DataPlane {
    /// The ports, in the order of the plan.
    pub fn ports(&self) -> &[PortPlan] {
        &self.plan.ports
    }

    /// Returns the mode in use on each port, in the order of the plan. It can differ from the
    /// configured mode.
    pub fn modes(&self) -> &[PortMode] {
        &self.modes
    }

    /// Returns why the ports do not use a better mode, if they fell back.
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// Returns the worker that panicked or ended on its own, if any. The report includes its
    /// counters, but its stages process no more packets; call [`stop`](Self::stop).
    pub fn failed_worker(&self) -> Option<WorkerFailure> {
        let worker = self.workers.iter().position(|worker| worker.status.has_failed())?;
        Some(WorkerFailure {
            worker,
            panic: self.workers[worker].status.panic().map(str::to_owned),
        })
    }

    /// Returns the port whose interface has disappeared, if any. Its sockets receive nothing any
    /// more.
    pub fn lost_port(&self) -> Option<&PortPlan> {
        let gone = self.interfaces.iter().position(|interface| !interface.exists())?;
        self.plan.ports.get(gone)
    }

    /// Updates this host's addresses in the XDP programs. Call it on [`Event::HostChanged`].
    ///
    /// [`Event::HostChanged`]: crate::Event::HostChanged
    pub fn update_host_addresses(&mut self) {
        if !self.attachments.iter().any(|attachment| attachment.needs_addresses()) {
            return;
        }
        let mut address_errors = Vec::new();
        match Host::read() {
            Ok(host) => {
                for (attachment, interface) in self.attachments.iter_mut().zip(&self.interfaces) {
                    if let Err(error) = attachment.update_addresses(&host.own(interface.index)) {
                        address_errors.push(format!("{}: {error}", interface.name));
                    }
                }
            }
            Err(error) => address_errors.push(format!("cannot read links and addresses: {error}")),
        }
        // Remote hosts can make addresses change (router advertisements), so log each error once.
        if address_errors != self.address_errors {
            for error in &address_errors {
                tracing::warn!("`keep` rules may use outdated host addresses: {error}");
            }
            self.address_errors = address_errors;
        }
    }

    /// Returns the running plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the current paths and their stages.
    pub fn paths(&self) -> &[PathPlan] {
        &self.plan.paths
    }

    /// Returns the inspection tables of all stages, with counters added up over workers, reloads
    /// and XDP programs.
    pub fn inspect(&mut self) -> Inspection {
        let mut counted: RowCounters = vec![Vec::new(); self.plan.paths.len()];
        let mut answered = 0;
        for worker in &self.workers {
            let Ok(rows) = worker.remote.ask(|worker| worker.row_counters(), REPLY_TIMEOUT) else {
                continue;
            };
            answered += 1;
            inspect::add_rows(&mut counted, &rows);
        }
        // Call this after the workers have replied: a worker that replaced its stages late has sent
        // their counters by then.
        self.absorb_retired();
        let tables = self.tables(counted);
        Inspection { workers: self.workers.len(), answered, tables }
    }

    /// Returns the inspection tables that need no worker counters, without querying the workers.
    pub fn inspect_plans(&self) -> Vec<inspect::TableReport> {
        inspect::tables_of_plans(&self.plan)
    }

    fn tables(&self, mut counted: RowCounters) -> Vec<inspect::TableReport> {
        for (path, counted) in self.plan.paths.iter().zip(&mut counted) {
            let attachment = self.attachments.get(usize::from(path.from.0));
            let in_kernel = path.stages.first().filter(|stage| stage.in_kernel).and(attachment);
            if let Some(rows) = in_kernel.and_then(Attachment::row_counters) {
                inspect::add_rows(std::slice::from_mut(counted), &[vec![rows]]);
            }
        }
        inspect::tables(&self.plan, &counted, &self.carried)
    }

    /// Adds the counters of replaced stages to the carried counters.
    pub(super) fn absorb_retired(&mut self) {
        let mut any = false;
        while let Ok(Retired { plan, swapped }) = self.retired.1.try_recv() {
            any = true;
            let mut stages = plan.stages_with_ids();
            // Every worker has the paths and stages of the plan, in its order.
            for counters in swapped.iter().flat_map(|path| &path.row_counters) {
                let Some((id, stage)) = stages.next() else { break };
                if let Some(inspectable) = stage.plan.as_inspectable() {
                    self.carried.carry(id, inspectable.counter_keys(), counters);
                }
            }
        }
        if any {
            self.carried.retain(&self.plan);
        }
    }

    /// Runs the periodic work of the stages off the data path. Call it about once per second.
    pub fn maintain(&self) {
        self.plan
            .each_stage()
            .filter_map(|stage| stage.plan.as_maintained())
            .for_each(|stage| stage.maintain());
    }

    /// Enables or disables the cycle ledger of all workers.
    pub fn switch_ledger(&self, on: bool) {
        for worker in &self.workers {
            // `failed_worker` reports workers that have ended.
            let _ = worker.remote.send(move |worker| worker.switch_ledger(on));
        }
    }

    /// Returns all counters since the start. For a worker that does not reply, the report contains
    /// its last reply.
    pub fn report(&mut self) -> Report {
        for worker in &mut self.workers {
            if let Ok(report) = worker.remote.ask(|worker| worker.report(), REPLY_TIMEOUT) {
                worker.record_report(report);
            }
        }
        self.collect()
    }

    fn collect(&self) -> Report {
        let reports = self.workers.iter().map(|worker| worker.last.as_ref());
        let xdp =
            self.attachments.iter().map(|attachment| attachment.counters()).collect::<Vec<_>>();
        let failure = self.failed_worker().map(|failure| failure.to_string());
        Report::new(
            &self.plan,
            self.started.elapsed(),
            reports,
            &xdp,
            &self.modes,
            self.fallback.clone(),
            failure,
        )
    }

    /// Stops receiving, transmits packets in flight, detaches the programs, closes the sockets, and
    /// returns the final report.
    pub fn stop(mut self) -> Report {
        for (attachment, port) in self.attachments.iter().zip(&self.plan.ports) {
            attachment.release(port.queues);
        }
        // Drain all workers in parallel: a port that cannot transmit blocks its worker for the full
        // time limit.
        let channels: Vec<_> = self.workers.iter().map(RunningWorker::drain).collect();
        let deadline = Instant::now() + DRAIN_TIMEOUT + REPLY_TIMEOUT;
        let mut counted: RowCounters = vec![Vec::new(); self.plan.paths.len()];
        for (index, (worker, mut replies)) in self.workers.iter_mut().zip(channels).enumerate() {
            let remaining = || deadline.saturating_duration_since(Instant::now());
            let mut reply = replies.recv_timeout(remaining());
            if matches!(reply, Err(mpsc::RecvTimeoutError::Disconnected)) {
                // Either a stage panicked while flushing the packets that it holds, and the second
                // drain skips the stages; or the thread has ended, and the channel is disconnected
                // at once.
                replies = worker.drain();
                reply = replies.recv_timeout(remaining());
            }
            match reply {
                Ok((report, rows)) => {
                    worker.record_report(report);
                    inspect::add_rows(&mut counted, &rows);
                }
                Err(_) if worker.last.is_some() => {
                    tracing::warn!(
                        worker = index,
                        "the worker does not reply; its last report is used"
                    );
                }
                Err(_) => {
                    tracing::warn!(
                        worker = index,
                        "the worker has never replied; its counters are missing from the report"
                    );
                }
            }
        }
        self.absorb_retired();
        // The maps of detached programs stay readable. Detach first, so that packets do not wait
        // for the reads.
        self.attachments.iter_mut().for_each(Attachment::detach);
        let tables = self.tables(counted);
        self.collect().with_tables(tables)
        // Dropping the fields in order closes the rest.
    }
}

impl RunningWorker {
    fn record_report(&mut self, report: WorkerReport) {
        self.last = Some(WorkerReply {
            report,
            wall_cycles: clock::cycles().wrapping_sub(self.started_cycles),
        });
    }

    /// Makes the worker transmit its packets and report.
    fn drain(&self) -> mpsc::Receiver<(WorkerReport, RowCounters)> {
        let (reply, replies) = mpsc::sync_channel(1);
        let drain = move |worker: &mut xdpfwd_pipeline::Worker<PlannedChain>| {
            worker.drain(DRAIN_TIMEOUT);
            drop(reply.send((worker.report(), worker.row_counters())));
        };
        // If the thread has ended, sending fails and `replies` is disconnected.
        let _ = self.remote.send(drain);
        replies
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        for attachment in &mut self.attachments {
            attachment.detach();
        }
        for worker in self.workers.drain(..) {
            worker.remote.stop();
            if worker.thread.join().is_err() {
                tracing::error!("a worker's thread panicked during shutdown");
            }
        }
        self.plan.release(None);
        self.unreleased.iter().for_each(|plan| plan.release(None));
    }
}
