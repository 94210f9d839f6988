//! Runs cells of the matrix in the lab. Needs root, and the program xdpfwd beside xdpfwd-bench.

use std::{
    path::Path,
    process::{Command, Output},
};

use xdpfwd_bench::results::{Results, Run};

/// Runs a matrix of one short round, also on a busy machine.
fn matrix(arguments: &[&str]) -> Results {
    let program = Path::new(env!("CARGO_BIN_EXE_xdpfwd-bench"));
    let xdpfwd = program.with_file_name("xdpfwd");
    assert!(xdpfwd.exists(), "{} is missing; run: cargo build -p xdpfwd", xdpfwd.display());
    let folder = tempfile::tempdir().unwrap();
    let output: Output = Command::new(program)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .args(["matrix", "--no-rates", "--rounds", "1", "--seconds", "0.3", "--results"])
        .arg(folder.path())
        .arg("--accept-disturbed")
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // FOLDER/<date>-<host>/matrix/matrix.json
    let day = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(day.join("matrix/matrix.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn check_run(run: &Run) {
    let cell = format!("{}, {}, {} bytes", run.row, run.column, run.size);
    assert!(run.forwarded_pps > 0.0, "{cell}: {run:?}");
    assert_eq!(run.tool_transmitted, Some(run.sink_received), "{cell}");
    assert_eq!(run.unexplained, None, "{cell}");
    let cycles = run.cycles.expect("sampling needs root");
    assert!(cycles.total() > 0.0 && cycles.far_end > 0.0, "{cell}: {cycles:?}");
    assert!(run.command.lines().all(|line| !line.is_empty()), "{cell}: {}", run.command);
}

/// The counts of the forwarder, or of the kernel, and of the sink are equal.
#[test]
fn every_row_forwards_or_has_a_reason() {
    let results = matrix(&["--columns", "none", "--sizes", "60,1514"]);
    assert!(results.rows.len() >= 12, "{:?}", results.rows);
    for row in &results.rows {
        let runs: Vec<&Run> = results.runs.iter().filter(|run| run.row == row.name).collect();
        let reason = results.unavailable.iter().find(|missing| missing.row == row.name);
        match reason {
            Some(missing) => assert!(runs.is_empty() && !missing.reason.is_empty()),
            None => assert_eq!(runs.len(), 2, "{row:?}"),
        }
        for run in runs {
            check_run(run);
            let cycles = run.cycles.unwrap();
            // The kernel forwards without a process.
            assert_eq!(row.place == "user", cycles.user + cycles.system_call > 0.0, "{run:?}");
            assert_eq!(row.place == "user", run.syscalls.is_some(), "{run:?}");
        }
    }
}

#[test]
fn every_column_of_a_path_in_user_space_forwards_imix() {
    let results = matrix(&["--rows", "af_xdp-copy", "--sizes", "imix"]);
    assert!(results.unavailable.is_empty(), "{:?}", results.unavailable);
    assert_eq!(results.runs.len(), results.columns.len());
    for run in &results.runs {
        check_run(run);
        assert_eq!(run.stage_cycles.is_some_and(|cycles| cycles > 0.0), run.column != "none");
    }
}

/// 10,000 rules of nftables, one after the other, forward few packets.
#[test]
fn filters_of_kernel_paths_let_the_traffic_pass() {
    let columns = "filter-1-kernel,filter-1k-kernel,filter-10k-kernel";
    let rows = "xdp-redirect,xdp-redirect-fib,bridge,ip-forward";
    let results = matrix(&["--rows", rows, "--columns", columns, "--sizes", "60"]);
    // `make test` does not install nftables.
    let missing = &results.unavailable;
    assert!(missing.iter().all(|cell| cell.reason.contains("nft is not installed")), "{missing:?}");
    assert!(results.runs.len() >= 2 * 3, "{:?}", results.runs);
    assert!(!missing.is_empty() || results.runs.len() == 4 * 3, "{:?}", results.runs);
    for run in &results.runs {
        assert!(run.sink_received > 0, "{run:?}");
        assert_eq!(run.tool_transmitted, Some(run.sink_received), "{run:?}");
    }
}
