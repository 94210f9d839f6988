//! Exchanging the stages of a data plane that runs: all of them, or none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use xdpfwd_pipeline::{PortId, Worker};

use crate::plan::Plan;
use crate::run::carry::Retired;
use crate::run::data_plane::{ANSWER_WITHIN, DataPlane, RunningWorker};
use crate::run::start::check_places;
use crate::run::thread::{PlannedChain, build_chain, message, ports_for_stages};

/// Why stages are not exchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Something else than stages would have to change.
    #[error(
        "{0} is another than the one that runs: that takes a restart; a reload changes stages alone"
    )]
    TakesRestart(&'static str),
    /// A worker could not build its stages.
    #[error("worker {worker}: {what}")]
    Build {
        /// The worker.
        worker: usize,
        /// Why.
        what: String,
    },
    /// A stage lacks something that is outside of this process: a file, say.
    #[error("stage {stage}: {what}")]
    Resource {
        /// The stage.
        stage: String,
        /// What, and what to do about it.
        what: String,
    },
    /// A worker does not answer.
    #[error("worker {0} does not answer")]
    NoAnswer(usize),
    /// A stage cannot be in the kernel.
    #[error("stage {stage} cannot be in the kernel: {why}")]
    Placed {
        /// The stage.
        stage: String,
        /// Why.
        why: String,
    },
    /// Rules in the kernel and rules behind them would change together, which nothing does at once.
    #[error(
        "on the path from port {0} the filter in the kernel changes, and rules of stages behind it, too: between the two a packet could be \
         judged by neither; change them in two reloads"
    )]
    Together(String),
    /// The XDP program of a port cannot be exchanged. Nothing is.
    #[error("port {port}: the XDP program cannot be exchanged: {what}")]
    Program {
        /// The port.
        port: String,
        /// Why.
        what: String,
    },
    /// The stages are exchanged, and the XDP program of a port, which should filter no more, does.
    #[error(
        "the stages are exchanged, but the XDP program of port {port} still has the old tables of its stage ({what}): reload once more"
    )]
    StillOffloaded {
        /// The port.
        port: String,
        /// Why.
        what: String,
    },
    /// A worker has built its stages, and does not say that it has exchanged them. The others have.
    #[error(
        "worker {0} does not say whether it has exchanged its stages; the others have. A stage that was to leave the XDP program is still in it"
    )]
    Silent(usize),
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
    /// Exchanges the stages of every path for those of another plan, each worker between two
    /// batches. A stage that keeps its name and kind takes over its counters and its state; returns
    /// the names of those that could not.
    ///
    /// The plan has to be the one that runs but for its stages; if it is not, nothing is changed.
    /// What takes long was done when the plan was made.
    pub fn reload(&mut self, mut plan: Plan) -> Result<Vec<String>, ReloadError> {
        if let Some(what) = self.plan().differs_from(&plan) {
            return Err(ReloadError::TakesRestart(what));
        }
        check_places(&plan).map_err(|(stage, why)| ReloadError::Placed { stage, why })?;
        self.plan().stay_in_place(&mut plan)?;
        plan.acquire(Some(self.plan()))
            .map_err(|(stage, error)| ReloadError::Resource { stage, what: error.to_string() })?;
        let result = self.exchange(&mut plan);
        match &result {
            // It may still build stages of this plan.
            Err(ReloadError::NoAnswer(_)) => self.unreleased.push(Arc::new(plan)),
            Err(_) => plan.release(Some(self.plan())),
            Ok(_) => {}
        }
        result
    }

    /// The part of a reload that touches workers and XDP programs.
    fn exchange(&mut self, plan: &mut Plan) -> Result<Vec<String>, ReloadError> {
        let successors = self.successors(plan)?;
        let ports = ports_for_stages(plan);
        let plan = Arc::new(plan.clone());
        // All workers build before the first exchanges anything: what fails, fails for all of them.
        let built: Result<(), ReloadError> = self.workers.iter().enumerate().try_for_each(
            |(number, RunningWorker { remote, .. })| {
                let (plan, ports) = (Arc::clone(&plan), ports.clone());
                let build = move |worker: &mut Worker<PlannedChain>| {
                    let chain = |path| build_chain(&plan, path, &ports, number);
                    let all = || {
                        plan.paths
                            .iter()
                            .map(|path| (path.from, chain(path)))
                            .collect::<Vec<(PortId, _)>>()
                    };
                    let chains =
                        catch_unwind(AssertUnwindSafe(all)).map_err(|panic| message(&*panic))?;
                    worker.stage_chains(chains);
                    Ok::<(), String>(())
                };
                match remote.ask(build, ANSWER_WITHIN) {
                    Ok(result) => {
                        result.map_err(|what| ReloadError::Build { worker: number, what })
                    }
                    Err(_) => Err(ReloadError::NoAnswer(number)),
                }
            },
        );
        built.inspect_err(|_| self.drop_staged())?;
        // Where the XDP program is to do a stage's work, it does so before a worker relies on it;
        // where it no longer is, it goes on until the workers do it.
        let (first, last): (Vec<_>, Vec<_>) =
            successors.into_iter().partition(|(port, _)| plan.xdp_image(*port).is_some());
        let mut predecessors = self.exchange_programs(first).inspect_err(|_| self.drop_staged())?;
        let mut afresh = Vec::new();
        let mut silent = None;
        let retired = self.retired.0.clone();
        let old = Arc::clone(&self.plan);
        for (number, RunningWorker { remote, .. }) in self.workers.iter().enumerate() {
            let (retired, plan) = (retired.clone(), Arc::clone(&old));
            let exchange = move |worker: &mut Worker<PlannedChain>| {
                // The paths are those that it has.
                let mut swapped = worker.swap_staged().unwrap_or_default();
                let afresh: Vec<_> = swapped
                    .iter_mut()
                    .flat_map(|(_, path)| std::mem::take(&mut path.afresh))
                    .collect();
                let swapped = swapped.into_iter().map(|(_, swapped)| swapped).collect();
                // The old plan goes back to the control thread: what it holds may be large.
                let _ = retired.send(Retired { plan, swapped });
                afresh
            };
            match remote.ask(exchange, ANSWER_WITHIN) {
                Ok(names) => afresh.extend(names),
                // It exchanges them when it gets to it.
                Err(_) => silent = Some(ReloadError::Silent(number)),
            }
        }
        // As long as a worker may be without its new stages, what they rely on or replace stays.
        let stuck = if silent.is_some() { Ok(Vec::new()) } else { self.exchange_programs(last) };
        let stuck = stuck.map(|gone| predecessors.extend(gone));
        self.plan = plan;
        self.carry_from_programs(&old, predecessors);
        self.absorb_retired();
        self.carried.retain(&self.plan);
        match silent {
            // It still has stages of the old plan.
            Some(_) => self.unreleased.push(old),
            None => old.release(Some(self.plan())),
        }
        stuck.map_err(ReloadError::still_offloaded)?;
        silent.map_or(Ok(()), Err)?;
        afresh.sort();
        afresh.dedup();
        Ok(afresh)
    }

    /// Drops the stages that workers have built and not swapped in.
    fn drop_staged(&self) {
        for RunningWorker { remote, .. } in &self.workers {
            let _ = remote.ask(Worker::drop_staged, ANSWER_WITHIN);
        }
    }
}

impl Plan {
    /// What a reload cannot change, if it is not the same.
    fn differs_from(&self, other: &Self) -> Option<&'static str> {
        let paths =
            |plan: &Self| plan.paths.iter().map(|path| (path.from, path.to)).collect::<Vec<_>>();
        let umem = |plan: &Self| (plan.umem.frame_size, plan.umem.frames, plan.umem.huge_pages);
        let found = [
            ("mode", self.mode == other.mode),
            ("cores", self.workers == other.workers),
            ("busy_poll", self.busy_poll == other.busy_poll),
            ("idle", self.idle == other.idle),
            ("ledger", self.ledger == other.ledger),
            ("control", self.control == other.control),
            ("[umem]", umem(self) == umem(other)),
            ("a [[port]]", self.ports == other.ports),
            ("where a [[path]] begins or ends", paths(self) == paths(other)),
        ];
        found.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }
}
