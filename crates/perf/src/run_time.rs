//! The run time of BPF programs.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libbpf_rs::libbpf_sys;

/// Makes the kernel measure the run time of all BPF programs, for 5 ms of every 250 ms, until it is
/// dropped.
///
/// Measuring costs about 65 ns per run, more than many programs themselves. In windows, it costs a
/// fiftieth of that on average.
///
/// The kernel switches the statistics off when the last process that asked for them has closed its
/// file descriptor, also if that process was killed.
#[derive(Debug)]
pub struct RunTimeStatistics {
    /// Dropping it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Time for which the statistics are on.
const WINDOW: Duration = Duration::from_millis(5);

/// Time between two windows.
const PAUSE: Duration = Duration::from_millis(245);

impl RunTimeStatistics {
    /// Starts the first window. Needs CAP_SYS_ADMIN.
    pub fn start() -> io::Result<Self> {
        let mut enabled = enable()?;
        let (stop, stopped) = mpsc::channel::<()>();
        let run = move || loop {
            if stopped.recv_timeout(WINDOW) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            drop(enabled);
            if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            // Fails if the process has dropped CAP_SYS_ADMIN: the counts stay.
            let Ok(next) = enable() else { break };
            enabled = next;
        };
        let thread = thread::Builder::new().name("bpf-run-time".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RunTimeStatistics {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nothing to undo.
            let _ = thread.join();
        }
    }
}

/// Switches the statistics on, until the descriptor is closed.
fn enable() -> io::Result<OwnedFd> {
    // SAFETY: the function reads no memory of ours. Needs `unsafe`: libbpf is a C library, and
    // libbpf-rs has no wrapper.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        // libbpf returns the negative error number.
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just opened this descriptor for the caller, and nothing else owns it.
    // Needs `unsafe`: an integer does not prove this.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How often and how long a BPF program ran while the statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// Number of runs.
    pub runs: u64,
    /// Duration of all runs in nanoseconds. Includes about one reading of the clock per run.
    pub nanoseconds: u64,
}

impl AddAssign for RunTime {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.nanoseconds += other.nanoseconds;
    }
}

impl RunTime {
    /// Reads the statistics of a program. Needs no privileges.
    pub fn of_program(program: BorrowedFd<'_>) -> io::Result<Self> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
        Self::parse(&info).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(info: &str) -> Option<Self> {
        let find =
            |name| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Self { runs: find("run_cnt:")?, nanoseconds: find("run_time_ns:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_runs_and_time() {
        let info = "pos:\t0\nflags:\t02000002\nprog_type:\t6\nprog_jited:\t1\nprog_tag:\t3c84\n\
                    memlock:\t4096\nprog_id:\t41\nrun_time_ns:\t15043\nrun_cnt:\t397\n";
        assert_eq!(RunTime::parse(info), Some(RunTime { runs: 397, nanoseconds: 15043 }));
        assert_eq!(RunTime::parse("pos:\t0\n"), None);
    }
}
