//! The running data plane.

use std::iter;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use xdpfwd_packet::Promiscuous;
use xdpfwd_pipeline::{PortId, Ports, Remote, Worker, WorkerReport};
use xdpfwd_xsk::clock;

use crate::attach::attachment::Attachment;
use crate::error::WorkerFailure;
use crate::host::addresses::Host;
use crate::host::interface::{DeferredInterrupts, Interface};
use crate::host::link::Link;
use crate::plan::{self, PathPlan, Plan, PortPlan};
use crate::run::carry::{CarriedCounters, ReplacedStages};
use crate::run::inspect::{self, Inspection, Listing, RowCounters};
use crate::run::kernel_ledger::{KernelLedger, KernelLedgerReport, Traffic};
use crate::run::outage::{PortOutages, RecoveryState};
use crate::run::report::{Fallback, PortMode, PortState, Report, WorkerReply};
use crate::run::thread::{PlannedChain, WorkerStatus};

/// Timeout for a worker's reply, which it sends between two batches.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit for transmitting packets in flight at the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A running data plane. [`stop`](Self::stop), or dropping it, ends it.
pub struct DataPlane {
    pub(super) plan: Arc<Plan>,
    pub(super) started: Instant,
    /// The attachment of each port. `Drop` detaches the programs before the workers close the
    /// sockets.
    pub(super) attachments: Vec<Attachment>,
    pub(super) workers: Vec<RunningWorker>,
    pub(super) modes: Vec<PortMode>,
    pub(super) interfaces: Vec<Interface>,
    /// The errors of the last call of `update_host_addresses`.
    pub(super) address_errors: Vec<String>,
    pub(super) fallback: Option<Fallback>,
    /// Row counters of stages and XDP programs that reloads have replaced.
    pub(super) carried: CarriedCounters,
    /// Where the kernel spends the time of the workers' cores. Stops when it is dropped.
    pub(super) kernel_ledger: KernelLedger,
    /// Plans whose resources may still be in use, because a worker did not reply to a reload.
    pub(super) unreleased: Vec<Arc<Plan>>,
    /// Faults of resources that reloads have released, such as a failed last write of a state file.
    /// They stay here until the end, because no plan reports them any more.
    pub(super) faults_of_released: Vec<String>,
    /// The channel for row counters of stages that workers have replaced.
    pub(super) replaced: (mpsc::Sender<ReplacedStages>, mpsc::Receiver<ReplacedStages>),
    /// Dropping it restores the previous interrupt settings.
    pub(super) interrupts: Vec<(PortId, DeferredInterrupts)>,
    /// Dropping it disables promiscuous mode.
    pub(super) promiscuous: Vec<(PortId, Promiscuous)>,
    /// The outages of each port.
    pub(super) outages: Vec<PortOutages>,
    pub(super) recovery: RecoveryState,
    /// The ports as the stages know them.
    pub(super) stage_ports: Ports,
}

pub(super) struct RunningWorker {
    pub(super) remote: Remote<PlannedChain>,
    pub(super) thread: JoinHandle<()>,
    pub(super) status: Arc<WorkerStatus>,
    pub(super) last_reply: Option<WorkerReply>,
    /// The time-stamp counter when the worker started.
    pub(super) started_cycles: u64,
}

impl DataPlane {
    /// Returns the plan's ports.
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

    /// Returns the failed worker with the lowest number, if any. Its stages process no more
    /// packets, so call [`stop`](Self::stop); the final report includes its counters.
    pub fn failed_worker(&self) -> Option<WorkerFailure> {
        let worker = self.workers.iter().position(|worker| worker.status.has_failed())?;
        Some(WorkerFailure {
            worker,
            panic: self.workers[worker].status.panic().map(str::to_owned),
        })
    }

    /// Passes this host's current addresses to the XDP programs. Call this on
    /// [`Event::HostChanged`].
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
                    if let Err(error) =
                        attachment.update_addresses(&host.own_addresses(interface.index))
                    {
                        address_errors.push(format!("{}: {error}", interface.name));
                    }
                }
            }
            Err(error) => address_errors.push(format!("cannot read links and addresses: {error}")),
        }
        // Log the same errors only once: remote hosts can cause any number of updates, by router
        // advertisements.
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

    /// Returns the inspection tables of all stages. Counters are summed over workers, XDP programs
    /// and replaced stages.
    pub fn inspect(&mut self) -> Inspection {
        let Listing { workers, answered, tables } = self.list();
        let tables = tables.into_iter().map(|table| table.into_report(usize::MAX)).collect();
        Inspection { workers, answered, tables }
    }

    /// Returns the same tables as [`inspect`](Self::inspect), but does not format the rows of long
    /// tables yet.
    pub fn list(&mut self) -> Listing {
        let mut counted: RowCounters = vec![Vec::new(); self.plan.paths.len()];
        let mut answered = 0;
        for worker in &self.workers {
            let Ok(rows) = inspect::row_counters_of(&worker.remote, &self.plan, REPLY_TIMEOUT)
            else {
                continue;
            };
            answered += 1;
            inspect::add_rows(&mut counted, &rows);
        }
        // Add the counters of replaced stages after the replies: by then, even a worker that
        // replaced its stages late has sent their counters.
        self.carry_from_stages();
        let tables = self.tables(counted);
        Listing { workers: self.workers.len(), answered, tables }
    }

    /// Returns only the inspection tables without row counters. Queries no worker.
    pub fn inspect_plans(&self) -> Vec<inspect::TableReport> {
        inspect::tables_of_plans(&self.plan)
    }

    /// Returns the inspection tables of all stages. `counted` are the row counters of the workers;
    /// the function adds those of XDP programs and replaced stages.
    fn tables(&self, mut counted: RowCounters) -> Vec<inspect::ListedTable> {
        for (path, counted) in self.plan.paths.iter().zip(&mut counted) {
            let attachment = self.attachments.get(usize::from(path.from.0));
            // Only the first stage of a path can run in the kernel.
            let with_stage = path.stages.first().filter(|stage| stage.in_kernel).and(attachment);
            if let Some(rows) = with_stage.and_then(Attachment::row_counters) {
                inspect::add_rows(std::slice::from_mut(counted), &[vec![rows]]);
            }
        }
        inspect::tables(&self.plan, counted, &self.carried)
    }

    /// Adds the row counters of stages that workers have replaced to `carried`.
    pub(super) fn carry_from_stages(&mut self) {
        let mut has_changed = false;
        while let Ok(ReplacedStages { plan, swapped }) = self.replaced.1.try_recv() {
            has_changed = true;
            let mut stages = plan.stages_with_ids();
            // Every worker has the plan's paths and stages, in order.
            for counters in swapped.iter().flat_map(|path| &path.row_counters) {
                let Some((id, stage)) = stages.next() else { break };
                if let Some(inspectable) = stage.plan.as_inspectable() {
                    self.carried.add(id, inspectable.counter_keys(), counters);
                }
            }
        }
        if has_changed {
            self.carried.retain(&self.plan);
        }
    }

    /// Runs the periodic work of the stages, off the data path. Call this about once per second.
    pub fn maintain(&self) {
        self.plan
            .distinct_stages()
            .filter_map(|stage| stage.plan.as_maintained())
            .for_each(|stage| stage.maintain());
    }

    /// Runs a closure on every worker, between two batches, and returns the results in the order of
    /// the workers. The result is `None` for a worker that has ended, or has not replied within
    /// [`REPLY_TIMEOUT`], which is the time limit for all of them; it may run the closure later.
    pub(super) fn ask_workers<R: Send + 'static>(
        &self,
        run: impl Fn(&mut Worker<PlannedChain>) -> R + Send + Sync + 'static,
    ) -> Vec<Option<R>> {
        let run = Arc::new(run);
        // Send the closure to all workers before waiting, so that they run it in parallel.
        let send = |running: &RunningWorker| {
            let (reply, replies) = mpsc::sync_channel(1);
            let run = Arc::clone(&run);
            // If the worker has ended, receiving fails.
            let _ = running.remote.send(move |worker| drop(reply.send(run(worker))));
            replies
        };
        let replies: Vec<_> = self.workers.iter().map(send).collect();
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let remaining = || deadline.saturating_duration_since(Instant::now());
        replies.iter().map(|reply| reply.recv_timeout(remaining()).ok()).collect()
    }

    /// Enables or disables the cycle ledger of all workers.
    pub fn switch_ledger(&self, on: bool) {
        for worker in &self.workers {
            // Fails if the worker has ended; `failed_worker` reports this.
            let _ = worker.remote.send(move |worker| worker.switch_ledger(on));
        }
    }

    /// Returns all counters since the start. For a worker that does not reply, the report contains
    /// the counters of its last reply.
    pub fn report(&mut self) -> Report {
        for worker in &mut self.workers {
            if let Ok(report) = worker.remote.ask(|worker| worker.report(), REPLY_TIMEOUT) {
                worker.record_report(report);
            }
        }
        self.build_report()
    }

    fn build_report(&self) -> Report {
        let reports = self.workers.iter().map(|worker| worker.last_reply.as_ref());
        let xdp =
            self.attachments.iter().map(|attachment| attachment.counters()).collect::<Vec<_>>();
        let failure = self.failed_worker().map(|failure| failure.to_string());
        let mut report = Report::new(
            &self.plan,
            self.started.elapsed(),
            reports,
            &xdp,
            &self.modes,
            self.fallback.clone(),
            failure,
        );
        for ((port, interface), outages) in
            report.ports.iter_mut().zip(&self.interfaces).zip(&self.outages)
        {
            port.link = Link::read(interface.index).ok().map(|link| link.state);
            port.losses = outages.losses;
            port.down_seconds = (outages.down().as_secs_f64() * 1e6).round() / 1e6;
            if let Some(outage) = &outages.current {
                port.state = PortState::Down;
                port.down_reason = Some(outage.reason.clone());
            }
        }
        let plans = iter::once(&self.plan).chain(&self.unreleased);
        Report {
            faults: all_faults(plans, &self.faults_of_released),
            kernel_ledger: self.kernel_ledger_report(&report),
            ..report
        }
    }

    fn kernel_ledger_report(&self, report: &Report) -> KernelLedgerReport {
        let traffic = Traffic {
            packets: report.ports.iter().map(|port| port.rx_packets).sum(),
            syscalls: report.kernel.syscalls,
        };
        let ports = self.plan.ports.iter().enumerate().zip(&self.attachments);
        let programs = ports.filter_map(|((index, port), attachment)| {
            Some((index, &*port.name, &*port.interface, attachment.run_time()?))
        });
        self.kernel_ledger.report(traffic, programs)
    }

    /// Stops receiving, transmits packets in flight, detaches the programs, closes the sockets, and
    /// returns the final report.
    pub fn stop(mut self) -> Report {
        for (attachment, port) in self.attachments.iter().zip(&self.plan.ports) {
            attachment.stop_delivery(port.queues);
        }
        // Drain all workers in parallel: a worker whose port cannot transmit takes the whole
        // `DRAIN_TIMEOUT`.
        let channels: Vec<_> = self.workers.iter().map(RunningWorker::drain).collect();
        let deadline = Instant::now() + DRAIN_TIMEOUT + REPLY_TIMEOUT;
        let mut counted: RowCounters = vec![Vec::new(); self.plan.paths.len()];
        for (index, (worker, mut replies)) in self.workers.iter_mut().zip(channels).enumerate() {
            let remaining = || deadline.saturating_duration_since(Instant::now());
            let mut reply = replies.recv_timeout(remaining());
            if matches!(reply, Err(mpsc::RecvTimeoutError::Disconnected)) {
                // If a stage panicked while flushing, the worker now runs without stages, and a
                // second drain succeeds. If the thread has ended, the second drain fails at once.
                replies = worker.drain();
                reply = replies.recv_timeout(remaining());
            }
            match reply {
                Ok((report, rows)) => {
                    worker.record_report(report);
                    inspect::add_rows(&mut counted, &rows);
                }
                Err(_) if worker.last_reply.is_some() => {
                    tracing::warn!(
                        worker = index,
                        "the worker does not reply; the final report contains its last counters"
                    );
                }
                Err(_) => {
                    tracing::warn!(
                        worker = index,
                        "the worker has never replied; the final report lacks its counters"
                    );
                }
            }
        }
        self.carry_from_stages();
        // Detach the programs before reading their counters, which takes time. The maps with the
        // counters stay readable.
        self.attachments.iter_mut().for_each(Attachment::detach);
        let tables = self.tables(counted);
        let report = self.build_report().with_tables(tables);
        let plans: Vec<_> = iter::once(&self.plan).chain(&self.unreleased).cloned().collect();
        let faults_of_released = std::mem::take(&mut self.faults_of_released);
        // This ends the worker threads, closes the sockets, and releases the stages' resources.
        drop(self);
        Report { faults: all_faults(&plans, &faults_of_released), ..report }
    }
}

/// Returns the faults of plans and of resources released before, each once.
fn all_faults<'p>(
    plans: impl IntoIterator<Item = &'p Arc<Plan>>,
    faults_of_released: &[String],
) -> Vec<String> {
    let mut faults = Vec::new();
    plan::add_new(&mut faults, plans.into_iter().flat_map(|plan| plan.faults()));
    plan::add_new(&mut faults, faults_of_released.iter().cloned());
    faults
}

impl RunningWorker {
    fn record_report(&mut self, report: WorkerReport) {
        self.last_reply = Some(WorkerReply {
            report,
            wall_cycles: clock::cycles().wrapping_sub(self.started_cycles),
        });
    }

    /// Makes the worker transmit its packets, then send its report and row counters.
    fn drain(&self) -> mpsc::Receiver<(WorkerReport, RowCounters)> {
        let (reply, replies) = mpsc::sync_channel(1);
        let drain = move |worker: &mut Worker<PlannedChain>| {
            worker.drain(DRAIN_TIMEOUT);
            drop(reply.send((worker.report(), worker.row_counters())));
        };
        // If the thread has ended, `replies` is disconnected.
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
        // Ignore the returned faults: `stop` reports them.
        for plan in iter::once(&self.plan).chain(&self.unreleased) {
            plan.release(None);
        }
    }
}
