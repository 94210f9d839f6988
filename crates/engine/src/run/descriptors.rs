//! The limit on open file descriptors (`RLIMIT_NOFILE`).

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::plan::{Io, Plan};

/// The process is not allowed to open as many files as a plan needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the configuration needs {needed} file descriptors, but this process may open only {hard} (the \
     hard limit); raise the hard limit: `ulimit -Hn {needed}` as root before the start, or \
     LimitNOFILE={needed} in the systemd unit"
)]
pub struct TooFewDescriptors {
    /// Number of descriptors that the plan needs, including those already open.
    pub needed: u64,
    /// The hard limit.
    pub hard: u64,
}

/// Descriptors that do not depend on the plan: log, signals, control socket, configuration and
/// state files, /proc and netlink queries, and some reserve.
const BASE: u64 = 48;
/// Descriptors of each worker: memory, wake-ups, and a socket that probes the kernel.
const PER_WORKER: u64 = 4;
/// Descriptors of each port: a socket for promiscuous mode, and short-lived queries.
const PER_PORT: u64 = 4;
/// Descriptors of each XDP program: its maps, programs, BTF and link. During a reload, a port has
/// two programs.
const PER_PROGRAM: u64 = 40;

/// Returns the number of descriptors that a plan needs at most, without those that are open before
/// the start.
fn needed_by(plan: &Plan) -> u64 {
    let ports = plan.ports.iter().map(|port| {
        let programs = if port.io.uses_xdp() { 2 * PER_PROGRAM } else { 0 };
        // libxdp opens a socket of its own for each queue.
        let per_queue = if port.io == Io::XskRs { 2 } else { 1 };
        PER_PORT + programs + per_queue * u64::from(port.queues)
    });
    BASE + PER_WORKER * plan.workers.len() as u64 + ports.sum::<u64>()
}

/// The limits, and the number of descriptors that a plan needs together with the open ones.
struct Limits {
    soft: u64,
    hard: u64,
    needed: u64,
}

impl Limits {
    fn new(plan: &Plan) -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // If /proc is missing, assume as many open files as a usual process has.
        let open = fs::read_dir("/proc/self/fd").map_or(16, |files| files.count() as u64);
        Ok(Self { soft, hard, needed: open + needed_by(plan) })
    }

    fn check(&self) -> Result<(), TooFewDescriptors> {
        match *self {
            Self { hard, needed, .. } if needed > hard => Err(TooFewDescriptors { needed, hard }),
            _ => Ok(()),
        }
    }
}

/// Returns whether the hard limit on open files is high enough for a plan; the outer error means
/// that the limit cannot be read.
pub fn check_descriptors(plan: &Plan) -> io::Result<Result<(), TooFewDescriptors>> {
    Ok(Limits::new(plan)?.check())
}

/// Raises the soft limit to the number of descriptors that the plan needs, if it is lower. Fails if
/// the hard limit is too low.
pub(crate) fn raise_limit(plan: &Plan) -> Result<(), TooFewDescriptors> {
    let limits = match Limits::new(plan) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "cannot check the limit on open files (`ulimit -n`)");
            return Ok(());
        }
    };
    limits.check()?;
    if limits.soft < limits.needed
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, limits.needed, limits.hard)
    {
        let Limits { soft, needed, .. } = limits;
        tracing::warn!(
            %error,
            "cannot raise the limit on open files from {soft} to {needed}; run `ulimit -n {needed}` \
             before the start"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_below_need_is_error_with_remedies() {
        let check = |hard| Limits { soft: 64, hard, needed: 1000 }.check();
        assert_eq!(check(1000), Ok(()));
        let text = check(999).unwrap_err().to_string();
        assert!(text.contains("`ulimit -Hn 1000`") && text.contains("LimitNOFILE=1000"), "{text}");
    }
}
