//! Common code of the paths through the kernel.

use anyhow::{Context as _, Result};
use xdpfwd_lab::{Chain, Traffic};

use crate::{
    forwarders::{ForwarderKind, PreparedForwarder, set_up},
    matrix::{
        columns::{Column, Placement, Stage},
        rows::row::{ConfiguredPath, FinalCounts, RunningPath},
    },
    obstacle::Obstacle,
};

/// Fails for columns whose stages exist only in user space. `search` says why the path does not
/// search for signatures.
pub(super) fn check_stages(column: &Column, search: &str) -> Result<(), Obstacle> {
    for stage in column.stages {
        let reason = match stage {
            Stage::Filter { placement: Placement::User, .. } => "packets do not reach user space",
            Stage::Signatures => search,
            Stage::Memcpy => "a control of paths through user space",
            Stage::Filter { .. } | Stage::Seal(_) => continue,
        };
        return Err(Obstacle::CannotExist(reason.into()));
    }
    Ok(())
}

/// A path of the kernel that shell commands set up.
pub(super) struct PreparedKernel {
    pub(super) kind: ForwarderKind,
    pub(super) forwarder: PreparedForwarder,
    /// Shell commands for the column's stages.
    pub(super) stages: Vec<String>,
    pub(super) encapsulates: bool,
}

impl ConfiguredPath for PreparedKernel {
    fn commands(&self) -> String {
        let mut lines = vec![self.forwarder.command_lines()];
        lines.extend(self.stages.iter().cloned());
        lines.join("\n")
    }

    fn address(&self, traffic: Traffic) -> Traffic {
        self.kind.address(traffic)
    }

    fn encapsulates(&self) -> bool {
        self.encapsulates
    }

    fn start(&self, chain: &Chain) -> Result<Box<dyn RunningPath>> {
        self.forwarder.start(chain)?;
        self.stages.iter().try_for_each(|line| set_up(chain, line))?;
        Ok(Box::new(RunningKernel))
    }
}

/// A path of the kernel; it ends with the lab.
pub(super) struct RunningKernel;

impl RunningPath for RunningKernel {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    fn stop(self: Box<Self>, chain: &Chain) -> Result<FinalCounts> {
        Ok(FinalCounts { transmitted: Some(transmitted(chain)?), report: None })
    }
}

/// Returns the packets that fwd1 has transmitted, as `ip -s link` shows.
pub(super) fn transmitted(chain: &Chain) -> Result<u64> {
    let arguments = ["-json", "-statistics", "link", "show", "dev", "fwd1"];
    let output = chain.fwd().command("ip").args(arguments).output().context("cannot start ip")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let links: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("`ip {}`", arguments.join(" ")))?;
    let packets = links[0]["stats64"]["tx"]["packets"].as_u64();
    packets.with_context(|| format!("`ip {}` shows no packets: {text}", arguments.join(" ")))
}
