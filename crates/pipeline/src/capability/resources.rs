//! Resources outside the process.

use std::any::Any;

/// A stage that needs resources outside the process, such as a file that it locks and writes.
pub trait ResourceOwner {
    /// Acquires the resources: opens, locks and writes files.
    ///
    /// Runs once, before the first [`build`](crate::StagePlan::build), on the control thread, and
    /// may block. `others` are the plans of stages that already hold their resources: earlier
    /// stages of this configuration, and those of the running one. A stage can downcast them to its
    /// own type to share their resources. On an error the stage must hold no resource.
    fn acquire(&self, others: &[&dyn Any]) -> Result<(), ResourceError>;

    /// Releases the resources: when a later stage fails to acquire its own, when the start or the
    /// reload fails after that, and when the stage has left the data plane. May run more than once.
    /// Does nothing by default.
    fn release(&self) {}

    /// Returns the resources that only one stage of a configuration may have.
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
    /// The remedy if another stage has the resource, too.
    pub advice: &'static str,
}

/// A resource could not be acquired: the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResourceError(pub String);
