//! Starts xdpfwd for a measurement: its command line, and how long to wait for it.

use std::{path::Path, time::Duration};

use anyhow::Result;
use xdpfwd_lab::{Chain, Forwarder};

/// Time until a forwarder forwards: testpmd needs some seconds to allocate its memory, a kernel
/// tens of seconds to load a filter with 10,000 rules.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Time until a forwarder has ended after SIGINT.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Seconds between two reports of an xdpfwd whose windows are short.
pub(crate) const REPORT_INTERVAL: &str = "0.1";

/// Returns the command line of an xdpfwd that prints a report every `interval` seconds.
pub(crate) fn xdpfwd_command(xdpfwd: &Path, config: &Path, interval: &str) -> Vec<String> {
    let (xdpfwd, config) = (xdpfwd.display().to_string(), config.display().to_string());
    [&*xdpfwd, "--config", &config, "--json", "--interval", interval].map(str::to_owned).into()
}

/// Starts xdpfwd in the forwarder's namespace of a lab, and waits until it forwards.
pub(crate) fn start_xdpfwd(
    chain: &Chain,
    xdpfwd: &Path,
    config: &Path,
    interval: &str,
) -> Result<Forwarder> {
    let mut forwarder = Forwarder::spawn(chain.fwd(), &xdpfwd_command(xdpfwd, config, interval))?;
    wait_until_ready(&mut forwarder)?;
    Ok(forwarder)
}

/// Waits until xdpfwd has printed its first report.
pub(crate) fn wait_until_ready(forwarder: &mut Forwarder) -> Result<()> {
    forwarder.wait_for_line(READY_DEADLINE, |line| line.contains(r#""type":"interval""#))?;
    Ok(())
}
