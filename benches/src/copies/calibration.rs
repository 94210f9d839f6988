//! The calibration of one round: copies of known memory, and a lab without copies.

use anyhow::Result;
use serde::Serialize;

use super::{
    memory::{self, Costs},
    run::CopyLab,
};
use crate::{common::note, lab_config::LabConfig};

/// Packets per second of the run without copies: fewer than the generator can send.
const DROPPED_RATE: u64 = 500_000;

/// The costs of copies in one round, for one length.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Calibration {
    pub(super) size: u16,
    pub(super) round: u32,
    #[serde(flatten)]
    pub(super) costs: Costs,
    /// Cycles per packet of the receive work of fwd0 if its XDP program drops every packet, at
    /// [`DROPPED_RATE`]: without a copy.
    pub(super) dropped: f64,
}

impl Calibration {
    pub(super) fn measure(lab: &CopyLab<'_>, size: u16, round: u32) -> Result<Self> {
        let environment = lab.environment;
        let (forwarding, receiving) = (environment.core, environment.generator);
        let frame_size = lab.frame_size() as usize;
        let costs = memory::kernel(forwarding, receiving, size.into(), frame_size)?;
        let umem = lab.umem();
        let config = LabConfig {
            core: forwarding,
            stages: &["drop"],
            tables: &format!(
                "{umem}\n[stage.drop]\nkind = \"filter\"\nplace = \"kernel\"\n\
                 default = \"drop\"\nnot_ip = \"drop\"\nrules = []\n"
            ),
            ..LabConfig::default()
        };
        let file = config.write(&environment.scratch, "copies-drop.toml")?;
        let dropped = lab.dropped(&file, size, DROPPED_RATE)?;
        let calibration = Self { size, round, costs, dropped };
        note(&format!("round {}: {}", round + 1, serde_json::to_string(&calibration)?));
        Ok(calibration)
    }
}
