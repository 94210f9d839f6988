//! The subject of a check: the plan of a configuration, or a default plan for interfaces.

use xdpfwd_engine::{Io, Keep, KernelLedgerMode, Mode, PathPlan, Plan, PortLoss, PortPlan, Qdisc};
use xdpfwd_pipeline::{Idle, PortId};
use xdpfwd_xsk::UmemConfig;

#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) plan: Plan,
    /// Whether the plan is that of a configuration. If not, its cores and queue counts are
    /// defaults.
    pub(crate) configured: bool,
}

impl Subject {
    pub(crate) fn of_plan(plan: &Plan) -> Self {
        Self { plan: plan.clone(), configured: true }
    }

    /// Returns a default plan for interfaces, in which each interface sends back the packets that
    /// it receives.
    pub(crate) fn of_interfaces(names: &[String]) -> Self {
        let ports = names.iter().map(|name| PortPlan {
            name: name.clone(),
            interface: name.clone(),
            io: Io::AfXdp,
            queues: 1,
            keep: Keep::new(),
            promiscuous: true,
            qdisc: Qdisc::default(),
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
            kernel_ledger: KernelLedgerMode::Off,
            on_port_loss: PortLoss::Wait,
            umem: UmemConfig::default(),
            ports: ports.collect(),
            paths: paths.collect(),
            control: None,
        };
        Self { plan, configured: false }
    }

    pub(crate) fn cores(&self) -> Vec<usize> {
        self.plan.workers.iter().flatten().copied().collect()
    }

    /// Returns the configured number of queues, or `None` without a configuration.
    pub(crate) fn queues(&self, port: &PortPlan) -> Option<u16> {
        self.configured.then_some(port.queues)
    }
}
