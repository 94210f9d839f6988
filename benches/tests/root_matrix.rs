//! Runs cells of the matrix in the lab. Needs root, and the program xdpfwd beside xdpfwd-bench.
//!
//! The windows are short, because CI runs these tests. If other programs take the cores meanwhile,
//! a cell may forward too little: each failed cell is repeated once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use xdpfwd_bench::results::{Results, Run};

/// Seconds of each window.
const WINDOW: f64 = 0.3;
/// Packets in a window from which on both ends must have samples: some hundredths of a second.
const SAMPLED_PACKETS: f64 = 20_000.0;
/// Parts of the reasons for which this machine may lack a row.
const REASONS: [&str; 4] =
    ["veth has no zero-copy", "is not installed", "xsk-rs", "does not load on this kernel"];

/// A matrix with its own folder of results. Only one can exist at a time, because all use the same
/// cores, and the scratch folder of xdpfwd-bench, which it locks.
struct Matrix {
    folder: tempfile::TempDir,
    _only: MutexGuard<'static, ()>,
}

impl Matrix {
    fn new() -> Self {
        static EXISTS: Mutex<()> = Mutex::new(());
        let only = EXISTS.lock().unwrap_or_else(PoisonError::into_inner);
        Self { folder: tempfile::tempdir().unwrap(), _only: only }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_xdpfwd-bench"));
        let xdpfwd = program.with_file_name("xdpfwd");
        assert!(xdpfwd.exists(), "{} is missing; run: cargo build -p xdpfwd", xdpfwd.display());
        let mut command = Command::new(program);
        command
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .args(["matrix", "--rounds", "1", "--seconds", &WINDOW.to_string(), "--results"])
            .arg(self.folder.path())
            .arg("--accept-disturbed")
            .args(arguments);
        command
    }

    /// Returns FOLDER/<date>-<host>/matrix; `None` before the matrix has started.
    fn path(&self) -> Option<PathBuf> {
        let day = fs::read_dir(self.folder.path()).unwrap().next()?.unwrap();
        Some(day.path().join("matrix"))
    }

    /// Runs the matrix to its end. Returns the results and stderr.
    fn run(&self, arguments: &[&str]) -> (Results, String) {
        let output = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let path = self.path().unwrap_or_else(|| panic!("{stderr}"));
        let text = fs::read_to_string(path.join("matrix.json"));
        let results: Results = serde_json::from_str(&text.expect(&stderr)).unwrap();
        let has_failures = !(results.failed.is_empty() && results.failed_rates.is_empty());
        assert_eq!(output.status.success(), !has_failures, "{stderr}");
        (results, stderr)
    }
}

/// Runs cells once. Repeats each cell that failed, or whose run does not pass the check.
fn runs(arguments: &[&str], check: impl Fn(&Run) -> Result<(), String>) -> Results {
    let (mut results, _) = Matrix::new().run(arguments);
    let mut repeat: Vec<[String; 3]> = Vec::new();
    results.runs.retain(|run| {
        let outcome = check(run);
        if let Err(error) = &outcome {
            println!("repeating {}, {}: {error}", run.row, run.column);
            repeat.push([run.row.clone(), run.column.clone(), run.size.clone()]);
        }
        outcome.is_ok()
    });
    for failure in results.failed.drain(..) {
        println!("repeating {}, {}: {}", failure.row, failure.column, failure.error);
        repeat.push([failure.row, failure.column, failure.size]);
    }
    for [row, column, size] in repeat {
        let cell = ["--no-rates", "--rows", &row, "--columns", &column, "--sizes", &size];
        let (again, _) = Matrix::new().run(&cell);
        let [run] = &again.runs[..] else { panic!("failed twice: {:?}", again.failed) };
        check(run).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        results.runs.push(run.clone());
    }
    results
}

/// Checks the counts of the forwarder, or of the kernel, and of the sink, and the samples.
fn check_run(run: &Run) -> Result<(), String> {
    let check = |is_right: bool, error: &str| if is_right { Ok(()) } else { Err(error.to_owned()) };
    check(run.forwarded_pps > 0.0, "no packet arrived in the first window")?;
    check(run.tool_transmitted == Some(run.sink_received), "the counts differ")?;
    check(run.unexplained.is_none(), "packets are missing")?;
    check(run.command.lines().all(|line| !line.is_empty()), "a command is empty")?;
    if run.paced_forwarded_pps * WINDOW > SAMPLED_PACKETS {
        let cycles = run.cycles.ok_or("no samples")?;
        check(cycles.total() > 0.0 && cycles.far_end > 0.0, "an account has no samples")?;
    }
    Ok(())
}

#[test]
fn every_row_forwards_or_has_a_known_reason() {
    let arguments = ["--no-rates", "--columns", "none", "--sizes", "60"];
    let results = runs(&arguments, check_run);
    assert!(results.rows.len() >= 12, "{:?}", results.rows);
    for row in &results.rows {
        let mut runs = results.runs.iter().filter(|run| run.row == row.name);
        let Some(run) = runs.next() else {
            let missing = results.unavailable.iter().find(|missing| missing.row == row.name);
            let reason = &missing.unwrap_or_else(|| panic!("{row:?}")).reason;
            assert!(REASONS.iter().any(|known| reason.contains(known)), "{row:?}: {reason}");
            continue;
        };
        // The kernel forwards without a process.
        assert_eq!(row.place == "user", run.syscalls.is_some(), "{run:?}");
        if run.paced_forwarded_pps * WINDOW > SAMPLED_PACKETS {
            let cycles = run.cycles.unwrap();
            assert_eq!(row.place == "user", cycles.user + cycles.system_call > 0.0, "{run:?}");
        }
    }
    // These rows need nothing that is not in each kernel that xdpfwd supports.
    for row in ["packet", "af_xdp-copy", "xdp-redirect", "bridge", "ip-forward"] {
        assert!(results.runs.iter().any(|run| run.row == row), "{row}: {:?}", results.unavailable);
    }
}

#[test]
fn each_kind_of_column_forwards_imix() {
    let columns = ["none", "filter-1k-user", "filter-1k-kernel", "signatures", "filter-1k-aes-128"];
    let results = runs(
        &[
            "--no-rates",
            "--rows",
            "af_xdp-copy",
            "--columns",
            &columns.join(","),
            "--sizes",
            "imix",
        ],
        check_run,
    );
    assert!(results.unavailable.is_empty(), "{:?}", results.unavailable);
    assert_eq!(results.runs.len(), columns.len());
    for run in &results.runs {
        assert_eq!(run.stage_cycles.is_some(), run.column != "none", "{run:?}");
    }
}

#[test]
fn filters_of_kernel_paths_let_the_traffic_pass() {
    let rows = "xdp-redirect,xdp-redirect-fib,bridge,ip-forward";
    let results = runs(
        &["--no-rates", "--rows", rows, "--columns", "filter-1k-kernel", "--sizes", "60"],
        |run| match run.tool_transmitted == Some(run.sink_received) && run.sink_received > 0 {
            true => Ok(()),
            false => Err("no packet arrived, or the counts differ".to_owned()),
        },
    );
    // `make test` does not install nftables.
    let missing = &results.unavailable;
    assert!(missing.iter().all(|cell| cell.reason.contains("nft is not installed")), "{missing:?}");
    assert_eq!(results.runs.len() + missing.len(), 4, "{:?}", results.runs);
    assert!(results.runs.len() >= 2, "{missing:?}");
}

/// The search for rates, and a matrix that continues after its process was killed.
#[test]
fn killed_matrix_continues_and_measures_rates_and_latency() {
    let matrix = Matrix::new();
    let arguments = [
        &["--rows", "af_xdp-copy", "--columns", "none,aes-128-gcm"][..],
        &["--sizes", "60", "--trial-seconds", "0.2"],
    ]
    .concat();
    let mut killed = Killed::start(&mut matrix.command(&arguments));
    // A header and the first step.
    let lines = || {
        let text = fs::read_to_string(matrix.path()?.join("journal.jsonl")).ok()?;
        Some(text.lines().count())
    };
    let start = Instant::now();
    while lines().is_none_or(|lines| lines < 2) {
        assert!(start.elapsed() < Duration::from_secs(60), "no step has ended");
        assert!(killed.0.try_wait().unwrap().is_none(), "the matrix has ended");
        thread::sleep(Duration::from_millis(20));
    }
    killed.kill();
    xdpfwd_lab::sweep().unwrap();
    let path = matrix.path().unwrap();
    assert!(!path.join("matrix.json").exists(), "the matrix was complete");

    let (results, stderr) = matrix.run(&arguments);
    assert!(stderr.contains("continuing the matrix"), "{stderr}");
    assert!(results.finished.is_some());
    let runs: Vec<_> = results.runs.iter().map(|run| &*run.column).collect();
    assert!(results.failed.is_empty(), "{:?}", results.failed);
    assert_eq!(runs.len(), 2, "{stderr}");
    assert!(runs.contains(&"none") && runs.contains(&"aes-128-gcm"), "{runs:?}");
    assert!(results.failed_rates.is_empty(), "{:?}", results.failed_rates);
    for column in ["none", "aes-128-gcm"] {
        let rates: Vec<_> = results.rates.iter().filter(|rate| rate.column == column).collect();
        let goals: Vec<_> = rates.iter().map(|rate| rate.allowed_loss).collect();
        assert_eq!(goals, [0.0, 0.005], "{rates:?}");
        assert!(rates.iter().all(|rate| rate.trials > 0), "{rates:?}");
    }
    // ESP encrypts the send time. On a busy machine, each rate may lose packets.
    let no_drop = |column: &str| {
        let mut rates = results.rates.iter();
        rates.find(|rate| rate.column == column && rate.allowed_loss == 0.0).unwrap().pps
    };
    let loads: Vec<_> = results.latencies.iter().map(|latency| latency.load).collect();
    assert!(results.latencies.iter().all(|latency| latency.column == "none"));
    let expected: &[f64] = if no_drop("none") > 0.0 { &[0.1, 0.5, 0.9] } else { &[] };
    assert_eq!(loads, expected, "{:?}", results.latencies);
}

/// A process that is killed at the end.
struct Killed(Child);

impl Killed {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
