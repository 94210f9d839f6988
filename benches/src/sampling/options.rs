//! The options of `sampling`.

use clap::Args;

use crate::common::Common;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Runs; the result is the median of their ratios
    #[arg(long, value_name = "N", default_value_t = 21)]
    pub(super) rounds: u32,
    /// Pairs of windows in each run
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) pairs: u32,
    /// Length of a window in milliseconds. In 250 ms, the kernel ledger measures XDP programs once,
    /// and reads its samples at least once
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub(super) window: u64,
    /// Frame length in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    pub(super) size: u16,
    /// Compare runs of xdpfwd with kernel_ledger = "sampled" and "off" instead of windows of one
    /// run
    #[arg(long)]
    pub(super) restarts: bool,
    /// Fail if the upper end of the interval of the cost is not below this
    #[arg(long, value_name = "PERCENT")]
    pub(super) limit: Option<f64>,
    #[command(flatten)]
    pub(super) common: Common,
}
