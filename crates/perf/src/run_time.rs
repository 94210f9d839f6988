//! The run time of BPF programs.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys;

/// Makes the kernel measure the run time of all BPF programs, until it is dropped.
///
/// The kernel switches the statistics off when the last process that asked for them has closed its
/// file descriptor, also if that process was killed.
#[derive(Debug)]
pub struct RunTimeStatistics {
    _enabled: OwnedFd,
}

impl RunTimeStatistics {
    /// Switches the statistics on. Needs CAP_SYS_ADMIN.
    pub fn enable() -> io::Result<Self> {
        // SAFETY: the function reads no memory of ours. Needs `unsafe`: libbpf is a C library, and
        // libbpf-rs has no wrapper.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            // libbpf returns the negative error number.
            return Err(io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: the kernel has just opened this descriptor for the caller, and nothing else owns
        // it. Needs `unsafe`: an integer does not prove this.
        Ok(Self { _enabled: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}

/// How often and how long a BPF program ran while statistics were on.
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
