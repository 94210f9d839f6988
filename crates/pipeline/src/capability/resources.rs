//! Resources outside of the process.

use std::any::Any;

/// A stage that needs something outside of this process, such as a file that it locks and writes.
pub trait ResourceOwner {
    /// Acquires the resources: opens, locks and writes files.
    ///
    /// Runs once, before the first [`build`](crate::StagePlan::build), on the control thread, and
    /// may take its time. `others` are the plans of stages that hold their resources already:
    /// earlier ones of this configuration, and those of the running one. A stage can downcast them
    /// to its own type, to share what they hold. On an error it must hold nothing.
    fn acquire(&self, others: &[&dyn Any]) -> Result<(), ResourceError>;

    /// Releases what `acquire` took: when a later stage of the configuration fails to acquire, when
    /// the start or the reload fails after that, and when the stage has left the data plane. May be
    /// called more than once. Does nothing unless the plan says otherwise.
    fn release(&self) {}

    /// Returns the resources that no two stages of a configuration may both have.
    fn exclusive_resources(&self) -> Vec<ExclusiveResource> {
        Vec::new()
    }

    /// Returns whether the stage may appear only once in a configuration, because its state cannot
    /// be shared.
    fn is_exclusive(&self) -> bool {
        false
    }
}

/// A resource that only one stage of a configuration may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExclusiveResource {
    /// Identifies the resource.
    pub id: String,
    /// Describes it, for error messages.
    pub description: String,
    /// What to do if another stage has it too.
    pub advice: &'static str,
}

/// Why a resource could not be acquired, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResourceError(pub String);
