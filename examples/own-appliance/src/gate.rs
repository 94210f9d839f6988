//! The gate, a stage that lets IPv4 packets of known subscribers pass, and drops or diverts those
//! of others.

use std::net::Ipv4Addr;

use serde::Deserialize;
use xdpfwd_pipeline::{PlanCx, PlanError, PlanFn, PortName, Reason};
use xdpfwd_wire::Addresses;

use crate::subscribers::{self, Subscribers};

/// The configuration of a gate, a stage with `kind = "subscribers"`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Addresses of the subscribers that exist from the start.
    #[serde(default)]
    known: Vec<Ipv4Addr>,
    /// The port to which packets of unknown subscribers go. If `None`, these packets are dropped.
    unknown_port: Option<PortName>,
}

/// Validates the configuration and plans the stage.
pub fn plan(
    config: GateConfig,
    subscribers: Subscribers,
    cx: &PlanCx<'_>,
) -> Result<PlanFn, PlanError> {
    let no_subscriber =
        Reason::register("no_subscriber", "The source address belongs to no subscriber.")?;
    let unknown_port = match config.unknown_port {
        Some(port) => Some(port.resolve(cx)?.id),
        None => None,
    };
    let [stage_subscribers, table_subscribers] = [subscribers.clone(), subscribers.clone()];
    let plan = PlanFn::new(move |_| {
        stage_subscribers.stage(move |subscribers, packet, cx| {
            let Some(Addresses::V4 { source, .. }) = packet.meta.headers.addresses(packet.frame)
            else {
                return Ok(()); // ARP and IPv6 pass.
            };
            match (subscribers.get(&source), unknown_port) {
                (Some(counters), _) => counters.add(cx.worker(), [1, packet.frame.len() as u64]),
                (None, Some(port)) => packet.send_to(port),
                (None, None) => return Err(no_subscriber),
            }
            Ok(())
        })
    });
    let workers = cx.workers;
    Ok(plan
        .with_summary(format!("{} subscribers configured", config.known.len()))
        .with_table(move || subscribers::table(&table_subscribers))
        .with_acquire(move || {
            config
                .known
                .iter()
                .for_each(|address| subscribers::add(&subscribers, *address, workers));
            Ok(())
        }))
}
