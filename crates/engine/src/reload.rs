//! Exchanging the stages of a data plane that runs: all of them, or none.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pipeline::{PortId, Worker};

use crate::data_plane::{ANSWER_WITHIN, DataPlane};
use crate::plan::Plan;
use crate::program::Successor;
use crate::report::RuleReport;
use crate::thread::{PlannedChain, build_chain, message};

/// Why stages are not exchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Something else than stages would have to change.
    #[error("{0} is another than the one that runs: that takes a restart; a reload changes stages alone")]
    TakesRestart(&'static str),
    /// A worker could not build its stages.
    #[error("worker {worker}: {what}")]
    Build {
        /// The worker.
        worker: usize,
        /// Why.
        what: String,
    },
    /// A worker does not answer.
    #[error("worker {0} does not answer")]
    NoAnswer(usize),
    /// The XDP program of a port cannot be exchanged.
    #[error("port {port}: the XDP program cannot be exchanged: {what}")]
    Program {
        /// The port.
        port: String,
        /// Why.
        what: String,
    },
    /// A worker has built its stages, and does not say that it has exchanged them. The others have.
    #[error("worker {0} does not say whether it has exchanged its stages; the others have")]
    Silent(usize),
}

thread_local! {
    /// On a worker's thread: the stages of every path that are to be exchanged for those that it has.
    static BUILT: Cell<Option<Vec<PlannedChain>>> = const { Cell::new(None) };
}

impl DataPlane {
    /// Exchanges the stages of every path for those of another plan, each worker between two batches. A stage that keeps its
    /// name and kind takes over its counters and its state; returns the names of those that could not.
    ///
    /// The plan has to be the one that runs but for its stages; if it is not, nothing is changed. What takes long was done when the
    /// plan was made.
    pub fn reload(&mut self, mut plan: Plan) -> Result<Vec<String>, ReloadError> {
        if let Some(what) = self.plan().differs_from(&plan) {
            return Err(ReloadError::TakesRestart(what));
        }
        self.plan().stay_in_place(&mut plan)?;
        let plan = Arc::new(plan);
        let successors = self.successors(&plan)?;
        // All workers build before the first exchanges anything: what fails, fails for all of them.
        let built: Result<(), ReloadError> = self.remotes().enumerate().try_for_each(|(number, remote)| {
            let (plan, workers) = (Arc::clone(&plan), plan.workers.len());
            let build = move |_: &mut Worker<PlannedChain>| {
                let all = || plan.paths.iter().map(|path| build_chain(path, number, workers)).collect::<Vec<_>>();
                let chains = catch_unwind(AssertUnwindSafe(all)).map_err(|panic| message(&*panic))?;
                BUILT.set(Some(chains));
                Ok::<(), String>(())
            };
            match remote.ask(build, ANSWER_WITHIN) {
                Ok(result) => result.map_err(|what| ReloadError::Build { worker: number, what }),
                Err(_) => Err(ReloadError::NoAnswer(number)),
            }
        });
        if let Err(error) = built {
            for remote in self.remotes() {
                let _ = remote.send(|_| BUILT.set(None));
            }
            return Err(error);
        }
        // Where the XDP program is to filter, it does so before a worker counts on it; where it is to do so no more, it goes on until
        // the workers do it.
        let (first, last): (Vec<_>, Vec<_>) =
            successors.into_iter().partition(|(port, _)| plan.kernel_filter(*port).is_some());
        let mut predecessors = self.exchange_programs(first).inspect_err(|_| {
            for remote in self.remotes() {
                let _ = remote.send(|_| BUILT.set(None));
            }
        })?;
        let mut afresh = Vec::new();
        let mut silent = None;
        for (number, remote) in self.remotes().enumerate() {
            let plan = Arc::clone(&plan);
            let exchange = move |worker: &mut Worker<PlannedChain>| {
                let mut afresh = Vec::new();
                for (path, chain) in plan.paths.iter().zip(BUILT.take().unwrap_or_default()) {
                    // The paths are those that it has.
                    afresh.extend(worker.swap_named(path.from, chain).unwrap_or_default());
                }
                afresh
            };
            match remote.ask(exchange, ANSWER_WITHIN) {
                Ok(names) => afresh.extend(names),
                // It exchanges them when it gets to it.
                Err(_) => silent = Some(ReloadError::Silent(number)),
            }
        }
        let exchanged = self.exchange_programs(last);
        let stuck = exchanged.map(|gone| predecessors.extend(gone));
        self.keep_counters(predecessors);
        // The old plan goes here, and not on a worker's thread: what it holds may be large.
        self.take_plan(plan);
        stuck?;
        silent.map_or(Ok(()), Err)?;
        afresh.sort();
        afresh.dedup();
        Ok(afresh)
    }

    /// The programs for ports that filter, or are to. Nothing is exchanged yet.
    fn successors(&mut self, plan: &Plan) -> Result<Vec<(PortId, Successor)>, ReloadError> {
        let mut successors = Vec::new();
        for (id, port) in plan.numbered_ports() {
            let filter = plan.kernel_filter(id);
            if filter.is_none() && self.plan().kernel_filter(id).is_none() {
                continue;
            }
            let Some(attachment) = self.attachments_mut().get(usize::from(id.0)) else { continue };
            let successor = attachment.successor(filter);
            let successor = successor.map_err(|what| ReloadError::Program { port: port.name.clone(), what })?;
            successors.extend(successor.map(|successor| (id, successor)));
        }
        Ok(successors)
    }

    /// Exchanges programs, all of them or none, and returns those that were there.
    fn exchange_programs(
        &mut self,
        successors: Vec<(PortId, Successor)>,
    ) -> Result<Vec<(PortId, Successor)>, ReloadError> {
        let mut predecessors = Vec::new();
        for (port, successor) in successors {
            let Some(attachment) = self.attachments_mut().get_mut(usize::from(port.0)) else { continue };
            match attachment.replace(successor) {
                Ok(predecessor) => predecessors.extend(predecessor.map(|predecessor| (port, predecessor))),
                Err(error) => {
                    let name = self.plan().ports.get(usize::from(port.0)).map(|port| port.name.clone());
                    for (port, predecessor) in predecessors {
                        let attachment = &mut self.attachments_mut()[usize::from(port.0)];
                        if let Err(error) = attachment.replace(predecessor) {
                            tracing::error!(%error, "an XDP program could not be put back");
                        }
                    }
                    return Err(ReloadError::Program { port: name.unwrap_or_default(), what: error.to_string() });
                }
            }
        }
        Ok(predecessors)
    }

    /// Takes note of what the rules of programs that are gone have matched.
    fn keep_counters(&mut self, predecessors: Vec<(PortId, Successor)>) {
        if predecessors.is_empty() {
            return;
        }
        // What a processor was about to judge by the old rules, it has judged by then.
        thread::sleep(SETTLED);
        let plan = Arc::clone(self.plan_shared());
        let stages = plan.paths.iter().flat_map(|path| path.stages.iter().map(move |stage| (path.from, stage)));
        for ((port, stage), report) in stages.zip(RuleReport::of_all(&plan)) {
            let Some(report) = report.filter(|_| stage.in_kernel) else { continue };
            let gone = predecessors.iter().find(|(of, _)| *of == port);
            let matched = gone.and_then(|(_, predecessor)| predecessor.matched());
            self.tally_mut().keep(report, matched.as_ref());
        }
    }
}

/// How long after an XDP program was exchanged it is sure to run no more: a driver runs it for a few dozen packets at a time.
const SETTLED: Duration = Duration::from_millis(20);

impl Plan {
    /// Lets the stages of another plan be where those of this one are. From user space to the kernel no filter can go on the way:
    /// packets that wait for the workers would be judged by neither.
    fn stay_in_place(&self, plan: &mut Self) -> Result<(), ReloadError> {
        for (running, path) in self.paths.iter().zip(&mut plan.paths) {
            let Some(first) = path.stages.first_mut().filter(|stage| stage.in_kernel) else { continue };
            let was_in_kernel = running.stages.first().is_some_and(|stage| stage.in_kernel);
            if was_in_kernel || running.stages.iter().all(|stage| stage.plan.rules().is_none()) {
                continue;
            }
            if first.plan.for_kernel().is_some_and(|kernel| kernel.must) {
                return Err(ReloadError::TakesRestart("the `place` of a filter that is in user space"));
            }
            first.in_kernel = false;
        }
        Ok(())
    }

    /// What a reload cannot change, if it is not the same.
    fn differs_from(&self, other: &Self) -> Option<&'static str> {
        let paths = |plan: &Self| plan.paths.iter().map(|path| (path.from, path.to)).collect::<Vec<_>>();
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
