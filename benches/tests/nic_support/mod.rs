//! Runs `xdpfwd-bench nic` in a namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::{Mutex, MutexGuard, PoisonError},
};

use xdpfwd_bench::results::Results;
use xdpfwd_lab::Namespace;

/// Only one can exist at a time, because all use the same cores, and the scratch folder of
/// xdpfwd-bench, which it locks.
pub(crate) struct Bench<'a> {
    namespace: &'a Namespace,
    folder: tempfile::TempDir,
    _only: MutexGuard<'static, ()>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(namespace: &'a Namespace) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_xdpfwd-bench"));
        let xdpfwd = program.with_file_name("xdpfwd");
        assert!(xdpfwd.exists(), "{} is missing; run: cargo build -p xdpfwd", xdpfwd.display());
        static EXISTS: Mutex<()> = Mutex::new(());
        let only = EXISTS.lock().unwrap_or_else(PoisonError::into_inner);
        Self { namespace, folder: tempfile::tempdir().unwrap(), _only: only }
    }

    pub(crate) fn run(&self, arguments: &[&[&str]]) -> Output {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_xdpfwd-bench"));
        command.arg("nic").args(arguments.concat());
        command.arg("--results").arg(self.folder.path()).output().unwrap()
    }

    /// Returns the file of the first results.
    pub(crate) fn results(&self) -> PathBuf {
        let day = fs::read_dir(self.folder.path()).unwrap().next();
        day.map_or(PathBuf::new(), |day| day.unwrap().path().join("nic/matrix.json"))
    }

    /// Runs a measurement that must succeed. Returns the first results.
    #[track_caller]
    pub(crate) fn measure(&self, arguments: &[&[&str]]) -> Results {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        println!("{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_str(&fs::read_to_string(self.results()).unwrap()).unwrap()
    }
}

/// Checks that the frames that xdpfwd transmitted arrived at the sink.
#[track_caller]
pub(crate) fn assert_frames_add_up(results: &Results) {
    for run in &results.runs {
        assert!(run.forwarded_pps > 0.0 && run.offered_pps > 0.0, "{run:?}");
        assert_eq!(run.tool_transmitted, Some(run.sink_received), "{run:?}");
        // On a busy machine, a short window can pass before the forwarder runs.
        if run.paced_forwarded_pps > 0.0 {
            assert!(run.syscalls.is_some(), "{run:?}");
        }
    }
}
