//! Other programs, run to their end.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A command line as a person would type it.
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

/// Its stdout; an error if it fails, with what it said.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = finished(command)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}: {}", shown(command), output.status, stderr.trim())
}

/// The same as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}
