//! The options of `cost`.

use clap::Args;

use crate::common::Common;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; each runs every measurement once
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(super) rounds: u32,
    /// Frame lengths in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [60, 512, 1400])]
    pub(super) sizes: Vec<u16>,
    /// ESP transforms, as in the configuration file
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["aes-128-gcm"])]
    pub(super) transforms: Vec<String>,
    /// ESP backends, as in the configuration file
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["aws-lc"])]
    pub(super) backends: Vec<String>,
    /// Measure only the stage esp-seal, with the first of the transforms and backends: in the lab,
    /// and alone with few and many frames
    #[arg(long)]
    pub(super) compare_stage: bool,
    /// Lengths of the IP packets with --compare-stage, in bytes
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_values_t = [64, 512, 1400],
        requires = "compare_stage"
    )]
    pub(super) payloads: Vec<u16>,
    #[command(flatten)]
    pub(super) common: Common,
}
