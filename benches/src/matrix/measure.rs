//! The interface between the matrix and the code that measures cells. The tests implement it for
//! cells that do not exist.

use anyhow::Result;
use xdpfwd_bench::results::Run;
use xdpfwd_lab::Histogram;

use super::plan::CellName;
use crate::rate_search::TrialCounts;

/// Measures cells.
pub(crate) trait Measure {
    /// Runs a cell once.
    fn run(&mut self, cell: &CellName, round: u32) -> Result<Run>;

    /// Starts a cell for several trials. `latency`: the trials measure latencies, if the path can
    /// carry time stamps.
    fn session(&self, cell: &CellName, latency: bool) -> Result<Box<dyn Session + '_>>;
}

/// A packet path that forwards until it is stopped.
pub(crate) trait Session {
    /// Returns whether packets of this path can carry time stamps.
    fn can_have_latency(&self) -> bool;

    /// Sends at a rate in packets per second for a time in seconds. Returns the counts and, in a
    /// session with latency, the latencies.
    fn trial(&mut self, pps: u64, seconds: f64) -> Result<(TrialCounts, Option<Histogram>)>;

    fn stop(self: Box<Self>) -> Result<()>;
}
