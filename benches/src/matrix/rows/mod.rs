//! The rows of the matrix: packet paths. A new row is a file with a type that implements [`Row`],
//! and an entry in [`rows`].

mod bridge;
mod ip_forward;
mod kernel;
mod nftables;
mod testpmd;
mod xdp_redirect;
pub(crate) mod xdpfwd;

use anyhow::Result;
use xdpfwd_bench::results;
use xdpfwd_lab::{Chain, Report, Traffic};

use super::{columns::Column, system_calls::SystemCallCounter};
use crate::forwarders::{Environment, MissingReason};

/// A packet path.
pub(crate) trait Row: Send + Sync {
    /// Returns the row in the format of results.
    fn describe(&self) -> results::Row;

    /// Writes the configuration of a cell. Returns the reason if the cell cannot exist, as short
    /// as possible.
    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn Prepared>, MissingReason>;
}

/// A configured path, ready to be started in any number of labs.
pub(crate) trait Prepared: Send + Sync {
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
    fn start(&self, chain: &Chain) -> Result<Box<dyn Running>>;
}

/// A path that forwards packets from fwd0 to fwd1.
pub(crate) trait Running {
    /// Returns the forwarding process, unless the kernel forwards.
    fn pid(&self) -> Option<u32>;

    /// Fails if the forwarding process has ended.
    fn check(&mut self) -> Result<()>;

    /// Returns what the forwarder reports about itself so far.
    fn progress(&self) -> Result<Option<Progress>> {
        Ok(None)
    }

    /// Starts to count system calls, of a forwarder that does not report them.
    fn count_system_calls(&self) -> Result<Option<SystemCallCounter>> {
        Ok(None)
    }

    /// Stops forwarding.
    fn stop(self: Box<Self>, chain: &Chain) -> Result<Stopped>;
}

/// What a forwarder reports while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Progress {
    pub(crate) transmitted: f64,
    pub(crate) syscalls: f64,
    /// Cycles of all stages.
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

/// What is known about a path after it has stopped.
#[derive(Debug, Default)]
pub(crate) struct Stopped {
    /// Packets that the forwarder, or the kernel, counted as transmitted on fwd1.
    pub(crate) transmitted: Option<u64>,
    /// The final report, if the forwarder was xdpfwd.
    pub(crate) report: Option<Report>,
}

/// Returns all rows, in the order of tables.
pub(crate) fn rows() -> Vec<Box<dyn Row>> {
    let mut rows = xdpfwd::rows();
    rows.extend(xdp_redirect::rows());
    rows.push(Box::new(bridge::Bridge));
    rows.push(Box::new(ip_forward::IpForward));
    rows.push(Box::new(testpmd::Testpmd));
    rows
}

/// Reasons that several rows share.
const NO_USER_SPACE: &str = "packets do not reach user space";
const NO_BYTES: &str = "the application never sees the bytes";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{forwarders::test_environment, matrix::columns::COLUMNS};

    #[test]
    fn row_names_are_unique_and_copies_are_functions() {
        let rows: Vec<_> = rows().iter().map(|row| row.describe()).collect();
        let mut names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        for row in rows {
            assert!(matches!(&*row.place, "user" | "kernel"), "{row:?}");
            assert!(row.copies.iter().all(|copy| !copy.contains(' ')), "{row:?}");
        }
    }

    /// xdpfwd accepts everything in this test: root_matrix uses the real one.
    #[test]
    fn every_cell_has_a_configuration_or_a_short_reason() {
        let scratch = tempfile::tempdir().unwrap();
        let environment = test_environment("true", scratch.path());
        for row in rows() {
            let name = row.describe().name;
            let mut prepared = 0;
            for column in &COLUMNS {
                match row.prepare(column, &environment) {
                    Ok(cell) => {
                        prepared += 1;
                        assert!(!cell.commands().is_empty(), "{name}, {}", column.name);
                        assert_eq!(cell.encapsulates(), column.transform().is_some());
                    }
                    Err(reason) => {
                        let has_space = reason.contains(' ');
                        assert!(has_space && !reason.contains('\n'), "{name}: {reason}");
                        assert!(!reason.starts_with("n/a"), "{name}: {reason}");
                    }
                }
            }
            let is_xdpfwd = name.starts_with("packet") || name.starts_with("xsk-rs");
            assert!(prepared == COLUMNS.len() || !is_xdpfwd, "{name}: {prepared} cells");
        }
    }
}
