//! The calibration of one round: copies of known memory, and a lab without copies.

use anyhow::Result;
use serde::Serialize;
use xdpfwd_lab::Traffic;

use super::memory::{self, Costs};
use crate::{
    common::{Common, note},
    forwarders::Environment,
    lab_config::LabConfig,
    lab_run::LabRun,
};

/// The costs of copies in one round, for one length.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Calibration {
    pub(super) size: u16,
    pub(super) round: u32,
    #[serde(flatten)]
    pub(super) costs: Costs,
    /// Cycles per packet of the generator's core if the XDP program of fwd0 drops every packet: no
    /// path makes a copy there.
    pub(super) dropped: f64,
}

impl Calibration {
    pub(super) fn measure(
        common: &Common,
        environment: &Environment,
        size: u16,
        round: u32,
    ) -> Result<Self> {
        let (forwarding, receiving) = (common.core, common.traffic.generator_core);
        let costs = memory::kernel(forwarding, receiving, size.into())?;
        let config = LabConfig {
            core: forwarding,
            stages: &["drop"],
            tables: "[stage.drop]\nkind = \"filter\"\nplace = \"kernel\"\ndefault = \"drop\"\n\
                     not_ip = \"drop\"\nrules = []\n",
            ..LabConfig::default()
        };
        let file = config.write(&environment.scratch, "copies-drop.toml")?;
        let run = LabRun::measure(common, &environment.xdpfwd, &file, &Traffic::new().size(size))?;
        let dropped = run.generator_core_cycles / run.window.offered.packets as f64;
        let calibration = Self { size, round, costs, dropped };
        note(&format!("round {}: {}", round + 1, serde_json::to_string(&calibration)?));
        Ok(calibration)
    }
}
