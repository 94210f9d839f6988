//! Resources outside the process.

use std::any::Any;

/// A stage plan that needs resources outside the process, such as a locked file.
pub trait ResourceOwner {
    /// Acquires the resources: opens, locks and writes files.
    ///
    /// Runs once, before the first [`build`](crate::StagePlan::build), on the control thread, and
    /// may block. `others` are the plans that already hold resources: those of earlier stages in
    /// this configuration, and those of all running stages. A plan can downcast them to its own
    /// type to share their resources. After an error, the plan must hold no resource.
    fn acquire(&self, others: &[&dyn Any]) -> Result<(), ResourceError>;

    /// Releases the resources. Runs after the stage has left the data plane, or if the start or
    /// reload fails after `acquire`. May run more than once. Does nothing by default.
    fn release(&self) {}

    /// Returns why a resource does not work as it should, the consequence, and what to do about it:
    /// for example, a file that cannot be written. After [`release`](Self::release), returns the
    /// fault of the release itself. `None` by default.
    ///
    /// Runs on the control thread, for reports and `ctl`. Stages that share the resource return the
    /// same text. xdpfwd exits with an error if there is a fault after `release`.
    fn fault(&self) -> Option<String> {
        None
    }

    /// Returns the resources that only one stage of a configuration may have.
    fn exclusive_resources(&self) -> Vec<ExclusiveResource> {
        Vec::new()
    }

    /// Returns whether the stage may appear only once in a configuration, for example because two
    /// paths cannot share its state.
    fn is_exclusive(&self) -> bool {
        false
    }
}

/// A resource that only one stage of a configuration may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExclusiveResource {
    /// Resources with equal `id` are the same resource.
    pub id: String,
    /// A description for error messages.
    pub description: String,
    /// What to do if two stages need the resource.
    pub advice: &'static str,
}

/// Why a resource could not be acquired, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResourceError(pub String);
