//! What the figures were taken on: without it they mean nothing.

use std::{fs, process::Command};

use serde::Serialize;

/// Machine, kernel and tools.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Host name.
    pub(crate) host: String,
    /// Day of the run, UTC, ISO 8601.
    pub(crate) date: String,
    /// `uname -srvm`.
    kernel: String,
    cpu: String,
    /// What the kernel says of the first core's clock.
    cpu_mhz: String,
    cores: usize,
    memory_kib: u64,
    /// As far as the processor says so.
    virtual_machine: bool,
    rustc: String,
    cc: String,
    /// The commit that was measured, with `-dirty` if it was not quite that.
    commit: String,
    /// Load average when the run began: what else ran.
    pub(crate) load_average: String,
}

impl Machine {
    /// Asks this one.
    pub(crate) fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = read("/proc/meminfo");
        Self {
            host: said("uname", &["-n"]),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            kernel: said("uname", &["-srvm"]),
            cpu: field("model name"),
            cpu_mhz: field("cpu MHz"),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_kib: memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0),
            virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            rustc: said("rustc", &["--version"]),
            cc: said("cc", &["--version"]).lines().next().unwrap_or_default().to_owned(),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            load_average: read("/proc/loadavg").trim().to_owned(),
        }
    }
}

impl Machine {
    /// What the kernel says of the first core's clock: that of the time-stamp counter, where nothing changes it.
    pub(crate) fn megahertz(&self) -> Option<f64> {
        self.cpu_mhz.parse().ok()
    }
}

/// Nanoseconds that all threads of a process have run, user and kernel time.
///
/// By `schedstat`, exact to the nanosecond: `/proc/PID/stat` counts in ticks, and an idle forwarder sleeps between them.
pub(crate) fn cpu_nanoseconds(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a tool says, or a word for that it is not there.
pub(crate) fn said(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => format!("unknown: `{program}` did not answer"),
    }
}
