//! Waiting for interfaces that are missing or down.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::error::StartError;
use crate::host::interface::Interface;
use crate::host::link::Link;
use crate::plan::{Plan, PortPlan};
use crate::run::control::{Control, Event};

/// Time after which an obstacle is logged again. The time doubles with each repetition, up to
/// [`MAX_LOG_INTERVAL`].
const LOG_INTERVAL: Duration = Duration::from_secs(5);
const MAX_LOG_INTERVAL: Duration = Duration::from_secs(300);

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

/// Why an interface is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    /// The interface does not exist. Contains the names of the existing interfaces.
    Missing(String),
    Down,
}

/// Waits until all interfaces of the plan exist and are up, SIGINT or SIGTERM arrives, or the
/// deadline passes. Logs interfaces that are missing or down: at once, after five seconds, and then
/// ever less often. Fails if an interface carries other frames than Ethernet.
///
/// [`DataPlane::start`](crate::DataPlane::start) does not wait: while an interface is down, some
/// drivers refuse AF_XDP sockets and others forward nothing.
pub fn wait_until_up(
    plan: &Plan,
    control: &mut Control,
    deadline: Option<Instant>,
) -> Result<WaitOutcome, StartError> {
    let start = Instant::now();
    let (mut next_log, mut interval) = (start + LOG_INTERVAL, LOG_INTERVAL);
    let mut logged: Vec<Option<Obstacle>> = vec![None; plan.ports.len()];
    loop {
        let now = Instant::now();
        let is_log_due = now >= next_log;
        if is_log_due {
            interval = (interval * 2).min(MAX_LOG_INTERVAL);
            next_log = now + interval;
        }
        for (port, logged) in plan.ports.iter().zip(&mut logged) {
            let obstacle = find_obstacle(port)?;
            if let Some(obstacle) = obstacle.as_ref()
                && (is_log_due || !logged.as_ref().is_some_and(|logged| logged.is_like(obstacle)))
            {
                obstacle.log(port, now.duration_since(start).as_secs());
            }
            *logged = obstacle;
        }
        if logged.iter().all(Option::is_none) {
            return Ok(WaitOutcome::Up);
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Ok(WaitOutcome::TimedOut);
        }
        if let Event::Stop(signal) = control
            .wait(deadline.map_or(next_log, |deadline| deadline.min(next_log)))
            .map_err(|source| StartError::Io { what: "cannot wait for an interface", source })?
        {
            return Ok(WaitOutcome::Stopped(signal));
        }
    }
}

fn find_obstacle(port: &PortPlan) -> Result<Option<Obstacle>, StartError> {
    let interface = match Interface::find(&port.name, &port.interface) {
        Ok(interface) => interface,
        Err(missing) => return Ok(Some(Obstacle::Missing(missing.present))),
    };
    match Link::read(interface.index) {
        Ok(link) => {
            link.check_ethernet(&port.interface)
                .map_err(|source| StartError::NotEthernet { port: port.name.clone(), source })?;
            Ok((!link.is_up).then_some(Obstacle::Down))
        }
        // The interface was deleted after it had been found.
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {
            Ok(Some(Obstacle::Missing("unknown".to_owned())))
        }
        Err(source) => Err(unreadable(source)),
    }
}

pub(crate) fn unreadable(source: io::Error) -> StartError {
    StartError::Io { what: "cannot read the type and the state of an interface", source }
}

impl Obstacle {
    /// Returns whether both obstacles have the same log message, so that the second need not be
    /// logged.
    fn is_like(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Missing(_), Self::Missing(_)) | (Self::Down, Self::Down))
    }

    fn log(&self, port: &PortPlan, waited_seconds: u64) {
        let PortPlan { name: port, interface, .. } = port;
        match self {
            Self::Missing(existing) => tracing::warn!(
                port,
                interface,
                waited_seconds,
                existing,
                "the interface does not exist; waiting until it appears (`ip link` lists the \
                 interfaces)"
            ),
            Self::Down => tracing::warn!(
                port,
                interface,
                waited_seconds,
                "the interface is down; waiting until it is up (`ip link set dev {interface} up`)"
            ),
        }
    }
}
