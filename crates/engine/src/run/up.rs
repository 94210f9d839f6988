//! Waiting for interfaces that are down.

use std::io;
use std::time::{Duration, Instant};

use crate::error::StartError;
use crate::host::addresses;
use crate::host::interface::Interface;
use crate::plan::Plan;
use crate::run::control::{Control, Event};

const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The result of [`wait_until_up`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// All interfaces are up.
    Up,
    /// SIGINT or SIGTERM (its number) arrived.
    Stopped(i32),
    /// The deadline passed.
    TimedOut,
}

/// Waits until all interfaces of the plan are up, SIGINT or SIGTERM arrives, or the deadline
/// passes. Logs interfaces that are down, at once and every five seconds. Fails if an interface
/// does not exist.
///
/// [`DataPlane::start`](crate::DataPlane::start) does not wait: while an interface is down, some
/// drivers refuse AF_XDP sockets and others forward nothing.
pub fn wait_until_up(
    plan: &Plan,
    control: &mut Control,
    deadline: Option<Instant>,
) -> Result<WaitOutcome, StartError> {
    let io_error = |what| move |source: io::Error| StartError::Io { what, source };
    let start = Instant::now();
    let mut next_log = start;
    loop {
        let mut all_up = true;
        let now = Instant::now();
        for port in &plan.ports {
            let Interface { name, index } = Interface::find(&port.name, &port.interface)?;
            if addresses::is_up(index).map_err(io_error("cannot read the state of an interface"))? {
                continue;
            }
            all_up = false;
            if now >= next_log {
                let waited_seconds = now.duration_since(start).as_secs();
                tracing::warn!(
                    port = port.name,
                    interface = name,
                    waited_seconds,
                    "the interface is down; waiting until it is up (`ip link set dev {name} up`)"
                );
            }
        }
        if all_up {
            return Ok(WaitOutcome::Up);
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Ok(WaitOutcome::TimedOut);
        }
        if now >= next_log {
            next_log += LOG_INTERVAL;
        }
        if let Event::Stop(signal) = control
            .wait(deadline.map_or(next_log, |deadline| deadline.min(next_log)))
            .map_err(io_error("cannot wait for an interface"))?
        {
            return Ok(WaitOutcome::Stopped(signal));
        }
    }
}
