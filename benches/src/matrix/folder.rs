//! The folder of a matrix: a new one, or that of an unfinished matrix that is continued.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::journal::{self, Contents, Header, Journal};

/// The file with the results of a finished matrix.
pub(crate) const RESULTS_FILE: &str = "matrix.json";

/// The open folder of a matrix.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// The header of the first start.
    pub(crate) header: Header,
    pub(crate) records: Vec<journal::Record>,
    pub(crate) journal: Journal,
    /// Remarks for the user about the choice of the folder.
    pub(crate) remarks: Vec<String>,
    /// Prevents a second matrix with the same folder of results.
    _lock: Flock<File>,
}

impl Folder {
    /// Opens the folder of an unfinished matrix with the same kind, settings and machine, or
    /// creates a new one in `results/<date>-<host>`.
    ///
    /// `fresh` ignores unfinished matrices.
    ///
    /// # Errors
    ///
    /// Another process measures a matrix, or the unfinished matrix is from another machine.
    pub(crate) fn open(results: &Path, header: Header, fresh: bool) -> Result<Self> {
        let lock = lock(results)?;
        let mut remarks = Vec::new();
        let unfinished = if fresh { None } else { find(results, &header, &mut remarks)? };
        let Some((path, contents)) = unfinished else {
            let day = format!("{}-{}", header.machine.date, header.machine.host);
            let path = unused(&results.join(day), &header.kind)?;
            let journal = Journal::create(&path, &header)?;
            return Ok(Self { path, header, records: Vec::new(), journal, remarks, _lock: lock });
        };
        let journal = Journal::resume(&path, &contents)?;
        let Contents { header, records, .. } = contents;
        remarks.push(format!(
            "continuing the matrix of {} in {}: {} steps are done; use --fresh to start another",
            header.started,
            path.display(),
            records.len()
        ));
        Ok(Self { path, header, records, journal, remarks, _lock: lock })
    }
}

/// Locks the folder of all results. The kernel releases the lock when the process ends.
fn lock(results: &Path) -> Result<Flock<File>> {
    let directory = fs::create_dir_all(results)
        .and_then(|()| File::open(results))
        .with_context(|| format!("opening {}", results.display()))?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => bail!(
            "another `xdpfwd-bench matrix` measures on this machine and writes to {}; wait until \
             it has ended, or stop it with Ctrl-C",
            results.display()
        ),
        Err((_, error)) => Err(error).with_context(|| format!("locking {}", results.display())),
    }
}

/// Finds the newest unfinished matrix that can be continued.
fn find(
    results: &Path,
    header: &Header,
    remarks: &mut Vec<String>,
) -> Result<Option<(PathBuf, Contents)>> {
    let mut unfinished = Vec::new();
    for day in folders(results)? {
        for path in folders(&day)? {
            match journal::read(&path) {
                Ok(Some(contents)) if contents.header.kind == header.kind => {
                    unfinished.push((path, contents));
                }
                Ok(_) => {}
                // An old matrix must not prevent a new one.
                Err(error) => remarks
                    .push(format!("not continuing the matrix in {}: {error:#}", path.display())),
            }
        }
    }
    unfinished.sort_by(|(_, a), (_, b)| b.header.started.cmp(&a.header.started));
    let mut elsewhere = None;
    for (path, contents) in unfinished {
        let settings = header.settings.differences(&contents.header.settings);
        let machine = header.identity.differences(&contents.header.identity);
        match (settings.is_empty(), machine.is_empty()) {
            (true, true) => return Ok(Some((path, contents))),
            (true, false) => elsewhere = elsewhere.or(Some((path, machine))),
            (false, true) => remarks.push(format!(
                "not continuing the unfinished matrix in {}: it differs in {settings}",
                path.display()
            )),
            // Nothing suggests that the user means this matrix.
            (false, false) => {}
        }
    }
    if let Some((path, differences)) = elsewhere {
        bail!(
            "cannot continue the unfinished matrix in {}: another machine measured it \
             ({differences}), and results of two machines cannot be compared; continue it there, \
             or start a new matrix here with --fresh",
            path.display()
        );
    }
    Ok(None)
}

/// Returns the folders in a folder, sorted by name.
fn folders(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || {
        let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        Ok::<_, io::Error>(entries.into_iter().map(|entry| entry.path()))
    };
    let mut folders: Vec<PathBuf> = list()
        .with_context(|| format!("reading {}", directory.display()))?
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}

/// Returns `<day>/<kind>`, or the first of `<kind>-2`, `<kind>-3`, … without results: no
/// measurement replaces another.
pub(crate) fn unused(day: &Path, kind: &str) -> Result<PathBuf> {
    let names = std::iter::once(kind.to_owned()).chain((2..).map(|n| format!("{kind}-{n}")));
    for path in names.map(|name| day.join(name)) {
        if !path.join(RESULTS_FILE).exists() && matches!(journal::read(&path), Ok(None)) {
            return Ok(path);
        }
    }
    unreachable!("the numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{fake, identity::MachineIdentity};

    fn header() -> Header {
        fake::header(fake::plan(&["a"], &["x"], &["60"]))
    }

    fn open(results: &Path, header: Header) -> Folder {
        Folder::open(results, header, false).unwrap()
    }

    fn error(results: &Path, header: Header) -> String {
        format!("{:#}", Folder::open(results, header, false).err().unwrap())
    }

    #[test]
    fn folder_has_day_host_and_kind() {
        let results = tempfile::tempdir().unwrap();
        let folder = open(results.path(), header());
        assert_eq!(folder.path, results.path().join("2026-01-02-host/matrix"));
    }

    #[test]
    fn unfinished_matrix_is_continued_on_another_day() {
        let results = tempfile::tempdir().unwrap();
        let path = open(results.path(), header()).path;
        let mut later = header();
        later.machine.date = "2026-01-03".to_owned();
        later.started = "2026-01-03T00:00:00Z".to_owned();
        let folder = open(results.path(), later);
        assert_eq!(folder.path, path);
        assert_eq!(folder.header.started, header().started, "the first start counts");
        assert!(folder.remarks[0].starts_with("continuing the matrix"), "{:?}", folder.remarks);
    }

    #[test]
    fn unfinished_matrix_with_other_settings_is_left_alone() {
        let results = tempfile::tempdir().unwrap();
        let path = open(results.path(), header()).path;
        let mut other = header();
        other.settings.commit = "other".to_owned();
        let folder = open(results.path(), other);
        assert_ne!(folder.path, path);
        assert!(folder.remarks[0].contains("it differs in commit"), "{:?}", folder.remarks);
        drop(folder);
        assert_eq!(open(results.path(), header()).path, path);
    }

    #[test]
    fn unfinished_matrix_of_another_kind_is_left_alone() {
        let results = tempfile::tempdir().unwrap();
        let path = open(results.path(), header()).path;
        let mut quick = header();
        quick.kind = "matrix-quick".to_owned();
        assert_eq!(open(results.path(), quick).path, path.with_file_name("matrix-quick"));
    }

    #[test]
    fn unfinished_matrix_of_another_machine_is_refused_until_fresh() {
        let results = tempfile::tempdir().unwrap();
        let path = open(results.path(), header()).path;
        let mut here = header();
        here.machine.kernel = "Linux 7.0.0".to_owned();
        here.identity = MachineIdentity::of(&here.machine);
        let text = error(results.path(), here.clone());
        assert!(
            text.contains("another machine measured it (kernel \"Linux 7.0.0\" here"),
            "{text}"
        );
        assert!(text.contains("--fresh"), "{text}");
        let folder = Folder::open(results.path(), here, true).unwrap();
        assert_eq!(folder.path, path.with_file_name("matrix-2"));
        assert!(journal::path(&path).exists(), "the other matrix is kept");
    }

    #[test]
    fn finished_matrix_is_never_replaced() {
        let results = tempfile::tempdir().unwrap();
        let folder = open(results.path(), header());
        fs::write(folder.path.join(RESULTS_FILE), "{}").unwrap();
        let Folder { path, journal, _lock, .. } = folder;
        journal.remove().unwrap();
        drop(_lock);
        assert_eq!(open(results.path(), header()).path, path.with_file_name("matrix-2"));
    }

    #[test]
    fn invalid_journal_of_another_matrix_is_kept_and_ignored() {
        let results = tempfile::tempdir().unwrap();
        let old = results.path().join("2026-01-02-host/matrix");
        fs::create_dir_all(&old).unwrap();
        fs::write(journal::path(&old), "no JSON\n").unwrap();
        let folder = open(results.path(), header());
        assert_eq!(folder.path, old.with_file_name("matrix-2"));
        let [remark] = &folder.remarks[..] else { panic!("{:?}", folder.remarks) };
        assert!(remark.contains("line 1 of") && remark.contains("is invalid"), "{remark}");
        assert_eq!(fs::read_to_string(journal::path(&old)).unwrap(), "no JSON\n");
    }

    #[test]
    fn second_matrix_at_the_same_time_is_refused() {
        let results = tempfile::tempdir().unwrap();
        let folder = open(results.path(), header());
        let text = error(results.path(), header());
        assert!(text.contains("another `xdpfwd-bench matrix` measures"), "{text}");
        drop(folder);
        open(results.path(), header());
    }
}
