//! Runs scripts that use scapy, the reference for packet formats.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Debian installs scapy for `/usr/bin/python3`; the first `python3` in `PATH` may be another one.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Runs `script` from `tests` and returns the JSON objects that it prints, one per line. The
/// script must read all of `input` before it prints; otherwise, both processes could block.
///
/// # Panics
///
/// If no interpreter can run the script, for example because scapy is not installed.
pub(super) fn run(script: &str, argument: &str, input: &str) -> Vec<Value> {
    let script = format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut failures = String::new();
    for interpreter in INTERPRETERS {
        match run_with(interpreter, &script, argument, input) {
            Ok(lines) => return lines,
            Err(failure) => failures += &format!("\n{interpreter}: {failure}"),
        }
    }
    panic!(
        "cannot run {script}:{failures}\n\
         if scapy is missing, install the Debian package python3-scapy and run `make test` again"
    );
}

fn run_with(
    interpreter: &str,
    script: &str,
    argument: &str,
    input: &str,
) -> Result<Vec<Value>, String> {
    let mut command = Command::new(interpreter);
    command.args([script, argument]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    // Ignore a write error: the script ended early, and its exit status is checked below.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, stderr.trim()));
    }
    let lines = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    Ok(lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect())
}
