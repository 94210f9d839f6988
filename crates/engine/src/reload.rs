//! Exchanging the stages of a data plane that runs: all of them, or none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pipeline::Worker;

use crate::data_plane::{ANSWER_WITHIN, DataPlane};
use crate::plan::Plan;
use crate::thread::{PlannedChain, build_chain, message};

/// Why stages are not exchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Something else than stages would have to change.
    #[error("{0} is another than the one that runs: that takes a restart; a reload changes stages alone")]
    TakesRestart(&'static str),
    /// A worker could not build its stages, and goes on with the old ones.
    #[error("worker {worker}: {what}; it goes on with the old stages")]
    Build {
        /// The worker.
        worker: usize,
        /// Why.
        what: String,
    },
    /// A worker does not answer.
    #[error("worker {0} does not answer: whether it has the new stages is not known")]
    NoAnswer(usize),
}

impl DataPlane {
    /// Exchanges the stages of every path for those of another plan, each worker between two batches. A stage that keeps its
    /// name and kind takes over its counters and its state; returns the names of those that could not.
    ///
    /// The plan has to be the one that runs but for its stages; if it is not, nothing is changed. What takes long was done when the
    /// plan was made.
    pub fn reload(&mut self, plan: Plan) -> Result<Vec<String>, ReloadError> {
        if let Some(what) = self.plan().differs_from(&plan) {
            return Err(ReloadError::TakesRestart(what));
        }
        let plan = Arc::new(plan);
        let mut afresh = Vec::new();
        let mut result = Ok(());
        for (number, remote) in self.remotes().enumerate() {
            let (plan, workers) = (Arc::clone(&plan), plan.workers.len());
            let exchange = move |worker: &mut Worker<PlannedChain>| {
                let build = || plan.paths.iter().map(|path| build_chain(path, number, workers)).collect::<Vec<_>>();
                // All are built before the first is exchanged: one that panics changes nothing.
                let chains = catch_unwind(AssertUnwindSafe(build)).map_err(|panic| message(&*panic))?;
                let mut afresh = Vec::new();
                for (path, chain) in plan.paths.iter().zip(chains) {
                    afresh.extend(worker.swap_named(path.from, chain).map_err(|error| error.to_string())?);
                }
                Ok::<_, String>(afresh)
            };
            match remote.ask(exchange, ANSWER_WITHIN) {
                Ok(Ok(names)) => afresh.extend(names),
                Ok(Err(what)) => result = Err(ReloadError::Build { worker: number, what }),
                Err(_) => result = Err(ReloadError::NoAnswer(number)),
            }
        }
        // The old plan goes here, and not on a worker's thread: what it holds may be large.
        self.take_plan(plan);
        result?;
        afresh.sort();
        afresh.dedup();
        Ok(afresh)
    }
}

impl Plan {
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
