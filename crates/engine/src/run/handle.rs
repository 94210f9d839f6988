//! A handle to a running data plane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xdpfwd_pipeline::{NamedStage, Stage, Worker};

use crate::run::control::{Control, Requests};
use crate::run::data_plane::{DataPlane, REPLY_TIMEOUT};
use crate::run::inspect::Inspection;
use crate::run::report::Report;

/// A handle to a running data plane, for any thread except the workers' threads: a stage that used
/// the handle would wait for its own worker.
///
/// All methods except [`request_reload`](Self::request_reload) and
/// [`request_stop`](Self::request_stop) take the same lock. A reload inside [`with`](Self::with)
/// holds the lock from start to end, so no other call runs during the reload.
#[derive(Clone)]
pub struct Handle {
    data_plane: Arc<Mutex<Option<DataPlane>>>,
    requests: Requests,
}

/// Why a [`Handle`] call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The data plane has ended.
    #[error("the data plane has ended")]
    Ended,
    /// A worker did not reply in time, or has ended. A worker that is only late still runs the
    /// call's closure.
    #[error("worker {0} did not reply within {REPLY_TIMEOUT:?}")]
    NoReply(usize),
}

impl Handle {
    /// Takes ownership of a data plane. [`request_reload`](Self::request_reload) and
    /// [`request_stop`](Self::request_stop) wake `control`.
    pub fn new(data_plane: DataPlane, control: &Control) -> Self {
        Self { data_plane: Arc::new(Mutex::new(Some(data_plane))), requests: control.requests() }
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> Result<usize, HandleError> {
        self.with(|data_plane| data_plane.workers.len())
    }

    /// Runs a closure on the thread of every worker, between two batches, and returns the results
    /// in the order of the workers. Packets wait while the closure runs: do slow work beforehand.
    ///
    /// A panic of the closure is handled like a panic of a stage. If a worker does not reply, the
    /// other workers still run the closure.
    pub fn each_worker<R: Send + 'static>(
        &self,
        run: impl Fn(&mut Worker<Vec<NamedStage>>) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, HandleError> {
        let replies = self.with(|data_plane| data_plane.ask_workers(run))?;
        let replies = replies.into_iter().enumerate();
        replies.map(|(worker, reply)| reply.ok_or(HandleError::NoReply(worker))).collect()
    }

    /// Calls a closure with each stage of type `S`, and its name, in every worker, between two
    /// batches. Returns one list of results per worker, in the order of paths and stages.
    ///
    /// Use this to update tables in stages without a lock on the data path. A reload builds new
    /// stages from their plans. To keep a table across reloads, also store it in the stage's plan,
    /// and copy it in [`StagePlan::build`](xdpfwd_pipeline::StagePlan::build).
    pub fn each_stage<S: Stage, R: Send + 'static>(
        &self,
        run: impl Fn(&str, &mut S) -> R + Send + Sync + 'static,
    ) -> Result<Vec<Vec<R>>, HandleError> {
        self.each_worker(move |worker| worker.stages_mut(&run))
    }

    /// Returns all inspection tables.
    pub fn inspect(&self) -> Result<Inspection, HandleError> {
        self.with(DataPlane::inspect)
    }

    /// Returns all counters since the start.
    pub fn report(&self) -> Result<Report, HandleError> {
        self.with(DataPlane::report)
    }

    /// Asks the control thread for a reload, as SIGHUP does, without waiting. `Control::wait` then
    /// returns [`Event::Reload`](crate::Event::Reload).
    pub fn request_reload(&self) {
        self.requests.reload();
    }

    /// Asks the control thread to stop the data plane, as SIGTERM does, without waiting.
    /// `Control::wait` then returns [`Event::StopRequested`](crate::Event::StopRequested).
    pub fn request_stop(&self) {
        self.requests.stop();
    }

    /// Runs a closure on the data plane. The closure must not call this handle: it would deadlock.
    pub fn with<R>(&self, run: impl FnOnce(&mut DataPlane) -> R) -> Result<R, HandleError> {
        self.lock().as_mut().map(run).ok_or(HandleError::Ended)
    }

    /// Stops the data plane like [`DataPlane::stop`]. Returns `None` if it was already stopped.
    pub fn stop(&self) -> Option<Report> {
        let data_plane = self.lock().take();
        data_plane.map(DataPlane::stop)
    }

    fn lock(&self) -> MutexGuard<'_, Option<DataPlane>> {
        // A panic in `with` poisons the lock, but the data plane stays usable and must be stopped.
        self.data_plane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
