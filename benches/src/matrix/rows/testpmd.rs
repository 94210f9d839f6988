//! `dpdk-testpmd` on net_af_xdp.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use xdpfwd_bench::results;
use xdpfwd_lab::Chain;

use crate::{
    forwarders::{Environment, ForwarderKind, PreparedForwarder, RunningForwarder},
    launch::STOP_DEADLINE,
    matrix::{
        columns::{Column, Placement, Stage},
        rows::row::{ConfiguredPath, FinalCounts, Row, RunningPath},
        system_calls::SystemCallCounter,
    },
    obstacle::Obstacle,
    xdp_programs::compile_bpf,
};

pub(super) struct Testpmd;

impl Row for Testpmd {
    fn describe(&self) -> results::Row {
        results::Row {
            name: "testpmd".into(),
            title: "DPDK testpmd, net_af_xdp".into(),
            place: "user".into(),
            remark: "Swaps MAC addresses; each poll is a system call (preferred busy polling)."
                .into(),
            copies: ["__xsk_rcv", "xsk_build_skb"].map(str::to_owned).into(),
        }
    }

    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn ConfiguredPath>, Obstacle> {
        if let Some(stage) = column.stages.first() {
            let reason = match stage {
                Stage::Filter { placement: Placement::Kernel, .. } => {
                    "the XDP program of net_af_xdp has no filter"
                }
                _ => "testpmd has no such stage",
            };
            return Err(Obstacle::CannotExist(reason.into()));
        }
        let forwarder = ForwarderKind::Testpmd { busy_poll: true }.prepare(environment, 1);
        let forwarder = forwarder.map_err(Obstacle::NotInstalled)?;
        let counter = compile_bpf(environment, "system_calls")?;
        Ok(Box::new(PreparedTestpmd { forwarder, counter }))
    }
}

struct PreparedTestpmd {
    forwarder: PreparedForwarder,
    /// The BPF program that counts system calls.
    counter: PathBuf,
}

impl ConfiguredPath for PreparedTestpmd {
    fn commands(&self) -> String {
        self.forwarder.command_lines()
    }

    fn start(&self, chain: &Chain) -> Result<Box<dyn RunningPath>> {
        Ok(Box::new(RunningTestpmd {
            running: self.forwarder.start(chain)?,
            counter: self.counter.clone(),
        }))
    }
}

struct RunningTestpmd {
    running: RunningForwarder,
    counter: PathBuf,
}

impl RunningPath for RunningTestpmd {
    fn pid(&self) -> Option<u32> {
        self.running.forwarder.as_ref().map(xdpfwd_lab::Forwarder::pid)
    }

    fn check(&mut self) -> Result<()> {
        self.running.check()
    }

    fn count_system_calls(&self) -> Result<Option<SystemCallCounter>> {
        self.pid().map(|pid| SystemCallCounter::start(&self.counter, pid)).transpose()
    }

    fn stop(mut self: Box<Self>, _chain: &Chain) -> Result<FinalCounts> {
        let forwarder = self.running.forwarder.as_mut().context("testpmd was not started")?;
        forwarder.stop(STOP_DEADLINE)?;
        Ok(FinalCounts { transmitted: transmitted(&forwarder.stdout()), report: None })
    }
}

/// Returns the packets that port 1 (fwd1) has sent, from the statistics that testpmd prints at its
/// end.
fn transmitted(lines: &[String]) -> Option<u64> {
    let start = lines.iter().rposition(|line| {
        line.contains("Forward statistics for port 1") && !line.contains("queue")
    })?;
    let line = lines[start..].iter().find(|line| line.trim_start().starts_with("TX-packets:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transmitted_is_that_of_the_second_port_at_the_end() {
        let text = "\
  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 700            RX-dropped: 0             RX-total: 700
  TX-packets: 1              TX-dropped: 0             TX-total: 1
  ----------------------------------------------------------------------------

  ---------------------- Forward statistics for port 1  ----------------------
  RX-packets: 0              RX-dropped: 0             RX-total: 0
  TX-packets: 650            TX-dropped: 50            TX-total: 700
  ----------------------------------------------------------------------------

  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  TX-packets: 651            TX-dropped: 50            TX-total: 701
";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(transmitted(&lines), Some(650));
        assert_eq!(transmitted(&lines[..4]), None);
    }
}
