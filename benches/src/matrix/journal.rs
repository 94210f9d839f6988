//! The journal of an unfinished matrix: one JSON document per line, appended after each step.
//!
//! A process that is killed leaves at most one incomplete line at the end, which is ignored. The
//! journal is deleted after the results have been written.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use xdpfwd_bench::{
    machine::Machine,
    results::{Failure, Latency, Rate, Run},
};

use super::{
    identity::{MachineIdentity, Settings},
    plan::{CellName, Step},
};

/// The version of the format. A journal of another version is not continued.
const SCHEMA: u32 = 1;

/// The first line: the settings of the matrix, and the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    schema: u32,
    /// `"matrix"` or `"matrix-quick"`.
    pub(crate) kind: String,
    pub(crate) identity: MachineIdentity,
    pub(crate) machine: Machine,
    pub(crate) tsc_hz: f64,
    /// UTC, RFC 3339.
    pub(crate) started: String,
    pub(crate) command: String,
    pub(crate) settings: Settings,
}

impl Header {
    /// Returns the header of a matrix that starts now.
    pub(crate) fn new(kind: &str, machine: Machine, tsc_hz: f64, settings: Settings) -> Self {
        Self {
            schema: SCHEMA,
            kind: kind.to_owned(),
            identity: MachineIdentity::of(&machine),
            machine,
            tsc_hz,
            started: xdpfwd_bench::machine::utc_now(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            settings,
        }
    }
}

/// A step that has ended, and its duration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) elapsed_seconds: f64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Run(Box<Run>),
    FailedRun(Failure),
    Rates { cell: CellName, rates: Vec<Rate>, latencies: Vec<Latency> },
    FailedRates { cell: CellName, error: String },
}

impl Outcome {
    /// Returns the outcome if JSON can represent it: JSON has neither NaN nor infinity.
    pub(crate) fn check_numbers(self) -> Result<Self> {
        let text = serde_json::to_string(&self)?;
        serde_json::from_str::<Self>(&text)
            .context("a number of the result is infinite or not a number")?;
        Ok(self)
    }

    /// Returns the step that had this outcome.
    pub(crate) fn step(&self) -> Step {
        let (row, column, size, round) = match self {
            Self::Run(run) => (&run.row, &run.column, &run.size, run.round),
            Self::FailedRun(failed) => (&failed.row, &failed.column, &failed.size, failed.round),
            Self::Rates { cell, .. } | Self::FailedRates { cell, .. } => {
                return Step::Rates { cell: cell.clone() };
            }
        };
        let cell = CellName { row: row.clone(), column: column.clone(), size: size.clone() };
        Step::Run { cell, round }
    }
}

/// The contents of a journal.
pub(crate) struct Contents {
    pub(crate) header: Header,
    pub(crate) records: Vec<Record>,
    /// Length of the complete lines in bytes.
    complete: u64,
}

/// A journal that is open for appending.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

/// Returns the path of the journal in a folder.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join("journal.jsonl")
}

/// Reads the journal in a folder. Returns `None` if the folder has none, or if it ends within its
/// first line.
///
/// # Errors
///
/// The journal cannot be read, has another version, or a complete line is invalid.
pub(crate) fn read(directory: &Path) -> Result<Option<Contents>> {
    let path = path(directory);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let complete = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = text[..complete].split_inclusive(|&byte| byte == b'\n').enumerate();
    let invalid = |number: usize| {
        format!(
            "line {} of {} is invalid; delete this file to start again",
            number + 1,
            path.display()
        )
    };
    let Some((number, first)) = lines.next() else { return Ok(None) };
    let version: Version = serde_json::from_slice(first).with_context(|| invalid(number))?;
    if version.schema != SCHEMA {
        bail!(
            "{} has version {}, but this program reads version {SCHEMA}; delete this file to start \
             again",
            path.display(),
            version.schema
        );
    }
    let header = serde_json::from_slice(first).with_context(|| invalid(number))?;
    let records = lines
        .map(|(number, line)| serde_json::from_slice(line).with_context(|| invalid(number)))
        .collect::<Result<_>>()?;
    Ok(Some(Contents { header, records, complete: complete as u64 }))
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

impl Journal {
    /// Creates a journal in a new folder.
    pub(crate) fn create(directory: &Path, header: &Header) -> Result<Self> {
        let path = path(directory);
        let file = fs::create_dir_all(directory)
            .and_then(|()| File::create(&path))
            .with_context(|| format!("creating {}", path.display()))?;
        let mut journal = Self { file, path };
        journal.write(header)?;
        Ok(journal)
    }

    /// Opens a journal to continue it after its last complete line.
    pub(crate) fn resume(directory: &Path, contents: &Contents) -> Result<Self> {
        let path = path(directory);
        let open = || {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(contents.complete)?;
            file.seek(SeekFrom::End(0))?;
            Ok::<_, std::io::Error>(file)
        };
        let file = open().with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Appends the outcome of a step, and waits until it is on the disk.
    pub(crate) fn append(&mut self, record: &Record) -> Result<()> {
        self.write(record)
    }

    fn write(&mut self, document: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(document)?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .with_context(|| format!("writing {}", self.path.display()))
    }

    /// Deletes the journal.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("deleting {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::fake;

    fn record(round: u32) -> Record {
        let cell = fake::cell("a", "x", "60");
        Record { elapsed_seconds: 2.5, outcome: Outcome::Run(Box::new(fake::run(&cell, round))) }
    }

    fn all_outcomes() -> Vec<Record> {
        let cell = fake::cell("a", "x", "60");
        let failure = Failure {
            row: "a".to_owned(),
            column: "x".to_owned(),
            size: "60".to_owned(),
            round: 1,
            error: "no".to_owned(),
        };
        let (rates, latencies) = fake::rates(&cell);
        let outcomes = [
            Outcome::Run(Box::new(fake::run(&cell, 0))),
            Outcome::FailedRun(failure),
            Outcome::Rates { cell: cell.clone(), rates, latencies },
            Outcome::FailedRates { cell, error: "no".to_owned() },
        ];
        outcomes.map(|outcome| Record { elapsed_seconds: 0.25, outcome }).to_vec()
    }

    fn create(directory: &Path) -> Journal {
        let header = fake::header(fake::plan(&["a"], &["x"], &["60"]));
        Journal::create(directory, &header).unwrap()
    }

    #[test]
    fn journal_returns_what_was_appended() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = create(directory.path());
        for record in all_outcomes() {
            journal.append(&record).unwrap();
        }
        let contents = read(directory.path()).unwrap().unwrap();
        assert_eq!(contents.records, all_outcomes());
        assert_eq!(
            contents.header.settings,
            fake::header(fake::plan(&["a"], &["x"], &["60"])).settings
        );
    }

    /// A process may be killed after any byte.
    #[test]
    fn journal_torn_at_any_byte_loses_only_the_torn_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = create(directory.path());
        let first = fs::metadata(&journal.path).unwrap().len();
        journal.append(&record(0)).unwrap();
        let second = fs::metadata(&journal.path).unwrap().len();
        journal.append(&record(1)).unwrap();
        let text = fs::read(&journal.path).unwrap();
        // Writing and syncing for every byte takes seconds.
        let ends = [0, first as usize, second as usize, text.len()];
        let near_ends = ends.iter().flat_map(|end| end.saturating_sub(2)..end + 2);
        for length in near_ends.chain((0..text.len()).step_by(97)).filter(|&n| n < text.len()) {
            fs::write(&journal.path, &text[..length]).unwrap();
            let Some(contents) = read(directory.path()).unwrap() else {
                assert!((length as u64) < first, "{length}");
                continue;
            };
            let complete = usize::from(length as u64 >= second);
            assert_eq!(contents.records, [record(0)][..complete], "{length}");
            let mut resumed = Journal::resume(directory.path(), &contents).unwrap();
            resumed.append(&record(7)).unwrap();
            let contents = read(directory.path()).unwrap().unwrap();
            assert_eq!(contents.records.last(), Some(&record(7)), "{length}");
            assert_eq!(contents.records.len(), complete + 1, "{length}");
        }
    }

    #[test]
    fn outcome_with_infinite_number_is_rejected() {
        let mut run = fake::run(&fake::cell("a", "x", "60"), 0);
        assert!(Outcome::Run(Box::new(run.clone())).check_numbers().is_ok());
        run.forwarded_pps = f64::NAN;
        assert!(Outcome::Run(Box::new(run)).check_numbers().is_err());
    }

    #[test]
    fn journal_with_invalid_line_in_the_middle_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = create(directory.path());
        journal.file.write_all(b"{\"run\": 7}\n").unwrap();
        journal.append(&record(0)).unwrap();
        let error = format!("{:#}", read(directory.path()).err().unwrap());
        assert!(error.contains("line 2 of ") && error.contains("delete this file"), "{error}");
    }

    #[test]
    fn journal_of_another_version_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(path(directory.path()), "{\"schema\":99}\n").unwrap();
        let error = format!("{:#}", read(directory.path()).err().unwrap());
        assert!(error.contains("has version 99, but this program reads version 1"), "{error}");
    }
}
