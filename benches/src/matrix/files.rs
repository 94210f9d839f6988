//! The files of a matrix: `matrix.json`, three CSV files, and a README.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;
use xdpfwd_bench::results::{Cycles, FailedRates, GivenUp, Results, Run, SCHEMA};

use super::{
    folder::{Folder, RESULTS_FILE},
    history::History,
    journal::Outcome,
    readme,
};

/// Collects the results so far.
pub(crate) fn collect(folder: &Folder, finished: Option<String>) -> Results {
    let header = folder.header.clone();
    let (settings, plan) = (header.settings.clone(), header.settings.plan);
    let mut results = Results {
        schema: SCHEMA,
        kind: header.kind,
        machine: header.machine,
        tsc_hz: header.tsc_hz,
        started: header.started,
        finished,
        command: header.command,
        seconds: settings.seconds,
        warmup: settings.warmup,
        rounds: plan.rounds,
        versions: settings.versions,
        sizes: plan.sizes.clone(),
        rows: plan.rows.clone(),
        columns: plan.columns.clone(),
        unavailable: plan.unavailable.clone(),
        runs: Vec::new(),
        failed: Vec::new(),
        failed_rates: Vec::new(),
        given_up: given_up(folder),
        rates: Vec::new(),
        latencies: Vec::new(),
        published: plan.published.clone(),
        generator: Some(settings.generator),
        nic: None,
    };
    for record in &folder.records {
        match record.outcome.clone() {
            Outcome::Run(run) => results.runs.push(*run),
            Outcome::FailedRun(failure) => results.failed.push(failure),
            Outcome::Rates { rates, latencies, .. } => {
                results.rates.extend(rates);
                results.latencies.extend(latencies);
            }
            Outcome::FailedRates { cell, error } => results.failed_rates.push(FailedRates {
                row: cell.row,
                column: cell.column,
                size: cell.size,
                error,
            }),
        }
    }
    results
}

/// Returns the rows and cells that are not tried again although steps remain.
fn given_up(folder: &Folder) -> Vec<GivenUp> {
    let history = History::of(&folder.records);
    let mut given_up = Vec::new();
    for step in folder.header.settings.plan.steps() {
        if !history.is_done(&step)
            && let Some(cell) = history.given_up(step.cell())
            && !given_up.contains(&cell)
        {
            given_up.push(cell);
        }
    }
    given_up
}

/// Writes all files with the results so far. `finished` is the time at which the matrix ended.
pub(crate) fn write(folder: &Folder, finished: Option<String>) -> Result<Results> {
    let results = collect(folder, finished);
    write_results(&folder.path, &results)?;
    Ok(results)
}

/// Writes all files of these results to a folder.
pub(crate) fn write_results(directory: &Path, results: &Results) -> Result<()> {
    let json = serde_json::to_vec_pretty(results)?;
    replace(directory, RESULTS_FILE, &json)?;
    let runs: Vec<CsvRun> = results.runs.iter().map(CsvRun::of).collect();
    replace(directory, "runs.csv", &csv(&runs)?)?;
    replace(directory, "rates.csv", &csv(&results.rates)?)?;
    replace(directory, "latencies.csv", &csv(&results.latencies)?)?;
    replace(directory, "README.md", readme::text(results).as_bytes())
}

/// Replaces a file as a whole: a killed process or a crash of the machine leaves either the old or
/// the new one. The new one is on the disk when this returns, since the journal is deleted next.
pub(crate) fn replace(directory: &Path, name: &str, contents: &[u8]) -> Result<()> {
    let path: PathBuf = directory.join(name);
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(contents)?;
        // A temporary file is readable only for its owner.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        fs::File::open(directory)?.sync_all()?;
        Ok::<_, std::io::Error>(())
    };
    fs::create_dir_all(directory)
        .and_then(|()| write())
        .with_context(|| format!("writing {}", path.display()))
}

fn csv(records: &[impl Serialize]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.serialize(record)?;
    }
    Ok(writer.into_inner()?)
}

/// A run as a line of `runs.csv`: the fields of [`Run`], with one column per account of cycles.
#[derive(Serialize)]
struct CsvRun<'a> {
    row: &'a str,
    column: &'a str,
    size: &'a str,
    round: u32,
    offered_pps: f64,
    forwarded_pps: f64,
    forwarded_gbps: f64,
    paced_offered_pps: f64,
    paced_forwarded_pps: f64,
    paced_factor: Option<f64>,
    path_pps: Option<f64>,
    cycles_total: Option<f64>,
    cycles_user: Option<f64>,
    cycles_system_call: Option<f64>,
    cycles_softirq: Option<f64>,
    cycles_far_end: Option<f64>,
    samples: Option<u64>,
    stage_cycles: Option<f64>,
    syscalls: Option<f64>,
    voluntary_switches: Option<f64>,
    involuntary_switches: Option<f64>,
    tool_transmitted: Option<u64>,
    sink_received: u64,
    unexplained: Option<&'a str>,
    command: &'a str,
}

impl<'a> CsvRun<'a> {
    fn of(run: &'a Run) -> Self {
        let cycles = |get: fn(&Cycles) -> f64| run.cycles.as_ref().map(get);
        Self {
            row: &run.row,
            column: &run.column,
            size: &run.size,
            round: run.round,
            offered_pps: run.offered_pps,
            forwarded_pps: run.forwarded_pps,
            forwarded_gbps: run.forwarded_gbps,
            paced_offered_pps: run.paced_offered_pps,
            paced_forwarded_pps: run.paced_forwarded_pps,
            paced_factor: run.paced_factor,
            path_pps: run.path_pps,
            cycles_total: cycles(Cycles::total),
            cycles_user: cycles(|cycles| cycles.user),
            cycles_system_call: cycles(|cycles| cycles.system_call),
            cycles_softirq: cycles(|cycles| cycles.softirq),
            cycles_far_end: cycles(|cycles| cycles.far_end),
            samples: run.cycles.map(|cycles| cycles.samples),
            stage_cycles: run.stage_cycles,
            syscalls: run.syscalls,
            voluntary_switches: run.voluntary_switches,
            involuntary_switches: run.involuntary_switches,
            tool_transmitted: run.tool_transmitted,
            sink_received: run.sink_received,
            unexplained: run.unexplained.as_deref(),
            command: &run.command,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::matrix::fake;

    /// Returns the lines of a CSV file as JSON objects; empty fields are null.
    fn lines(path: &Path) -> Vec<BTreeMap<String, Value>> {
        let mut reader = csv::Reader::from_path(path).unwrap();
        let value = |text: &String| match text.as_str() {
            "" => Value::Null,
            "true" | "false" => (text == "true").into(),
            text => text.parse::<f64>().map_or_else(|_| text.into(), Value::from),
        };
        let lines = reader.deserialize::<BTreeMap<String, String>>();
        let map = |line: BTreeMap<String, String>| {
            line.iter().map(|(name, text)| (name.clone(), value(text))).collect()
        };
        lines.map(|line| map(line.unwrap())).collect()
    }

    /// Compares numbers as `f64`, and names such as "60" with the numbers that CSV makes of them.
    fn is_equal(json: &Value, csv: &Value) -> bool {
        match (json, csv) {
            (Value::String(text), Value::Number(_)) => {
                text.parse::<f64>().is_ok_and(|number| csv.as_f64() == Some(number))
            }
            (Value::Number(_), _) => json.as_f64() == csv.as_f64(),
            _ => json == csv,
        }
    }

    #[test]
    fn csv_files_equal_json() {
        let directory = tempfile::tempdir().unwrap();
        let results = fake::results();
        write_results(directory.path(), &results).unwrap();
        let text = fs::read_to_string(directory.path().join(RESULTS_FILE)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap().runs, results.runs);
        for (list, file) in
            [("runs", "runs.csv"), ("rates", "rates.csv"), ("latencies", "latencies.csv")]
        {
            let (expected, lines) =
                (json[list].as_array().unwrap(), lines(&directory.path().join(file)));
            assert!(!lines.is_empty() && lines.len() == expected.len(), "{file}");
            for (json, line) in expected.iter().zip(lines) {
                let mut json = json.as_object().unwrap().clone();
                if let Some(cycles) = json.remove("cycles") {
                    for account in ["user", "system_call", "softirq", "far_end"] {
                        json.insert(format!("cycles_{account}"), cycles[account].clone());
                    }
                    json.insert("samples".to_owned(), cycles["samples"].clone());
                    let total = ["user", "system_call", "softirq"]
                        .map(|account| cycles[account].as_f64())
                        .into_iter()
                        .sum::<Option<f64>>();
                    json.insert("cycles_total".to_owned(), total.into());
                }
                let names: Vec<&String> = line.keys().collect();
                let mut expected_names: Vec<&String> = json.keys().collect();
                expected_names.sort();
                assert_eq!(names, expected_names, "{file}");
                for (name, csv) in &line {
                    assert!(is_equal(&json[name], csv), "{file}: {name}: {} {csv}", json[name]);
                }
            }
        }
    }

    #[test]
    fn readme_explains_every_csv_column() {
        let directory = tempfile::tempdir().unwrap();
        write_results(directory.path(), &fake::results()).unwrap();
        let readme = fs::read_to_string(directory.path().join("README.md")).unwrap();
        for file in ["runs.csv", "rates.csv", "latencies.csv"] {
            let mut reader = csv::Reader::from_path(directory.path().join(file)).unwrap();
            for name in reader.headers().unwrap() {
                assert!(readme.contains(&format!("`{name}`")), "{file}: {name}\n{readme}");
            }
        }
    }
}
