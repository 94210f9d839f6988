//! The stage: lets packets of known subscribers pass.

use std::any::Any;
use std::net::Ipv4Addr;

use serde::Deserialize;
use xdpfwd_pipeline::{
    BuildCx, Cx, Inspectable, PlanCx, PlanError, PortId, PortName, Reason, ResourceError,
    ResourceOwner, Stage, StagePlan, Table, View,
};
use xdpfwd_wire::Addresses;

use crate::subscribers::Subscribers;

/// `kind = "subscribers"`: what the configuration file says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Subscribers that exist from the start.
    #[serde(default)]
    known: Vec<Ipv4Addr>,
    /// The port for packets of unknown subscribers. Without it they are dropped.
    unknown_to: Option<PortName>,
}

/// A gate that is ready to be built on every worker.
#[derive(Debug)]
pub struct GatePlan {
    subscribers: Subscribers,
    known: Vec<Ipv4Addr>,
    unknown_to: Option<PortId>,
    no_subscriber: Reason,
    workers: usize,
}

impl GatePlan {
    /// Checks the configuration. Errors point at the line in the file.
    pub fn new(
        config: GateConfig,
        subscribers: Subscribers,
        cx: &PlanCx<'_>,
    ) -> Result<Self, PlanError> {
        let GateConfig { known, unknown_to } = config;
        let no_subscriber =
            Reason::register("no_subscriber", "The source address belongs to no subscriber.")?;
        let unknown_to = unknown_to.map(|port| port.resolve(cx)).transpose()?.map(|port| port.id);
        Ok(Self { subscribers, known, unknown_to, no_subscriber, workers: cx.workers })
    }
}

impl StagePlan for GatePlan {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        Box::new(Gate {
            subscribers: self.subscribers.clone(),
            unknown_to: self.unknown_to,
            no_subscriber: self.no_subscriber,
            diverted: 0,
        })
    }

    fn summary(&self) -> String {
        format!("{} subscribers configured", self.known.len())
    }

    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        Some(self)
    }

    fn as_inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }
}

impl ResourceOwner for GatePlan {
    /// Adds the configured subscribers. Not done in `new`, which `--check` and a reload of an
    /// invalid file call too.
    fn acquire(&self, _: &[&dyn Any]) -> Result<(), ResourceError> {
        self.known.iter().for_each(|address| self.subscribers.add(*address, self.workers));
        Ok(())
    }
}

impl Inspectable for GatePlan {
    fn tables(&self, _: &[u64]) -> Vec<Table> {
        vec![self.subscribers.table()]
    }
}

/// The gate of one worker.
struct Gate {
    subscribers: Subscribers,
    unknown_to: Option<PortId>,
    no_subscriber: Reason,
    diverted: u64,
}

impl Stage for Gate {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let subscribers = self.subscribers.load();
        for mut packet in view.packets() {
            // ARP and IPv6 pass.
            let Some(Addresses::V4 { source, .. }) = packet.meta.headers.addresses(packet.frame)
            else {
                continue;
            };
            match (subscribers.get(&source), self.unknown_to) {
                (Some(own), _) => own.add(cx.worker(), [1, packet.frame.len() as u64]),
                (None, Some(port)) => {
                    self.diverted += 1;
                    packet.send_to(port);
                }
                (None, None) => packet.drop(self.no_subscriber),
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("diverted", self.diverted)]
    }
}
