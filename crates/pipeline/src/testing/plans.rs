//! Plans of the stages on a test bench, and the resources that they have acquired.

use std::any::Any;
use std::sync::Arc;

use super::error::TestBenchError;
use crate::chain::NamedStage;
use crate::plan::{BuildCx, StagePlan};
use crate::verdict::PortId;

/// The result of acquiring resources.
type Acquired = Result<(), TestBenchError>;

/// A stage's name and plan.
pub(super) type NamedPlan = (String, Arc<dyn StagePlan>);

/// Builds stages from their plans.
pub(super) fn build(plans: &[NamedPlan], cx: &BuildCx<'_>) -> Vec<NamedStage> {
    plans.iter().map(|(name, plan)| NamedStage::build(name, &**plan, cx)).collect()
}

/// Plans whose resources are acquired, each with the port from which its path starts. Releases them
/// when dropped.
#[derive(Default)]
pub(super) struct Plans(Vec<(PortId, Arc<dyn StagePlan>)>);

impl Plans {
    /// Acquires the resources of plans for the path from a port, once for each definition. An error
    /// names the stage and leaves everything unchanged.
    pub(super) fn acquire(&mut self, from: PortId, plans: &[NamedPlan]) -> Acquired {
        let before = self.0.len();
        for (name, plan) in plans {
            let is_acquired = self.0.iter().any(|(_, other)| Arc::ptr_eq(other, plan));
            if let Some(owner) = plan.as_resource_owner().filter(|_| !is_acquired) {
                let holders = self.0.iter().map(|(_, plan)| &**plan as &dyn Any);
                let holders: Vec<_> = holders.collect();
                if let Err(source) = owner.acquire(&holders) {
                    let acquired = self.0.split_off(before);
                    self.release(acquired);
                    return Err(TestBenchError::Resource { stage: name.clone(), source });
                }
            }
            self.0.push((from, Arc::clone(plan)));
        }
        Ok(())
    }

    /// Returns each plan with its path's ingress port and its index among the plans of the path.
    pub(super) fn each_on_path(&self) -> impl Iterator<Item = (PortId, usize, &dyn StagePlan)> {
        self.0.iter().enumerate().map(|(index, (from, plan))| {
            let before = self.0[..index].iter().filter(|(other, _)| other == from).count();
            (*from, before, &**plan)
        })
    }

    /// Releases the resources of the path from a port, except for its last `kept` plans.
    pub(super) fn release_replaced(&mut self, from: PortId, kept: usize) {
        let of_path = self.0.iter().filter(|(port, _)| *port == from).count();
        let mut replaced = of_path.saturating_sub(kept);
        let (released, kept) = std::mem::take(&mut self.0).into_iter().partition(|(port, _)| {
            let is_replaced = *port == from && replaced > 0;
            replaced -= usize::from(is_replaced);
            is_replaced
        });
        self.0 = kept;
        self.release(released);
    }

    /// Releases plans that no path uses.
    fn release(&self, plans: Vec<(PortId, Arc<dyn StagePlan>)>) {
        for (_, plan) in plans.iter().rev() {
            let is_kept = self.0.iter().any(|(_, other)| Arc::ptr_eq(other, plan));
            if let Some(owner) = plan.as_resource_owner().filter(|_| !is_kept) {
                owner.release();
            }
        }
    }
}

impl Drop for Plans {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.0);
        self.release(all);
    }
}
