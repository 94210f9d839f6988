//! Tests of whole matrices of cells that do not exist.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    fake::{self, FakeCells},
    journal,
    plan::{CellName, Plan},
    *,
};

fn plan(rows: &[&str]) -> Plan {
    Plan {
        rate_columns: vec!["x".to_owned()],
        rate_sizes: vec!["60".to_owned()],
        ..fake::plan(rows, &["x", "y"], &["60", "1514"])
    }
}

fn open(directory: &Path, plan: Plan) -> Folder {
    Folder::open(directory, fake::header(plan), false).unwrap()
}

fn measure(directory: &Path, plan: Plan, cells: &mut FakeCells) -> Result<Results> {
    let folder = open(directory, plan);
    finish(folder, cells, Estimate::new(1.0, 1.0), &Stop::new()?)
}

fn folder_of(directory: &Path) -> PathBuf {
    directory.join("2026-01-02-host/matrix")
}

#[test]
fn matrix_runs_every_step_once_and_writes_all_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut cells = FakeCells::new();
    let results = measure(directory.path(), plan(&["a", "b"]), &mut cells).unwrap();
    let distinct: HashSet<_> = cells.runs.iter().cloned().collect();
    assert_eq!((cells.runs.len(), distinct.len(), results.runs.len()), (24, 24, 24));
    assert_eq!((results.rates.len(), results.latencies.len()), (4, 6));
    assert!(results.finished.is_some() && check(&results).is_ok());
    // FakeSession has a capacity of 1 Mpps.
    for rate in &results.rates {
        let upper_pps = rate.upper_pps.unwrap();
        assert!((0.98e6..=1.0101e6).contains(&rate.pps) && upper_pps > 1e6, "{rate:?}");
    }
    let mut names: Vec<_> = fs::read_dir(folder_of(directory.path()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = ["README.md", "latencies.csv", "matrix.json", "rates.csv", "runs.csv"];
    assert_eq!(names, expected, "the journal is gone");
}

#[test]
fn matrix_with_failing_row_goes_on_and_records_failures() {
    let directory = tempfile::tempdir().unwrap();
    let mut cells = FakeCells::new();
    let results = measure(directory.path(), plan(&["a", "broken"]), &mut cells).unwrap();
    assert_eq!(results.runs.len(), 12, "all of row a");
    assert_eq!(results.rates.len(), 2);
    // Two columns in the first round, then the third failure ends the row at this size.
    assert_eq!(results.failed.len(), 2 * 3, "{:?}", results.failed);
    assert!(results.failed.iter().all(|run| run.error == "the path ended"));
    let given_up: Vec<_> =
        results.given_up.iter().map(|row| (&*row.row, row.column.is_none(), &*row.size)).collect();
    assert_eq!(given_up, [("broken", true, "1514"), ("broken", true, "60")]);
    let error = check(&results).unwrap_err().to_string();
    assert!(error.ends_with("--fresh --rows broken"), "{error}");
    let readme = fs::read_to_string(folder_of(directory.path()).join("README.md")).unwrap();
    assert!(readme.contains("broken is not tried again with 60: its first 3 runs failed."));
}

#[test]
fn matrix_with_failing_rates_records_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut cells = FakeCells::new();
    let plan = Plan { rounds: 1, ..plan(&["broken"]) };
    let results = measure(directory.path(), plan, &mut cells).unwrap();
    assert_eq!(results.failed_rates.len(), 1, "{:?}", results.failed_rates);
    assert!(check(&results).is_err());
}

#[test]
fn interrupted_matrix_keeps_its_results_and_continues() {
    let directory = tempfile::tempdir().unwrap();
    let folder = open(directory.path(), plan(&["a", "b"]));
    let mut cells = FakeCells::new();
    let stop = Stop::new().unwrap();
    stop.request();
    let error = finish(folder, &mut cells, Estimate::new(1.0, 1.0), &stop).unwrap_err();
    assert_eq!(error.to_string(), "interrupted");
    assert!(cells.runs.is_empty());
    let text = fs::read_to_string(folder_of(directory.path()).join("matrix.json")).unwrap();
    assert_eq!(serde_json::from_str::<Results>(&text).unwrap().finished, None);
    let results = measure(directory.path(), plan(&["a", "b"]), &mut cells).unwrap();
    assert_eq!(results.runs.len(), 24);
}

#[test]
fn matrix_whose_counts_contradict_each_other_fails() {
    let mut results = fake::results();
    assert!(check(&results).is_ok());
    results.runs[0].tool_transmitted = Some(results.runs[0].sink_received + 1);
    let error = check(&results).unwrap_err().to_string();
    assert!(error.contains("1 runs have counts that contradict each other"), "{error}");
}

#[test]
fn rates_are_searched_without_latency_in_every_cell() {
    let directory = tempfile::tempdir().unwrap();
    let mut cells = FakeCells::new();
    let plan = Plan { rounds: 1, ..plan(&["a", "esp"]) };
    let results = measure(directory.path(), plan, &mut cells).unwrap();
    // Packets of the second row cannot carry time stamps.
    assert_eq!(*cells.sessions.borrow(), [false, true, false]);
    let rows: Vec<&str> = results.latencies.iter().map(|latency| &*latency.row).collect();
    assert_eq!(rows, ["a", "a", "a"]);
    // The loads are below the capacity.
    assert!(results.latencies.iter().all(|latency| latency.loss == Some(0.0)), "{results:?}");
}

const CHILD_DIRECTORY: &str = "MATRIX_TEST_DIRECTORY";
/// The number of runs after which the child blocks, so that it never ends before it is killed.
const CHILD_RUNS: &str = "MATRIX_TEST_RUNS";

/// The process that [`killed_matrix_continues_after_its_last_run`] kills.
#[test]
#[ignore = "started by another test"]
fn child_process_measures_slow_cells() {
    // `cargo test -- --ignored` runs this test on its own.
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY).map(PathBuf::from) else { return };
    let block_before = std::env::var(CHILD_RUNS).unwrap().parse().unwrap();
    let duration = Duration::from_millis(20);
    let mut cells = FakeCells { duration, block_before, ..FakeCells::new() };
    measure(&directory, plan(&["a", "b"]), &mut cells).unwrap();
}

#[test]
fn killed_matrix_continues_after_its_last_run() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder_of(directory.path());
    let mut done = 0;
    // Killed twice, at other places.
    for minimum in [3, 9] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "matrix::tests::child_process_measures_slow_cells", "--ignored"])
            .env(CHILD_DIRECTORY, directory.path())
            .env(CHILD_RUNS, (minimum - done + 2).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while journal_length(&folder) < minimum {
            assert!(start.elapsed() < Duration::from_secs(60), "the child does not measure");
            assert_eq!(child.try_wait().unwrap(), None, "the child has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let length = journal_length(&folder);
        assert!(length >= minimum && length > done && length < 24, "{length}");
        done = length;
    }
    let mut cells = FakeCells::new();
    let results = measure(directory.path(), plan(&["a", "b"]), &mut cells).unwrap();
    assert_eq!(cells.runs.len(), 24 - done, "only what remained");
    let runs = results.runs.iter().map(|run| {
        let cell =
            CellName { row: run.row.clone(), column: run.column.clone(), size: run.size.clone() };
        (cell, run.round)
    });
    assert_eq!(runs.collect::<HashSet<_>>().len(), 24, "each run once");
    assert!(!journal::path(&folder).exists());
}

/// Returns the number of steps in the journal.
fn journal_length(folder: &Path) -> usize {
    journal::read(folder).unwrap().map_or(0, |contents| contents.records.len())
}
