//! Suggests NIC rules that steer packets of inbound security associations (SAs) to the SAs' queues.

use xdpfwd_engine::PortPlan;
use xdpfwd_pipeline::{PortId, QueueBinding};

use super::{Finding, Subject};

const CHECK: &str = "esp-steering";

/// Returns ethtool commands for each inbound SA; `None` with only one worker or no inbound SA.
pub(crate) fn examine(subject: &Subject, id: PortId, port: &PortPlan) -> Option<Finding> {
    let workers = subject.plan.workers.len();
    let path = subject.plan.paths.iter().find(|path| path.from == id)?;
    let stages = path.stages.iter().filter_map(|stage| stage.plan.as_queue_bound());
    let rules: Vec<String> = stages
        .flat_map(|stage| stage.queue_bindings())
        .map(|QueueBinding { queue, flow, .. }| {
            format!("ethtool -N {} {flow} action {queue}", port.interface)
        })
        .collect();
    if workers < 2 || rules.is_empty() {
        return None;
    }
    let message = format!(
        "each inbound SA belongs to the worker of its `queue`, and its packets on other workers \
         are dropped as wrong_queue; `ethtool -n {}` shows whether the NIC has the rules that steer \
         the packets",
        port.interface
    );
    let fix = Some(rules.join("\n"));
    Some(Finding { fix, ..Finding::unknown(CHECK, &*port.interface, message) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xdpfwd_engine::StageOnPath;
    use xdpfwd_pipeline::{BuildCx, QueueBound, Stage, StagePlan};

    use super::*;
    use crate::doctor::Level;

    /// A stage whose packets must arrive on certain queues.
    #[derive(Debug)]
    struct BoundStage(Vec<QueueBinding>);

    impl StagePlan for BoundStage {
        fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
            unreachable!()
        }

        fn summary(&self) -> String {
            String::new()
        }

        fn as_queue_bound(&self) -> Option<&dyn QueueBound> {
            Some(self)
        }
    }

    impl QueueBound for BoundStage {
        fn queue_bindings(&self) -> Vec<QueueBinding> {
            self.0.clone()
        }
    }

    fn found(workers: usize, bindings: &[(u16, &str)]) -> Option<Finding> {
        let mut subject = Subject::of_interfaces(&["eth1".to_owned()]);
        subject.plan.workers = vec![None; workers];
        let bindings = bindings.iter().map(|&(queue, flow)| QueueBinding {
            queue,
            owner: format!("SA {queue}"),
            flow: flow.to_owned(),
        });
        let plan = Arc::new(BoundStage(bindings.collect()));
        subject.plan.paths[0].stages =
            vec![StageOnPath { name: "in".into(), plan, in_kernel: false }];
        let port = subject.plan.ports[0].clone();
        examine(&subject, PortId(0), &port)
    }

    #[test]
    fn doctor_prints_a_steering_rule_for_each_queue_binding() {
        let bindings = [
            (1, "flow-type esp4 dst-ip 192.0.2.1 spi 0x2001"),
            (3, "flow-type udp4 dst-port 4500"),
        ];
        let finding = found(2, &bindings).unwrap();
        assert_eq!(finding.level, Level::Unknown);
        let rules: Vec<&str> = finding.fix.as_deref().unwrap().lines().collect();
        assert_eq!(
            rules,
            [
                "ethtool -N eth1 flow-type esp4 dst-ip 192.0.2.1 spi 0x2001 action 1",
                "ethtool -N eth1 flow-type udp4 dst-port 4500 action 3",
            ]
        );
        assert!(
            found(1, &bindings).is_none(),
            "one worker serves all queues, so no rule is needed"
        );
        assert!(found(2, &[]).is_none());
    }
}
