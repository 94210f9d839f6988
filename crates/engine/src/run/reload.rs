//! Replacement of the stages of a running data plane.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use xdpfwd_pipeline::{PortId, Worker};

use crate::plan::{self, Plan};
use crate::run::carry::ReplacedStages;
use crate::run::data_plane::{DataPlane, REPLY_TIMEOUT, RunningWorker};
use crate::run::start::check_kernel_stages;
use crate::run::thread::{PlannedChain, build_chain, panic_message, ports_for_stages};

/// Why a reload failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A setting other than the stages differs.
    #[error("{0} cannot change on reload; restart to apply it (a reload changes only stages)")]
    RequiresRestart(&'static str),
    /// A worker could not build its new stages. Nothing was changed.
    #[error("worker {worker} cannot build its new stages: {what}")]
    Build {
        /// Worker number.
        worker: usize,
        /// The reason.
        what: String,
    },
    /// An external resource of a stage, such as a file, could not be acquired.
    #[error("stage {stage}: {what}")]
    Resource {
        /// Stage name.
        stage: String,
        /// The cause and the remedy.
        what: String,
    },
    /// A worker did not build its new stages in time. Nothing was changed.
    #[error("worker {0} does not reply; all workers keep their old stages")]
    NoReply(usize),
    /// A stage cannot run in the kernel.
    #[error("stage {stage} cannot run in the kernel: {why}")]
    NotInKernel {
        /// Stage name.
        stage: String,
        /// The reason.
        why: String,
    },
    /// A filter in the kernel and later stages on its path both change, which cannot happen at the
    /// same moment.
    #[error(
        "on the path from port {0}, the filter in the kernel and the rules of later stages both \
         change: a packet between the two changes could pass unchecked; change them in two reloads"
    )]
    NotAtomic(String),
    /// The XDP program of a port cannot be replaced. Nothing was changed.
    #[error("port {port}: cannot replace the XDP program: {what}")]
    Program {
        /// Port name.
        port: String,
        /// The reason.
        what: String,
    },
    /// The stages were replaced, but a port's XDP program still runs a filter that the new plan
    /// removes.
    #[error(
        "the stages were replaced, but the XDP program of port {port} still has its old filter: \
         {what}; reload again"
    )]
    StillOffloaded {
        /// Port name.
        port: String,
        /// The reason.
        what: String,
    },
    /// These workers did not confirm that they use the new stages. The other workers use them.
    #[error(
        "no confirmation from worker {} that it replaced its stages; the other workers have replaced \
         theirs. XDP programs still run the filters that this reload removes; reload again to \
         remove them", worker_numbers(.0)
    )]
    Unconfirmed(Vec<usize>),
}

/// Returns text such as `0` or `0, 2`.
fn worker_numbers(workers: &[usize]) -> String {
    workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl ReloadError {
    fn still_offloaded(self) -> Self {
        match self {
            Self::Program { port, what } => Self::StillOffloaded { port, what },
            other => other,
        }
    }
}

impl DataPlane {
    /// Replaces the stages of every path with those of a new plan, in each worker between two
    /// batches. Stages with the same name and kind take over counters and state. Returns the names
    /// of the stages that could not take over the state.
    ///
    /// Fails without any change if the plans differ in more than stages.
    pub fn reload(&mut self, mut plan: Plan) -> Result<Vec<String>, ReloadError> {
        if let Some(setting) = self.plan().fixed_setting_that_differs(&plan) {
            return Err(ReloadError::RequiresRestart(setting));
        }
        check_kernel_stages(&plan)
            .map_err(|(stage, why)| ReloadError::NotInKernel { stage, why })?;
        self.plan().restrict_placement(&mut plan)?;
        plan.acquire(Some(self.plan())).map_err(|(stage, error)| {
            // `acquire` has released everything; this call only records the faults.
            self.release(&plan);
            ReloadError::Resource { stage, what: error.to_string() }
        })?;
        let result = self.exchange_stages(&mut plan);
        match &result {
            // The worker that did not reply may still build stages of this plan.
            Err(ReloadError::NoReply(_)) => self.unreleased.push(Arc::new(plan)),
            Err(_) => self.release(&plan),
            Ok(_) => {}
        }
        result
    }

    /// Replaces the stages and, where a filter in the kernel changes, the XDP programs. Returns the
    /// same as [`reload`](Self::reload).
    fn exchange_stages(&mut self, plan: &mut Plan) -> Result<Vec<String>, ReloadError> {
        let successors = self.load_successors(plan)?;
        let ports = ports_for_stages(plan);
        let stage_ports = ports.clone();
        let plan = Arc::new(plan.clone());
        // All workers build their new stages before any worker uses them, so a failure to build
        // changes nothing.
        let built: Result<(), ReloadError> = self.workers.iter().enumerate().try_for_each(
            |(worker_number, RunningWorker { remote, .. })| {
                let (plan, ports) = (Arc::clone(&plan), ports.clone());
                let build = move |worker: &mut Worker<PlannedChain>| {
                    let chain = |path| build_chain(&plan, path, &ports, worker_number);
                    let build_all = || {
                        plan.paths
                            .iter()
                            .map(|path| (path.from, chain(path)))
                            .collect::<Vec<(PortId, _)>>()
                    };
                    let chains = catch_unwind(AssertUnwindSafe(build_all))
                        .map_err(|panic| panic_message(&*panic))?;
                    worker.store_chains(chains);
                    Ok::<(), String>(())
                };
                match remote.ask(build, REPLY_TIMEOUT) {
                    Ok(result) => {
                        result.map_err(|what| ReloadError::Build { worker: worker_number, what })
                    }
                    Err(_) => Err(ReloadError::NoReply(worker_number)),
                }
            },
        );
        built.inspect_err(|_| self.discard_stored_chains())?;
        // Attach new filters before any worker uses its new stages: they may rely on the filters.
        // Remove filters only after all workers use their new stages.
        let (with_filter, without_filter): (Vec<_>, Vec<_>) =
            successors.into_iter().partition(|(port, _)| plan.xdp_image(*port).is_some());
        let mut predecessors =
            self.exchange_programs(with_filter).inspect_err(|_| self.discard_stored_chains())?;
        let mut restarted_stages = Vec::new();
        let mut unconfirmed = Vec::new();
        let replaced_sender = self.replaced.0.clone();
        let old_plan = Arc::clone(&self.plan);
        for (worker_number, RunningWorker { remote, .. }) in self.workers.iter().enumerate() {
            let (replaced_sender, plan) = (replaced_sender.clone(), Arc::clone(&old_plan));
            let swap = move |worker: &mut Worker<PlannedChain>| {
                // Never fails: the new stages are for paths that the worker has.
                let mut swapped = worker.swap_stored_chains().unwrap_or_default();
                let restarted: Vec<_> = swapped
                    .iter_mut()
                    .flat_map(|(_, path)| std::mem::take(&mut path.afresh))
                    .collect();
                let swapped = swapped.into_iter().map(|(_, swapped)| swapped).collect();
                // Send the old plan too, so that the control thread drops it, not the worker:
                // dropping a plan can be slow.
                let _ = replaced_sender.send(ReplacedStages { plan, swapped });
                restarted
            };
            match remote.ask(swap, REPLY_TIMEOUT) {
                Ok(names) => restarted_stages.extend(names),
                // The worker replaces its stages when it later runs the command.
                Err(_) => unconfirmed.push(worker_number),
            }
        }
        // Remove no filter while a worker may still use old stages, which rely on it.
        let removal = if unconfirmed.is_empty() {
            self.exchange_programs(without_filter)
        } else {
            Ok(Vec::new())
        };
        let removal = removal.map(|programs| predecessors.extend(programs));
        self.plan = plan;
        self.stage_ports = stage_ports;
        self.carry_from_programs(&old_plan, predecessors);
        self.carry_from_stages();
        self.carried.retain(&self.plan);
        if unconfirmed.is_empty() {
            self.release(&old_plan);
        } else {
            self.unreleased.push(old_plan);
        }
        removal.map_err(ReloadError::still_offloaded)?;
        if !unconfirmed.is_empty() {
            return Err(ReloadError::Unconfirmed(unconfirmed));
        }
        restarted_stages.sort();
        restarted_stages.dedup();
        Ok(restarted_stages)
    }

    /// Releases the resources that only `plan` uses, not the running plan. Keeps the faults for
    /// reports.
    fn release(&mut self, plan: &Plan) {
        let faults = plan.release(Some(&self.plan));
        plan::add_new(&mut self.faults_of_released, faults);
    }

    fn discard_stored_chains(&self) {
        for RunningWorker { remote, .. } in &self.workers {
            let _ = remote.ask(Worker::discard_stored_chains, REPLY_TIMEOUT);
        }
    }
}

impl Plan {
    fn fixed_setting_that_differs(&self, other: &Self) -> Option<&'static str> {
        let paths =
            |plan: &Self| plan.paths.iter().map(|path| (path.from, path.to)).collect::<Vec<_>>();
        let umem = |plan: &Self| (plan.umem.frame_size, plan.umem.frames, plan.umem.huge_pages);
        let settings = [
            ("`mode`", self.mode == other.mode),
            ("`cores`", self.workers == other.workers),
            ("`busy_poll`", self.busy_poll == other.busy_poll),
            ("`idle`", self.idle == other.idle),
            ("`ledger`", self.ledger == other.ledger),
            ("`kernel_ledger`", self.kernel_ledger == other.kernel_ledger),
            ("`on_port_loss`", self.on_port_loss == other.on_port_loss),
            ("`control`", self.control == other.control),
            ("`[umem]`", umem(self) == umem(other)),
            ("a `[[port]]`", self.ports == other.ports),
            ("the ports of a `[[path]]`", paths(self) == paths(other)),
        ];
        settings.into_iter().find(|(_, is_equal)| !is_equal).map(|(setting, _)| setting)
    }
}
