//! Stage plans on a test bench, with their resources.

use std::any::Any;
use std::sync::Arc;

use super::error::TestBenchError;
use crate::chain::NamedStage;
use crate::plan::{BuildCx, StagePlan};
use crate::verdict::PortId;

pub(super) type NamedPlan = (String, Arc<dyn StagePlan>);

pub(super) fn build(plans: &[NamedPlan], cx: &BuildCx<'_>) -> Vec<NamedStage> {
    plans.iter().map(|(name, plan)| NamedStage::build(name, &**plan, cx)).collect()
}

/// Plans, each with its path's ingress port. Releases the resources when dropped.
#[derive(Default)]
pub(super) struct Plans(Vec<(PortId, Arc<dyn StagePlan>)>);

impl Plans {
    /// Adds the plans of a path. Acquires each plan's resources once, however many paths use it. On
    /// failure, releases what this call has acquired, and returns an error with the name of the
    /// stage.
    pub(super) fn acquire(
        &mut self,
        from: PortId,
        plans: &[NamedPlan],
    ) -> Result<(), TestBenchError> {
        let count_before = self.0.len();
        for (name, plan) in plans {
            let is_acquired = self.0.iter().any(|(_, other)| Arc::ptr_eq(other, plan));
            if let Some(owner) = plan.as_resource_owner().filter(|_| !is_acquired) {
                let holders = self.0.iter().map(|(_, plan)| &**plan as &dyn Any);
                let holders: Vec<_> = holders.collect();
                if let Err(source) = owner.acquire(&holders) {
                    let acquired = self.0.split_off(count_before);
                    self.release(acquired);
                    return Err(TestBenchError::Resource { stage: name.clone(), source });
                }
            }
            self.0.push((from, Arc::clone(plan)));
        }
        Ok(())
    }

    /// Returns each plan with its path's ingress port and its index on the path.
    pub(super) fn each_on_path(&self) -> impl Iterator<Item = (PortId, usize, &dyn StagePlan)> {
        self.0.iter().enumerate().map(|(index, (from, plan))| {
            let index_on_path = self.0[..index].iter().filter(|(other, _)| other == from).count();
            (*from, index_on_path, &**plan)
        })
    }

    /// Removes the old plans of the path that starts at port `from`: all plans but the last
    /// `new_plans`. Releases the resources of the removed plans.
    pub(super) fn release_replaced(&mut self, from: PortId, new_plans: usize) {
        let on_path = self.0.iter().filter(|(port, _)| *port == from).count();
        let mut replaced = on_path.saturating_sub(new_plans);
        let (released, kept) = std::mem::take(&mut self.0).into_iter().partition(|(port, _)| {
            let is_replaced = *port == from && replaced > 0;
            replaced -= usize::from(is_replaced);
            is_replaced
        });
        self.0 = kept;
        self.release(released);
    }

    /// Releases the resources of plans, the last plan's first, except those of plans that a path
    /// still uses.
    fn release(&self, plans: Vec<(PortId, Arc<dyn StagePlan>)>) {
        for (_, plan) in plans.iter().rev() {
            let is_used = self.0.iter().any(|(_, other)| Arc::ptr_eq(other, plan));
            if let Some(owner) = plan.as_resource_owner().filter(|_| !is_used) {
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
