//! Runs external programs.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Returns the command line without quoting, for messages.
fn command_line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs the command. If it cannot start, the error names the package to install.
fn run(command: &mut Command) -> Result<Output> {
    let package = match command.get_program().to_str() {
        Some("depmod" | "modprobe") => "kmod",
        Some("xz") => "xz-utils",
        Some("busybox") => "busybox-static",
        Some(other) => other,
        None => "",
    }
    .to_owned();
    command.stdin(Stdio::null()).output().with_context(|| {
        format!("cannot start `{}`; run: apt-get install {package}", command_line(command))
    })
}

/// Runs the command and returns its stdout. If it fails, the error contains its stderr.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = run(command)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("`{}` failed with {}: {}", command_line(command), output.status, stderr.trim())
}

/// Runs the command and returns its stdout as text, with invalid UTF-8 replaced. Fails as
/// [`output`] does.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}
