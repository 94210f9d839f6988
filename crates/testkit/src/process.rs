//! Runs commands, and waits for conditions.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum wait for a condition, reached only by hanging tests.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a command and returns its stdout. Panics if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}; `make test` installs it"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the stderr as text, with invalid UTF-8 replaced.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Polls every 10 ms until `holds` returns `true`. Panics after [`TIMEOUT`].
#[track_caller]
pub fn until(condition: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "condition not met within {TIMEOUT:?}: {condition}");
        thread::sleep(Duration::from_millis(10));
    }
}
