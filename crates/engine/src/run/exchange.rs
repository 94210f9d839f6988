//! Replacement of XDP programs in a running data plane when a reload changes their filters.

use std::thread;
use std::time::Duration;

use xdpfwd_pipeline::{PortId, Verdicts};

use crate::attach::program::Successor;
use crate::plan::{PathPlan, Plan};
use crate::run::data_plane::DataPlane;
use crate::run::reload::ReloadError;

/// Delay after which a replaced XDP program no longer runs. Drivers run a program for a few dozen
/// packets at a time.
const GRACE_PERIOD: Duration = Duration::from_millis(20);

impl DataPlane {
    /// Loads programs for ports whose filter changes or is removed, without attaching them. If a
    /// program does not load and its filter may run in user space, the filter moves there.
    pub(crate) fn load_successors(
        &mut self,
        plan: &mut Plan,
    ) -> Result<Vec<(PortId, Successor)>, ReloadError> {
        let mut successors = Vec::new();
        for id in (0..=u8::MAX).map(PortId).take(plan.ports.len()) {
            let attachment = &self.attachments[usize::from(id.0)];
            // Compare with the attached program, not with the running plan.
            let same = match (attachment.image(), plan.xdp_image(id)) {
                (None, None) => true,
                (Some(attached), Some(image)) => attached.verdict_key == image.verdict_key,
                _ => false,
            };
            if same {
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

    /// Replaces all programs or none, and returns the previous ones.
    pub(crate) fn exchange_programs(
        &mut self,
        successors: Vec<(PortId, Successor)>,
    ) -> Result<Vec<(PortId, Successor)>, ReloadError> {
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
                            tracing::error!(%error, "cannot restore an XDP program");
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

    /// Carries over the counters of stages in replaced XDP programs, which ran with the plan `old`.
    pub(crate) fn carry_from_programs(
        &mut self,
        old: &Plan,
        predecessors: Vec<(PortId, Successor)>,
    ) {
        if predecessors.is_empty() {
            return;
        }
        // After this delay, no CPU runs an old program.
        thread::sleep(GRACE_PERIOD);
        let paths = old.paths.iter().flat_map(|path| path.stages.iter().map(move |_| path.from));
        for (port, (id, stage)) in paths.zip(old.stages_with_ids()) {
            let Some((_, predecessor)) =
                predecessors.iter().find(|(of, _)| *of == port && stage.in_kernel)
            else {
                continue;
            };
            if let (Some(inspectable), Some(counters)) =
                (stage.plan.as_inspectable(), predecessor.row_counters())
            {
                self.carried.carry(id, inspectable.counter_keys(), &counters);
            }
        }
    }
}

impl Plan {
    /// Moves filters of a new plan from the kernel to user space where packets could otherwise pass
    /// between the old and the new rules. Fails if such a filter must run in the kernel.
    ///
    /// A filter cannot move from user space to the kernel while packets flow: neither filter would
    /// check the packets queued for the workers. Rules in the kernel and in later stages cannot
    /// change together either: they do not change atomically, so packets that one leaves to the
    /// other would pass.
    pub(crate) fn restrict_placement(&self, plan: &mut Self) -> Result<(), ReloadError> {
        for number in 0..plan.paths.len() {
            let port = plan.paths[number].from;
            let Some(image) = plan.xdp_image(port) else { continue };
            let (running, wanted) = (
                self.paths[number].verdicts_in_user_space(),
                plan.paths[number].verdicts_in_user_space(),
            );
            match self.xdp_image(port) {
                Some(running) if running.verdict_key == image.verdict_key => {}
                Some(_) if running == wanted => {}
                Some(_) => {
                    if !plan.fall_back_to_user_space(
                        port,
                        "a later stage on the path changes in the same reload, \
                         which does not replace it and the XDP program at the same moment",
                    ) {
                        return Err(ReloadError::NotAtomic(
                            plan.ports[usize::from(port.0)].name.clone(),
                        ));
                    }
                }
                // The workers keep every filter that they run now, so it still checks the queued
                // packets.
                None if is_subsequence(&running, &wanted) => {}
                None => {
                    if !plan.fall_back_to_user_space(
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

    /// Moves the filter of a port to user space, if allowed, and logs the reason. Otherwise leaves
    /// it in place.
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
    /// Returns the verdict keys of the stages that workers run, in order.
    fn verdicts_in_user_space(&self) -> Vec<Verdicts> {
        let verdicts =
            self.stages.iter().filter(|stage| !stage.in_kernel).map(|stage| stage.plan.verdicts());
        verdicts.filter(|verdicts| !matches!(verdicts, Verdicts::AlwaysPass)).collect()
    }
}

/// Returns whether a list is a subsequence of another.
fn is_subsequence<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
}

#[cfg(test)]
mod tests {
    use super::is_subsequence;

    #[test]
    fn is_subsequence_rejects_missing_or_reordered_items() {
        let list = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (some, all) in [("", ""), ("", "ab"), ("ab", "ab"), ("ac", "abc")] {
            assert!(is_subsequence(&list(some), &list(all)), "{some} in {all}");
        }
        for (some, all) in [("ca", "abc"), ("ab", "a"), ("aa", "ab")] {
            assert!(!is_subsequence(&list(some), &list(all)), "{some} in {all}");
        }
    }
}
