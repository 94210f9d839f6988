//! Execution of other programs.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Formats a command line as typed in a shell.
fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn finished(command: &mut Command) -> Result<Output> {
    let package = match command.get_program().to_str() {
        Some("depmod" | "modprobe") => "kmod",
        Some("xz") => "xz-utils",
        Some("busybox") => "busybox-static",
        Some(other) => other,
        None => "",
    };
    let hint = format!("apt-get install {package}");
    command.stdin(Stdio::null()).output().with_context(|| format!("{}: {hint}", shown(command)))
}

/// Returns the stdout of a command. If it fails, the error contains its output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = finished(command)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}: {}", shown(command), output.status, stderr.trim())
}

/// Returns the stdout of a command as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}
