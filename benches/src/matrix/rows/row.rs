//! A packet path, as the matrix sees it.

use anyhow::Result;
use xdpfwd_bench::results;
use xdpfwd_lab::{Chain, Report, Traffic};

use crate::{
    forwarders::Environment,
    matrix::{columns::Column, system_calls::SystemCallCounter},
    obstacle::Obstacle,
};

/// A packet path.
pub(crate) trait Row: Send + Sync {
    /// Returns the row in the format of results.
    fn describe(&self) -> results::Row;

    /// Writes the configuration of a cell.
    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn ConfiguredPath>, Obstacle>;
}

/// A configured path, ready to be started in any number of labs.
pub(crate) trait ConfiguredPath: Send + Sync {
    /// Returns the commands that configure and start the path, one per line.
    fn commands(&self) -> String;

    /// Changes traffic so that the path forwards it to the sink. Most paths forward all traffic.
    fn address(&self, traffic: Traffic) -> Traffic {
        traffic
    }

    /// Returns whether the sink cannot recognise packets, because they are encapsulated.
    fn encapsulates(&self) -> bool {
        false
    }

    /// Starts the path in a lab, and waits until it forwards.
    fn start(&self, chain: &Chain) -> Result<Box<dyn RunningPath>>;
}

/// A path that forwards packets from fwd0 to fwd1.
pub(crate) trait RunningPath {
    /// Returns the forwarding process, unless the kernel forwards.
    fn pid(&self) -> Option<u32>;

    /// Fails if the forwarding process has ended.
    fn check(&mut self) -> Result<()>;

    /// Returns the counts that the forwarder has reported so far, if it reports any.
    fn progress(&self) -> Result<Option<Progress>> {
        Ok(None)
    }

    /// Starts to count system calls, of a forwarder that does not report them.
    fn count_system_calls(&self) -> Result<Option<SystemCallCounter>> {
        Ok(None)
    }

    /// Stops forwarding.
    fn stop(self: Box<Self>, chain: &Chain) -> Result<FinalCounts>;
}

/// The counts that a forwarder reports while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Progress {
    pub(crate) transmitted: f64,
    pub(crate) syscalls: f64,
    /// Cycles of the stages of the column.
    pub(crate) stage_cycles: f64,
}

impl Progress {
    /// Returns the increase since an earlier report.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            transmitted: self.transmitted - earlier.transmitted,
            syscalls: self.syscalls - earlier.syscalls,
            stage_cycles: self.stage_cycles - earlier.stage_cycles,
        }
    }
}

/// The counts of a path that has stopped.
#[derive(Debug, Default)]
pub(crate) struct FinalCounts {
    /// Packets that the forwarder, or the kernel, counted as transmitted on fwd1.
    pub(crate) transmitted: Option<u64>,
    /// The final report, if the forwarder was xdpfwd.
    pub(crate) report: Option<Report>,
}

/// The MTU of the lab: frames of 1514 bytes fit also with ESP.
pub(crate) const MTU: u16 = 1700;
