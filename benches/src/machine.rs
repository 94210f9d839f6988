//! Describes the machine of a measurement.

use std::{fs, io, process::Command};

use serde::{Deserialize, Serialize};

/// A machine, its kernel and its tools.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Host name.
    pub host: String,
    /// Day of the run, UTC, ISO 8601.
    pub date: String,
    /// `uname -srvm`.
    pub kernel: String,
    /// Model name of the processor.
    pub cpu: String,
    /// From /proc/cpuinfo.
    cpu_mhz: String,
    /// Number of logical processors.
    pub cores: usize,
    memory_kib: u64,
    virtual_machine: bool,
    rustc: String,
    cc: String,
    /// With `-dirty` if the work tree was modified.
    pub commit: String,
    /// At the start of the run.
    pub load_average: String,
}

impl Machine {
    /// Describes this machine.
    pub fn detect() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = read("/proc/meminfo");
        Self {
            host: tool_output("uname", &["-n"]),
            date: tool_output("date", &["-u", "+%Y-%m-%d"]),
            kernel: tool_output("uname", &["-srvm"]),
            cpu: field("model name"),
            cpu_mhz: field("cpu MHz"),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_kib: memory
                .split_whitespace()
                .nth(1)
                .and_then(|kib| kib.parse().ok())
                .unwrap_or(0),
            virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            rustc: tool_output("rustc", &["--version"]),
            cc: tool_output("cc", &["--version"]).lines().next().unwrap_or_default().to_owned(),
            commit: tool_output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            load_average: read("/proc/loadavg").trim().to_owned(),
        }
    }

    /// Returns the first core's clock in MHz, from /proc/cpuinfo. It equals the rate of the
    /// time-stamp counter if the frequency is fixed.
    pub fn megahertz(&self) -> Option<f64> {
        self.cpu_mhz.parse().ok()
    }
}

/// Returns a process's CPU time in nanoseconds, in user space and in the kernel.
///
/// Reads `schedstat`: `/proc/PID/stat` counts ticks and would miss an idle forwarder, which runs
/// only briefly between ticks.
pub fn cpu_nanoseconds(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            fs::read_to_string(task.path().join("schedstat"))
                .ok()?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

/// Returns the busy time of one processor, or of all processors, since boot in seconds.
///
/// # Errors
///
/// /proc/stat cannot be read, or has no such processor.
pub fn busy_seconds(core: Option<usize>) -> io::Result<f64> {
    // Ticks of 1 / USER_HZ, which is 100 wherever Linux has a stable ABI.
    let [user, nice, system, _idle, _wait, irq, softirq, _steal] = ticks(core)?;
    Ok((user + nice + system + irq + softirq) / 100.0)
}

/// Returns the time since boot for which the hypervisor did not run a processor that had work, in
/// seconds: 0 if the hypervisor does not tell.
///
/// # Errors
///
/// /proc/stat cannot be read, or has no such processor.
pub fn stolen_seconds(core: usize) -> io::Result<f64> {
    let [.., steal] = ticks(Some(core))?;
    Ok(steal / 100.0)
}

/// Returns the first numbers of a line of /proc/stat.
fn ticks(core: Option<usize>) -> io::Result<[f64; 8]> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = core.map_or("cpu".to_owned(), |core| format!("cpu{core}"));
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name));
    let ticks: Vec<f64> = line
        .into_iter()
        .flat_map(|line| line.split_whitespace().skip(1))
        .filter_map(|word| word.parse().ok())
        .collect();
    ticks
        .first_chunk()
        .copied()
        .ok_or_else(|| io::Error::other(format!("/proc/stat has no valid line {name:?}")))
}

/// Returns the time, UTC, RFC 3339, in seconds.
pub fn utc_now() -> String {
    tool_output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns the output of a tool, or a note of its failure.
pub fn tool_output(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => format!("unknown: `{program}` failed"),
    }
}
