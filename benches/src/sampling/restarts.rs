//! The comparison of two processes: one with and one without sampling.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use xdpfwd_lab::Traffic;

use crate::{common::Common, forwarders::Environment, lab_run::LabRun};

/// Packets per second of two runs, one after the other.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    off_pps: f64,
    sampled_pps: f64,
}

impl Pair {
    pub(super) fn ratio(&self) -> f64 {
        self.sampled_pps / self.off_pps
    }
}

/// Measures a pair. `configs` are without and with sampling. Every other pair has the reverse
/// order.
pub(super) fn measure(
    common: &Common,
    environment: &Environment,
    configs: [&PathBuf; 2],
    size: u16,
    round: u32,
) -> Result<Pair> {
    let traffic = Traffic::new().size(size);
    let mut pps = [0.0; 2];
    let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    for index in order {
        let run = LabRun::measure(common, &environment.xdpfwd, configs[index], &traffic)?;
        pps[index] = run.window.forwarded_pps();
    }
    Ok(Pair { off_pps: pps[0], sampled_pps: pps[1] })
}
