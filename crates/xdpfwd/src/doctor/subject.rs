//! What is examined: a plan, from a configuration or made up for interfaces that were named.

use xdpfwd_engine::{Io, Keep, Mode, PathPlan, Plan, PortPlan};
use xdpfwd_pipeline::{Idle, PortId};
use xdpfwd_xsk::UmemConfig;

/// What the doctor is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) plan: Plan,
    /// Whether the plan is somebody's configuration. If not, nobody has asked for cores or for a
    /// number of queues.
    pub(crate) configured: bool,
}

impl Subject {
    /// What a configuration wants.
    pub(crate) fn of_plan(plan: &Plan) -> Self {
        Self { plan: plan.clone(), configured: true }
    }

    /// Interfaces, with everything else as a configuration has it by default: each sends back what
    /// it receives.
    pub(crate) fn of_interfaces(names: &[String]) -> Self {
        let ports = names.iter().map(|name| PortPlan {
            name: name.clone(),
            interface: name.clone(),
            io: Io::AfXdp,
            queues: 1,
            keep: Keep::new(),
            promiscuous: true,
        });
        let paths = (0..=u8::MAX).map(PortId).zip(names).map(|(port, _)| PathPlan {
            from: port,
            to: port,
            stages: Vec::new(),
        });
        let plan = Plan {
            mode: Mode::Auto,
            workers: vec![None],
            busy_poll: false,
            idle: Idle::Poll,
            ledger: true,
            umem: UmemConfig::default(),
            ports: ports.collect(),
            paths: paths.collect(),
            control: None,
        };
        Self { plan, configured: false }
    }

    /// The cores that are named.
    pub(crate) fn cores(&self) -> Vec<usize> {
        self.plan.workers.iter().flatten().copied().collect()
    }

    /// How many queues are asked for; `None` if nobody has said.
    pub(crate) fn queues(&self, port: &PortPlan) -> Option<u16> {
        self.configured.then_some(port.queues)
    }
}
