//! Replacement of XDP programs whose filter a reload changes.

use std::thread;
use std::time::Duration;

use xdpfwd_pipeline::{PortId, Verdicts};

use crate::attach::program::LoadedObject;
use crate::plan::{PathPlan, Plan};
use crate::run::data_plane::DataPlane;
use crate::run::reload::ReloadError;

/// After this time, no CPU runs a replaced XDP program. The time is ample: a driver that still runs
/// the program finishes after a few dozen packets.
const GRACE_PERIOD: Duration = Duration::from_millis(20);

impl DataPlane {
    /// Loads a new XDP program, the successor, for each port where the new plan adds, changes or
    /// removes a filter in the kernel. Does not attach it. If a successor cannot be loaded and its
    /// filter may run in user space, moves the filter in `plan` to user space.
    pub(crate) fn load_successors(
        &mut self,
        plan: &mut Plan,
    ) -> Result<Vec<(PortId, LoadedObject)>, ReloadError> {
        let mut successors = Vec::new();
        for id in (0..=u8::MAX).map(PortId).take(plan.ports.len()) {
            let attachment = &self.attachments[usize::from(id.0)];
            // Filters with equal verdict keys drop the same packets. Compare the new plan with the
            // attached program, not with the running plan: after an incomplete reload, the program
            // still has a filter that the running plan lacks.
            let is_unchanged = match (attachment.image(), plan.xdp_image(id)) {
                (None, None) => true,
                (Some(attached), Some(image)) => attached.verdict_key == image.verdict_key,
                _ => false,
            };
            if is_unchanged {
                continue;
            }
            let successor = attachment.load_successor(plan.xdp_image(id)).or_else(|what| {
                if plan.fall_back_to_user_space(id, &what) {
                    attachment.load_successor(None)
                } else {
                    Err(what)
                }
            });
            let port = &plan.ports[usize::from(id.0)].name;
            let successor =
                successor.map_err(|what| ReloadError::Program { port: port.clone(), what })?;
            successors.extend(successor.map(|successor| (id, successor)));
        }
        Ok(successors)
    }

    /// Attaches the successors and returns the programs that they replace. If a successor cannot be
    /// attached, re-attaches the programs that were already replaced, and fails.
    pub(crate) fn exchange_programs(
        &mut self,
        successors: Vec<(PortId, LoadedObject)>,
    ) -> Result<Vec<(PortId, LoadedObject)>, ReloadError> {
        let mut predecessors = Vec::new();
        for (port, successor) in successors {
            let Some(attachment) = self.attachments.get_mut(usize::from(port.0)) else { continue };
            match attachment.replace(successor) {
                Ok(predecessor) => {
                    predecessors.extend(predecessor.map(|predecessor| (port, predecessor)))
                }
                Err(error) => {
                    let name =
                        self.plan().ports.get(usize::from(port.0)).map(|port| port.name.clone());
                    for (port, predecessor) in predecessors {
                        let attachment = &mut self.attachments[usize::from(port.0)];
                        if let Err(error) = attachment.replace(predecessor) {
                            tracing::error!(
                                %error,
                                "cannot attach a replaced XDP program again; its successor stays"
                            );
                        }
                    }
                    return Err(ReloadError::Program {
                        port: name.unwrap_or_default(),
                        what: error.to_string(),
                    });
                }
            }
        }
        Ok(predecessors)
    }

    /// Adds the row counters of the replaced programs to `self.carried`.
    pub(crate) fn carry_from_programs(
        &mut self,
        old_plan: &Plan,
        predecessors: Vec<(PortId, LoadedObject)>,
    ) {
        if predecessors.is_empty() {
            return;
        }
        // Wait until the counters of the replaced programs are final.
        thread::sleep(GRACE_PERIOD);
        for (port, predecessor) in &predecessors {
            if let Some(run_time) = predecessor.run_time() {
                self.kernel_ledger.carry(usize::from(port.0), run_time);
            }
        }
        // The ingress port of each stage.
        let ports =
            old_plan.paths.iter().flat_map(|path| path.stages.iter().map(move |_| path.from));
        for (port, (id, stage)) in ports.zip(old_plan.stages_with_ids()) {
            let Some((_, predecessor)) =
                predecessors.iter().find(|(replaced, _)| *replaced == port && stage.in_kernel)
            else {
                continue;
            };
            if let (Some(inspectable), Some(counters)) =
                (stage.plan.as_inspectable(), predecessor.row_counters())
            {
                self.carried.add(id, inspectable.counter_keys(), &counters);
            }
        }
    }
}

impl Plan {
    /// Moves a filter of the new plan from the kernel to user space if its placement in the kernel
    /// is unsafe during the reload: packets that both the old and the new rules drop could pass.
    /// Fails if the configuration requires the filter in the kernel. Two cases are unsafe:
    ///
    /// - The filter is in user space in the old plan: if it moved to the kernel, no filter would
    ///   check packets that are already queued for the workers.
    /// - The filter and a later stage on its path both change: a packet could be checked by the old
    ///   filter and the new stage, or by the new filter and the old stage.
    pub(crate) fn restrict_placement(&self, new_plan: &mut Self) -> Result<(), ReloadError> {
        for path in 0..new_plan.paths.len() {
            let port = new_plan.paths[path].from;
            let Some(image) = new_plan.xdp_image(port) else { continue };
            let (old_verdicts, new_verdicts) = (
                self.paths[path].verdicts_in_user_space(),
                new_plan.paths[path].verdicts_in_user_space(),
            );
            match self.xdp_image(port) {
                Some(running) if running.verdict_key == image.verdict_key => {}
                Some(_) if old_verdicts == new_verdicts => {}
                Some(_) => {
                    if !new_plan.fall_back_to_user_space(
                        port,
                        "a later stage on the path also changes, and a reload cannot replace that \
                         stage and the XDP program at the same moment",
                    ) {
                        return Err(ReloadError::NotAtomic(
                            new_plan.ports[usize::from(port.0)].name.clone(),
                        ));
                    }
                }
                // Every old stage that can drop packets stays in user space, and so still checks
                // the queued packets.
                None if is_subsequence(&old_verdicts, &new_verdicts) => {}
                None => {
                    if !new_plan.fall_back_to_user_space(
                        port,
                        "a filter moves from user space to the kernel only on restart",
                    ) {
                        return Err(ReloadError::RequiresRestart(
                            "the `place` of a stage, from user space to the kernel,",
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves the filter of a port from the kernel to user space, and logs why. Returns false if the
    /// port has no filter in the kernel, or if the configuration requires the filter there.
    pub(crate) fn fall_back_to_user_space(&mut self, port: PortId, why: &str) -> bool {
        let path = self.paths.iter_mut().find(|path| path.from == port);
        let Some(first) = path.and_then(|path| path.stages.first_mut()) else { return false };
        if !first.in_kernel
            || first.plan.as_xdp_offload().is_none_or(|offload| offload.is_required())
        {
            return false;
        }
        tracing::warn!(stage = first.name, why, "the stage falls back to user space");
        first.in_kernel = false;
        true
    }
}

impl PathPlan {
    /// Returns the [`Verdicts`] of each user-space stage that can drop packets, in order.
    fn verdicts_in_user_space(&self) -> Vec<Verdicts> {
        let verdicts =
            self.stages.iter().filter(|stage| !stage.in_kernel).map(|stage| stage.plan.verdicts());
        verdicts.filter(|verdicts| !matches!(verdicts, Verdicts::AlwaysPass)).collect()
    }
}

/// Returns whether `list` contains the items of `part`, in order.
fn is_subsequence<T: PartialEq>(part: &[T], list: &[T]) -> bool {
    let mut remaining = list.iter();
    part.iter().all(|item| remaining.any(|other| other == item))
}

#[cfg(test)]
mod tests {
    use super::is_subsequence;

    #[test]
    fn is_subsequence_rejects_missing_or_reordered_items() {
        let letters = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (part, list) in [("", ""), ("", "ab"), ("ab", "ab"), ("ac", "abc")] {
            assert!(is_subsequence(&letters(part), &letters(list)), "{part} in {list}");
        }
        for (part, list) in [("ca", "abc"), ("ab", "a"), ("aa", "ab")] {
            assert!(!is_subsequence(&letters(part), &letters(list)), "{part} in {list}");
        }
    }
}
